"""Writing an index file: streaming, in constant memory, and visible only when it is complete."""

from __future__ import annotations

import errno
import os
import stat
import uuid
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from datapipes.backends.base import Backend, ListOptions
from datapipes.backends.handle_spool import HandleSpool
from datapipes.errors import OptionError, UrlError, error_from_errno, error_from_os
from datapipes.index_format import (
    BLOCK_NAMES,
    HEADER_BYTES,
    LONGEST_NAME,
    UNKNOWN_U32,
    Block,
    Description,
    Fingerprint,
    absolute_path,
    describe,
    pack_header,
)
from datapipes.masks import url_filter
from datapipes.records import UNKNOWN_SIZE, FileEntry

__all__ = ["Listing", "write_index"]

_HINT = "The unfinished file has been removed. Make room, or give a path on another file system"
_SOURCES_NAMED = 8


def write_index(
    path: str | os.PathLike[str],
    entries: Iterable[FileEntry | str],
    *,
    source: str | Callable[[], str] = "",
    options: Mapping[str, Any] | None = None,
    make_room: Callable[[], bool] | None = None,
) -> Path:
    """Write ``entries``, in their order, to an index file at ``path``; the absolute path.

    The file appears under its name only when it is complete, in place of one that is there. ``source`` (a
    callable is asked at the end) and ``options`` are kept in it for people to read. ``make_room`` is called
    when the disk is full, and says whether it has made some.

    Raises:
        BackendIOError: it cannot be written (a full disk: ``errno`` ENOSPC). Nothing is left behind.
        UrlError: a name that no file can have. OptionError: an entry that is none.
    """
    with _Writer(path, make_room) as writer:
        iterator = iter(entries)
        while chunk := list(islice(iterator, BLOCK_NAMES)):
            writer.add_block(*_columns(chunk))
        writer.finish(source() if callable(source) else source, dict(options or {}))
    return writer.path


class Listing:
    """The entries of several sources, one after the other; remembers the first few for the description."""

    def __init__(
        self,
        urls: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        *,
        recursive: bool,
        masks: str | Sequence[str] | None,
        sizes: bool,
        types: bool,
        handles: HandleSpool | None,
        resolve: Callable[[str], Backend],
    ) -> None:
        self._urls = [urls] if isinstance(urls, (str, os.PathLike)) else urls
        if not isinstance(self._urls, Iterable):
            raise UrlError(f"urls must be a URL or an iterable of URLs, not {urls!r:.200}", operation="list")
        self._options: ListOptions = {
            "recursive": recursive,
            "sizes": sizes,
            "types": types,
            "handles": handles,
        }
        self._resolve = resolve
        self._matches = url_filter(masks)
        self._named: list[str] = []
        self._count = 0

    def __iter__(self) -> Iterator[FileEntry]:
        return chain.from_iterable(map(self._list, self._urls))

    def source(self) -> str:
        """What has been listed so far, in words."""
        rest = self._count - len(self._named)
        return ", ".join(self._named) + (f" and {rest} more" if rest else "")

    def _list(self, url: str | os.PathLike[str]) -> Iterable[FileEntry]:
        if not isinstance(url, (str, os.PathLike)):
            raise UrlError(f"a URL is a str, not {type(url).__name__}: {url!r}", operation="list")
        text = os.fspath(url)
        self._count += 1
        if len(self._named) < _SOURCES_NAMED:
            self._named.append(text)
        found = self._resolve(text).list(text, **self._options)
        if self._matches is None:
            return found
        matches = self._matches
        return (entry for entry in found if matches(entry.url))


class _Writer:
    """A file under construction beside its final place; ``finish`` moves it there, leaving it removes it."""

    def __init__(self, path: str | os.PathLike[str], make_room: Callable[[], bool] | None = None) -> None:
        self.path = absolute_path(path)
        self._make_room = make_room
        self._partial = self.path.with_name(f".{self.path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.partial")
        self._fd = -1
        self._at = HEADER_BYTES
        self._blocks: list[Block] = []
        self._count = 0
        self._fingerprint = Fingerprint()

    def __enter__(self) -> Self:
        self._refuse_other_kinds()
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._fd = os.open(self._partial, flags, 0o666)
        except OSError as error:
            hint = "Give a path in a directory that exists and can be written"
            raise error_from_os(error, url=str(self.path), operation="write index", hint=hint) from error
        return self

    def _refuse_other_kinds(self) -> None:
        """Raise unless what stands at the path is a file, a link or nothing: ``os.replace`` would put the
        index in the place of a device too, ``/dev/null`` say."""
        try:
            mode = os.lstat(self.path).st_mode
        except OSError:
            return  # nothing there, or what making the partial file will say better
        if stat.S_ISREG(mode) or stat.S_ISLNK(mode):
            return
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EEXIST
        hint = "It is no regular file and has been left alone. Give the path of a file"
        raise error_from_errno(code, url=str(self.path), operation="write index", hint=hint)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._partial.unlink(missing_ok=True)

    def add_block(self, urls: Sequence[str], sizes: NDArray[np.int64]) -> None:
        """``BLOCK_NAMES`` names, fewer only in the last block."""
        full, root = _encode(urls), _common_root(urls)
        prefix = b"\0" + root.encode("utf-8", "surrogateescape")
        names = (b"\0" + full).replace(prefix, b"\0")[1:] if root else full
        starts = np.zeros(len(urls) + 1, "<u4")
        starts[1:] = np.flatnonzero(np.frombuffer(names, np.uint8) == 0) + 1
        _check_lengths(urls, starts)
        low, high = _split_sizes(urls, sizes)
        parts: list[bytes | memoryview] = [starts.data.cast("B"), low.data.cast("B")]
        if high is not None:
            parts.append(high.data.cast("B"))
        parts.append(names)
        parts.append(bytes(-sum(map(len, parts)) % 8))
        crc, offset = 0, self._at
        for part in parts:
            crc = zlib.crc32(part, crc)
            self._write(part)
        self._blocks.append(Block(offset, len(names), root, high is not None, crc))
        self._fingerprint.add(full, sizes)
        self._count += len(urls)

    def finish(self, source: str, options: dict[str, Any]) -> None:
        """Write the description and the header, and let the file appear."""
        description = describe(
            Description(self._count, self._blocks, source, options, self._fingerprint.hexdigest())
        )
        offset = self._at
        self._write(description)
        header = pack_header(self._at, offset, description)
        try:
            os.pwrite(self._fd, header, 0)
            os.fsync(self._fd)
            os.replace(self._partial, self.path)
        except OSError as error:
            raise self._failed(error) from error
        os.close(self._fd)
        self._fd = -1
        _sync_directory(self.path.parent)

    def _write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            try:
                written = os.pwrite(self._fd, rest, self._at)
            except OSError as error:
                full = error.errno in (errno.ENOSPC, errno.EDQUOT)
                if full and self._make_room is not None and self._make_room():
                    continue
                raise self._failed(error) from error
            self._at += written
            rest = rest[written:]

    def _failed(self, error: OSError) -> OSError:
        return error_from_os(error, url=str(self.path), operation="write index", hint=_HINT)


def _sync_directory(directory: Path) -> None:
    """Make the new name durable, where the file system lets a directory be synchronised."""
    fd = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError:
        pass  # the content is safe; some network file systems refuse this for directories
    finally:
        os.close(fd)


def _columns(chunk: Sequence[FileEntry | str]) -> tuple[Sequence[str], NDArray[np.int64]]:
    """URLs and sizes of a chunk of entries or plain names; homogeneous chunks without a loop of ours."""
    kinds = set(map(type, chunk))
    if kinds == {str}:
        return chunk, np.full(len(chunk), UNKNOWN_SIZE, np.int64)  # type: ignore[return-value]  # just seen
    if kinds != {FileEntry}:
        chunk = [_as_entry(item) for item in chunk]
    urls, sizes = zip(*chunk, strict=True)
    try:
        return urls, np.frombuffer(array("q", sizes), np.int64)  # unlike numpy, array takes no fractions
    except (TypeError, OverflowError):
        wrong = next(size for size in sizes if not isinstance(size, int) or not -1 <= size < 1 << 63)
        raise OptionError(f"a size is a number of bytes, or -1 where it is unknown, not {wrong!r}") from None


def _as_entry(item: object) -> FileEntry:
    if isinstance(item, str):
        return FileEntry(str(item))
    if isinstance(item, tuple) and len(item) == 2:
        return FileEntry(*item)
    raise OptionError(f"an index is made of URLs and FileEntry tuples, not {item!r:.200}")


def _encode(urls: Sequence[str]) -> bytes:
    """All names, each ended by a NUL byte."""
    try:
        encoded = ("\0".join(urls) + "\0").encode("utf-8", "surrogateescape")
    except TypeError:
        wrong: Any = next(url for url in urls if type(url) is not str)
        raise UrlError(f"a URL is a str, not {type(wrong).__name__}: {wrong!r}", operation="index") from None
    except UnicodeEncodeError as error:
        text = error.object[max(0, error.start - 40) : error.end]
        raise UrlError(f"{text!r} ends in half of a surrogate pair", operation="index") from None
    if encoded.count(0) != len(urls):
        wrong = next(url for url in urls if "\0" in url)
        raise UrlError(f"{wrong!r} holds a NUL byte", url=wrong, operation="index")
    return encoded


def _common_root(urls: Sequence[str]) -> str:
    """What all the names begin with, up to a slash."""
    least, most = min(urls), max(urls)  # what these two have in common lies in all between them
    alike = next(
        (i for i, pair in enumerate(zip(least, most, strict=False)) if pair[0] != pair[1]), len(least)
    )
    return least[: least.rfind("/", 0, alike) + 1]


def _check_lengths(urls: Sequence[str], starts: NDArray[np.uint32]) -> None:
    lengths = np.diff(starts)
    longest = int(lengths.argmax())
    if lengths[longest] - 1 > LONGEST_NAME:
        url = urls[longest]
        raise UrlError(
            f"{url[:100]!r}... has {lengths[longest] - 1} bytes; an index takes at most {LONGEST_NAME}",
            url=url,
            operation="index",
        )


def _split_sizes(
    urls: Sequence[str], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32] | None]:
    """Lower halves, and upper halves where a size needs them."""
    least = int(sizes.argmin())
    if sizes[least] < UNKNOWN_SIZE:
        raise OptionError(f"the size of {urls[least]!r} is {sizes[least]}; unknown is {UNKNOWN_SIZE}")
    low = sizes.astype("<u4")  # -1 becomes all ones
    return low, (sizes >> 32).astype("<u4") if int(sizes.max()) >= UNKNOWN_U32 else None
