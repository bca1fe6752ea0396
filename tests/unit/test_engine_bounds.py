"""Batch reads within their bounds: requests ahead, memory, time."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from datapipes._dfs import build_type

from .engine_tree import MIB, Result, Tree, held_back, live, run_python, until

if TYPE_CHECKING:
    from datapipes._dfs import Request


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("max_in_flight", [1, 7, 64])
def test_requests_are_pulled_no_further_ahead_than_asked_for(
    many: Tree, ordered: bool, max_in_flight: int
) -> None:
    pulled = 0

    def requests() -> Iterator[Request]:
        nonlocal pulled
        for request in many.requests():
            pulled += 1
            yield request

    most = 0
    for taken, _ in enumerate(many.read(requests(), ordered=ordered, max_in_flight=max_in_flight)):
        assert pulled <= taken + max_in_flight
        most = max(most, pulled - taken)
    assert most > max_in_flight // 2, "nothing was read ahead"


def test_first_result_does_not_wait_for_all_requests(tree: Tree) -> None:
    """Requests that come slowly are read as they come."""
    tree.add("a", 10)
    pulled = 0

    def requests() -> Iterator[Request]:
        nonlocal pulled
        for _ in range(64):
            pulled += 1
            time.sleep(0.01)
            yield ("a", 0, -1, -1, None)

    results = tree.read(requests(), max_in_flight=64)
    next(results)
    assert pulled < 40
    results.close()


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_stalled_consumer_holds_memory_to_the_bound(tree: Tree, views: bool, known: bool) -> None:
    for i in range(40):
        tree.add(f"{i:02d}", 200_000)
    bound = 2 * MIB
    results = tree.read(tree.requests(known=known), views=views, max_buffer_bytes=bound, max_in_flight=40)
    first = next(results)
    time.sleep(0.2)
    assert tree.session.stats()["bytes_live"] <= bound + (256 << 10)
    assert tree.session.stats()["read_bytes"] <= bound + 2 * 200_000
    assert first.data == tree.data("00")
    del first
    assert sum(len(result.data) for result in results) == 39 * 200_000


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("known", [False, True])
def test_file_larger_than_the_bound_is_read_alone(tree: Tree, ordered: bool, known: bool) -> None:
    for i in range(30):
        tree.add(f"{i:02d}", 3_000_000 if i % 5 == 2 else 1000)
    results = list(tree.read(tree.requests(known=known), ordered=ordered, max_buffer_bytes=100_000))
    assert {result.tag: result.data for result in results} == {name: tree.data(name) for name in tree.sizes}


MEMORY = """
    import itertools
    folder, total, known, views, ordered = sys.argv[1], *map(int, sys.argv[2:])
    session = Session("posix", folder)
    size, names = os.stat(folder + "/0").st_size, len(os.listdir(folder))
    def requests():
        for i in range(total // size):
            yield (str(i % names), 0, -1, size if known else -1, None)
    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    before, read = peak(), 0
    for result in session.read_many(requests(), views=bool(views), ordered=bool(ordered), **OPTIONS, **BOUND):
        read += len(result.data)
        del result
    print(read, (peak() - before) / (1 << 20))
"""


@pytest.mark.skipif(build_type == "debug", reason="a sanitizer keeps freed memory")
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("total", "size", "known", "views", "ordered"),
    [
        (10_000 * MIB, 16 * MIB, 0, 0, 1),
        (2_000 * MIB, 16 * MIB, 1, 0, 1),
        (2_000 * MIB, 16 * MIB, 0, 1, 1),
        (2_000 * MIB, 5 * MIB, 0, 0, 0),
        (1_000 * MIB, 200_000, 0, 0, 1),
        (1_000 * MIB, 40_000, 0, 1, 1),
    ],
)
def test_resident_memory_grows_no_more_than_the_bound(
    tmp_path: Path, total: int, size: int, known: int, views: int, ordered: int
) -> None:
    for i in range(8):  # holes: they take no room on disk, and as much memory as any file once read
        with open(tmp_path / str(i), "wb") as file:
            file.truncate(size)
    output = run_python(MEMORY, str(tmp_path), *map(str, (total, known, views, ordered)), timeout=280)
    read, grown = output.split()
    assert int(read) == total // size * size
    assert float(grown) <= 100


@pytest.mark.parametrize("ordered", [True, False])
def test_item_that_hangs_times_out_and_the_rest_comes(many: Tree, ordered: bool) -> None:
    slow = many.requests()[20]
    with held_back(many.root / slow[0]) as let_go:
        results = list(many.read(many.requests(), ordered=ordered, timeout_s=0.3))
        late = [result for result in results if result.error is not None]
        assert [(result.tag, result.position) for result in late] == [(slow[4], 20)]
        assert isinstance(late[0].error, TimeoutError)
        if ordered:
            assert [result.position for result in results] == list(range(len(results)))
        assert many.session.stats()["graveyard"] == 1
        let_go()
        until(lambda: many.session.stats()["graveyard"] == 0, "the thread that hung")


def test_as_completed_does_not_wait_for_what_hangs(many: Tree) -> None:
    with held_back(many.root / many.requests()[0][0]) as let_go:
        results = many.read(many.requests(), ordered=False)
        first = [next(results).position for _ in range(len(many.sizes) - 1)]
        assert sorted(first) == list(range(1, len(many.sizes)))
        let_go()
        assert [result.position for result in results] == [0]


def test_slow_head_of_the_line_holds_memory_to_the_bound(tree: Tree) -> None:
    for i in range(60):
        tree.add(f"{i:02d}", 50_000)
    with held_back(tree.root / "00") as let_go:
        results = tree.read(tree.requests(), views=True, max_in_flight=60, max_buffer_bytes=MIB)
        threading.Timer(0.5, let_go).start()
        end, most = time.monotonic() + 0.4, 0
        waiter = threading.Thread(target=lambda: first.append(next(results)))
        first: list[Result] = []
        waiter.start()
        while time.monotonic() < end:
            most = max(most, tree.session.stats()["bytes_live"])
            time.sleep(0.01)
        waiter.join()
        assert 0 < most <= MIB
        assert [first.pop().position] + [result.position for result in results] == list(range(60))


def test_batch_that_hangs_times_out_and_its_memory_stays_out_of_use(tree: Tree) -> None:
    tree.add("a", 10)
    tree.add("b", 10)
    out = bytearray(20)
    with held_back(tree.root / "b") as let_go:
        results = tree.batch(tree.requests(known=True), out=out, spans=[(0, 10), (10, 20)], timeout_s=0.2)
        assert results[0].data == tree.data("a")
        assert isinstance(results[1].error, TimeoutError)
        results.clear()
        with pytest.raises(BufferError):  # the thread that hangs could still write to it
            out.extend(b"more")
        let_go()
        until(lambda: tree.session.stats()["graveyard"] == 0, "the thread that hung")
    tree.batch([])  # what threads left behind is dropped by the next call
    out.clear()


@pytest.mark.parametrize("drop", [True, False])
def test_closing_and_dropping_do_not_wait_for_what_hangs(many: Tree, drop: bool) -> None:
    with held_back(many.root / many.requests()[3][0]) as let_go:
        results = many.read(many.requests(), ordered=True)
        for _ in range(3):
            next(results)
        before = time.monotonic()
        if drop:
            del results
        else:
            results.close()
            assert list(results) == []
        assert time.monotonic() - before < 1.5
        let_go()
        until(lambda: live(many.session) == {}, "the thread that hung")
