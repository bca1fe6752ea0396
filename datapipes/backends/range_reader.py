"""``open`` for stores: a file that is read by its ranges."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from datapipes.errors import OptionError
from datapipes.records import ReadRequest

if TYPE_CHECKING:
    from datapipes.backends.base import Backend

__all__ = ["RangeReader"]


class RangeReader(io.RawIOBase):
    """A raw stream over one file: each read is a read of that range."""

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
