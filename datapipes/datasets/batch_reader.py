"""Reading a batch of files at once, from one store or several, into memory of the caller's or not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate, repeat
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from datapipes.backends.base import Backend, BatchOptions
from datapipes.errors import OptionError
from datapipes.records import HandleFile
from datapipes.stages.feeds import Stores

__all__ = ["BatchReader", "flat_memory", "lay_out", "rows_of", "spans_of"]


class BatchReader:
    """Reads whole files by URL and size; holds no handles and travels by its options."""

    def __init__(
        self,
        resolve: Callable[[str], Backend],
        *,
        max_in_flight: int,
        timeout_s: float | None,
        verify_size: bool,
    ) -> None:
        self._stores = Stores(resolve)
        self._options: BatchOptions = {
            "max_in_flight": max_in_flight,
            "timeout_s": timeout_s,
            "verify_size": verify_size,
        }

    def read(
        self,
        urls: list[str],
        sizes: list[int],
        out: memoryview | None = None,
        *,
        writable: bool = False,
        handles: HandleFile | None = None,
    ) -> list[Any]:
        """The content of each of ``urls`` (at least one), laid into ``out`` back to back where it is given.

        ``sizes`` are in bytes, negative where unknown. Without ``out``, ``writable`` makes each content a
        ``bytearray`` of its own. ``handles`` is of the index that lists them. Raises the error of the first
        file that failed.
        """
        if out is not None and min(sizes) >= 0:
            _check_room(sizes, out)
        options: BatchOptions = {**self._options, "writable": writable, "handles": handles}
        beginning, backend = self._stores.locate(urls[0])
        if all(map(str.startswith, urls, repeat(beginning))):
            if out is None or min(sizes) >= 0:
                options["out"] = out
                return backend.read_files(urls, sizes, **options)
            return lay_out(backend.read_files(urls, sizes, **options), out)
        contents = self._read_mixed(urls, sizes, options)
        return contents if out is None else lay_out(contents, out)

    def _read_mixed(self, urls: list[str], sizes: list[int], options: BatchOptions) -> list[Any]:
        """Files of several stores: store by store, what is of one store at once."""
        parts: dict[str, tuple[Backend, list[int]]] = {}
        for position, url in enumerate(urls):
            beginning, backend = self._stores.locate(url)
            parts.setdefault(beginning, (backend, []))[1].append(position)
        contents: list[Any] = [None] * len(urls)
        for backend, positions in parts.values():
            own = [urls[position] for position in positions]
            own_sizes = [sizes[position] for position in positions]
            found = backend.read_files(own, own_sizes, **options)
            for position, content in zip(positions, found, strict=True):
                contents[position] = content
        return contents


def rows_of(positions: Any, count: int) -> npt.NDArray[np.int64]:
    """The rows that ``positions`` are in an index of ``count`` names; negative ones count from its end.

    IndexError for what is no integer, and for a position that is not there.
    """
    given = np.asarray(positions)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iub"):
        # Also integers beyond 64 bits, of which numpy makes objects or floats. Nothing is rounded.
        raise IndexError(f"positions are integers in one dimension, not {positions!r:.200}")
    outside = given >= count
    if given.dtype.kind == "i":
        outside |= given < -count
    if outside.any():
        raise IndexError(f"position {given[outside][0]} is out of range: an index of {count} names")
    rows = given.astype(np.int64)
    return np.where(rows < 0, rows + count, rows)


def spans_of(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(start, end) of parts of ``sizes`` that stand back to back."""
    ends = list(accumulate(sizes))
    return list(zip([0, *ends[:-1]], ends, strict=True)) if ends else []


def flat_memory(out: Any) -> memoryview:
    """The memory of a tensor or buffer as writable bytes; OptionError where it is not one piece."""
    if isinstance(out, torch.Tensor):
        if out.device.type != "cpu" or not out.is_contiguous():
            raise OptionError(f"out must be a contiguous tensor on the CPU, not {out.device}, {out.stride()}")
        return out.detach().reshape(-1).view(torch.uint8).numpy().data
    view = memoryview(out)
    if view.readonly or not view.c_contiguous:
        raise OptionError("out must be a writable, C-contiguous buffer")
    return view.cast("B")


def lay_out(contents: list[Any], out: memoryview) -> list[Any]:
    """Copy ``contents`` into ``out`` back to back; the views of their places."""
    sizes = [len(content) for content in contents]
    _check_room(sizes, out)
    placed = []
    for content, (start, end) in zip(contents, spans_of(sizes), strict=True):
        out[start:end] = content
        placed.append(out[start:end])
    return placed


def _check_room(sizes: list[int], out: memoryview) -> None:
    needed = sum(sizes)
    if needed > len(out):
        raise OptionError(f"out holds {len(out)} bytes, and these {len(sizes)} files need {needed}")
