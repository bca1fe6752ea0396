"""AIStore: control through its SDK, payload by many HTTP reads at once, straight from the owning targets."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import NoneType
from typing import Any, BinaryIO

from datapipes.backends.ais_batches import GetBatch
from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_names import parse_ais_url
from datapipes.backends.ais_reading import AisReads, Asking, http_reads
from datapipes.backends.base import (
    DEFAULT_BUFFER_BYTES,
    DEFAULT_IN_FLIGHT,
    DEFAULT_TIMEOUT_S,
    DEFAULT_WRITE_BYTES,
    Backend,
    ReadIterator,
)
from datapipes.backends.checks import check_option, check_read_options, check_write_options
from datapipes.backends.handle_spool import HandleSpool
from datapipes.backends.reads import writable_reads
from datapipes.errors import OptionError
from datapipes.records import FileEntry, HandleFile, ReadRequest

__all__ = ["AisBackend"]


@dataclass(frozen=True)
class AisBackend(Backend):
    """``ais://bucket/name``, and buckets of other stores behind the cluster (``s3://``, ``gs://``, ...).

    Objects are read straight from the targets that own them, as far as the cluster allows; else, and for data
    that lies in another store, through the proxy. What cannot be asked in ranges (members of shards, what an
    ETL makes) is read whole, and cut here.

    Attributes:
        cluster: how to reach it; by default ``AIS_ENDPOINT`` and the SDK's other variables.
        etl_name: every object is read as what this ETL makes of it.
        get_batch: whole objects are read by Get-Batch; what that does not give, and ranges, by GETs.
    """

    cluster: AisCluster = field(default_factory=AisCluster)
    etl_name: str | None = None
    get_batch: GetBatch | None = None

    scheme = "ais"
    prefix_is_directory = False

    def list(
        self,
        prefix: str,
        *,
        recursive: bool = True,
        start_after: str | None = None,
        sizes: bool = True,
        types: bool = True,  # noqa: ARG002 - all are objects
        handles: HandleSpool | None = None,  # noqa: ARG002 - opening costs nothing
    ) -> Iterator[FileEntry]:
        from datapipes.backends.ais_listing import list_objects  # noqa: PLC0415 - loads the SDK

        return list_objects(self.cluster, prefix, recursive=recursive, start_after=start_after, sizes=sizes)

    def read_many(
        self,
        requests: Iterable[ReadRequest],
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        ordered: bool = True,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify_size: bool = False,
        writable: bool = False,
        handles: HandleFile | None = None,  # noqa: ARG002 - opening costs nothing
    ) -> ReadIterator:
        max_in_flight, max_buffer_bytes = check_read_options(
            max_in_flight=max_in_flight, max_buffer_bytes=max_buffer_bytes, timeout_s=timeout_s
        )
        asking = Asking(self.cluster, self.etl_name, self.get_batch)
        reads = http_reads(
            requests,
            asking,
            max_in_flight=max_in_flight,
            max_buffer_bytes=max_buffer_bytes,
            ordered=ordered,
            timeout_s=timeout_s,
        )
        results = AisReads(reads, asking, verify_size=verify_size)
        return writable_reads(results) if writable else results

    def stat(self, url: str) -> FileEntry:
        from datapipes.backends.ais_writing import stat_size  # noqa: PLC0415 - loads the SDK

        return FileEntry(url, len(self.read(url)) if self._is_made(url) else stat_size(self.cluster, url))

    def open(self, url: str) -> BinaryIO:
        return io.BytesIO(self.read(url)) if self._is_made(url) else super().open(url)

    def _is_made(self, url: str) -> bool:
        """Whether an answer is made when it is asked for: its size is known when it has come."""
        name = parse_ais_url(url)
        return self.etl_name is not None or name.archpath is not None or name.etl_name is not None

    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        from datapipes.backends.ais_writing import write  # noqa: PLC0415 - loads the SDK

        write(self.cluster, url, data)

    def open_write(
        self, url: str, *, chunk_bytes: int = DEFAULT_WRITE_BYTES, max_in_flight: int = 1
    ) -> BinaryIO:
        chunk_bytes, max_in_flight = check_write_options(chunk_bytes, max_in_flight)
        from datapipes.backends.ais_writing import open_write  # noqa: PLC0415 - loads the SDK

        return open_write(self.cluster, url)

    def remove(self, url: str) -> None:
        from datapipes.backends.ais_writing import remove  # noqa: PLC0415 - loads the SDK

        remove(self.cluster, url)

    def check_scheme(self, url: str) -> None:
        parse_ais_url(url)


def from_url(url: str) -> AisBackend:  # noqa: ARG001 - one cluster serves every bucket
    """The cluster at ``AIS_ENDPOINT``, whatever bucket ``url`` names."""
    return AisBackend()


def from_options(
    *, etl_name: str | None = None, batch_reads: bool | int = False, **cluster: Any
) -> AisBackend:
    """The cluster with these options; see ``AisCluster``. ``batch_reads``: by Get-Batch; a number says how
    many objects one request asks for."""
    if not isinstance(batch_reads, int):
        raise OptionError(f"batch_reads must be True, False or a whole number, not {batch_reads!r}")
    if not isinstance(etl_name, (str, NoneType)):
        raise OptionError(f"etl_name must be a str or None, not {etl_name!r}")
    check_option("batch_reads", int(batch_reads), least=0, most=1e6)
    get_batch = GetBatch(0 if batch_reads is True else batch_reads) if batch_reads else None
    return AisBackend(AisCluster(**cluster), etl_name, get_batch)
