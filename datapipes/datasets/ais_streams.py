"""``AISMultiShardStream``: members of several series of shards in AIStore, side by side."""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import groupby, islice
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from datapipes.backends.base import DEFAULT_TIMEOUT_S
from datapipes.datasets.ais_found import Found, Places, found_in, overridden
from datapipes.datasets.ais_reads import FoundReader
from datapipes.datasets.ais_shards import SHARD_BUFFER_BYTES, SHARDS_IN_FLIGHT, TarShardError
from datapipes.datasets.ais_walk import Progress, Walk
from datapipes.errors import ShardError, StateError
from datapipes.tar import tar_members

__all__ = ["AISMultiShardStream"]

STREAMS = "streams"
_MEMBERS_IN_FLIGHT = 64
_WHOLE = (".tar", ".tar.gz", ".tgz", ".zip")
_ARCHIVES = (*_WHOLE, ".tar.lz4")
_END = object()
_Opened = Generator[Generator[bytes, None, None], None, None]


class AISMultiShardStream(IterableDataset[tuple[bytes, ...]]):
    """Yields tuples of bytes: the n-th member of every series of shards.

    Takes the place of ``aistore.pytorch.AISMultiShardStream``. The members of a shard come in the order of
    their names, as AIStore lists them. Every shard is read once, as a whole; one by one are read the members
    of ``.tar.lz4`` shards, and those that an ETL is applied to. Where one series ends before another,
    ShardError says so.

    A state says where each series is: resuming reads the present shards again.

    Args:
        data_sources: the SDK's ``DataShard``, one for each series.
        cut_to_shortest: end with the series that ends first.
        split_by_worker: workers take turns with the tuples; otherwise each of them gives all.
        max_in_flight: shards of a series under way or waiting, the present one apart.
        max_buffer_bytes: bytes of these; one larger shard is read alone.
        timeout_s: bound on each shard in seconds; None for none.
    """

    def __init__(
        self,
        data_sources: list[Any],
        *,
        cut_to_shortest: bool = False,
        split_by_worker: bool = False,
        max_in_flight: int = SHARDS_IN_FLIGHT,
        max_buffer_bytes: int = SHARD_BUFFER_BYTES,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._data_sources = data_sources
        self._cut_to_shortest = cut_to_shortest
        self._split_by_worker = split_by_worker
        self._max_buffer_bytes = max_buffer_bytes
        self._timeout_s = timeout_s
        self._whole = self._reader(None, max_in_flight)

    def _reader(self, etl_name: str | None, max_in_flight: int) -> FoundReader:
        return FoundReader(
            etl_name,
            max_in_flight=max_in_flight,
            max_buffer_bytes=self._max_buffer_bytes,
            timeout_s=self._timeout_s,
        )

    def __iter__(self) -> Iterator[tuple[bytes, ...]]:
        return Walk(self, "ais_multi_shard")

    def outputs(self, progress: Progress) -> Iterator[tuple[bytes, ...]]:
        """The tuples after ``progress``; for ``Walk``."""
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info and self._split_by_worker else (0, 1)
        streams = self._streams(progress)
        try:
            for members in self._side_by_side(streams, progress):
                progress.position += 1
                progress.extra = {STREAMS: [stream.mark() for stream in streams]}
                if (progress.position - 1) % workers == worker:
                    yield members
            progress.extra = {}  # a state of the end starts anew
        finally:
            for stream in streams:
                stream.close()

    def _streams(self, progress: Progress) -> list[_Stream]:
        own = overridden(self, AISMultiShardStream, ["_get_shard_objects_iterator"])
        marks = _saved_marks(progress, len(self._data_sources))
        streams = []
        for source, mark in zip(self._data_sources, marks, strict=True):
            stream = _Stream(f"{source.bucket_name}/{source.prefix}", *mark)
            if own:
                given = iter(self._get_shard_objects_iterator(source.bucket, source.prefix, source.etl_name))
                stream.follow(stream.count(given))
            else:
                stream.follow(self._members(source.bucket, source.prefix, source.etl_name, stream))
            streams.append(stream)
        return streams

    def _side_by_side(self, streams: list[_Stream], progress: Progress) -> Iterator[tuple[bytes, ...]]:
        while streams:
            members = [stream.next() for stream in streams]
            over = [stream.name for stream, member in zip(streams, members, strict=True) if member is _END]
            if over and (self._cut_to_shortest or len(over) == len(streams)):
                return
            if over:
                going = next(stream.name for stream in streams if stream.name not in over or stream.going)
                raise ShardError(
                    f"series of different length: {over[0]!r} ends after {progress.position} members, "
                    f"and {going!r} goes on; cut_to_shortest=True ends with the shortest"
                )
            yield tuple(members)

    def _get_shard_objects_iterator(
        self, bucket: Any, prefix: str = "", etl_name: str | None = ""
    ) -> Iterator[bytes]:
        """The contents of all members of the shards whose names begin with ``prefix``."""
        return self._members(bucket, prefix, etl_name, _Stream(prefix, 0, 0))

    def _members(self, bucket: Any, prefix: str, etl_name: str | None, stream: _Stream) -> Iterator[bytes]:
        shards = islice(found_in(bucket, prefix or "", Places()), stream.shards, None)

        def is_whole(found: Found) -> bool:
            return found.name.endswith(_WHOLE) and not etl_name

        for whole, group in groupby(shards, is_whole):
            opened = self._opened(group, etl_name, whole=whole)
            with closing(opened):
                for members in opened:
                    with closing(members):
                        yield from stream.members(members)

    def _opened(self, founds: Iterator[Found], etl_name: str | None, *, whole: bool) -> _Opened:
        if not whole:
            for found in founds:
                yield self._single(found, etl_name)
            return
        results = self._whole.read(founds)
        with closing(results):
            for found, content, error in results:
                if error is not None:
                    raise error
                yield _unpacked(content, found)

    def _single(self, found: Found, etl_name: str | None) -> Generator[bytes, None, None]:
        """Members one by one, many at once, as AIStore lists them; none of what is no archive."""
        place = found.place
        if place is None or not found.name.endswith(_ARCHIVES):
            return
        listing = place.backend(None).list(f"{found.url}?archpath=", sizes=False)
        members = (Found(url, url, place=place) for url, _ in listing)
        results = self._reader(etl_name, _MEMBERS_IN_FLIGHT).read(members)
        with closing(results):
            for _, data, error in results:
                if error is not None:
                    raise error
                yield data


class _Stream:
    """One series: what comes next, and where it is: shards that are over, members of the present one."""

    def __init__(self, name: str, shards: int, within: int) -> None:
        self.name = name
        self.shards = shards
        self.within = within
        self.going = False
        self._source: Iterator[bytes] = iter(())

    def follow(self, source: Iterator[bytes]) -> None:
        self._source = source

    def next(self) -> Any:
        member = next(self._source, _END)
        self.going = member is not _END
        return member

    def members(self, shard: Iterator[bytes]) -> Iterator[bytes]:
        """Those of ``shard`` that have not been given yet."""
        for member in islice(shard, self.within, None):
            self.within += 1
            yield member
        self.shards, self.within = self.shards + 1, 0

    def count(self, source: Iterator[bytes]) -> Iterator[bytes]:
        """What comes from a subclass's own iterator: one shard without end."""
        return self.members(source)

    def mark(self) -> list[int]:
        return [self.shards, self.within]

    def close(self) -> None:
        close = getattr(self._source, "close", None)
        if close is not None:
            close()


def _saved_marks(progress: Progress, count: int) -> list[list[int]]:
    """Where each of ``count`` series was."""
    if not progress.position:
        return [[0, 0]] * count
    marks = progress.extra.get(STREAMS)
    if not isinstance(marks, list) or len(marks) != count:
        raise StateError(f"the state is of {marks!r:.200}, and there are {count} series of shards")
    for mark in marks:
        if not isinstance(mark, list) or len(mark) != 2 or not all(type(part) is int for part in mark):
            raise StateError(f"the state is damaged: its {STREAMS!r} is {marks!r:.200}")
    return marks


def _unpacked(content: bytes, found: Found) -> Generator[bytes, None, None]:
    """The members of a shard, in the order of their names, each cut out when its turn comes."""
    try:
        if found.name.endswith(".zip"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = [entry for entry in archive.infolist() if not entry.is_dir()]
                unzipped = [(entry.filename, archive.read(entry)) for entry in entries]
            return (data for _, data in sorted(unzipped, key=_by_name))
        plain = content if found.name.endswith(".tar") else gzip.decompress(content)
        members = sorted(tar_members(plain, url=found.url or found.name), key=_by_name)
        return (plain[offset : offset + size] for _, offset, size in members)
    except ShardError as error:
        raise TarShardError(str(error), url=found.url, operation="read") from None
    except (zipfile.BadZipFile, EOFError, OSError, zlib.error) as error:
        raise TarShardError(f"read {found.url!r} failed: {error}", url=found.url, operation="read") from error


def _by_name(member: tuple[Any, ...]) -> bytes:
    name: str = member[0]
    return name.encode("utf-8", "surrogateescape")
