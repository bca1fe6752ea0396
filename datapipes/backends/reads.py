"""Iterators of read results that are made in Python: one request at a time, and results passed through."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping

from datapipes.backends.base import ReadIterator
from datapipes.records import ReadRequest, ReadResult

__all__ = ["PassedReads", "SerialReads", "writable_reads"]


class SerialReads:
    """Results of ``answer(position, request)``, each made when it is asked for.

    For stores that have nothing to wait for. Nothing is read ahead, so every bound holds by itself.
    """

    def __init__(
        self, requests: Iterable[ReadRequest], answer: Callable[[int, ReadRequest], ReadResult]
    ) -> None:
        self._requests: Iterator[ReadRequest] | None = iter(requests)
        self._answer = answer
        self._lock = threading.Lock()  # one ``next`` at a time: generators cannot be entered twice
        self._items = self._bytes = self._errors = 0
        self._wait_s = 0.0

    def __iter__(self) -> Iterator[ReadResult]:
        return self

    def __next__(self) -> ReadResult:
        with self._lock:
            requests = self._requests
            if requests is None:
                raise StopIteration
            began = time.perf_counter()
            try:
                request = next(requests)
            except BaseException:
                self._requests = None  # after the end, and after an error, nothing more comes
                raise
            if self._requests is None:  # closed while the request was waited for
                raise StopIteration
            result = self._answer(self._items, request)
            self._items += 1
            if result.error is None:
                self._bytes += len(result.data or b"")
            else:
                self._errors += 1
            self._wait_s += time.perf_counter() - began
            return result

    def close(self) -> None:
        self._requests = None

    def stats(self) -> Mapping[str, float]:
        return {
            "items": self._items,
            "bytes": self._bytes,
            "errors": self._errors,
            "wait_s": self._wait_s,
            "depth": 1,
        }


class PassedReads:
    """The results of another reader, each passed through ``each``."""

    def __init__(self, inner: ReadIterator, each: Callable[[ReadResult], ReadResult]) -> None:
        self._inner = inner
        self._each = each

    def __iter__(self) -> Iterator[ReadResult]:
        return self

    def __next__(self) -> ReadResult:
        return self._each(next(self._inner))

    def close(self) -> None:
        self._inner.close()

    def stats(self) -> Mapping[str, float]:
        return self._inner.stats()


def writable_reads(reads: ReadIterator) -> ReadIterator:
    """The results of ``reads`` with copies of their data that can be written to, for clients that make
    bytes."""
    return PassedReads(reads, _as_bytearray)


def _as_bytearray(result: ReadResult) -> ReadResult:
    return result if result.data is None else result._replace(data=bytearray(result.data))
