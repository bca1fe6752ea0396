"""A store that fails where it is told to: how a pipeline behaves then can be tried without breaking one."""

from __future__ import annotations

import errno as errno_codes
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, BinaryIO, Literal, Unpack

from datapipes.backends.base import (
    ListOptions,
    ReadIterator,
    ReadOptions,
)
from datapipes.backends.reads import PassedReads
from datapipes.backends.slices import span
from datapipes.backends.wrapping import ReadsWrapper
from datapipes.errors import DatapipesError, error_from_errno
from datapipes.records import FileEntry, ReadRequest, ReadResult

__all__ = ["Fault", "FaultBackend"]


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that goes wrong.

    Attributes:
        url: which URLs, as an ``fnmatch`` pattern.
        operation: which calls; every request of ``read_many`` is a ``"read"`` of its own.
        errno: the error, as the operating system would name it.
        first: the first of the matching calls that fails, counted from 1 in each process.
        times: how many fail from there on; None: all.
        after_entries: how many entries a failing ``list`` gives first.
        keep_bytes: instead of an error, a read finds a file cut to so many bytes.
    """

    url: str = "*"
    operation: Literal["list", "read", "stat", "write", "remove"] = "read"
    errno: int = errno_codes.EIO
    first: int = 1
    times: int | None = None
    after_entries: int = 0
    keep_bytes: int | None = None

    def error(self, url: str) -> DatapipesError:
        return error_from_errno(self.errno, url=url, operation=self.operation, hint="This fault was ordered")


@dataclass(frozen=True)
class FaultBackend(ReadsWrapper):
    """``inner`` with ``faults``; the first of them that applies to a call decides it."""

    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "faults", tuple(self.faults))
        object.__setattr__(self, "_calls", [itertools.count(1) for _ in self.faults])

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_calls"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.__post_init__()

    def _fault(self, operation: str, url: str) -> Fault | None:
        calls: list[Iterator[int]] = self.__dict__["_calls"]
        for fault, count in zip(self.faults, calls, strict=True):
            if fault.operation == operation and fnmatchcase(url, fault.url):
                call = next(count) - fault.first
                if call >= 0 and (fault.times is None or call < fault.times):
                    return fault
        return None

    def _raise_fault(self, operation: str, url: str) -> None:
        fault = self._fault(operation, url)
        if fault is not None:
            raise fault.error(url)

    def list(self, prefix: str, **options: Unpack[ListOptions]) -> Iterator[FileEntry]:
        entries = self.inner.list(prefix, **options)
        fault = self._fault("list", prefix)
        return entries if fault is None else self._broken(prefix, entries, fault)

    def _broken(self, prefix: str, entries: Iterator[FileEntry], fault: Fault) -> Iterator[FileEntry]:
        yield from itertools.islice(entries, fault.after_entries)
        raise fault.error(prefix)

    def read_many(self, requests: Iterable[ReadRequest], **options: Unpack[ReadOptions]) -> ReadIterator:
        due: dict[int, Fault] = {}
        reads = self.inner.read_many(self._marked(requests, due), **options)
        return PassedReads(reads, partial(_apply, due))

    def _marked(self, requests: Iterable[ReadRequest], due: dict[int, Fault]) -> Iterator[ReadRequest]:
        for position, request in enumerate(requests):
            fault = self._fault("read", request.url)
            if fault is not None:
                due[position] = fault
            yield request

    def stat(self, url: str) -> FileEntry:
        self._raise_fault("stat", url)
        return self.inner.stat(url)

    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        self._raise_fault("write", url)
        self.inner.write(url, data)

    def open_write(self, url: str, **options: int) -> BinaryIO:
        self._raise_fault("write", url)
        return self.inner.open_write(url, **options)

    def remove(self, url: str) -> None:
        self._raise_fault("remove", url)
        self.inner.remove(url)


def _apply(due: dict[int, Fault], result: ReadResult) -> ReadResult:
    fault = due.pop(result.position, None)
    if fault is None or result.error is not None:
        return result
    if fault.keep_bytes is None:
        return result._replace(data=None, error=fault.error(result.request.url))
    try:
        start, end = span(fault.keep_bytes, result.request, verify_size=False)
    except DatapipesError as error:
        return result._replace(data=None, error=error)
    return result._replace(data=result.unwrap()[: end - start])
