"""Writes to AIStore: ``write``, ``open_write``, ``remove``; and ``stat``, which is asked in the same way.

An object is uploaded by one PUT, whatever its size, with its checksum ahead: the target keeps nothing that
does not agree, and its answer is compared once more. Multipart uploads are not used: what comes of them has
no checksum of the whole, and a writer that dies leaves its parts behind.
"""

from __future__ import annotations

import errno
import tempfile
from typing import BinaryIO, cast

from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_errors import ais_error, client
from datapipes.backends.ais_names import AisName, check_object, parse_ais_url
from datapipes.backends.ais_opened import Opened
from datapipes.backends.ais_sending import Body, send
from datapipes.backends.atomic_writer import AtomicWriter
from datapipes.errors import (
    ChecksumMismatchError,
    ContainerMissingError,
    FileMissingError,
    UrlError,
    error_from_os,
)

__all__ = ["open_write", "remove", "stat_size", "write"]

_IN_MEMORY_BYTES = 8 << 20
"""What is written to a stream is kept in memory up to this size, and in a temporary file beyond it."""


def write(cluster: AisCluster, url: str, data: bytes | bytearray | memoryview) -> None:
    """``Backend.write``."""
    view = memoryview(data).cast("B")
    name = _object(url, "write")
    _put(cluster, url, name, Body(view, view.nbytes, client("xxhash").xxh64_hexdigest(view)))


def open_write(cluster: AisCluster, url: str) -> BinaryIO:
    """``Backend.open_write``: the object appears by one upload when the stream is closed."""
    return cast("BinaryIO", _Writer(cluster, url, _object(url, "write")))


def remove(cluster: AisCluster, url: str) -> None:
    """``Backend.remove``."""
    name = _object(url, "remove")
    tries = 0

    def ask(opened: Opened) -> None:
        nonlocal tries
        tries += 1
        try:
            send(cluster, opened, "DELETE", name, url=url, operation="remove")
        except FileMissingError as error:
            if tries == 1 or isinstance(error, ContainerMissingError):
                raise
            # The try before has removed it, and its answer was lost.

    cluster.call(ask, url=url, operation="remove")


def stat_size(cluster: AisCluster, url: str) -> int:
    """The size of an object in bytes. Of a member, or of what an ETL makes, only reading it tells."""
    name = _object(url, "stat")

    def ask(opened: Opened) -> int:
        headers = {"Accept-Encoding": "identity"}
        answer = send(cluster, opened, "HEAD", name, url=url, operation="stat", headers=headers)
        if "Ais-Checksum-Value" in answer.headers or "Ais-Version" in answer.headers:
            return int(answer.headers.get("Content-Length", 0))  # AIStore leaves it out where it is 0
        return int(answer.headers["Content-Length"])

    return cluster.call(ask, url=url, operation="stat")


def _object(url: str, operation: str) -> AisName:
    """The object that ``url`` names; UrlError for a member, or for what an ETL makes."""
    name = check_object(parse_ais_url(url), url, operation)
    if name.archpath is not None or name.etl_name is not None:
        what = "a member of a shard" if name.archpath is not None else "what an ETL makes"
        raise ais_error(
            UrlError,
            f"{operation} {url!r} failed: {what} can be read, and nothing else",
            url=url,
            operation=operation,
        )
    return name


def _put(cluster: AisCluster, url: str, name: AisName, body: Body) -> None:
    def ask(opened: Opened) -> None:
        answer = send(cluster, opened, "PUT", name, url=url, operation="write", body=body)
        stored = answer.headers.get("Ais-Checksum-Value", "")
        if answer.headers.get("Ais-Checksum-Type") == "xxhash2" and stored != body.checksum:
            raise ChecksumMismatchError(
                f"write {url!r} failed: {body.size} bytes of checksum {body.checksum} were sent, and the "
                f"cluster holds {stored} [EIO]. Write it again",
                url=url,
                operation="write",
                errno=errno.EIO,
            )

    cluster.call(ask, url=url, operation="write")


class _Writer(AtomicWriter):
    _file: BinaryIO | None = None

    def __init__(self, cluster: AisCluster, url: str, name: AisName) -> None:
        self._hash = client("xxhash").xxh64()
        super().__init__(url)
        self._cluster = cluster
        self._object = name
        self._memory = bytearray()
        self._size = 0

    def put(self, data: bytearray | memoryview) -> None:
        self._hash.update(data)
        self._size += len(data)
        if self._file is None and self._size <= _IN_MEMORY_BYTES:
            self._memory += data
            return
        try:
            if self._file is None:
                self._file = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115 - commit closes it
                self._file.write(self._memory)
                self._memory = bytearray()
            self._file.write(data)
        except OSError as error:
            hint = f"It was being collected in {tempfile.gettempdir()!r} (TMPDIR)"
            raise error_from_os(error, url=self.name, operation="write", hint=hint) from None

    def commit(self) -> None:
        body = Body(self._file or self._memory, self._size, self._hash.hexdigest())
        _put(self._cluster, self.name, self._object, body)
        self.abandon()

    def abandon(self) -> None:
        file, self._file, self._memory = self._file, None, bytearray()
        if file is not None:
            file.close()
