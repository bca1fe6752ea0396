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

from datapipes.errors import OptionError, UrlError
from datapipes.records import WHOLE, FileEntry, ReadRequest, ReadResult
from datapipes.urls import scheme_of

__all__ = [
    "DEFAULT_BUFFER_BYTES",
    "DEFAULT_IN_FLIGHT",
    "DEFAULT_TIMEOUT_S",
    "MOST_IN_FLIGHT",
    "Backend",
    "BatchOptions",
    "ReadIterator",
    "ReadOptions",
    "batch_spans",
    "check_option",
    "check_read_options",
]

DEFAULT_IN_FLIGHT = 64
DEFAULT_BUFFER_BYTES = 64 * 1024 * 1024
DEFAULT_TIMEOUT_S = 60.0
MOST_IN_FLIGHT = 1 << 16
"""Above this ``max_in_flight`` is taken for a mistake."""


Results = list[ReadResult]  # inside Backend, ``list`` is its method
Contents = list[bytes | memoryview]


class ReadIterator(Protocol):
    """What ``read_many`` returns: an iterator of results that can be closed early."""

    def __iter__(self) -> Iterator[ReadResult]: ...
    def __next__(self) -> ReadResult: ...

    def close(self) -> None:
        """Cancel what is in flight and free its memory; safe to call twice and from another thread, which
        makes a ``__next__`` that waits end with StopIteration."""

    def stats(self) -> Mapping[str, float]:
        """``items``, ``bytes``, ``errors``, ``wait_s`` (time the caller waited), ``depth`` (current)."""


class ReadOptions(TypedDict, total=False):
    """The options of ``read_many``, for back ends that pass them on."""

    max_in_flight: int
    max_buffer_bytes: int
    ordered: bool
    timeout_s: float | None
    verify_size: bool


class BatchOptions(TypedDict, total=False):
    """The options of ``read_batch``, likewise."""

    out: memoryview | None
    max_in_flight: int
    timeout_s: float | None
    verify_size: bool


class Backend(ABC):
    """One store, as seen by stages: list, read many, open, stat, write, remove."""

    scheme: str
    """The URL scheme this back end serves."""

    prefix_is_directory: bool = True
    """True for file stores, whose prefix is a directory (or one file) that must exist. False for object
    stores, whose prefix is any leading part of a name and may match nothing."""

    @abstractmethod
    def list(
        self, prefix: str, *, recursive: bool = True, start_after: str | None = None, sizes: bool = True
    ) -> Iterator[FileEntry]:
        """Stream the files under ``prefix`` in ascending byte order of the whole path.

        A directory sorts as its name plus ``/``, so ``a-b``, ``a.txt``, ``a/x`` come in this order. The order
        is the same on every call while the data is unchanged; memory is bounded by the largest single
        directory. ``start_after`` (a URL of an earlier entry) skips everything up to and including it.
        With ``sizes=False`` entries may carry ``UNKNOWN_SIZE``. A missing prefix raises FileMissingError, a
        missing container ContainerMissingError, when the first entry is asked for.
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
    ) -> ReadIterator:
        """Read many files or ranges at once; a result or an error for each, nothing raised for one item.

        ``requests`` is pulled as results are taken, at most ``max_in_flight`` ahead of the last one taken.
        Read-ahead holds at most ``max_buffer_bytes`` (one larger file is read alone). Results come in request
        order, or with ``ordered=False`` as completed. An item that takes longer than ``timeout_s`` (None: no
        bound) yields StoreTimeoutError. A file or range that ends too early is an error and, with
        ``verify_size``, any file that is not ``request.size`` bytes long. An exception of ``requests`` itself
        is raised after the results before it.
        """

    @abstractmethod
    def stat(self, url: str) -> FileEntry:
        """URL and size of one file; FileMissingError, IsDirectoryError."""

    @abstractmethod
    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        """Make or replace a file at once: a reader sees the old content or the new, never a part.
        Missing parent directories are made."""

    @abstractmethod
    def open_write(self, url: str) -> BinaryIO:
        """A writable stream (a context manager) whose file appears when it is closed without an error, and
        not at all when the ``with`` block raises."""

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
    ) -> Results:
        """Read a whole batch and wait for all of it, results in request order.

        With ``out``, a writable C-contiguous buffer of bytes, the data is laid into it back to back in
        request order and each result's ``data`` is a view of its part; sizes must be known (``length`` or
        ``size`` of every request) and fit, else OptionError.

        Note to implementers: this default is right for every store; override it to spare copies.
        """
        results = self.read_many(
            requests,
            max_in_flight=max_in_flight,
            max_buffer_bytes=1 << 62,
            timeout_s=timeout_s,
            verify_size=verify_size,
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
        return io.BufferedReader(_RangeReader(self, url, self.stat(url).size), buffer_size=1 << 20)

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


def check_option(name: str, value: object, *, least: float, most: float = float("inf")) -> None:
    """Raise OptionError unless ``least <= value <= most``; for counts, bytes and seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        bound = f"at least {least}" if most == float("inf") else f"between {least} and {most}"
        raise OptionError(f"{name} must be a number {bound}, not {value!r}")


def check_read_options(*, max_in_flight: int, timeout_s: float | None, max_buffer_bytes: int = 1) -> None:
    """Raise OptionError unless these are options that ``read_many`` and ``read_batch`` can work with."""
    for name, value in (("max_in_flight", max_in_flight), ("max_buffer_bytes", max_buffer_bytes)):
        if not isinstance(value, int):
            raise OptionError(f"{name} must be a whole number, not {value!r}")
    check_option("max_in_flight", max_in_flight, least=1, most=MOST_IN_FLIGHT)
    check_option("max_buffer_bytes", max_buffer_bytes, least=1, most=1 << 62)
    if timeout_s is not None:
        check_option("timeout_s", timeout_s, least=0.001, most=1e9)


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


class _RangeReader(io.RawIOBase):
    def __init__(self, backend: Backend, url: str, size: int) -> None:
        self._backend, self._url, self._size, self._at = backend, url, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OptionError(f"seek to {base + offset} lies before the start of {self._url!r}")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._at)
        if length <= 0:
            return 0
        request = ReadRequest(self._url, self._at, length, self._size)
        buffer[:length] = self._backend.read_batch([request])[0].unwrap()
        self._at += length
        return length
