"""Batch reads without copies: views of the engine's memory, and memory of the caller's."""

from __future__ import annotations

import errno
import gc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from datapipes._dfs import Session

from .engine_tree import Tree

if TYPE_CHECKING:
    pass


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


def tensor_of(n: int) -> Any:
    """The memory of a tensor; the engine's own lane, under sanitizers, has no torch."""
    torch = pytest.importorskip("torch")
    return torch.zeros(n, dtype=torch.int8).view(torch.uint8).numpy()


def tensor(n: int) -> Any:
    """A tensor of another type, as README shows it: tensors export no buffer themselves."""
    torch = pytest.importorskip("torch")
    return torch.zeros(n, dtype=torch.int8).view(torch.uint8).numpy()


@pytest.mark.parametrize(
    "make",
    [
        bytearray,
        lambda n: np.zeros(n, np.uint8),
        lambda n: memoryview(bytearray(n)),
        lambda n: np.zeros((2, n // 2 + 1), np.int8),
        tensor_of,
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


@pytest.mark.parametrize(
    "spans", [None, [], [(0, 5)], [(0, 11)], [(-1, 9)], [(10, 0)], [(95, 105)], [(1 << 70, 1 << 71)]]
)
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
