"""``read_shards``: the members of tar shards, streamed in the order of the shards and of each shard."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from datapipes.backends.base import DEFAULT_BUFFER_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S, Backend
from datapipes.backends.registry import backend_for
from datapipes.errors import StateError
from datapipes.index import FileIndex
from datapipes.stages.base import SKIP
from datapipes.stages.feeds import Cursor, IndexFeed, Stores
from datapipes.stages.indexed import IndexedStage, start_position
from datapipes.stages.load_files import LoadFiles
from datapipes.stages.name_feed import NameFeed
from datapipes.stages.reading import AHEAD_KEY, OnError
from datapipes.stages.shard_reading import OFFSET_KEY, SHARD_KEY, Place, ShardReading
from datapipes.stages.state import (
    FINISHED_KEY,
    KIND_KEY,
    POSITION_KEY,
    SOURCE_KEY,
    VERSION_KEY,
    State,
    check_count,
    stored_count,
)
from datapipes.tar import MEMBER_BYTES
from datapipes.urls import quote_name

__all__ = ["CHUNK_BYTES", "ReadShards"]

CHUNK_BYTES = 4 * 1024 * 1024

_BLOCK = 512
"""A tar archive consists of blocks of so many bytes, and each member has a header of one at least."""


class ReadShards(LoadFiles):
    """Yields (URL, bytes) for every regular file in the shards of the source, in stored order.

    The URL of a member is ``SHARD?archpath=NAME``, the name written as names in URLs are; the shard's plain
    path stands in it as ``file:///path``. Shards are uncompressed ``.tar`` files in any store; see
    :func:`datapipes.tar.tar_members` for what is read of them. They are read in ranges of ``chunk_bytes``, so
    that several ranges, of one shard or of many, are under way at once.

    A state says how many shards are over and where in the present one the next member begins: going on from
    it reads that shard from there.

    Memory: what ``max_buffer_bytes`` lets be read ahead, the members of one range, and one member that spans
    ranges.

    Args:
        source: as of LoadFiles. Sizes that the source does not know are asked for, shard by shard.
        chunk_bytes: bytes of one read. Small members that span two are copied once more.
        max_in_flight: ranges under way or waiting to be delivered.
        max_buffer_bytes, timeout_s, resolve: as of LoadFiles, a range in place of a file.
        on_error: as of LoadFiles, and a shard is one item: where one is missing, damaged or cut short, the
            members before the fault are delivered, and ``"skip"``, or what a callable ``(shard's URL,
            exception)`` returns, stands for the rest of it. After ``"raise"`` a state tries that rest again.
        verify: ``"size"`` makes a shard that has grown since it was listed an error.
        max_member_bytes: a larger member is taken for damage.
    """

    KIND = "read_shards"

    def __init__(
        self,
        source: str | IndexedStage | FileIndex | Iterable[Any],
        *,
        chunk_bytes: int = CHUNK_BYTES,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        on_error: OnError = "raise",
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        max_member_bytes: int = MEMBER_BYTES,
        resolve: Callable[[str], Backend] = backend_for,
    ) -> None:
        chunk_bytes = check_count("chunk_bytes", chunk_bytes, least=1)
        max_member_bytes = check_count("max_member_bytes", max_member_bytes, least=1, most=1 << 62)
        super().__init__(
            source,
            max_in_flight=max_in_flight,
            max_buffer_bytes=max_buffer_bytes,
            on_error=on_error,
            timeout_s=timeout_s,
            verify=verify,
            resolve=resolve,
        )
        self.chunk_bytes = chunk_bytes
        self.max_member_bytes = max_member_bytes

    def __next__(self) -> Any:  # noqa: C901 - written out, as in LoadFiles
        run = self._run
        if run is None and (run := self._begin()) is None:
            raise StopIteration
        run.acquire()
        try:
            while True:
                for name, data, after in run.members:
                    place = run.place
                    run.place = Place(place[0] + 1, place[1], after)
                    return run.beginning + quote_name(name), data
                try:
                    item = run.refill()
                except StopIteration:
                    if run.advance():
                        continue
                    raise
                if item is not SKIP:
                    return item
        except StopIteration:
            raise
        except Exception as error:
            if run.fail(error):
                raise
            raise StopIteration from None
        except BaseException:
            self._interrupt(run)
            raise
        finally:
            run.release()

    def __len__(self) -> int:
        """TypeError: how many members a shard has is known when it has been read."""
        raise TypeError(f"{type(self).__name__} has no length: nobody has counted the members of its shards")

    def _start(self, epoch: int, state: State | None) -> ShardReading:
        source, stores = self.source, Stores(self.resolve)
        finished = state is not None and state[FINISHED_KEY]
        place = Place(0, 0, 0) if state is None or finished else _saved_place(state)
        cursor = Cursor(place.shard, [])
        feed: IndexFeed | NameFeed
        if isinstance(source, IndexedStage):
            order = source.order(epoch)
            if state is not None:
                own = {VERSION_KEY: self.VERSION, KIND_KEY: self.KIND, SOURCE_KEY: order.identity}
                start_position({**state, POSITION_KEY: state.get(SHARD_KEY)}, own, order)
            feed = IndexFeed(order, cursor, stores, window=None)
        else:
            feed = NameFeed(source, cursor, stores, self._access, window=None)
            # A state whose source is missing, or None, is damaged: it must not pass for no state at all.
            feed.open(None if state is None else state.get(SOURCE_KEY) or {}, finished=finished)
        return ShardReading(
            self._header(epoch),
            cursor,
            feed,
            self._tally,
            place=place,
            chunk_bytes=self.chunk_bytes,
            max_member_bytes=self.max_member_bytes,
            on_error=self.on_error,
            read_options=self._read_options,
        )

    def _state_at_start(self, epoch: int) -> State:
        state = super()._state_at_start(epoch)
        del state[AHEAD_KEY]
        return {**state, SHARD_KEY: 0, OFFSET_KEY: 0}


def _saved_place(state: State) -> Place:
    place = Place(*(stored_count(state, key) for key in (POSITION_KEY, SHARD_KEY, OFFSET_KEY)))
    if place.offset % _BLOCK:
        raise StateError(
            f"the state is damaged: its {OFFSET_KEY!r} is {place.offset}, where no member begins"
        )
    if place.shard == 0 and place.items * _BLOCK > place.offset:
        raise StateError(
            f"the state is damaged: its {POSITION_KEY!r} is {place.items}, and the {place.offset} bytes read "
            "do not hold so many members"
        )
    return place
