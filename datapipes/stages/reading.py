"""One pass of ``load_files`` over its source: a feed of requests, a cursor, and the reader of the moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

from datapipes.backends.base import ReadIterator
from datapipes.calling import call
from datapipes.errors import DatapipesError
from datapipes.records import ReadResult
from datapipes.stages.base import SKIP, Skip
from datapipes.stages.feeds import Cursor, IndexFeed, Segment
from datapipes.stages.name_feed import NameFeed
from datapipes.stages.state import FINISHED_KEY, POSITION_KEY, SOURCE_KEY, State

__all__ = ["AHEAD_KEY", "OnError", "Reading", "Tally"]

OnError = Literal["raise", "skip"] | Callable[[str, DatapipesError], Any]

AHEAD_KEY: Final = "ahead"
"""Positions delivered beyond the first gap, with ``ordered=False``; empty otherwise."""


class Tally:
    """What the runs of a stage have done, those that are over and, in :meth:`total`, the present one."""

    def __init__(self) -> None:
        self.consumed = self.errors = self.skipped = self.bytes = 0
        self.wait_s = 0.0

    def add_reader(self, stats: Mapping[str, float]) -> None:
        self.bytes += int(stats.get("bytes", 0))
        self.wait_s += stats.get("wait_s", 0.0)

    def total(self, run: Reading | None) -> dict[str, float]:
        live = {} if run is None else dict(run.reader.stats())
        consumed = self.consumed + (0 if run is None else run.consumed())
        counters = {
            "items": consumed - self.skipped,
            "bytes": self.bytes + live.pop("bytes", 0),
            "errors": self.errors,
            "skipped": self.skipped,
            "wait_s": self.wait_s + live.pop("wait_s", 0.0),
        }
        return {"depth": 0, **live, **counters}


class Reading:
    """A run of ``load_files``; its ``__next__`` is written out in the stage, where it costs one call less."""

    def __init__(
        self,
        header: State,
        cursor: Cursor,
        feed: IndexFeed | NameFeed,
        tally: Tally,
        *,
        on_error: OnError,
        read_options: dict[str, Any],
    ) -> None:
        lock = threading.Lock()  # one ``next`` at a time; held while it waits
        self.acquire, self.release = lock.acquire, lock.release
        self.cursor = cursor
        self.ordered: bool = read_options["ordered"]
        self.reader: ReadIterator = _Refused([])
        self.pull: Callable[[], ReadResult] = self.reader.__next__
        self._header = header
        self._feed = feed
        self._tally = tally
        self._on_error = on_error
        self._options = read_options
        self._swap_lock = threading.Lock()  # of reader, pull and closed; never held while anything waits
        self._closed = self._finished = False
        # With ``ordered=False``, the reader numbers its requests from 0. They are the positions between the
        # items delivered out of turn before the state was taken, and then all that follow.
        last = max(cursor.ahead, default=cursor.position - 1)
        self._gaps = [p for p in range(cursor.position, last) if p not in cursor.ahead]
        self._shift = last + 1 - len(self._gaps)
        self._consumed_before = cursor.count()
        self._issued = 0  # results of earlier readers of this run

    def consumed(self) -> int:
        """Results delivered, replaced or skipped in this run."""
        return self.cursor.count() - self._consumed_before

    def advance(self) -> bool:
        """Go on to the next segment, its reader in ``pull``; False at the end, and after ``close``."""
        segment = None if self._closed else self._feed.segment()
        if segment is None:
            self._finished = self._finished or not self._closed
            return False
        reader = self._read(segment)
        self._swap(reader)
        self._issued = self.consumed()
        return not self._closed

    def _read(self, segment: Segment) -> ReadIterator:
        if segment.backend is None:
            return _Refused([ReadResult(0, request, None, segment.error) for request in segment.requests])
        return segment.backend.read_many(segment.requests, **self._options)

    def _swap(self, reader: ReadIterator) -> None:
        with self._swap_lock:
            old, self.reader = self.reader, reader
            self.pull = reader.__next__
            self._tally.add_reader(old.stats())
        old.close()
        if self._closed:
            reader.close()

    def absolute(self, position: int) -> int:
        """The position among all names of the result at ``position`` of the present reader."""
        issued = self._issued + position
        return self._gaps[issued] if issued < len(self._gaps) else issued + self._shift

    def replace(self, position: int, url: str, error: DatapipesError) -> Any:
        """What stands in for a failed item: SKIP, or what ``on_error`` returns; or raise."""
        self._tally.errors += 1
        if self._on_error == "raise":
            raise error
        item: Any = SKIP if self._on_error == "skip" else call(self._on_error, url, error)
        if isinstance(item, Skip):
            self._tally.skipped += 1
        if self.ordered:
            self.cursor.position += 1
        else:
            self.cursor.take(self.absolute(position))
        return item

    def fail(self, error: Exception) -> bool:
        """Cancel what is under way; every further ``next`` raises ``error`` too: going on past it would lose
        the item unseen. False after ``close``, where an error is what the closing made of a wait."""
        if self._closed:
            return False
        self._swap(_Failed(error))
        return True

    def state(self) -> State:
        source = None
        while source is None:
            finished = self._finished
            position, ahead = (self.cursor.position, []) if self.ordered else self.cursor.snapshot()
            source = self._feed.state(position, finished=finished)
        return {
            **self._header,
            POSITION_KEY: position,
            FINISHED_KEY: finished,
            AHEAD_KEY: ahead,
            SOURCE_KEY: source,
        }

    def close(self) -> None:
        with self._swap_lock:
            if self._closed:
                return
            self._closed = True
            self._tally.consumed += self.consumed()
            self._consumed_before = self.cursor.count()
        self._swap(_Refused([]))
        self._feed.close()


class _Refused:
    """A reader of results that are known already: names that no store takes."""

    def __init__(self, results: list[ReadResult]) -> None:
        self._results = iter(results)

    def __iter__(self) -> Iterator[ReadResult]:
        return self

    def __next__(self) -> ReadResult:
        return next(self._results)

    def close(self) -> None:
        self._results = iter([])

    def stats(self) -> Mapping[str, float]:
        return {}


class _Failed(_Refused):
    """A reader that has come to an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__([])
        self._error: Exception | None = error

    def __next__(self) -> ReadResult:
        if self._error is None:
            raise StopIteration
        raise self._error

    def close(self) -> None:
        self._error = None
