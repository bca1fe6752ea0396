"""Batch reads of real files by the native engine: order, bounds, errors, time-outs, threads, memory."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import itertools
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
import torch

from datapipes._dfs import ReadIterator, Session

if TYPE_CHECKING:
    from datapipes._dfs import Request

MIB = 1 << 20
NO_LEASES = not hasattr(fcntl, "F_SETLEASE")


class Result(NamedTuple):
    position: int
    tag: Any
    data: Any
    error: BaseException | None


def failure(tag: Any, operation: str, code: int) -> OSError:
    return OSError(code, operation, str(tag))


def content(name: str, size: int) -> bytes:
    seed = sum(name.encode("utf-8", "surrogateescape"))
    return bytes((seed + i) % 251 for i in range(251)) * (size // 251 + 1)


class Tree:
    """A directory of files whose content follows from their names, and a session on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sizes: dict[str, int] = {}
        self.session = Session("posix", str(root))

    def add(self, name: str, size: int) -> str:
        path = os.path.join(os.fsencode(self.root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(self.data(name, size))
        self.sizes[name] = size
        return name

    def data(self, name: str, size: int | None = None) -> bytes:
        size = self.sizes[name] if size is None else size
        return content(name, size)[:size]

    def requests(self, *, known: bool = False) -> list[Request]:
        return [(name, 0, -1, size if known else -1, name) for name, size in self.sizes.items()]

    def read(self, requests: Iterable[Request], **options: Any) -> ReadIterator:
        merged = {"result": Result, "error": failure, "max_in_flight": 16, "max_buffer_bytes": 8 * MIB, **options}
        return self.session.read_many(requests, **merged)

    def batch(self, requests: Iterable[Request], **options: Any) -> list[Result]:
        merged = {"result": Result, "error": failure, "max_in_flight": 16, **options}
        return self.session.read_batch(list(requests), **merged)

    def one(self, *request: Any, **options: Any) -> Result:
        """The answer to one request, the same from both readers."""
        whole: Request = (*request, "tag")  # type: ignore[assignment]
        many, batch = list(self.read([whole], **options)), self.batch([whole], **options)
        assert len(many) == len(batch) == 1
        assert repr(many[0]) == repr(batch[0])
        return many[0]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    root = tmp_path / "root"
    root.mkdir()
    made = Tree(root)
    yield made
    gc.collect()
    until(lambda: live(made.session) == {}, "live objects")
    made.session.close()


@pytest.fixture
def many(tree: Tree) -> Tree:
    for i, size in enumerate([0, 1, 100, 4096, 8192, 65536, 65535, 300_000, 17] * 30):
        tree.add(f"{i % 7}/{i:04d}", size)
    return tree


def live(session: Session) -> dict[str, int]:
    stats = session.stats()
    return {name: stats[name] for name in ("files_open", "buffers_live", "readers_live", "graveyard") if stats[name]}


def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.002)


@contextlib.contextmanager
def held_back(path: Path) -> Iterator[Callable[[], None]]:
    """While this lasts, or until the yielded function is called, opening the file blocks: another process has a
    lease on it and does not give it up."""
    program = """
        import fcntl, os, signal, sys
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fd = os.open(sys.argv[1], os.O_RDWR)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        print("held", flush=True)
        sys.stdin.read()
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    holder = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        if not holder.stdout.readline():
            pytest.skip("this file system has no leases")
        yield lambda: (holder.kill(), holder.wait()) and None
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()


def run_python(program: str, *arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    prelude = """
        import os, resource, signal, sys, threading, time
        from collections import namedtuple
        from datapipes._dfs import Session
        Result = namedtuple("Result", "position tag data error")
        OPTIONS = {"result": Result, "error": lambda tag, op, code: OSError(code, op), "max_in_flight": 16}
        BOUND = {"max_buffer_bytes": 64 << 20}
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


# --- what comes


@pytest.mark.parametrize("depth", [0, 1, 5])
@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("max_in_flight", [1, 3, 64])
def test_read_many_gives_every_file_in_request_order(
    many: Tree, depth: int, views: bool, known: bool, max_in_flight: int
) -> None:
    requests = many.requests(known=known)
    results = many.read(requests, depth=depth, views=views, max_in_flight=max_in_flight)
    for expected, result in itertools.zip_longest(enumerate(requests), results):
        assert type(result) is Result
        assert (result.position, result.tag, result.error) == (expected[0], expected[1][4], None)
        assert isinstance(result.data, memoryview if views else bytes)
        assert result.data == many.data(result.tag)


def test_read_many_as_completed_gives_every_file_once(many: Tree) -> None:
    results = list(many.read(many.requests(), ordered=False))
    assert sorted(result.position for result in results) == list(range(len(many.sizes)))
    requests = many.requests()
    for result in results:
        assert result.tag == requests[result.position][4]
        assert result.data == many.data(result.tag)


@pytest.mark.parametrize("known", [False, True])
def test_read_batch_gives_every_file_in_request_order(many: Tree, known: bool) -> None:
    results = many.batch(many.requests(known=known))
    assert [(result.position, result.tag) for result in results] == list(enumerate(many.sizes))
    assert [result.data for result in results] == [many.data(name) for name in many.sizes]


def test_nothing_asked_nothing_comes(tree: Tree) -> None:
    assert list(tree.read([])) == []
    assert tree.batch([]) == []


def test_result_is_made_without_calling_its_constructor(tree: Tree) -> None:
    class Strict(tuple[Any, ...]):
        __slots__ = ()

        def __new__(cls, *_: Any) -> Strict:
            raise AssertionError("called")

    tree.add("a", 3)
    (result,) = tree.read([("a", 0, -1, -1, None)], result=Strict)
    assert type(result) is Strict
    assert hash(result) == hash((0, None, tree.data("a"), None))


def test_tag_is_any_object_and_comes_back_itself(tree: Tree) -> None:
    tag = {"not": ["hashable"]}
    tree.add("a", 3)
    (result,) = tree.read([("a", 0, -1, -1, tag)])
    assert result.tag is tag
    del result
    gc.collect()
    assert sys.getrefcount(tag) == 2, "the engine kept a reference"


@pytest.mark.parametrize("name", ["ä/ö ü.bin", "tab\there", "%41?#", "not utf-8 \udcff\udc80", "x" * 255])
def test_names_of_all_kinds_are_read(tree: Tree, name: str) -> None:
    tree.add(name, 1000)
    assert tree.one(name, 0, -1, -1).data == tree.data(name)


def test_path_of_any_length_below_the_limit_of_the_system(tree: Tree) -> None:
    name = tree.add("/".join(["d" * 200] * 15), 10)
    assert tree.one(name, 0, -1, -1).data == tree.data(name)
    error = tree.one("/".join(["d" * 200] * 40), 0, -1, -1).error
    assert isinstance(error, OSError)
    assert error.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 10, slice(0, 10)), (990, 10, slice(990, 1000)), (500, -1, slice(500, None)), (1000, -1, slice(0, 0)),
     (0, 0, slice(0, 0)), (1000, 0, slice(0, 0))],
)
@pytest.mark.parametrize("size", [-1, 1000])
def test_ranges(tree: Tree, offset: int, length: int, size: int, expected: slice) -> None:
    tree.add("a", 1000)
    assert tree.one("a", offset, length, size).data == tree.data("a")[expected]


@pytest.mark.parametrize(("offset", "length", "size"), [(0, 1001, -1), (999, 2, 1000), (1001, 0, -1), (1001, -1, -1),
                                                       (1001, -1, 1000), (5000, 10, -1)])
def test_range_past_the_end_is_an_error(tree: Tree, offset: int, length: int, size: int) -> None:
    tree.add("a", 1000)
    error = tree.one("a", offset, length, size).error
    assert isinstance(error, OSError)
    assert (error.errno, error.strerror) == (errno.ENODATA, "read")


@pytest.mark.parametrize("size", [1000, 300_000])
def test_file_shorter_than_said_is_an_error(tree: Tree, size: int) -> None:
    tree.add("a", size)
    for verify in (False, True):
        error = tree.one("a", 0, -1, size + 1, verify_size=verify).error
        assert isinstance(error, OSError)
        assert error.errno == errno.ENODATA


@pytest.mark.parametrize("size", [1000, 300_000])
def test_file_longer_than_said_is_an_error_if_asked_for(tree: Tree, size: int) -> None:
    tree.add("a", size)
    assert tree.one("a", 0, -1, size - 1).data == tree.data("a")[:-1]
    error = tree.one("a", 0, -1, size - 1, verify_size=True).error
    assert isinstance(error, OSError)
    assert error.errno == errno.EFBIG
    assert tree.one("a", 0, -1, size, verify_size=True).data == tree.data("a")


def test_files_whose_size_means_nothing_are_read_to_their_end() -> None:
    for root, name, told in (("/proc", "self/status", 0), ("/proc", "self/maps", 0), ("/sys", "kernel/mm", None)):
        if told is None:
            name = next((str(path.relative_to(root)) for path in Path(root, name).rglob("*enabled")), "")
            if not name:
                continue
        session = Session("posix", root)
        size = os.stat(f"{root}/{name}").st_size
        for views in (False, True):
            (result,) = session.read_many(
                [(name, 0, -1, size if told == 0 else -1, None)],
                result=Result, error=failure, max_in_flight=1, max_buffer_bytes=MIB, views=views,
            )
            assert len(result.data) > 0
            assert len(result.data) != size
            assert bytes(result.data[:4]) == Path(root, name).read_bytes()[:4]
            del result
        session.close()


# --- what fails


@pytest.mark.parametrize(
    ("name", "size", "code", "operation"),
    [
        ("missing", -1, errno.ENOENT, "open"),
        ("missing", 5, errno.ENOENT, "open"),
        ("file/below", -1, errno.ENOTDIR, "open"),
        ("dir", -1, errno.EISDIR, "open"),
        ("dir", 0, errno.EISDIR, "open"),
        ("dir", 10, errno.EISDIR, "read"),
        ("", -1, errno.EISDIR, "open"),
        ("loop", -1, errno.ELOOP, "open"),
        ("../root/file", -1, errno.EINVAL, "open"),
        ("dir/../file", -1, errno.EINVAL, "open"),
        ("pipe", -1, errno.EOPNOTSUPP, "read"),
        ("pipe", 10, errno.ESPIPE, "read"),
    ],
)
def test_item_that_fails_says_what_and_why(
    tree: Tree, name: str, size: int, code: int, operation: str
) -> None:
    tree.add("file", 10)
    (tree.root / "dir").mkdir()
    (tree.root / "loop").symlink_to("loop")
    os.mkfifo(tree.root / "pipe")
    result = tree.one(name, 0, -1, size)
    assert result.data is None
    assert isinstance(result.error, OSError)
    assert (result.error.errno, result.error.strerror, result.error.filename) == (code, operation, "tag")


def test_no_permission_is_an_error(tree: Tree) -> None:
    tree.add("secret", 10)
    (tree.root / "secret").chmod(0)
    if os.access(tree.root / "secret", os.R_OK):
        pytest.skip("this user may read everything")
    error = tree.one("secret", 0, -1, -1).error
    assert isinstance(error, PermissionError)


def test_errors_stand_at_their_places_and_the_rest_comes(many: Tree) -> None:
    requests = many.requests()
    for i in range(0, len(requests), 3):
        requests[i] = ("missing", 0, -1, -1, "missing")
    for results in (list(many.read(requests)), many.batch(requests)):
        for i, result in enumerate(results):
            assert result.position == i
            assert (result.error is None) == bool(i % 3)
            assert (result.data is None) == (not i % 3)


def test_error_that_cannot_be_made_is_raised_and_costs_that_item_only(tree: Tree) -> None:
    def broken(*_: Any) -> BaseException:
        raise LookupError("broken")

    tree.add("a", 3)
    results = tree.read([("a", 0, -1, -1, 0), ("b", 0, -1, -1, 1), ("a", 0, -1, -1, 2)], error=broken)
    assert next(results).tag == 0
    with pytest.raises(LookupError, match="broken"):
        next(results)
    assert next(results).tag == 2
    with pytest.raises(LookupError, match="broken"):
        tree.batch([("a", 0, -1, -1, 0), ("b", 0, -1, -1, 1)], error=broken)


def test_exception_of_the_requests_comes_after_the_results_before_it(many: Tree) -> None:
    def requests() -> Iterator[Request]:
        yield from many.requests()[:40]
        raise LookupError("no more")

    results = many.read(requests())
    assert [next(results).position for _ in range(40)] == list(range(40))
    with pytest.raises(LookupError, match="no more"):
        next(results)
    assert list(results) == []


def test_keyboard_interrupt_of_the_requests_comes_at_once(many: Tree) -> None:
    def requests() -> Iterator[Request]:
        yield from many.requests()[:3]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(many.read(requests(), max_in_flight=64))


@pytest.mark.parametrize(
    ("request_", "exception"),
    [
        (("a", 0, -1, -1), TypeError),
        (["a", 0, -1, -1, None], TypeError),
        ((b"a", 0, -1, -1, None), TypeError),
        (("a", 0.5, -1, -1, None), TypeError),
        (("a", -1, -1, -1, None), ValueError),
        (("a", 0, -2, -1, None), ValueError),
        (("a", 0, -1, -2, None), ValueError),
        (("a", 1 << 80, -1, -1, None), OverflowError),
        (("a\0b", 0, -1, -1, None), ValueError),
        (("a\ud800", 0, -1, -1, None), UnicodeEncodeError),
    ],
)
def test_malformed_request_is_refused_in_its_turn(
    tree: Tree, request_: Any, exception: type[Exception]
) -> None:
    tree.add("a", 3)
    results = tree.read([("a", 0, -1, -1, None), request_])
    assert next(results).data == tree.data("a")
    with pytest.raises(exception):
        next(results)
    with pytest.raises(exception):
        tree.batch([("a", 0, -1, -1, None), request_])


@pytest.mark.parametrize("known", [False, True])
def test_absurd_length_is_an_error_of_its_item(tree: Tree, known: bool) -> None:
    tree.add("a", 3)
    huge = (1 << 62) + 5
    request: Request = ("a", 0, -1, huge, 0) if known else ("a", 0, huge, -1, 0)
    for result in (*tree.read([request, ("a", 0, -1, -1, 1)]), *tree.batch([request, ("a", 0, -1, -1, 1)])):
        assert (result.error is None) == (result.tag == 1)


@pytest.mark.parametrize(
    "options",
    [{"max_in_flight": 0}, {"max_in_flight": -1}, {"max_in_flight": 1 << 40}, {"max_buffer_bytes": 0}, {"depth": -1},
     {"timeout_s": -1.0}, {"timeout_s": float("nan")}],
)
def test_options_out_of_range_are_refused(tree: Tree, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        tree.read([], **options)


def test_arguments_of_other_types_are_refused(tree: Tree) -> None:
    for bad in ({"result": int}, {"result": 5}, {"error": None}):
        with pytest.raises(TypeError):
            tree.read([], **bad)
        with pytest.raises(TypeError):
            tree.batch([], **bad)
    with pytest.raises(TypeError):
        tree.read(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        tree.session.read_many([])  # type: ignore[call-arg]


# --- bounds


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
    done = run_python(MEMORY, str(tmp_path), *map(str, (total, known, views, ordered)), timeout=280)
    read, grown = done.stdout.split()
    assert int(read) == total // size * size
    assert float(grown) <= 100


# --- views, and memory of the caller's


def test_views_are_read_only_and_outlive_all(tree: Tree) -> None:
    tree.add("a", 5000)
    results = tree.read(tree.requests(), views=True)
    view = next(results).data
    results.close()
    del results
    assert tree.session.stats()["buffers_live"] == 1
    assert view.readonly
    with pytest.raises(TypeError):
        view[0] = 1
    part = np.frombuffer(view, np.uint8)[10:20]
    tree.session.close()
    session, tree.session = tree.session, Session("posix", str(tree.root))
    del view
    gc.collect()
    assert part.tobytes() == tree.data("a")[10:20]
    assert session.stats()["buffers_live"] == 1
    del part
    assert session.stats()["buffers_live"] == 0


def test_views_that_are_kept_do_not_stop_the_reading(many: Tree) -> None:
    kept = list(many.read(many.requests(), views=True, max_buffer_bytes=100_000))
    assert [result.data for result in kept] == [many.data(name) for name in many.sizes]


@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        lambda n: np.zeros(n, np.uint8),
        lambda n: memoryview(bytearray(n)),
        lambda n: np.zeros((2, n // 2 + 1), np.int8),
        lambda n: torch.zeros(n, dtype=torch.int8).view(torch.uint8).numpy(),
    ],
    ids=["bytearray", "array", "view", "matrix", "tensor"],
)
def test_batch_lands_in_the_callers_memory(many: Tree, make: Callable[[int], Any]) -> None:
    requests, spans, at = many.requests(known=True), [], 3
    for request in requests:
        spans.append((at, at + request[3]))
        at += request[3] + 1
    out = make(at)
    results = many.batch(requests, out=out, spans=spans)
    flat = memoryview(out).cast("B")
    for result, (start, end) in zip(results, spans, strict=True):
        assert isinstance(result.data, memoryview)
        assert flat[start:end] == result.data == many.data(result.tag)
    assert bytes(flat[:3]) == b"\0\0\0"
    assert all(flat[end] == 0 for _, end in spans), "bytes outside of the spans were touched"
    if len(flat):
        flat[spans[2][0]] ^= 255
        assert results[2].data[0] == flat[spans[2][0]], "a view, not a copy"


def test_batch_in_the_callers_memory_with_sizes_not_known(tree: Tree) -> None:
    tree.add("a", 1000)
    out = bytearray(2000)
    (good,) = tree.batch([("a", 0, -1, -1, 0)], out=out, spans=[(500, 1500)])
    assert good.data == out[500:1500] == tree.data("a")
    del good
    (bad,) = tree.batch([("a", 0, -1, -1, 0)], out=out, spans=[(0, 1001)])
    assert isinstance(bad.error, OSError)
    assert bad.error.errno == errno.ENODATA
    out.clear()  # nothing holds it any more


@pytest.mark.parametrize("spans", [None, [], [(0, 5)], [(0, 11)], [(-1, 9)], [(10, 0)], [(95, 105)], [(1 << 70, 1 << 71)]])
def test_spans_that_do_not_fit_are_refused(tree: Tree, spans: Any) -> None:
    tree.add("a", 10)
    with pytest.raises((ValueError, OverflowError)):
        tree.batch([("a", 0, -1, 10, 0)], out=bytearray(100), spans=spans)


def test_out_must_be_writable_and_in_one_piece(tree: Tree) -> None:
    tree.add("a", 10)
    for bad in (bytes(10), memoryview(b"x" * 10), np.zeros(20, np.uint8)[::2]):
        with pytest.raises((BufferError, ValueError)):
            tree.batch([("a", 0, -1, 10, 0)], out=bad, spans=[(0, 10)])
    with pytest.raises(TypeError):
        tree.batch([("a", 0, -1, 10, 0)], out=5, spans=[(0, 10)])


def test_empty_out_for_empty_files(tree: Tree) -> None:
    tree.add("a", 0)
    for out in (bytearray(), np.zeros(0, np.uint8)):
        (result,) = tree.batch([("a", 0, 0, 0, 0)], out=out, spans=[(0, 0)])
        assert result.error is None
        assert len(result.data) == 0


# --- what hangs


@pytest.mark.skipif(NO_LEASES, reason="no leases on this system")
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


@pytest.mark.skipif(NO_LEASES, reason="no leases on this system")
def test_as_completed_does_not_wait_for_what_hangs(many: Tree) -> None:
    with held_back(many.root / many.requests()[0][0]) as let_go:
        results = many.read(many.requests(), ordered=False)
        first = [next(results).position for _ in range(len(many.sizes) - 1)]
        assert sorted(first) == list(range(1, len(many.sizes)))
        let_go()
        assert [result.position for result in results] == [0]


@pytest.mark.skipif(NO_LEASES, reason="no leases on this system")
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


@pytest.mark.skipif(NO_LEASES, reason="no leases on this system")
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


@pytest.mark.skipif(NO_LEASES, reason="no leases on this system")
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


# --- closing


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

    def requests() -> Iterator[Request]:
        while True:
            yield ("a", 0, -1, -1, None)
            assert holder

    holder: list[ReadIterator] = []
    holder.append(tree.read(requests()))
    next(holder[0])
    assert tree.session.stats()["readers_live"] == 1
    del holder, requests
    gc.collect()
    assert tree.session.stats()["readers_live"] == 0


def test_close_from_another_thread_ends_a_waiting_next(tree: Tree) -> None:
    tree.add("a", 3)
    slow = Session("posix", str(tree.root), open_delay_us=3_000_000)
    results = slow.read_many(
        [("a", 0, -1, -1, None)], result=Result, error=failure, max_in_flight=1, max_buffer_bytes=MIB
    )
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
    options = {"result": Result, "error": failure, "max_in_flight": 8}
    results = session.read_many(many.requests(), max_buffer_bytes=MIB, **options)
    next(results)
    session.close()
    session.close()
    with pytest.raises(ValueError, match="closed"):
        list(results)
    with pytest.raises(ValueError, match="closed"):
        session.read_many([], max_buffer_bytes=MIB, **options)
    with pytest.raises(ValueError, match="closed"):
        session.read_batch([], **options)
    with pytest.raises(ValueError, match="closed"):
        session.stat("")
    assert session.stats()["threads"] == 0


# --- threads


def test_two_threads_share_an_iterator(many: Tree) -> None:
    results, seen = many.read(many.requests() * 5), []

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
            for result in many.read(many.requests(), ordered=ordered):
                if result.data != many.data(result.tag):
                    wrong.append(result.tag)
            for result in many.batch(many.requests(known=True)):
                if result.data != many.data(result.tag):
                    wrong.append(result.tag)

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
    options = {"result": Result, "error": failure, "max_in_flight": 10}
    try:
        for read in (
            lambda: list(slow.read_many(tree.requests(), depth=1, max_buffer_bytes=MIB, **options)),
            lambda: slow.read_batch(tree.requests()[:2], **options),
        ):
            before, began = ticks, time.monotonic()
            read()
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
    results = slow.read_many(requests, result=Result, error=failure, max_in_flight=64, max_buffer_bytes=8 * MIB)
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


# --- signals, the end of the program


@pytest.mark.parametrize("how", ["for _ in session.read_many(requests, **OPTIONS, **BOUND): pass",
                                 "session.read_batch(requests, **OPTIONS)"], ids=["many", "batch"])
def test_ctrl_c_is_heard_within_a_tenth_of_a_second(tmp_path: Path, how: str) -> None:
    (tmp_path / "a").write_bytes(b"x")
    program = f"""
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
    assert float(run_python(program, str(tmp_path)).stdout) < 0.1


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
    assert run_python(program, str(tmp_path), timeout=20).stdout == "end\n"
    assert time.monotonic() - began < 10


# --- single calls


def test_session_that_cannot_be_opened_names_its_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name, exception in (("missing", FileNotFoundError), ("file", NotADirectoryError)):
        with pytest.raises(exception) as caught:
            Session("posix", str(tmp_path / name))
        assert caught.value.filename == str(tmp_path / name)
    with pytest.raises(ValueError, match="posix"):
        Session("unheard-of", str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="open_delay_us"):
        Session("posix", str(tmp_path), open_delay_us=-1)


def test_written_file_is_there_at_once_with_its_parents(tree: Tree) -> None:
    tree.session.write("a/b/c", b"one")
    tree.session.write("a/b/c", bytearray(b"other"))
    assert (tree.root / "a/b/c").read_bytes() == b"other"
    assert os.listdir(tree.root / "a/b") == ["c"]
    kind, size, mtime_ns = tree.session.stat("a/b/c")
    assert (kind, size) == ("file", 5)
    assert abs(mtime_ns / 1e9 - time.time()) < 60
    assert tree.session.stat("a")[0] == tree.session.stat("")[0] == "dir"


def test_file_that_cannot_be_written_leaves_nothing(tree: Tree) -> None:
    (tree.root / "dir").mkdir()
    with pytest.raises(IsADirectoryError):
        tree.session.write("dir", b"x")
    assert os.listdir(tree.root) == ["dir"]
    with pytest.raises(OSError, match="Invalid argument"):
        tree.session.write("../x", b"x")


def test_created_file_takes_what_is_written(tree: Tree) -> None:
    file = tree.session.create("new")
    assert file.write(b"abc") == 3
    assert file.write(np.arange(3, dtype=np.uint8)) == 3
    assert file.write(b"") == 0
    file.sync()
    assert tree.session.stats()["files_open"] == 1
    file.close()
    file.close()
    assert tree.session.stats()["files_open"] == 0
    assert (tree.root / "new").read_bytes() == b"abc\0\1\2"
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more")
    with pytest.raises(FileNotFoundError):
        tree.session.create("no/parent")


def test_names_are_moved_made_and_removed(tree: Tree) -> None:
    tree.add("a", 3)
    tree.session.mkdir("x/y")
    tree.session.mkdir("x/y")
    tree.session.rename("a", "x/y/z")
    assert tree.session.stat("x/y/z")[1] == 3
    with pytest.raises(FileNotFoundError) as caught:
        tree.session.stat("a")
    assert caught.value.filename == "a"
    with pytest.raises(OSError, match="not empty"):
        tree.session.remove("x/y")
    tree.session.remove("x/y/z")
    tree.session.remove("x/y")
    with pytest.raises(FileExistsError):
        tree.session.write("f", b"")
        tree.session.mkdir("f")


def test_full_disk_leaves_nothing(tree: Tree) -> None:
    """Written under a limit on the size of files: the system refuses in the middle."""
    program = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        session = Session("posix", sys.argv[1])
        try:
            session.write("a", bytes(5000))
        except OSError as error:
            print(error.errno, os.listdir(sys.argv[1]), session.stats()["files_open"])
    """
    assert run_python(program, str(tree.root)).stdout == f"{errno.EFBIG} [] 0\n"


def test_module_says_how_it_was_built() -> None:
    from datapipes import _dfs

    assert _dfs.build_type in ("release", "debug")


