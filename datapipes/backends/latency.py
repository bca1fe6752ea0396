"""A store with round trips: speed can be measured, and waiting tried, without a network."""

from __future__ import annotations

import collections
import errno
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from datapipes.backends.base import (
    DEFAULT_IN_FLIGHT,
    DEFAULT_TIMEOUT_S,
    ListOptions,
    ReadIterator,
    ReadOptions,
)
from datapipes.backends.checks import check_option, check_read_options
from datapipes.backends.wrapping import ReadsWrapper
from datapipes.errors import error_from_errno
from datapipes.records import FileEntry, ReadRequest, ReadResult

__all__ = ["LatencyBackend"]


@dataclass(frozen=True)
class LatencyBackend(ReadsWrapper):
    """``inner`` as if each call went over a slow line; up to ``max_in_flight`` reads wait side by side.

    Attributes:
        open_s: seconds that ``stat``, ``write``, ``remove`` and the opening of each file read take longer.
        read_s: seconds that each read takes longer, on top of ``open_s``.
        list_s: seconds before a listing's first entry.
    """

    open_s: float = 0.0
    read_s: float = 0.0
    list_s: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("open_s", "read_s", "list_s"):
            check_option(name, getattr(self, name), least=0, most=1e6)

    def list(self, prefix: str, **options: Unpack[ListOptions]) -> Iterator[FileEntry]:
        return self._late(self.inner.list(prefix, **options))

    def _late(self, entries: Iterator[FileEntry]) -> Iterator[FileEntry]:
        time.sleep(self.list_s)
        yield from entries

    def read_many(self, requests: Iterable[ReadRequest], **options: Unpack[ReadOptions]) -> ReadIterator:
        max_in_flight = options.get("max_in_flight", DEFAULT_IN_FLIGHT)
        timeout_s = options.get("timeout_s", DEFAULT_TIMEOUT_S)
        max_in_flight, _ = check_read_options(max_in_flight=max_in_flight, timeout_s=timeout_s)

        def read(late: Iterable[ReadRequest]) -> ReadIterator:
            return self.inner.read_many(late, **options)

        return _LateReads(requests, read, self.open_s + self.read_s, timeout_s, max_in_flight)

    def stat(self, url: str) -> FileEntry:
        time.sleep(self.open_s)
        return self.inner.stat(url)

    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        time.sleep(self.open_s)
        self.inner.write(url, data)

    def remove(self, url: str) -> None:
        time.sleep(self.open_s)
        self.inner.remove(url)


class _LateReads:
    """Results no earlier than ``delay_s`` after their request was pulled.

    As many requests as may be in flight are pulled ahead here, because ``inner`` may be too quick to do so.
    """

    def __init__(
        self,
        requests: Iterable[ReadRequest],
        read: Callable[[Iterable[ReadRequest]], ReadIterator],
        delay_s: float,
        timeout_s: float | None,
        max_in_flight: int,
    ) -> None:
        self._requests = iter(requests)
        self._wait_s = delay_s if timeout_s is None else min(delay_s, timeout_s)
        self._times_out = timeout_s is not None and delay_s > timeout_s
        self._max_in_flight = max_in_flight
        self._lock = threading.Lock()  # one ``next`` at a time
        self._closed = threading.Event()
        self._ahead: collections.deque[ReadRequest | Exception] = collections.deque()
        self._due: dict[int, float] = {}
        self._pulled = self._taken = 0
        self._exhausted = False
        self._waited_s = 0.0
        self._inner = read(self._feed())

    def __iter__(self) -> Iterator[ReadResult]:
        return self

    def __next__(self) -> ReadResult:
        with self._lock:
            while not self._exhausted and self._pulled - self._taken < self._max_in_flight:
                self._pull()
            result = next(self._inner)
            began = time.monotonic()
            self._closed.wait(max(0.0, self._due.pop(result.position) - began))
            self._waited_s += time.monotonic() - began
            if self._closed.is_set():
                raise StopIteration
            self._taken += 1
            if self._times_out:
                error = error_from_errno(errno.ETIMEDOUT, url=result.request.url, operation="open")
                return result._replace(data=None, error=error)
            return result

    def _pull(self) -> None:
        try:
            self._ahead.append(next(self._requests))
            self._due[self._pulled] = time.monotonic() + self._wait_s
            self._pulled += 1
        except StopIteration:
            self._exhausted = True
        except Exception as error:  # noqa: BLE001 - raised in its turn, after the results before it
            self._ahead.append(error)
            self._exhausted = True

    def _feed(self) -> Iterator[ReadRequest]:
        while True:
            if not self._ahead and not self._exhausted:
                self._pull()
            if not self._ahead:
                return
            item = self._ahead.popleft()
            if isinstance(item, Exception):
                raise item
            yield item

    def close(self) -> None:
        self._closed.set()
        self._inner.close()

    def stats(self) -> Mapping[str, float]:
        stats: dict[str, Any] = dict(self._inner.stats())
        stats["wait_s"] = stats.get("wait_s", 0.0) + self._waited_s
        return stats
