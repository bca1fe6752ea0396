"""Transient faults tried again, with back-off, inside a stated budget; permanent ones raised at once."""

from __future__ import annotations

import errno
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TypeVar, Unpack

from datapipes.backends.base import (
    DEFAULT_TIMEOUT_S,
    BatchOptions,
    ListOptions,
    ReadIterator,
    ReadOptions,
)
from datapipes.backends.checks import check_option
from datapipes.backends.wrapping import ReadsWrapper
from datapipes.errors import DatapipesError, StoreConnectionError, StoreTimeoutError
from datapipes.records import FileEntry, ReadRequest, ReadResult

__all__ = ["RetryBackend", "is_transient"]

_TRANSIENT = {
    errno.EAGAIN,
    errno.EBUSY,
    errno.EINTR,
    errno.ENETDOWN,
    errno.ENETUNREACH,
    errno.ESTALE,  # a file server was restarted or failed over
}
_RNG = random.SystemRandom()  # not the generator that the user has seeded
_T = TypeVar("_T")


def is_transient(error: BaseException) -> bool:
    """May the same call succeed a moment later, with nothing mended by anybody?"""
    if isinstance(error, (StoreTimeoutError, StoreConnectionError)):
        return True
    return isinstance(error, DatapipesError) and error.errno in _TRANSIENT


@dataclass(frozen=True)
class RetryBackend(ReadsWrapper):
    """``inner``, whose ``list``, ``stat``, ``write`` and reads try again after a transient fault.

    Local disks have no such faults, so ``file`` URLs are not served through this by default; a network file
    system may (a server that is restarted: ESTALE, ETIMEDOUT). A listing goes on after the last entry given.

    Attributes:
        retry_budget_s: seconds, counted from the first failure of a call or item, in which it may be tried
            again.
        first_wait_s: the longest wait before the second try; it doubles with each try. The wait is drawn
            between half of it and all, so that many workers do not come back at once.
    """

    retry_budget_s: float = 30.0
    first_wait_s: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_option("retry_budget_s", self.retry_budget_s, least=0, most=1e6)
        check_option("first_wait_s", self.first_wait_s, least=0.001, most=1e6)

    def list(self, prefix: str, **options: Unpack[ListOptions]) -> Iterator[FileEntry]:
        def again(*, start_after: str | None) -> Iterator[FileEntry]:
            resumed: ListOptions = {**options, "start_after": start_after}
            return self.inner.list(prefix, **resumed)

        start_after = options.get("start_after")
        return self._resumed(again, again(start_after=start_after), start_after)

    def _resumed(
        self, again: Callable[..., Iterator[FileEntry]], entries: Iterator[FileEntry], last: str | None
    ) -> Iterator[FileEntry]:
        tries = None
        while True:
            try:
                for entry in entries:
                    yield entry
                    last, tries = entry.url, None
            except DatapipesError as error:
                tries = tries or _Tries(self, threading.Event())
                tries.wait_after(error)
                entries = again(start_after=last)
            else:
                return

    def read_many(self, requests: Iterable[ReadRequest], **options: Unpack[ReadOptions]) -> ReadIterator:
        reads = self.inner.read_many(requests, **options)
        again: BatchOptions = {
            "max_in_flight": 1,
            "timeout_s": options.get("timeout_s", DEFAULT_TIMEOUT_S),
            "verify_size": options.get("verify_size", False),
            "writable": options.get("writable", False),
        }
        return _RetriedReads(self, reads, again)

    def stat(self, url: str) -> FileEntry:
        return self._call(partial(self.inner.stat, url))

    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        self._call(partial(self.inner.write, url, data))

    def _call(self, attempt: Callable[[], _T]) -> _T:
        tries = _Tries(self, threading.Event())
        while True:
            try:
                return attempt()
            except DatapipesError as error:
                tries.wait_after(error)


class _Tries:
    """The tries of one call or item, from its first failure on."""

    def __init__(self, policy: RetryBackend, closed: threading.Event) -> None:
        self._began = time.monotonic()
        self._budget_s = policy.retry_budget_s
        self._longest_s = policy.first_wait_s
        self._closed = closed
        self._count = 0

    def wait_after(self, error: DatapipesError) -> None:
        """Wait before the next try, or raise ``error`` where there is none."""
        self._count += 1
        if self._count == 1:
            self._began = time.monotonic()
        if not is_transient(error):
            raise error
        spent_s = time.monotonic() - self._began
        wait_s = _RNG.uniform(0.5, 1.0) * self._longest_s
        if spent_s + wait_s > self._budget_s:
            raise self._given_up(error, spent_s)
        self._longest_s *= 2
        self._closed.wait(wait_s)

    def _given_up(self, error: DatapipesError, spent_s: float) -> DatapipesError:
        if self._count == 1:
            return error
        return type(error)(
            f"{error} (given up after {self._count} tries in {spent_s:.1f} s)",
            url=error.url,
            operation=error.operation,
            errno=error.errno,
            code=error.code,
        )


class _RetriedReads:
    """The results of ``reads``; an item that failed for a transient reason is read again before it is given,
    while those behind it go on."""

    def __init__(self, policy: RetryBackend, reads: ReadIterator, options: BatchOptions) -> None:
        self._policy = policy
        self._reads = reads
        self._options = options
        self._closed = threading.Event()
        self._retries = 0

    def __iter__(self) -> Iterator[ReadResult]:
        return self

    def __next__(self) -> ReadResult:
        result = next(self._reads)
        if result.error is not None and is_transient(result.error):
            return self._again(result, result.error)
        return result

    def _again(self, result: ReadResult, error: DatapipesError | None) -> ReadResult:
        tries = _Tries(self._policy, self._closed)
        while error is not None:
            try:
                tries.wait_after(error)
            except DatapipesError as last:
                return result._replace(error=last)
            if self._closed.is_set():
                raise StopIteration
            self._retries += 1
            latest = self._policy.inner.read_batch([result.request], **self._options)[0]
            result, error = latest._replace(position=result.position), latest.error
        return result

    def close(self) -> None:
        self._closed.set()
        self._reads.close()

    def stats(self) -> Mapping[str, float]:
        return {**self._reads.stats(), "retries": self._retries}
