"""The one pipe of a graph whose position is saved, and the run of a copied graph from any position."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from torch.utils.data import IterDataPipe
from torch.utils.data.graph import DataPipe

from datapipes.errors import OptionError, StateError
from datapipes.iter.base import is_face
from datapipes.iter.graph import Graph
from datapipes.iter.load_files import StoreFileLoader
from datapipes.iter.read_shards import ShardReader
from datapipes.iter.replay import keeps_nothing, refusal, replays

__all__ = ["Pivot", "ReplayedNames", "find_pivot"]

_LOADERS = (StoreFileLoader, ShardReader)
"""Pipes that read payload, which is never read again."""


class Pivot(NamedTuple):
    """The pipe whose position is saved, and the pipes after it, last one first."""

    pipe: IterDataPipe[Any]
    after: list[IterDataPipe[Any]]
    before: list[DataPipe]
    """The pivot and everything that it reads from."""


def find_pivot(last: IterDataPipe[Any], stateless: tuple[type, ...] = ()) -> Pivot:
    """The pivot of the graph that ends in ``last``. OptionError names a pipe that cannot be restored."""
    if not isinstance(last, IterDataPipe):
        raise OptionError(f".resumable() is for IterDataPipes, not for {type(last).__qualname__}")
    graph = Graph(last)
    after: list[IterDataPipe[Any]] = []
    pipe = last
    while not is_face(pipe) and keeps_nothing(pipe, stateless):
        sources = graph.sources(pipe)
        if len(sources) != 1 or not isinstance(sources[0], IterDataPipe):
            break
        after.append(pipe)
        pipe = sources[0]
    before = graph.upstream(pipe)
    _check_before(pipe, before, stateless)
    return Pivot(pipe, after, before)


def _check_before(pivot: IterDataPipe[Any], before: list[DataPipe], stateless: tuple[type, ...]) -> None:
    loaders = [member for member in before[1:] if isinstance(member, _LOADERS)]
    if loaders and not isinstance(pivot, _LOADERS):
        raise OptionError(refusal(pivot))
    if loaders:
        raise OptionError(
            f".resumable() saves the position of one loader, and here {type(loaders[0]).__qualname__} feeds "
            f"{type(pivot).__qualname__}. Load the first ones while the list of names is made, and give the "
            "second loader that list"
        )
    for member in before:
        if not is_face(member) and not replays(member, stateless):
            raise OptionError(refusal(member))


class ReplayedNames(Iterator[Any]):
    """What a pipe without a state yields, and how many of it: restored by asking it for the same again."""

    COUNT_KEY = "count"
    DIGEST_KEY = "digest"

    def __init__(self, pipe: IterDataPipe[Any]) -> None:
        self._items = iter(pipe)
        self._count = 0
        self._digest = 0

    def __next__(self) -> Any:
        item = next(self._items)
        self._count += 1
        if isinstance(item, str):
            self._digest = zlib.crc32(item.encode(errors="surrogateescape"), self._digest)
        return item

    def reset(self, state: dict[str, Any]) -> None:
        """Pass over what was delivered before ``state``; StateError when it is not the same as then."""
        for _ in islice(self, state[self.COUNT_KEY]):
            pass
        if self.get_state() != state:
            raise StateError(
                f"the names are not those of the saved state: after {state[self.COUNT_KEY]} of them they "
                "differ. The files, or the order in which they are listed, have changed"
            )

    def get_state(self) -> dict[str, Any]:
        return {self.COUNT_KEY: self._count, self.DIGEST_KEY: self._digest}

    def close(self) -> None:
        self._items = iter(())
