"""The contract of a store (``Backend``), proved by ``datapipes.testing.BackendContract``.

A back end is a small frozen specification (endpoint, options) that is picklable and comparable. What is
live (handles, threads, connections) is made at first use in each process and never travels: a forked child
or a spawned worker opens its own. The docstrings here are the contract; back ends add only what differs.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO, Protocol, TypedDict, Unpack

from datapipes.backends.handle_spool import HandleSpool
from datapipes.backends.range_reader import RangeReader
from datapipes.errors import OptionError, UrlError
from datapipes.records import WHOLE, FileEntry, HandleFile, ReadRequest, ReadResult
from datapipes.urls import scheme_of

__all__ = [
    "DEFAULT_BUFFER_BYTES",
    "DEFAULT_HANDLE_CACHE_BYTES",
    "DEFAULT_IN_FLIGHT",
    "DEFAULT_TIMEOUT_S",
    "DEFAULT_WRITE_BYTES",
    "Backend",
    "BatchOptions",
    "ListOptions",
    "ReadIterator",
    "ReadOptions",
    "batch_spans",
]

DEFAULT_IN_FLIGHT = 64
DEFAULT_BUFFER_BYTES = 64 * 1024 * 1024
DEFAULT_TIMEOUT_S = 60.0
DEFAULT_WRITE_BYTES = 1 << 20
DEFAULT_HANDLE_CACHE_BYTES = 512 * 1024 * 1024  # of one index on each host: a million files' handles

Results = list[ReadResult]  # inside Backend, ``list`` is its method
Contents = list[bytes | bytearray | memoryview]


class ReadIterator(Protocol):
    """What ``read_many`` returns: an iterator of results that can be closed early."""

    def __iter__(self) -> Iterator[ReadResult]: ...
    def __next__(self) -> ReadResult: ...

    def close(self) -> None:
        """Cancel what is in flight and free its memory; safe to call twice and from another thread, which
        makes a ``__next__`` that waits end with StopIteration."""

    def stats(self) -> Mapping[str, float]:
        """``items``, ``bytes``, ``errors``, ``wait_s`` (time the caller waited), ``depth`` (reads at once: as
        adapted last, or the most there were)."""


class ListOptions(TypedDict, total=False):
    """The options of ``list``, for back ends that pass them on."""

    recursive: bool
    start_after: str | None
    sizes: bool
    types: bool
    handles: HandleSpool | None


class ReadOptions(TypedDict, total=False):
    """The options of ``read_many``, for back ends that pass them on."""

    max_in_flight: int
    max_buffer_bytes: int
    ordered: bool
    timeout_s: float | None
    verify_size: bool
    writable: bool
    handles: HandleFile | None


class BatchOptions(TypedDict, total=False):
    """The options of ``read_batch``, likewise."""

    out: memoryview | None
    max_in_flight: int
    timeout_s: float | None
    verify_size: bool
    writable: bool
    handles: HandleFile | None


class Backend(ABC):
    """One store, as seen by stages: list, read many, open, stat, write, remove."""

    scheme: str
    """The URL scheme this back end serves."""

    prefix_is_directory: bool = True
    """True for file stores, whose prefix is a directory (or one file) that must exist. False for object
    stores, whose prefix is any leading part of a name and may match nothing."""

    @abstractmethod
    def list(
        self,
        prefix: str,
        *,
        recursive: bool = True,
        start_after: str | None = None,
        sizes: bool = True,
        types: bool = True,
        handles: HandleSpool | None = None,
    ) -> Iterator[FileEntry]:
        """Stream the files under ``prefix`` in ascending byte order of the whole path.

        A directory sorts as its name plus ``/``, so ``a-b``, ``a.txt``, ``a/x`` come in this order. The order
        is the same on every call while the data is unchanged; memory is bounded by the largest single
        directory. ``start_after`` (a URL of an earlier entry) skips everything up to and including it.
        A missing prefix raises FileMissingError, a missing container ContainerMissingError, when the first
        entry is asked for.

        With ``sizes=False`` entries may carry ``UNKNOWN_SIZE``; with ``types=False`` too, the caller says
        that only files are under ``prefix``: where types have to be asked for, names are taken for files'
        (reading a directory fails). In ``handles`` stores keep what opens a file again, where looking does.
        """

    @abstractmethod
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
        handles: HandleFile | None = None,
    ) -> ReadIterator:
        """Read many files or ranges at once; a result or an error for each, nothing raised for one item.

        ``requests`` is pulled as results are taken, at most ``max_in_flight`` ahead of the last one taken.
        Read-ahead holds at most ``max_buffer_bytes`` (one larger file is read alone). Results come in request
        order, or with ``ordered=False`` as completed. An item that takes longer than ``timeout_s`` (None: no
        bound) yields StoreTimeoutError. A file or range that ends too early is an error and, with
        ``verify_size``, any file that is not ``request.size`` bytes long. An exception of ``requests`` itself
        is raised after the results before it. With ``writable`` the data of each result is a ``bytearray`` of
        its own.

        With ``handles``, stores for which opening a file is costly keep there what it has taught them, and
        open the file by that the next time, in whatever process. Whatever then goes wrong is looked at again
        by path before it is reported. A size that was learnt counts as one that was listed: growth in place
        is noticed with ``verify_size``. Other stores ignore it.
        """

    @abstractmethod
    def stat(self, url: str) -> FileEntry:
        """URL and size of one file; FileMissingError, IsDirectoryError."""

    @abstractmethod
    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        """Make or replace a file at once: a reader sees the old content or the new, never a part.
        Missing parent directories are made."""

    @abstractmethod
    def open_write(
        self, url: str, *, chunk_bytes: int = DEFAULT_WRITE_BYTES, max_in_flight: int = 1
    ) -> BinaryIO:
        """A writable stream (a context manager) whose file appears when it is closed without an error, and
        not at all when the ``with`` block raises.

        Small writes are collected into chunks of at most ``chunk_bytes``. Stores that take a file in parts
        write up to ``max_in_flight`` chunks at the same time, and hold one more in memory; a larger write is
        cut into such parts where it lies, and waited for. An error of a chunk comes from a later call, from
        ``close`` at the latest. Other stores write in order.
        """

    @abstractmethod
    def remove(self, url: str) -> None:
        """Remove one file; FileMissingError when it is not there."""

    def read_batch(
        self,
        requests: Sequence[ReadRequest],
        *,
        out: memoryview | None = None,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify_size: bool = False,
        writable: bool = False,
        handles: HandleFile | None = None,
    ) -> Results:
        """Read a whole batch and wait for all of it, results in request order.

        With ``out``, a writable C-contiguous buffer of bytes, the data is laid into it back to back in
        request order and each result's ``data`` is a view of its part; sizes must be known (``length`` or
        ``size`` of every request) and fit, else OptionError. ``writable`` then says nothing.

        Note to implementers: this default is right for every store; override it to spare copies.
        """
        results = self.read_many(
            requests,
            max_in_flight=max_in_flight,
            max_buffer_bytes=1 << 62,
            timeout_s=timeout_s,
            verify_size=verify_size,
            writable=writable and out is None,
            handles=handles,
        )
        try:
            if out is None:
                return list(results)
            return _lay_out(results, batch_spans(requests, out), out)
        finally:
            results.close()

    def read_files(
        self, urls: Sequence[str], sizes: Sequence[int], **options: Unpack[BatchOptions]
    ) -> Contents:
        """The contents of whole files, all read at once, in the order of ``urls``.

        ``sizes`` are in bytes, negative where unknown. Raises the error of the first file that failed. The
        options are those of ``read_batch``.

        Note to implementers: override it where results need not be made to be taken apart again.
        """
        requests = [ReadRequest(url, 0, WHOLE, size) for url, size in zip(urls, sizes, strict=True)]
        return [result.unwrap() for result in self.read_batch(requests, **options)]

    def read(self, url: str) -> bytes:
        """One whole file as bytes."""
        return bytes(self.read_batch([ReadRequest(url)])[0].unwrap())

    def open(self, url: str) -> BinaryIO:
        """A seekable reader that fetches ranges as they are asked for."""
        return io.BufferedReader(RangeReader(self, url, self.stat(url).size), buffer_size=1 << 20)

    def stats(self) -> Mapping[str, float]:
        """Counters of this process since the back end was first used."""
        return {}

    def check_scheme(self, url: str) -> None:
        """Raise UrlError when ``url`` belongs to another store."""
        scheme = scheme_of(url)
        if scheme != self.scheme:
            raise UrlError(
                f"{url!r} is a {scheme!r} URL, and this reads {self.scheme!r} URLs only",
                url=url,
                operation="parse",
            )


def batch_spans(requests: Sequence[ReadRequest], out: memoryview) -> list[tuple[int, int]]:
    """(start, end) of each request's part of ``out``; OptionError where a size is unknown or does not fit."""
    if out.readonly or not out.c_contiguous:
        raise OptionError("out must be a writable, C-contiguous buffer")
    spans, at = [], 0
    for request in requests:
        length = request.length if request.length >= 0 else request.size - request.offset
        if request.length < 0 and request.size < 0:
            raise OptionError(
                f"out= needs the size of every request; {request.url!r} has none", url=request.url
            )
        if length < 0:
            raise OptionError(f"the request starts beyond the end of {request.url!r}", url=request.url)
        spans.append((at, at + length))
        at += length
    if at > out.nbytes:
        raise OptionError(f"out holds {out.nbytes} bytes and the batch needs {at}")
    return spans


def _lay_out(results: ReadIterator, spans: list[tuple[int, int]], out: memoryview) -> Results:
    flat = out.cast("B")

    def laid(result: ReadResult) -> ReadResult:
        if result.data is None:
            return result
        start, end = spans[result.position]
        flat[start:end] = result.data
        return result._replace(data=flat[start:end])

    return [laid(result) for result in results]
