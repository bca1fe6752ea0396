"""The feed over sources that are not indexed: names are pulled one by one, and counted.

From a stage or node it keeps a snapshot of the source's own state and counts the names since; from a plain
iterable it can only count from the start. The names counted are digested, so that going on over other names
is refused; no payload is read for them.
"""

from __future__ import annotations

import itertools
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from typing import Any

from datapipes.errors import DatapipesError, OptionError, StateError, StoreTimeoutError
from datapipes.records import UNKNOWN_SIZE, WHOLE, FileEntry, ReadRequest
from datapipes.stages.base import Stage, is_stateful
from datapipes.stages.feeds import Cursor, Segment, Stores, new_request
from datapipes.stages.indexed import BLOCK, not_a_name
from datapipes.stages.state import (
    KIND_KEY,
    POSITION_KEY,
    VERSION_KEY,
    State,
    fresh_copy,
    match_identity,
    stored_count,
)

__all__ = ["NameFeed", "SourceAccess"]

STRIDE = 64
"""Names between two snapshots of a source's state: as many are pulled again, at most, on resume."""

TRAIL = 1024
"""Names kept, beyond those read ahead, before they are digested, at once: a tenth of the price."""

SOURCE_WAIT_S = 30.0
"""How long a ``reset`` waits for a source of others' making that is still in its ``next``."""

_END: Any = object()


class SourceAccess:
    """What all feeds over one source share. The lock is held while the source is asked, so that an old run
    that is still in the source's ``next`` cannot take a name of the new one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.pulled = False
        self.owner: object = None  # the feed that opened the source last


class NameFeed:
    """Requests over names pulled one by one."""

    KIND = "pulled_names"
    STATEFUL_KEY = "stateful_source"
    SNAPSHOT_KEY = "snapshot"
    START_KEY = "snapshot_position"
    SKIP_KEY = "names_since"
    DIGEST_KEY = "digest"

    def __init__(
        self, source: Any, cursor: Cursor, stores: Stores, access: SourceAccess, *, window: int | None
    ) -> None:
        self._source = source
        self._stateful = is_stateful(source)
        self._cursor = cursor
        self._stores = stores
        self._window = window
        self._done = frozenset(cursor.ahead)
        self._access = access
        self._closed = False
        self._held: tuple[str, int] | None = None  # pulled, and of the next segment
        self._end: Any = None  # the source's state after its end
        self._wrap = False
        # Names from the latest snapshot at or before the cursor on; all before ``_folded`` are in ``_crc``.
        self._fold_lock = threading.Lock()
        self._marks: deque[tuple[int, Any]] = deque()
        self._trail: deque[str] = deque()
        self._pulled = self._folded = self._restart_at = cursor.position
        self._restart: Any = None
        self._crc = 0

    def open(self, saved: Any, *, finished: bool) -> None:
        """Start the source, or take it to where ``saved`` (from :meth:`state`) was taken."""
        if saved is not None:
            self._check(saved, finished=finished)
        if not self._access.lock.acquire(timeout=SOURCE_WAIT_S):
            raise StoreTimeoutError(
                f"the source ({type(self._source).__name__}) has not returned from next() "
                f"for {SOURCE_WAIT_S:.0f} s: it cannot be reset",
                operation="reset",
            )
        try:
            self._access.owner = self
            snapshot = None if saved is None else saved.get(self.SNAPSHOT_KEY)
            if self._stateful:
                self._names = self._source
                self._reset_source(saved, snapshot)
                self._restart = fresh_copy(self._source.get_state())
                self._wrap = finished
            else:
                self._names = self._iterator()
            if saved is not None and not finished:
                self._replay(saved, snapshot)
        finally:
            self._access.lock.release()

    def _check(self, saved: State, *, finished: bool) -> None:
        """Raise StateError for what can be seen to be wrong before the source is touched."""
        match_identity(saved, {VERSION_KEY: 1, KIND_KEY: self.KIND, self.STATEFUL_KEY: self._stateful})
        start, skip = stored_count(saved, self.START_KEY), stored_count(saved, self.SKIP_KEY)
        if not finished and start + skip != self._cursor.position:
            raise StateError(
                f"the state is damaged: its {POSITION_KEY!r} is {self._cursor.position}, "
                f"and its source's {start} + {skip}"
            )
        if self._stateful and not isinstance(saved.get(self.SNAPSHOT_KEY), dict):
            raise StateError(f"the state is damaged: its {self.SNAPSHOT_KEY!r} is no state of a source")

    def _reset_source(self, saved: State | None, snapshot: Any) -> None:
        try:
            self._source.reset(fresh_copy(snapshot))
        except (AssertionError, AttributeError, LookupError, TypeError, ValueError) as error:
            if saved is None or isinstance(error, DatapipesError):
                raise
            raise StateError(
                f"the source ({type(self._source).__name__}) cannot take up its part of the state "
                f"({type(error).__name__}: {error}). Resume with the pipeline that made it"
            ) from error

    def _iterator(self) -> Iterator[Any]:
        names: Iterator[Any] = iter(self._source)
        if names is self._source and self._access.pulled and not hasattr(names, "reset"):
            raise OptionError(
                f"the source is an iterator ({type(names).__name__}), which can be walked only once, "
                "and a second pass was asked for; give a list, a pipe, a stage or a node"
            )
        return names

    def _replay(self, saved: State, snapshot: Any) -> None:
        self._restart, self._restart_at = fresh_copy(snapshot), saved[self.START_KEY]
        left = skip = saved[self.SKIP_KEY]
        while left:
            names = [_url_and_size(item, 0)[0] for item in itertools.islice(self._names, min(left, BLOCK))]
            if not names:
                raise StateError(
                    f"the state belongs to other data: the source ended {left} names before the state's "
                    f"position {self._cursor.position}. Resume over the same names, or start the epoch anew"
                )
            self._crc = _digest(names, self._crc)
            left -= len(names)
        if saved.get(self.DIGEST_KEY) != f"{self._crc:08x}":
            raise StateError(
                f"the state belongs to other data: the {skip} names before its position are not the same. "
                "Resume over the same names in the same order, or start the epoch anew"
            )

    def segment(self) -> Segment | None:
        """The next requests of one store; None at the end."""
        held = self._held or self._next()
        if held is None:
            return None
        self._held = held
        try:
            beginning, backend = self._stores.locate(held[0])
        except DatapipesError as error:
            self._held = None
            return Segment(None, iter([ReadRequest(held[0], 0, WHOLE, held[1])]), error)
        return Segment(backend, self._requests(beginning))

    def _requests(self, beginning: str) -> Iterator[ReadRequest]:
        held, self._held = self._held, None
        while held is not None:
            url, size = held
            yield new_request((url, 0, WHOLE, size))
            held = self._next()
            if held is not None and not held[0].startswith(beginning):
                self._held = held
                return

    def _next(self) -> tuple[str, int] | None:
        """The next name to read; None at the end, and where the window is used up."""
        while True:
            position = self._pulled
            if self._window is not None and position >= self._cursor.position + self._window:
                return None
            with self._access.lock:
                if self._closed:
                    return None
                if self._stateful and position - self._marked_at() >= STRIDE:
                    self._marks.append((position, fresh_copy(self._source.get_state())))
                self._access.pulled = True
                item = next(self._names, _END)
                if item is _END and self._wrap:
                    # To torchdata's nodes a state from after the end means an empty rest, not the next epoch.
                    self._source.reset()
                    self._restart = fresh_copy(self._source.get_state())
                    item = next(self._names, _END)
                self._wrap = False
                if item is _END:
                    if self._stateful:
                        self._end = fresh_copy(self._source.get_state())
                    return None
            named = (item, UNKNOWN_SIZE) if type(item) is str else _url_and_size(item, position)
            self._trail.append(named[0])
            self._pulled = position + 1
            if len(self._trail) > TRAIL:
                self._fold(self._cursor.position)
            if position not in self._done:
                return named

    def _marked_at(self) -> int:
        """Position of the latest snapshot."""
        return self._marks[-1][0] if self._marks else self._restart_at

    def _fold(self, position: int) -> None:
        """Digest the names before ``position``, and forget them."""
        with self._fold_lock:
            while True:
                if self._marks and self._marks[0][0] == self._folded:
                    self._restart_at, self._restart = self._marks.popleft()
                    self._crc = 0
                if self._folded >= position:
                    return
                stop = min(position, self._marks[0][0]) if self._marks else position
                self._crc = _digest([self._trail.popleft() for _ in range(stop - self._folded)], self._crc)
                self._folded = stop

    def state(self, position: int, *, finished: bool) -> State | None:
        if finished:
            return self._described(fresh_copy(self._end))
        self._fold(position)
        with self._fold_lock:
            if self._folded > position:  # another thread has gone on since ``position`` was read
                return None
            skip = self._folded - self._restart_at
            return self._described(fresh_copy(self._restart), self._restart_at, skip, self._crc)

    def state_at_start(self) -> State:
        """The state before the source was first asked for anything."""
        if not self._stateful:
            return self._described(None)
        if isinstance(self._source, Stage):
            return self._described(self._source.get_state())
        # A node of torchdata has no state before its first reset; state_dict() sees to that.
        snapshot = getattr(self._source, "state_dict", self._source.get_state)()
        return self._described(fresh_copy(snapshot))

    def _described(self, snapshot: Any, start: int = 0, skip: int = 0, crc: int = 0) -> State:
        return {
            VERSION_KEY: 1,
            KIND_KEY: self.KIND,
            self.STATEFUL_KEY: self._stateful,
            self.SNAPSHOT_KEY: snapshot,
            self.START_KEY: start,
            self.SKIP_KEY: skip,
            self.DIGEST_KEY: f"{crc:08x}",
        }

    def close(self) -> None:
        self._closed = True
        if isinstance(self._source, Stage) and self._access.owner is self:
            self._source.close()  # ends a ``next`` that waits, so that the lock comes free


def _url_and_size(item: Any, position: int) -> tuple[str, int]:
    if isinstance(item, FileEntry):
        return item.url, item.size
    if isinstance(item, str):
        return str(item), UNKNOWN_SIZE
    raise not_a_name(item, position)


def _digest(names: list[str], crc: int) -> int:
    """The digest of ``names`` after others whose digest is ``crc``; 40 ns a name."""
    return zlib.crc32("".join([f"{name}\0" for name in names]).encode("utf-8", "surrogatepass"), crc)
