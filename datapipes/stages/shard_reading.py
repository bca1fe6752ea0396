"""One pass of ``read_shards``: shards cut into ranges, ranges fed to the tar walker, members delivered."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from datapipes.backends.base import Backend, ReadIterator
from datapipes.errors import DatapipesError, ShardError
from datapipes.records import UNKNOWN_SIZE, WHOLE, ReadRequest
from datapipes.stages.base import SKIP
from datapipes.stages.feeds import Cursor, IndexFeed, Segment
from datapipes.stages.name_feed import NameFeed
from datapipes.stages.reading import OnError, Reading, Tally
from datapipes.stages.state import FINISHED_KEY, POSITION_KEY, SOURCE_KEY, State
from datapipes.tar import TarStream
from datapipes.urls import format_url, parse_url

__all__ = ["OFFSET_KEY", "SHARD_KEY", "Place", "ShardReading"]

SHARD_KEY: Final = "shard"
"""Shards that are over."""

OFFSET_KEY: Final = "offset"
"""Where in the present shard the next member begins, in bytes: at its first header."""

COMPRESSED = (".gz", ".tgz", ".bz2", ".tbz", ".tbz2", ".xz", ".txz", ".zst", ".tzst", ".lz4", ".zip")


class Place(NamedTuple):
    """How far a run has come: one value, replaced at once, so that nobody sees half of a step."""

    items: int
    """Delivered in this epoch."""
    shard: int
    offset: int


class ShardReading(Reading):
    """A run of ``read_shards``. Its ``__next__`` is written out in the stage: it takes from ``members``,
    moves ``place`` on, and calls :meth:`refill` where there are none. The cursor counts shards, and follows.
    """

    def __init__(
        self,
        header: State,
        cursor: Cursor,
        feed: IndexFeed | NameFeed,
        tally: Tally,
        *,
        place: Place,
        chunk_bytes: int,
        max_member_bytes: int,
        on_error: OnError,
        read_options: dict[str, Any],
    ) -> None:
        super().__init__(header, cursor, feed, tally, on_error=on_error, read_options=read_options)
        self.place = place
        self.members: Iterator[tuple[str, Any, int]] = iter(())
        self.beginning = ""  # of the URL of a member of the present shard
        self._chunk_bytes = chunk_bytes
        self._max_member_bytes = max_member_bytes
        self._offset = place.offset  # where to go on in the first shard; 0 once that is being read
        self._url = ""
        self._stream: TarStream | None = None  # None: the present shard is over
        self._opened = False  # any shard, in this run
        self._at_end = False  # of the present shard: its last bytes are fed
        self._dropped = 0  # shards that were skipped
        self._counted = place.items  # what consumed() leaves out: delivered earlier, or in the tally already

    def refill(self) -> Any:
        """Read on: SKIP, or what stands in for a shard that failed. StopIteration where a reader ends."""
        if self._at_end:
            return self._finish_shard()
        result = self.pull()
        request = result.request
        try:
            if request.offset == 0 or not self._opened:
                self._open(request.url)
            if self._stream is None:
                return SKIP  # read ahead, of a shard that is over
            members = self._stream.feed(result.unwrap())
        except DatapipesError as error:
            return self._give_up(error)
        self.members = iter(members)
        self._at_end = self._stream.ended or _is_last(request)
        if self._closed:
            self._clear()
            raise StopIteration
        return SKIP

    def _open(self, url: str) -> None:
        """The next shard begins."""
        offset, self._offset = self._offset, 0
        self._opened, self._url = True, url
        self._stream = TarStream(url=url, offset=offset, max_member_bytes=self._max_member_bytes)
        self.beginning = _beginning(url)
        if _is_compressed(url):
            raise ShardError(
                f"read {url!r} failed: shards are read as .tar only. Unpack it, or pack it anew without "
                "compression",
                url=url,
                operation="read",
            )

    def _finish_shard(self) -> Any:
        """The members of the present shard are delivered: it is over, unless it is cut short."""
        assert self._stream is not None  # noqa: S101 - it was fed a moment ago
        self._at_end = False
        try:
            self._stream.finish()
        except ShardError as error:
            return self._give_up(error)
        self._stream = None
        self.place = Place(self.place.items, self.place.shard + 1, 0)
        self.cursor.position = self.place.shard
        return SKIP

    def _give_up(self, error: DatapipesError) -> Any:
        """The present shard has failed: what ``on_error`` makes of it stands in for the rest of it."""
        self._stream = None
        item = self.replace(0, self._url, error)
        self._dropped += item is SKIP
        self.place = Place(self.place.items + (item is not SKIP), self.place.shard + 1, 0)
        return item

    def _read(self, segment: Segment) -> ReadIterator:
        if segment.backend is None:
            return super()._read(segment)
        ranges = _ranges(segment.requests, segment.backend, self.cursor, self._offset, self._chunk_bytes)
        return super()._read(segment._replace(requests=ranges))

    def consumed(self) -> int:
        return self.place.items + self._dropped - self._counted

    def state(self) -> State:
        source = None
        while source is None:
            finished = self._finished
            place = self.place
            source = self._feed.state(place.shard, finished=finished)
        return {
            **self._header,
            POSITION_KEY: place.items,
            SHARD_KEY: place.shard,
            OFFSET_KEY: place.offset,
            FINISHED_KEY: finished,
            SOURCE_KEY: source,
        }

    def close(self) -> None:
        super().close()
        self._counted += self.consumed()
        self._clear()

    def _clear(self) -> None:
        self.members = iter(())
        self._at_end = False


def _ranges(
    shards: Iterator[ReadRequest], backend: Backend, cursor: Cursor, offset: int, chunk_bytes: int
) -> Iterator[ReadRequest]:
    """Each shard in pieces, the first one from ``offset`` on; no more of one that is over already."""
    for number, (url, _, _, size) in enumerate(shards, cursor.position):
        if _is_compressed(url):
            yield ReadRequest(url, 0, 0)  # its place among the others, and nothing of it
        elif (known := _size_of(url, backend) if size < 0 else size) <= offset:
            yield ReadRequest(url, offset, WHOLE, known)
        else:
            for at in range(offset, known, chunk_bytes):
                if cursor.position > number:
                    break
                yield ReadRequest(url, at, min(chunk_bytes, known - at), known)
        offset = 0


def _is_last(request: ReadRequest) -> bool:
    """Whether these are the last bytes of the shard."""
    return request.length < 0 or request.offset + request.length >= request.size


def _size_of(url: str, backend: Backend) -> int:
    try:
        return backend.stat(url).size
    except DatapipesError:
        return UNKNOWN_SIZE  # reading it whole will fail for the same reason, in its place


def _is_compressed(url: str) -> bool:
    path = url.partition("?")[0] if "://" in url else url
    return path.lower().endswith(COMPRESSED)


def _beginning(url: str) -> str:
    """What the URLs of a shard's members begin with. In a plain path a ``?`` would be part of the name."""
    if "://" not in url:
        url = format_url("file", "", parse_url(url).path)
    return f"{url}{'&' if '?' in url else '?'}archpath="
