"""Batch reads among threads and signals, and what closing leaves behind."""

from __future__ import annotations

import gc
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from datapipes._dfs import ReadIterator, Session

from .engine_tree import MIB, NEEDED, Result, Tree, failure, live, run_python, until

if TYPE_CHECKING:
    from datapipes._dfs import Request


def test_closed_iterator_is_at_its_end(many: Tree) -> None:
    results = many.read(many.requests())
    next(results)
    results.close()
    results.close()
    assert list(results) == []
    assert live(many.session) == {}


def test_dropped_iterator_frees_all(many: Tree) -> None:
    tags = [object() for _ in range(100)]
    before = [sys.getrefcount(tag) for tag in tags]
    names = itertools.cycle(many.sizes)
    for taken in (0, 1, 17):
        results = many.read(((next(names), 0, -1, -1, tag) for tag in tags), max_in_flight=64)
        for _ in range(taken):
            next(results)
        del results
        gc.collect()
        until(lambda: live(many.session) == {}, "live objects")
    assert [sys.getrefcount(tag) for tag in tags] == before


def test_cycle_through_the_requests_is_collected(tree: Tree) -> None:
    tree.add("a", 3)

    def requests(box: list[ReadIterator]) -> Iterator[Request]:
        while box:
            yield ("a", 0, -1, -1, None)

    box: list[ReadIterator] = []
    box.append(tree.read(requests(box)))  # empty so far: the generator looks when it is first advanced
    next(box[0])
    assert tree.session.stats()["readers_live"] == 1
    gc.disable()
    del box
    still = tree.session.stats()["readers_live"]
    gc.enable()
    assert still == 1, "there is no cycle to collect"
    gc.collect()
    assert tree.session.stats()["readers_live"] == 0


def test_close_from_another_thread_ends_a_waiting_next(tree: Tree) -> None:
    tree.add("a", 3)
    slow = Session("posix", str(tree.root), open_delay_us=3_000_000)
    results = slow.read_many([("a", 0, -1, -1, None)], max_buffer_bytes=MIB, **NEEDED)
    seen: list[Any] = []
    waiter = threading.Thread(target=lambda: seen.append(list(results)))
    waiter.start()
    time.sleep(0.1)
    before = time.monotonic()
    results.close()
    waiter.join(5)
    assert not waiter.is_alive()
    assert seen == [[]]
    assert time.monotonic() - before < 2.5
    slow.close()


def test_closed_session_refuses_and_stops_its_readers(many: Tree) -> None:
    session = Session("posix", str(many.root))
    results = session.read_many(many.requests(), max_buffer_bytes=MIB, **NEEDED)
    next(results)
    session.close()
    session.close()
    with pytest.raises(ValueError, match="closed"):
        list(results)
    with pytest.raises(ValueError, match="closed"):
        session.read_many([], max_buffer_bytes=MIB, **NEEDED)
    with pytest.raises(ValueError, match="closed"):
        session.read_batch([], **NEEDED)
    with pytest.raises(ValueError, match="closed"):
        session.stat("")
    assert session.stats()["threads"] == 0


def test_two_threads_share_an_iterator(many: Tree) -> None:
    seen: list[int] = []
    results = many.read(many.requests() * 5)

    def take() -> None:
        seen.extend(result.position for result in results)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(seen) == list(range(5 * len(many.sizes)))


def test_threads_share_a_session(many: Tree) -> None:
    wrong: list[str] = []

    def work(ordered: bool) -> None:
        for _ in range(3):
            results = [*many.read(many.requests(), ordered=ordered), *many.batch(many.requests(known=True))]
            wrong.extend(result.tag for result in results if result.data != many.data(result.tag))

    threads = [threading.Thread(target=work, args=(bool(i % 2),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_iterator_that_is_advanced_from_its_own_requests_says_so(tree: Tree) -> None:
    tree.add("a", 3)

    def requests() -> Iterator[Request]:
        yield ("a", 0, -1, -1, None)
        next(results)

    results = tree.read(requests())
    assert next(results).data == tree.data("a")
    with pytest.raises(ValueError, match="this very thread"):
        next(results)


def test_iterator_that_is_closed_from_its_own_requests_ends(tree: Tree) -> None:
    tree.add("a", 3)

    def requests() -> Iterator[Request]:
        yield ("a", 0, -1, -1, None)
        results.close()
        yield ("a", 0, -1, -1, None)

    results = tree.read(requests())
    assert len(list(results)) <= 1
    until(lambda: live(tree.session) == {}, "live objects")


def test_other_threads_run_while_one_waits(tree: Tree) -> None:
    """The GIL is free: another thread's Python goes on at its full pace while this one reads."""
    for i in range(10):
        tree.add(str(i), 10)
    slow = Session("posix", str(tree.root), open_delay_us=50_000)
    ticks, stop = 0, threading.Event()

    def count() -> None:
        nonlocal ticks
        while not stop.is_set():
            time.sleep(0.001)
            ticks += 1

    counter = threading.Thread(target=count)
    counter.start()
    try:
        for batch in (False, True):
            before, began = ticks, time.monotonic()
            if batch:
                slow.read_batch(tree.requests()[:2], **NEEDED)
            else:
                list(slow.read_many(tree.requests(), depth=1, max_buffer_bytes=MIB, **NEEDED))
            assert ticks - before > (time.monotonic() - began) * 50
    finally:
        stop.set()
        counter.join()
        slow.close()


def test_fixed_depth_is_the_number_of_threads(many: Tree) -> None:
    results = many.read(many.requests(), depth=3)
    for _ in range(20):
        next(results)
    assert results.stats()["depth"] == 3
    assert results.stats()["threads"] <= 3
    results.close()


def test_depth_adapts_to_sleeping_opens(tmp_path: Path) -> None:
    """With opens that sleep, many threads are many times as fast as few; the engine finds that out."""
    tree = Tree(tmp_path)
    for i in range(100):
        tree.add(str(i), 10)
    slow = Session("posix", str(tmp_path), open_delay_us=2000)
    requests = tree.requests() * 40
    results = slow.read_many(
        requests, result=Result, error=failure, max_in_flight=64, max_buffer_bytes=8 * MIB
    )
    began = time.monotonic()
    assert sum(1 for _ in results) == 4000
    assert time.monotonic() - began < 4000 * 0.002 / 8
    assert results.stats()["depth"] >= 16
    slow.close()
    tree.session.close()


def test_stats_count_what_was_taken(many: Tree) -> None:
    results = many.read([*many.requests(), ("missing", 0, -1, -1, None)])
    for _ in results:
        pass
    stats = results.stats()
    assert stats["items"] == len(many.sizes) + 1
    assert stats["bytes"] == sum(many.sizes.values())
    assert stats["errors"] == 1
    assert stats["depth"] >= 1
    assert stats["wait_s"] > 0
    assert many.session.stats()["reads"] == len(many.sizes)
    assert many.session.stats()["read_bytes"] == sum(many.sizes.values())


@pytest.mark.parametrize(
    "how",
    [
        "for _ in session.read_many(requests, **OPTIONS, **BOUND): pass",
        "with closing(session.read_many(requests, **OPTIONS, **BOUND)) as results: next(results)",
        "session.read_batch(requests, **OPTIONS)",
    ],
    ids=["many", "many, closed", "batch"],
)
def test_ctrl_c_is_heard_within_a_tenth_of_a_second(tmp_path: Path, how: str) -> None:
    (tmp_path / "a").write_bytes(b"x")
    program = f"""
        from contextlib import closing
        session = Session("posix", sys.argv[1], open_delay_us=20_000_000)
        requests, heard, best = [("a", 0, -1, -1, None)], [], 1.0
        def interrupt():
            time.sleep(0.2)
            heard.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
        for _ in range(5):
            threading.Thread(target=interrupt).start()
            try:
                {how}
            except KeyboardInterrupt:
                best = min(best, time.monotonic() - heard.pop())
        print(best, flush=True)
        os._exit(0)
    """
    assert float(run_python(program, str(tmp_path))) < 0.1


def test_program_ends_while_threads_hang(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    program = """
        session = Session("posix", sys.argv[1], open_delay_us=30_000_000)
        requests = [("a", 0, -1, -1, None)]
        waiting = session.read_many(requests, **OPTIONS, **BOUND)
        threading.Thread(target=lambda: list(waiting), daemon=True).start()
        threading.Thread(target=lambda: session.read_batch(requests, **OPTIONS), daemon=True).start()
        time.sleep(0.2)
        print("end", flush=True)
    """
    began = time.monotonic()
    assert run_python(program, str(tmp_path), timeout=20) == "end\n"
    assert time.monotonic() - began < 10


def test_process_that_may_start_no_thread_gets_an_error_and_does_not_hang(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    tmp_path.chmod(0o755)
    program = """
        import errno
        session = Session("posix", sys.argv[1])
        if os.geteuid() == 0:  # whom no limit binds
            os.setuid(54321)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
        for work in (
            lambda: list(session.list("")),
            lambda: list(session.read_many([("a", 0, -1, -1, None)], **OPTIONS, **BOUND)),
        ):
            try:
                print(work())
            except OSError as error:
                print(errno.errorcode[error.errno])
    """
    assert run_python(program, str(tmp_path), timeout=20) == "ENOMEM\nENOMEM\n"
