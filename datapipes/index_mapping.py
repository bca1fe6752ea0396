"""Reading an index file: the mapped bytes, and names and sizes out of them by the block."""

from __future__ import annotations

import errno
import mmap
import os
import stat
import zlib

import numpy as np
from numpy.typing import NDArray

from datapipes.errors import IndexFileError, error_from_errno, error_from_os
from datapipes.index_format import (
    BLOCK_NAMES,
    HEADER_BYTES,
    UNKNOWN_U32,
    Description,
    damaged,
    parse_description,
    parse_header,
)
from datapipes.records import UNKNOWN_SIZE

__all__ = ["BLOCK_SHIFT", "IndexMapping"]

BLOCK_SHIFT = BLOCK_NAMES.bit_length() - 1
_HINT = "Build it with FileIndex.build(urls, path)"


class IndexMapping:
    """One opened index file. Immutable, shared by threads, unmapped when the last reference goes.

    Row numbers are given by the caller and must be in range; whatever the file says is checked here, so that
    damage gives IndexFileError.
    """

    def __init__(self, path: str, expected: str | None) -> None:
        from datapipes import _dfs  # noqa: PLC0415 - loads the engine

        self._index_rows = _dfs.index_rows
        self._path = path
        fd = _open(path)
        try:
            found = os.fstat(fd)
            self._bytes = found.st_size
            self.made = f"{found.st_ino}-{found.st_mtime_ns}"  # one that is built anew is another file
            self.description = self._describe(fd, expected)
            self._map = mmap.mmap(fd, self._bytes, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        self.count = self.description.names
        self._view = memoryview(self._map)
        self._words = np.frombuffer(self._map, "<u4", self._bytes // 4)
        blocks = self.description.blocks
        names = np.minimum(BLOCK_NAMES, self.count - BLOCK_NAMES * np.arange(len(blocks)))
        wide = np.array([block.wide for block in blocks], bool)
        self._any_wide = bool(wide.any())
        self._starts_at = np.array([block.offset // 4 for block in blocks], np.int64)  # in words of 4 bytes
        self._sizes_at = self._starts_at + names + 1
        self._high_at = np.where(wide, self._sizes_at + names, -1)
        self._names_at = 4 * (self._sizes_at + names * (1 + wide))  # in bytes
        self._name_bytes = np.array([block.name_bytes for block in blocks], np.int64)
        self._roots = tuple(block.root for block in blocks)
        parts = (self._starts_at, self._sizes_at, self._high_at, self._names_at, self._name_bytes)
        self._blocks = np.array(parts, np.int64).T.tobytes()
        self._check_geometry()

    def run(self, first: int, stop: int) -> list[str]:
        """The URLs of the rows from ``first`` up to ``stop``."""
        self._check_length()
        urls: list[str] = []
        while first < stop:
            block = first >> BLOCK_SHIFT
            end = min(stop, (block + 1) << BLOCK_SHIFT)
            word = int(self._starts_at[block]) + first - (block << BLOCK_SHIFT)
            low, high = int(self._words[word]), int(self._words[word + end - first])
            if not low < high <= self._name_bytes[block]:
                raise damaged(self._path, f"the place of row {first} is wrong")
            at = int(self._names_at[block])
            text = str(self._view[at + low : at + high], "utf-8", "surrogateescape")
            urls += self._split(text, end - first, self._roots[block])
            first = end
        return urls

    def rows(self, numbers: list[int]) -> tuple[list[str], list[int]]:
        """The URLs and sizes of the rows ``numbers``. IndexError for one that is not there, TypeError for one
        that is no plain int."""
        self._check_length()
        try:
            return self._index_rows(self._map, self._blocks, self._roots, numbers)
        except IndexError as error:
            raise IndexError(f"{error}: an index of {self.count} names") from None
        except ValueError as error:
            raise damaged(self._path, str(error)) from None

    def sizes(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sizes of ``rows``."""
        self._check_length()
        if not len(rows):
            return np.empty(0, np.int64)
        blocks, within = rows >> BLOCK_SHIFT, rows & (BLOCK_NAMES - 1)
        sizes: NDArray[np.int64] = self._words[self._sizes_at[blocks] + within].astype(np.int64)
        if not self._any_wide:
            sizes[sizes == UNKNOWN_U32] = UNKNOWN_SIZE
            return sizes
        high_at = self._high_at[blocks]
        wide = high_at >= 0
        sizes[~wide & (sizes == UNKNOWN_U32)] = UNKNOWN_SIZE
        if wide.any():
            high = self._words[(high_at + within)[wide]].astype(np.int64)
            sizes[wide] |= high << 32  # all ones in both halves are -1
        return sizes

    def check_block(self, number: int) -> None:
        """Raise IndexFileError unless the block's bytes and the places of its names are right."""
        self._check_length()
        block = self.description.blocks[number]
        end = int(self._names_at[number] + self._name_bytes[number])
        if zlib.crc32(self._view[block.offset : end + -(end - block.offset) % 8]) != block.crc:
            raise damaged(self._path, f"the checksum of the rows from {number << BLOCK_SHIFT} on is wrong")

    def _split(self, text: str, count: int, root: str) -> list[str]:
        """``root`` and each of the names in ``text``, which all end in a NUL character."""
        body = text[:-1]
        urls = (root + body.replace("\0", "\0" + root)).split("\0") if root else body.split("\0")
        if len(urls) != count or text[-1] != "\0":
            raise damaged(self._path, "two names are not kept apart")
        return urls

    def _describe(self, fd: int, expected: str | None) -> Description:
        header = os.pread(fd, HEADER_BYTES, 0)
        offset, length, crc = parse_header(header, self._bytes, self._path)
        description = parse_description(os.pread(fd, length, offset), crc, self._path)
        if expected is not None and description.fingerprint != expected:
            raise IndexFileError(
                f"index file {self._path!r} lists other names than when it was sent to this process: it has "
                "been built anew meanwhile. Open the new one and start again.",
                url=self._path,
                operation="open index",
            )
        return description

    def _check_geometry(self) -> None:
        ends = self._names_at + self._name_bytes
        if len(self._roots) != -(-self.count // BLOCK_NAMES) or bool((ends > self._bytes).any()):
            raise damaged(self._path, "its blocks do not fit its length")

    def _check_length(self) -> None:
        # Reading a mapped file behind its end kills the process: look before, each time.
        if self._map.size() < self._bytes:
            raise damaged(self._path, "it was cut off while it was in use")


def _open(path: str) -> int:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO must not hang
    except OSError as error:
        raise error_from_os(error, url=path, operation="open index", hint=_HINT) from error
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISDIR(mode):
        raise error_from_errno(errno.EISDIR, url=path, operation="open index", hint=_HINT)
    raise damaged(path, "it is no regular file")
