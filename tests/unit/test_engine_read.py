"""Batch reads of real files by the native engine: what comes, in which order, and what fails."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from datapipes._dfs import Session

from .engine_tree import MIB, NEEDED, Result, Tree, failure

if TYPE_CHECKING:
    from datapipes._dfs import Request


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


@pytest.mark.parametrize("known", [False, True])
def test_read_batch_gives_bytearrays_of_their_own_where_asked(many: Tree, known: bool) -> None:
    requests = many.requests(known=known)
    wrong = [("nothing", 0, -1, 5, "nothing"), (requests[3][0], 0, -1, 4097, "longer than it is")]
    results = many.batch([*requests, *wrong], writable=True)
    assert len(results) == len(requests) + 2
    for result in results[:-2]:
        assert result.error is None
        assert type(result.data) is bytearray
        assert result.data == many.data(result.tag)
        result.data.extend(b"grows")  # nothing else holds it
    assert [result.data for result in results[-2:]] == [None, None]
    assert [getattr(result.error, "errno", None) for result in results[-2:]] == [errno.ENOENT, errno.ENODATA]


def test_read_batch_into_memory_of_the_caller_makes_no_bytearrays(tree: Tree) -> None:
    tree.add("a", 5)
    out = bytearray(5)
    [result] = tree.batch(tree.requests(), out=out, spans=[(0, 5)], writable=True)
    assert isinstance(result.data, memoryview)
    assert out == tree.data("a")


def test_read_batch_without_a_result_class_gives_data_and_exceptions_themselves(tree: Tree) -> None:
    tree.add("a", 3)
    tree.add("b", 200_000)
    requests = [(name, 0, -1, -1, name) for name in ("a", "nothing", "b")]
    first, missing, second = tree.session.read_batch(requests, error=failure, max_in_flight=4)
    assert (first, second) == (tree.data("a"), tree.data("b"))
    assert (missing.errno, missing.filename) == (errno.ENOENT, "nothing")


def test_nothing_asked_nothing_comes(tree: Tree) -> None:
    assert list(tree.read([])) == []
    assert tree.batch([]) == []


def test_result_is_made_without_calling_its_constructor(tree: Tree) -> None:
    class Strict(tuple[Any, ...]):
        __slots__ = ()

        def __new__(cls, *_: Any) -> Self:
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
    [
        (0, 10, slice(0, 10)),
        (990, 10, slice(990, 1000)),
        (500, -1, slice(500, None)),
        (1000, -1, slice(0, 0)),
        (0, 0, slice(0, 0)),
        (1000, 0, slice(0, 0)),
    ],
)
@pytest.mark.parametrize("size", [-1, 1000])
def test_ranges(tree: Tree, offset: int, length: int, size: int, expected: slice) -> None:
    tree.add("a", 1000)
    assert tree.one("a", offset, length, size).data == tree.data("a")[expected]


@pytest.mark.parametrize(
    ("offset", "length", "size"),
    [(0, 1001, -1), (999, 2, 1000), (1001, 0, -1), (1001, -1, -1), (1001, -1, 1000), (5000, 10, -1)],
)
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


@pytest.mark.parametrize("views", [False, True])
@pytest.mark.parametrize(
    ("root", "name", "told"),
    [
        ("/proc", "self/status", 0),
        ("/proc", "self/maps", 0),
        ("/sys", "kernel/notes", -1),
        ("/sys", "devices/system/cpu/online", -1),
    ],
)
def test_file_whose_size_means_nothing_is_read_to_its_end(
    root: str, name: str, told: int, views: bool
) -> None:
    path = Path(root, name)
    if not path.exists():
        pytest.skip(f"no {path} here")
    session = Session("posix", root)
    results = session.read_many([(name, 0, -1, told, None)], views=views, max_buffer_bytes=MIB, **NEEDED)
    data = bytes(next(results).data)
    results.close()
    session.close()
    assert len(data) > 0
    assert data[:4] == path.read_bytes()[:4]
    assert len(data) >= len(path.read_bytes()) // 2  # maps and status change as they are read


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
    for huge in (1 << 60, (1 << 62) + 5):
        requests = [("a", 0, -1, huge, 0) if known else ("a", 0, huge, -1, 0), ("a", 0, -1, -1, 1)]
        for result in (*tree.read(requests), *tree.read(requests, views=True), *tree.batch(requests)):
            assert (result.error is None) == (result.tag == 1)


@pytest.mark.parametrize(
    "options",
    [
        {"max_in_flight": 0},
        {"max_in_flight": -1},
        {"max_in_flight": 1 << 40},
        {"max_buffer_bytes": 0},
        {"depth": -1},
        {"timeout_s": -1.0},
        {"timeout_s": float("nan")},
    ],
)
def test_options_out_of_range_are_refused(tree: Tree, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        tree.read([], **options)


def test_views_cannot_be_writable_as_well(tree: Tree) -> None:
    with pytest.raises(ValueError, match="views are read-only"):
        tree.read([], views=True, writable=True)


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
