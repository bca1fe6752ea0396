"""Files in this process's memory: for documentation, tests, and data that a program makes itself."""

from __future__ import annotations

import bisect
import errno
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO, NoReturn, cast

from datapipes.backends.atomic_writer import AtomicWriter
from datapipes.backends.base import (
    DEFAULT_BUFFER_BYTES,
    DEFAULT_IN_FLIGHT,
    DEFAULT_TIMEOUT_S,
    DEFAULT_WRITE_BYTES,
    Backend,
    ReadIterator,
)
from datapipes.backends.checks import check_read_options, check_write_options
from datapipes.backends.handle_spool import HandleSpool
from datapipes.backends.paths import path_bytes, path_in, path_text
from datapipes.backends.reads import SerialReads, writable_reads
from datapipes.backends.slices import cut
from datapipes.errors import ContainerMissingError, DatapipesError, error_from_errno
from datapipes.records import UNKNOWN_SIZE, FileEntry, HandleFile, ReadRequest, ReadResult
from datapipes.urls import format_url, parse_url

__all__ = ["STORES", "MemoryBackend", "MemoryStore"]


class MemoryStore:
    """Files by path, and every directory that a file was ever put into."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.directories = {""}
        self._order: list[bytes] | None = None
        self._lock = threading.Lock()
        self._pid = os.getpid()

    def lock(self) -> threading.Lock:
        if self._pid != os.getpid():  # a fork may have copied a lock that nobody here will release
            self._lock, self._pid = threading.Lock(), os.getpid()
        return self._lock

    def put(self, path: str, data: bytes) -> int:
        """Returns 0, or the errno that says why no file can stand there."""
        names = path.split("/")
        parents = ["/".join(names[:i]) for i in range(1, len(names))]
        with self.lock():
            if path in self.directories or not names[-1]:
                return errno.EISDIR
            if any(parent in self.files for parent in parents):
                return errno.ENOTDIR
            self.directories.update(parents)
            self.files[path] = data
            self._order = None
        return 0

    def pop(self, path: str) -> bool:
        with self.lock():
            self._order = None
            return self.files.pop(path, None) is not None

    def order(self) -> list[bytes]:
        """All paths as bytes, in order; never changed once handed out."""
        with self.lock():
            if self._order is None:
                self._order = sorted(map(path_bytes, self.files))
            return self._order


STORES: dict[str, MemoryStore] = {}
"""The stores of this process by name."""


@dataclass(frozen=True)
class MemoryBackend(Backend):
    """A named store of this process: ``memory://name/path``. Writing to it makes it.

    It travels by its name. A forked child has the files of the moment of the fork; a process that starts
    afresh (``spawn``, ``forkserver``) finds the store missing until it fills its own.
    """

    name: str

    scheme = "memory"

    def list(
        self,
        prefix: str,
        *,
        recursive: bool = True,
        start_after: str | None = None,
        sizes: bool = True,
        types: bool = True,  # noqa: ARG002 - known anyway
        handles: HandleSpool | None = None,  # noqa: ARG002 - opening costs nothing
    ) -> Iterator[FileEntry]:
        path = self._path(prefix)
        after = b"" if start_after is None else path_bytes(self._path(start_after))
        return self._list(prefix, path, after, recursive=recursive, sizes=sizes)

    def _list(
        self, url: str, path: str, after: bytes, *, recursive: bool, sizes: bool
    ) -> Iterator[FileEntry]:
        store = self._store(url, "list")
        if path in store.files:
            names = [path_bytes(path)]
        elif path.rstrip("/") in store.directories:
            names = _below(store.order(), path.rstrip("/"), recursive=recursive)
        else:
            self._fail(store, path, url, "list")
        for name in names[bisect.bisect_right(names, after) :]:
            data = store.files.get(path_text(name))
            if data is not None:  # removed since the listing began
                entry = format_url(self.scheme, self.name, path_text(name))
                yield FileEntry(entry, len(data) if sizes else UNKNOWN_SIZE)

    def read_many(
        self,
        requests: Iterable[ReadRequest],
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        ordered: bool = True,  # noqa: ARG002 - there is one order only
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify_size: bool = False,
        writable: bool = False,
        handles: HandleFile | None = None,  # noqa: ARG002 - opening costs nothing
    ) -> ReadIterator:
        max_in_flight, max_buffer_bytes = check_read_options(
            max_in_flight=max_in_flight, max_buffer_bytes=max_buffer_bytes, timeout_s=timeout_s
        )
        reads = SerialReads(requests, partial(self._answer, verify_size=verify_size))
        return writable_reads(reads) if writable else reads

    def _answer(self, position: int, request: ReadRequest, *, verify_size: bool) -> ReadResult:
        try:
            data = cut(self._data(request.url, "open"), request, verify_size=verify_size)
        except DatapipesError as error:
            return ReadResult(position, request, None, error.with_traceback(None))
        return ReadResult(position, request, data, None)

    def stat(self, url: str) -> FileEntry:
        size = len(self._data(url, "stat"))
        return FileEntry(format_url(self.scheme, self.name, self._path(url)), size)

    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        path = self._path(url)
        failed = STORES.setdefault(self.name, MemoryStore()).put(path, bytes(data))
        if failed:
            raise error_from_errno(failed, url=url, operation="write")

    def open_write(
        self, url: str, *, chunk_bytes: int = DEFAULT_WRITE_BYTES, max_in_flight: int = 1
    ) -> BinaryIO:
        chunk_bytes, max_in_flight = check_write_options(chunk_bytes, max_in_flight)
        path = self._path(url)
        store = STORES.get(self.name)
        if not path or path.endswith("/") or (store is not None and path in store.directories):
            raise error_from_errno(errno.EISDIR, url=url, operation="write")
        return cast("BinaryIO", _MemoryWriter(self, url))

    def remove(self, url: str) -> None:
        self._data(url, "remove")
        if not self._store(url, "remove").pop(self._path(url)):
            raise error_from_errno(errno.ENOENT, url=url, operation="remove")

    def delete(self) -> None:
        """Forget the whole store and give its memory back."""
        STORES.pop(self.name, None)

    def _path(self, url: str) -> str:
        return path_in(url, scheme=self.scheme, container=self.name)

    def _store(self, url: str, operation: str) -> MemoryStore:
        store = STORES.get(self.name)
        if store is None:
            raise ContainerMissingError(
                f"{operation} {url!r} failed: no store {self.name!r} in this process [ENOENT]. "
                "A memory store is made by writing to it, and each process has its own",
                url=url,
                operation=operation,
                errno=errno.ENOENT,
            )
        return store

    def _data(self, url: str, operation: str) -> bytes:
        path = self._path(url)
        store = self._store(url, operation)
        data = store.files.get(path)
        if data is None:
            self._fail(store, path, url, operation)
        return data

    def _fail(self, store: MemoryStore, path: str, url: str, operation: str) -> NoReturn:
        if path.rstrip("/") in store.directories:
            raise error_from_errno(errno.EISDIR, url=url, operation=operation, hint="List it instead")
        names = path.split("/")
        below_file = any("/".join(names[:i]) in store.files for i in range(1, len(names)))
        code = errno.ENOTDIR if below_file else errno.ENOENT
        hint = "List its directory to see what is there"
        raise error_from_errno(code, url=url, operation=operation, hint=hint)


def _below(order: list[bytes], directory: str, *, recursive: bool) -> list[bytes]:
    """Of all paths in order, those below a directory."""
    inside = path_bytes(directory + "/") if directory else b""
    end = bisect.bisect_left(order, inside[:-1] + b"0") if inside else len(order)  # "0" follows "/"
    names = order[bisect.bisect_left(order, inside) : end]
    return names if recursive else [name for name in names if b"/" not in name[len(inside) :]]


class _MemoryWriter(AtomicWriter):
    def __init__(self, backend: MemoryBackend, url: str) -> None:
        super().__init__(url)
        self._backend = backend
        self._data = bytearray()

    def put(self, data: bytearray | memoryview) -> None:
        self._data += data

    def commit(self) -> None:
        self._backend.write(self.name, self._data)

    def abandon(self) -> None:
        self._data = bytearray()


def from_url(url: str) -> MemoryBackend:
    """The store that ``url`` names."""
    return MemoryBackend(parse_url(url).container)
