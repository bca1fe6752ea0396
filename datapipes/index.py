"""``FileIndex``: the names and sizes of a data set, listed once and shared by everyone on a host."""

from __future__ import annotations

import functools
import operator
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapipes.backends.base import DEFAULT_HANDLE_CACHE_BYTES, Backend
from datapipes.backends.checks import check_handle_cache_bytes
from datapipes.backends.handle_spool import HandleSpool
from datapipes.calling import call
from datapipes.errors import OptionError
from datapipes.index_build import Listing, write_index
from datapipes.index_format import BLOCK_NAMES, Fingerprint, absolute_path, damaged
from datapipes.index_mapping import BLOCK_SHIFT, IndexMapping
from datapipes.masks import url_filter
from datapipes.records import FileEntry, HandleFile

__all__ = ["HANDLES_SUFFIX", "FileIndex"]

HANDLES_SUFFIX = ".handles"
"""The name of the file of handles is that of the index and this."""

_ITERATED = 4096
_new_entry = functools.partial(tuple.__new__, FileEntry)  # a third of the time of FileEntry(url, size)

Rows = slice | range | Sequence[int] | NDArray[np.integer[Any]]


class FileIndex:
    """Names and sizes of many files in a fixed order: an immutable file, mapped into memory.

    It costs about ``len(name) + 9`` bytes for each name, once for the whole host however many processes use
    it, and no Python object for any file. It travels to other processes as a path and is mapped where it is
    used, under every start method; two indexes are equal when they list the same names and sizes in the same
    order. Opening checks the header, the description and the length; ``verify`` checks everything; reading a
    damaged part raises rather than crashes.

    Make one with ``build`` (lists URLs), ``from_entries`` (takes what you have) or ``open``.
    """

    def __init__(self, path: str | os.PathLike[str], *, expected: str | None = None) -> None:
        self._path = absolute_path(path)
        self._expected = expected  # fingerprint of the index that was sent here
        self._mapped: IndexMapping | None = None

    @classmethod
    def build(
        cls,
        urls: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
        path: str | os.PathLike[str] | None = None,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
        resolve: Callable[[str], Backend] | None = None,
    ) -> FileIndex:
        """List each of ``urls`` in turn and write what is found to ``path``, streaming.

        A URL of a single file is that entry. Sources that overlap give their files as often as they are
        listed. The index appears at ``path`` when it is complete, replacing one that is there.

        Args:
            urls: directories, prefixes, files; of any mixture of stores; plain paths too.
            path: where to write; by default in the directory of the job, which goes when the job ends.
            recursive: also what lies in directories below.
            masks: shell patterns on the base name; a file is taken when it matches one of them.
            sizes: False asks for no sizes, which may then be unknown; reading finds them out.
            types: False without sizes says that there are only files below ``urls``: where types have to be
                asked for (DAOS), each name is taken for a file's, and nothing is asked but names.
            handle_cache_bytes: where looking at a file opens it (DAOS), what opens it again is kept in a file
                beside the index, of so many bytes at most: reading by the index then opens nothing. 0: none.
            resolve: finds the back end of a URL.

        Raises:
            FileMissingError, ContainerMissingError, UrlError: of the listing.
            BackendIOError: the index cannot be written; ``errno`` says why, and nothing is left behind.
        """
        if resolve is None:
            # The stores are imported only where one lists.
            from datapipes.backends.registry import backend_for  # noqa: PLC0415

            resolve = backend_for
        handle_cache_bytes = check_handle_cache_bytes(handle_cache_bytes)
        place = absolute_path(_place(path))
        url_filter(masks)  # says what is wrong with one
        shown = [masks] if isinstance(masks, str) else list(masks or [])
        spool = HandleSpool(place.parent, handle_cache_bytes, shown) if handle_cache_bytes else None
        listing = Listing(
            urls,
            recursive=recursive,
            masks=masks,
            sizes=sizes,
            types=types,
            handles=spool,
            resolve=functools.partial(call, resolve),
        )
        options = {"recursive": recursive, "masks": shown, "sizes": sizes, "types": types}
        room = None if spool is None else spool.give_up
        index = cls(write_index(place, listing, source=listing.source, options=options, make_room=room))
        table = index.handle_file(handle_cache_bytes)
        if spool is not None and table is not None:
            spool.settle(table)
        return index

    @classmethod
    def from_entries(
        cls,
        entries: Iterable[FileEntry | str],
        path: str | os.PathLike[str] | None = None,
        *,
        source: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> FileIndex:
        """Write ``entries`` (or plain URLs, whose size is unknown) in their order; see ``build``.

        ``source`` and ``options`` (JSON-able) are kept for people to read; they do not enter the fingerprint.
        """
        return cls(write_index(_place(path), entries, source=source, options=options))

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, verify: bool = False) -> FileIndex:
        """An index that was built before.

        Raises IndexFileError where the file is damaged, cut off, no index, or of another version, and
        FileMissingError where there is none. ``verify`` reads all of it, about a second for each GB.
        """
        index = cls(path)
        index._open()
        if verify:
            index.verify()
        return index

    def close(self) -> None:
        """Release the mapping; the next use maps the file again."""
        self._mapped = None

    def verify(self) -> None:
        """Check every byte of the file. Raises IndexFileError."""
        mapping = self._open()
        fingerprint = Fingerprint()
        for number in range(len(mapping.description.blocks)):
            mapping.check_block(number)
            first = number << BLOCK_SHIFT
            stop = min(first + BLOCK_NAMES, mapping.count)
            names = "\0".join([*mapping.run(first, stop), ""])
            fingerprint.add(names.encode("utf-8", "surrogateescape"), mapping.sizes(np.arange(first, stop)))
        if fingerprint.hexdigest() != mapping.description.fingerprint:
            raise damaged(str(self._path), "its names and sizes do not add up to its fingerprint")

    @property
    def path(self) -> Path:
        """The absolute path of the file."""
        return self._path

    @property
    def fingerprint(self) -> str:
        """Digest of names, sizes and their order; independent of where and when the index was made."""
        return self._open().description.fingerprint

    @property
    def source(self) -> str:
        """What was listed, in words."""
        return self._open().description.source

    @property
    def options(self) -> dict[str, Any]:
        """With which options it was listed."""
        return dict(self._open().description.options)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """All sizes in bytes, -1 where unknown: a new array of 8 bytes a name. ``sizes_of`` gives a few."""
        return self.sizes_of(slice(None))

    def __len__(self) -> int:
        return self._open().count

    def __getitem__(self, row: int) -> FileEntry:
        mapping = self._open()
        at = operator.index(row)
        at += mapping.count if at < 0 else 0
        if not 0 <= at < mapping.count:
            raise IndexError(f"row {row} of an index of {mapping.count} names")
        (url,), (size,) = mapping.rows([at])
        return FileEntry(url, size)

    def __iter__(self) -> Iterator[FileEntry]:
        for start in range(0, len(self), _ITERATED):
            yield from self.entries(slice(start, start + _ITERATED))

    def urls(self, ids: Rows) -> list[str]:
        """The URLs in rows ``ids`` (a slice, or integers from 0 on), in the order given; made for blocks.

        Raises IndexError for a row that is not there.
        """
        mapping, rows = self._rows(ids)
        if isinstance(rows, range):
            return mapping.run(rows.start, rows.stop)
        return mapping.rows(rows.tolist())[0]

    def sizes_of(self, ids: Rows) -> NDArray[np.int64]:
        """The sizes in bytes in rows ``ids``, -1 where unknown."""
        mapping, rows = self._rows(ids)
        return mapping.sizes(np.arange(rows.start, rows.stop) if isinstance(rows, range) else rows)

    def urls_and_sizes(self, ids: Rows) -> tuple[list[str], list[int]]:
        """What ``urls`` and ``sizes_of`` give, at once."""
        if type(ids) is list and set(map(type, ids)) == {int}:  # as samplers give them
            return self._open().rows(ids)
        mapping, rows = self._rows(ids)
        if isinstance(rows, range):
            sizes = mapping.sizes(np.arange(rows.start, rows.stop))
            return mapping.run(rows.start, rows.stop), sizes.tolist()
        return mapping.rows(rows.tolist())

    def entries(self, ids: Rows) -> list[FileEntry]:
        """URLs and sizes in rows ``ids``."""
        return list(map(_new_entry, zip(*self.urls_and_sizes(ids), strict=True)))

    def handle_file(self, max_bytes: int) -> HandleFile | None:
        """Where stores may keep what opening these files teaches them: a file beside the index, for all
        processes that read by it, of ``max_bytes`` at most; None for 0. Opens nothing but the index."""
        if max_bytes <= 0:
            return None
        mapping = self._open()
        identity = f"{mapping.description.fingerprint} {mapping.made}"
        return HandleFile(f"{self._path}{HANDLES_SUFFIX}", identity, mapping.count, max_bytes)

    def __eq__(self, other: object) -> bool:
        return self.fingerprint == other.fingerprint if isinstance(other, FileIndex) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def __repr__(self) -> str:
        return f"FileIndex({str(self._path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self._path), self.fingerprint)

    def _open(self) -> IndexMapping:
        # Two threads may both map the file: the later mapping stays, the other goes with its last user.
        mapping = self._mapped
        if mapping is None:
            mapping = self._mapped = IndexMapping(str(self._path), self._expected)
            self._expected = mapping.description.fingerprint
        return mapping

    def _rows(self, ids: Rows) -> tuple[IndexMapping, range | NDArray[np.int64]]:
        """The rows as a range of step 1 where they are one, else as an array; checked."""
        mapping = self._open()
        if isinstance(ids, slice):
            ids = range(mapping.count)[ids]
        if isinstance(ids, range) and (ids.step == 1 or not ids):
            rows = ids or range(0)
            if rows and not 0 <= rows[0] <= rows[-1] < mapping.count:
                raise IndexError(f"rows {rows[0]} to {rows[-1]} of an index of {mapping.count} names")
            return mapping, rows
        array = np.asarray(ids)
        if array.size == 0:
            return mapping, range(0)
        if array.dtype.kind not in "iu" or array.ndim != 1:
            raise OptionError(f"rows are integers in one dimension, not {array.dtype} in {array.ndim}")
        least, most = int(array.min()), int(array.max())
        if least < 0 or most >= mapping.count:
            raise IndexError(f"row {least if least < 0 else most} of an index of {mapping.count} names")
        if most - least + 1 == len(array) and bool((array[1:] - array[:-1] == 1).all()):
            return mapping, range(least, most + 1)
        return mapping, array.astype(np.int64, copy=False)


def _reopen(path: str, fingerprint: str) -> FileIndex:
    return FileIndex(path, expected=fingerprint)


def _place(path: str | os.PathLike[str] | None) -> str | os.PathLike[str]:
    if path is not None:
        return path
    # jobs.py knows indexes; an index needs to know jobs only where it is given no place.
    from datapipes.jobs import Job  # noqa: PLC0415

    return Job.current().path / f"index-{uuid.uuid4().hex}"
