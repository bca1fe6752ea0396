"""The objects of a map-style dataset: names in a table that workers share, or users' objects in a list."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from datapipes.datasets.ais_found import Found, Place, Places, found_in, prefixes_of
from datapipes.records import UNKNOWN_SIZE

__all__ = ["FoundTable"]

_BLOCK = 4096


class _Names:
    """Names and sizes of objects in one bucket, without a Python object for each."""

    def __init__(self, place: Place, founds: Iterable[Found]) -> None:
        self._place = place
        blocks: list[bytes] = []
        ends: list[npt.NDArray[np.int64]] = [np.zeros(1, np.int64)]
        sizes: list[npt.NDArray[np.int64]] = []
        for block in _blocks(founds):
            names = [found.name.encode("utf-8", "surrogateescape") for found in block]
            ends.append(np.cumsum([len(name) for name in names], dtype=np.int64) + ends[-1][-1])
            sizes.append(np.fromiter((found.size for found in block), np.int64, len(block)))
            blocks.append(b"".join(names))
        self._bytes = b"".join(blocks)
        self._ends = np.concatenate(ends)
        self.sizes = np.concatenate(sizes)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Found:
        start, end = self._ends[index : index + 2].tolist()
        name = self._bytes[start:end].decode("utf-8", "surrogateescape")
        return Found(name, self._place.url(name), int(self.sizes[index]), self._place)


class _Things:
    """Objects as they came from a source of the user's."""

    def __init__(self, founds: Iterable[Found]) -> None:
        self._founds = list(founds)

    def __len__(self) -> int:
        return len(self._founds)

    def __getitem__(self, index: int) -> Found:
        return self._founds[index]


class FoundTable:
    """What ``sources`` hold under the prefixes of ``prefix_map``, listed when this is made, by position."""

    def __init__(self, sources: list[Any], prefix_map: dict[Any, Any]) -> None:
        self._sources = sources
        self._prefix_map = prefix_map
        self._parts: list[_Names | _Things] = []
        self._starts = [0]
        for place, group in groupby(self._found(), _named):
            part = _part(place, group)
            self._parts.append(part)
            self._starts.append(self._starts[-1] + len(part))

    def _found(self) -> Iterator[Found]:
        places = Places()
        for source in self._sources:
            for prefix in prefixes_of(source, self._prefix_map):
                yield from found_in(source, prefix, places)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Found:
        """As a list does it: negative positions count from the end, IndexError beyond it."""
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._starts, index) - 1
        return self._parts[part][index - self._starts[part]]

    def sizes(self) -> npt.NDArray[np.int64] | None:
        """In bytes; None where a source did not say them."""
        if not all(isinstance(part, _Names) for part in self._parts):
            return None
        known = [part.sizes for part in self._parts if isinstance(part, _Names)]
        sizes = np.concatenate(known) if known else np.zeros(0, np.int64)
        return None if (sizes == UNKNOWN_SIZE).any() else sizes


def _part(place: Place | None, founds: Iterable[Found]) -> _Names | _Things:
    return _Things(founds) if place is None else _Names(place, founds)


def _named(found: Found) -> Place | None:
    return found.place if found.thing is None else None


def _blocks(founds: Iterable[Found]) -> Iterator[list[Found]]:
    block: list[Found] = []
    for found in founds:
        block.append(found)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block
