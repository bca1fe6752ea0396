"""Stages whose output is a rearrangement of a :class:`~datapipes.index.FileIndex`: seeking is O(1).

Such stages form a chain (list, shuffle, shard), and only the last one of a chain walks: it maps a block of
output positions through the whole chain to rows of the index in a few numpy calls and decodes their names at
once, so that a name costs a list access and a state is one number.
"""

from __future__ import annotations

import hashlib
import threading
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from datapipes.errors import OptionError, UrlError
from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.records import FileEntry
from datapipes.stages.base import EpochClock, Stage, is_stateful
from datapipes.stages.state import (
    EPOCH_KEY,
    FINGERPRINT_KEY,
    FINISHED_KEY,
    KIND_KEY,
    POSITION_KEY,
    SOURCE_KEY,
    VERSION_KEY,
    State,
    copy_identity,
    match_identity,
    stored_count,
)

__all__ = ["BLOCK", "IndexRows", "IndexedStage", "Order", "Rows", "indexed"]

BLOCK = 4096
"""Names mapped and decoded at a time."""

COUNT_KEY: Final = "count"

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Order:
    """The output of an indexed stage in one epoch: immutable, so every thread may use it."""

    index: FileIndex
    length: int
    rows: Callable[[Rows], Rows]
    """Output positions, each in [0, length), to rows of ``index``."""
    identity: State
    """What must be equal for a position to mean the same name, sources nested."""
    relisted: bool = False
    """The names are listed anew for each epoch, so the next epoch may have others."""


class IndexedStage(Stage[Any]):
    """A stage over a FileIndex; yields URLs, or FileEntry where its lister was asked for ``entries``."""

    def __init__(self, *, entries: bool, clock: EpochClock | None = None) -> None:
        super().__init__(clock)
        self.entries = entries

    @abstractmethod
    def order(self, epoch: int) -> Order:
        """What this stage yields in ``epoch``: a pure function of names, options and epoch."""

    def index(self) -> FileIndex:
        """The index of the present epoch."""
        return self.order(self.clock.current()).index

    def __len__(self) -> int:
        """Items of the present epoch."""
        return self.order(self.clock.current()).length

    def ids(self, start: int, stop: int) -> Rows:
        """Rows of :meth:`index` of the outputs [start, stop) of the present epoch."""
        order = self.order(self.clock.current())
        if not 0 <= start <= stop <= order.length:
            raise OptionError(f"positions [{start}, {stop}) do not lie within an epoch of {order.length}")
        return order.rows(np.arange(start, stop, dtype=np.int64))

    def __next__(self) -> Any:
        walk = self._run
        if walk is None and (walk := self._begin()) is None:
            raise StopIteration
        for name in walk.block[0]:
            return name
        return walk.refill()

    def _start(self, epoch: int, state: State | None) -> Walk:
        order = self.order(epoch)
        position = 0 if state is None else start_position(state, order.identity, order)
        return Walk(order, epoch, position, entries=self.entries)

    def _state_at_start(self, epoch: int) -> State:
        return Walk(self.order(epoch), epoch, 0, entries=self.entries).state()


def start_position(state: State, own: State, order: Order) -> int:
    """Where ``state`` goes on in ``order``; StateError where it differs from ``own`` or has no such item."""
    changeable = {FINGERPRINT_KEY, COUNT_KEY} if order.relisted and state[FINISHED_KEY] else set[str]()
    match_identity(state, own, except_for=changeable)
    position = stored_count(state, POSITION_KEY, most=order.length if not state[FINISHED_KEY] else None)
    return 0 if state[FINISHED_KEY] else position


class Walk:
    """A run over an order: ``block`` is an iterator over decoded names and the position where it ends.

    The two are one tuple, replaced at once: the position is read off what is left of the block, and neither
    ``__next__`` nor ``state`` takes a lock within a block.
    """

    __slots__ = ("_closed", "_entries", "_finished", "_lock", "_order", "_template", "block")

    def __init__(self, order: Order, epoch: int, position: int, *, entries: bool) -> None:
        self._order = order
        self._entries = entries
        self._lock = threading.Lock()
        self._closed = self._finished = False
        self._template = {**order.identity, EPOCH_KEY: epoch, POSITION_KEY: position, FINISHED_KEY: False}
        self.block: tuple[Iterator[Any], int] = (iter([]), position)

    def refill(self) -> Any:
        """The first item of the next block; StopIteration at the end."""
        with self._lock:
            names, start = self.block
            for name in names:  # another thread has refilled meanwhile
                return name
            order = self._order
            stop = min(start + BLOCK, order.length)
            if self._closed:
                raise StopIteration
            if start >= stop:
                self._finished = True
                raise StopIteration
            rows = order.rows(np.arange(start, stop, dtype=np.int64))
            decoded: list[Any] = order.index.entries(rows) if self._entries else order.index.urls(rows)
            names = iter(decoded)
            self.block = (names, stop)
            return next(names)

    def state(self) -> State:
        finished = self._finished
        names, stop = self.block
        state = copy_identity(self._template)
        state[POSITION_KEY] = stop - names.__length_hint__()  # type: ignore[attr-defined]  # a list's iterator
        state[FINISHED_KEY] = finished
        return state

    def close(self) -> None:
        with self._lock:
            names, stop = self.block
            self.block = (iter([]), stop - names.__length_hint__())  # type: ignore[attr-defined]
            self._closed = True


class IndexRows(IndexedStage):
    """The rows of a ready FileIndex, or of one made of any names, in their order."""

    KIND = "index_rows"

    def __init__(
        self,
        names: FileIndex | Iterable[str | FileEntry],
        *,
        entries: bool = False,
        job: Job | None = None,
        ordinal: int | None = None,
    ) -> None:
        super().__init__(entries=entries)
        self.names = names
        self._job: Job | None = None
        self._ordinal = 0
        if not isinstance(names, FileIndex):
            self._job, self._ordinal = place_in_job(job, ordinal)

    def order(self, epoch: int) -> Order:  # noqa: ARG002 - the same in every epoch
        return whole_index(self._opened(), {VERSION_KEY: self.VERSION, KIND_KEY: self.KIND})

    def _opened(self) -> FileIndex:
        if isinstance(self.names, FileIndex):
            return self.names
        if self._index is None:
            assert self._job is not None  # noqa: S101 - the constructor sees to it for all but an index
            names = self.names
            key = f"names-{self._ordinal}"
            if isinstance(names, (list, tuple)):  # at hand in every process: so differing names are noticed
                key += f"-{digest(repr(names))}"
            self._index = self._job.shared_index(
                key, lambda path: FileIndex.from_entries(read_names(names), path)
            )
        return self._index

    _index: FileIndex | None

    def _live(self) -> State:
        return {**super()._live(), "_index": None}


def indexed(
    source: Any, *, entries: bool = False, job: Job | None = None, ordinal: int | None = None
) -> IndexedStage:
    """``source`` as an indexed stage: itself, a FileIndex, or any iterable of names (URLs or FileEntry).

    Of other iterables an index is built once for the whole job and host, at the first ``reset``: they must
    give the same names in every process.

    Args:
        source: a str is one name.
        entries: yield FileEntry (where ``source`` is a stage, it has decided already).
        job: where the index is shared; this process's job by default.
        ordinal: the number of the index there; one drawn from the job by default.
    """
    if isinstance(source, IndexedStage):
        return source
    if isinstance(source, str):
        source = [source]
    if not isinstance(source, Iterable):
        raise OptionError(
            f"the source must be a stage, a FileIndex or an iterable of URLs, not {source!r:.200}"
        )
    return IndexRows(source, entries=entries, job=job, ordinal=ordinal)


def whole_index(index: FileIndex, identity: State) -> Order:
    """The rows of ``index`` in their own order."""
    identity = {**identity, COUNT_KEY: len(index), FINGERPRINT_KEY: index.fingerprint}
    return Order(index, len(index), _identity_rows, identity)


def _identity_rows(positions: Rows) -> Rows:
    return positions


def chained(stage: Stage[Any], source: Order, own: State) -> State:
    """The identity of ``stage`` over ``source``."""
    return {VERSION_KEY: stage.VERSION, KIND_KEY: stage.KIND, **own, SOURCE_KEY: source.identity}


def place_in_job(job: Job | None, ordinal: int | None) -> tuple[Job, int]:
    """The job that shares an index, and the number of its maker there; opens nothing."""
    job = Job.current() if job is None else job
    return job, job.next_ordinal() if ordinal is None else ordinal


def read_names(source: Any) -> Iterator[FileEntry]:
    """Every name of one pass over ``source``; UrlError for what is none."""
    if is_stateful(source):
        source.reset()  # without it, a second pass would find a stage or a node at its end
    for position, item in enumerate(source):
        if isinstance(item, str):
            yield FileEntry(item)
        elif isinstance(item, FileEntry):
            yield item
        else:
            raise not_a_name(item, position)


def not_a_name(item: Any, position: int) -> UrlError:
    return UrlError(
        f"the source gave {item!r:.200} ({type(item).__name__}) at position {position}, "
        "and names are wanted: URLs as str, or FileEntry",
        operation="parse",
    )


def digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
