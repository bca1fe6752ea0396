"""The base of back ends that stand before another one and change one thing about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Unpack

from datapipes.backends.base import (
    Backend,
    BatchOptions,
    ListOptions,
    ReadIterator,
    ReadOptions,
    Results,
)
from datapipes.records import FileEntry, ReadRequest

__all__ = ["ReadsWrapper", "WrapperBackend"]


@dataclass(frozen=True)
class WrapperBackend(Backend):
    """Hands every call to ``inner``.

    Note to implementers: make it a frozen dataclass; what lives (counters, files) stays out of the fields and
    out of ``__getstate__``.
    """

    inner: Backend

    def __post_init__(self) -> None:
        object.__setattr__(self, "scheme", self.inner.scheme)
        object.__setattr__(self, "prefix_is_directory", self.inner.prefix_is_directory)

    def list(self, prefix: str, **options: Unpack[ListOptions]) -> Iterator[FileEntry]:
        return self.inner.list(prefix, **options)

    def read_many(self, requests: Iterable[ReadRequest], **options: Unpack[ReadOptions]) -> ReadIterator:
        return self.inner.read_many(requests, **options)

    def read_batch(self, requests: Sequence[ReadRequest], **options: Unpack[BatchOptions]) -> Results:
        return self.inner.read_batch(requests, **options)

    def stat(self, url: str) -> FileEntry:
        return self.inner.stat(url)

    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        self.inner.write(url, data)

    def open_write(self, url: str, **options: int) -> BinaryIO:
        return self.inner.open_write(url, **options)

    def open(self, url: str) -> BinaryIO:
        return self.inner.open(url)

    def remove(self, url: str) -> None:
        self.inner.remove(url)

    def stats(self) -> Mapping[str, float]:
        return self.inner.stats()


class ReadsWrapper(WrapperBackend):
    """One that looks at every read: ``read``, ``read_batch`` and ``open`` go through its ``read_many``."""

    read_batch = Backend.read_batch
    open = Backend.open
