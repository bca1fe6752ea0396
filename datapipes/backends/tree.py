"""A directory tree as a store, read by the native engine: what ``local`` and the embedded ``daos`` share."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from typing import BinaryIO, Unpack, cast

from datapipes import _dfs
from datapipes.backends.base import (
    DEFAULT_BUFFER_BYTES,
    DEFAULT_IN_FLIGHT,
    DEFAULT_TIMEOUT_S,
    DEFAULT_WRITE_BYTES,
    BatchOptions,
    Contents,
    ReadIterator,
    Results,
    batch_spans,
)
from datapipes.backends.checks import check_read_options, check_write_options
from datapipes.backends.handle_spool import HandleSpool
from datapipes.backends.handle_tables import spool_of, table_at
from datapipes.backends.reads import SerialReads
from datapipes.backends.slices import MOST_BYTES
from datapipes.backends.tree_requests import Refused, plain_paths, translated, translated_with_care
from datapipes.backends.tree_root import TreeRoot
from datapipes.backends.tree_writer import PART, NewFile, TreeWriter
from datapipes.errors import BackendIOError, DatapipesError
from datapipes.records import UNKNOWN_SIZE, WHOLE, FileEntry, HandleFile, ReadRequest, ReadResult
from datapipes.urls import format_url, quote_name

__all__ = ["TreeBackend"]

AS_IT_IS = NewFile()

_Block = list[tuple[str, int]]  # inside a back end, ``list`` is its method
_Failures = list[DatapipesError]


class TreeBackend(TreeRoot):
    """Files below one root directory, listed and read by the engine."""

    def list(
        self,
        prefix: str,
        *,
        recursive: bool = True,
        start_after: str | None = None,
        sizes: bool = True,
        types: bool = True,
        handles: HandleSpool | None = None,
    ) -> Iterator[FileEntry]:
        path = self._path(prefix)
        after = None if start_after is None else self._path(start_after)

        def begin(session: _dfs.Session) -> _dfs.ListIterator:
            return session.list(
                path.rstrip("/"),
                recursive=recursive,
                start_after=after,
                sizes=sizes,
                types=types,
                handles=None if handles is None or self.table() != "dfs" else spool_of(handles),
            )

        return self._list(prefix, path, begin)

    def _list(
        self, prefix: str, path: str, begin: Callable[[_dfs.Session], _dfs.ListIterator]
    ) -> Iterator[FileEntry]:
        make, beginning, asked = tuple.__new__, self._beginning(), path.rstrip("/")
        session = self._session(prefix, "list")
        try:
            blocks = begin(session)
        except OSError as error:
            raise self._from_os(error, prefix, "list") from None
        try:
            for block in self._blocks(blocks, prefix):
                for name, size in block:
                    if name == asked and path != asked:
                        raise self._failure(prefix, "list", errno.ENOTDIR)
                    if PART in name and name.rpartition("/")[2].startswith(PART):
                        continue  # a file being written
                    if "%" in name or "?" in name or "#" in name:
                        name = quote_name(name)  # noqa: PLW2901 - this loop runs a million times
                    yield make(FileEntry, (beginning + name, size))
        finally:
            blocks.close()

    def _blocks(self, blocks: _dfs.ListIterator, prefix: str) -> Iterator[_Block]:
        try:
            yield from blocks
        except OSError as error:
            failed = error.filename
            inside = isinstance(failed, str) and failed.strip("/") != self._path(prefix).strip("/")
            url = format_url(self.scheme, self.authority, self._absolute(failed)) if inside else prefix
            raise self._from_os(error, url, "list") from None

    def read_many(
        self,
        requests: Iterable[ReadRequest],
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        ordered: bool = True,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify_size: bool = False,
        writable: bool = False,
        handles: HandleFile | None = None,
    ) -> ReadIterator:
        max_in_flight, max_buffer_bytes = check_read_options(
            max_in_flight=max_in_flight, max_buffer_bytes=max_buffer_bytes, timeout_s=timeout_s
        )
        try:
            session = self._open()
        except OSError as error:
            return SerialReads(requests, self._unopened(error))
        return session.read_many(
            translated(requests, self._beginning(), self.raw, self._path),
            result=ReadResult,
            error=self._item_error,
            max_in_flight=max_in_flight,
            max_buffer_bytes=max_buffer_bytes,
            ordered=ordered,
            timeout_s=timeout_s or 0.0,
            verify_size=verify_size,
            writable=writable,
            handles=self._table_of(handles),
        )

    def read_batch(
        self,
        requests: Sequence[ReadRequest],
        *,
        out: memoryview | None = None,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify_size: bool = False,
        writable: bool = False,
        handles: HandleFile | None = None,
    ) -> Results:
        max_in_flight, _ = check_read_options(max_in_flight=max_in_flight, timeout_s=timeout_s)
        spans = None if out is None else batch_spans(requests, out)
        try:
            session = self._open()
        except OSError as error:
            return list(SerialReads(requests, self._unopened(error)))
        return session.read_batch(
            list(translated(requests, self._beginning(), self.raw, self._path)),
            result=ReadResult,
            error=self._item_error,
            max_in_flight=max_in_flight,
            out=out,
            spans=spans,
            timeout_s=timeout_s or 0.0,
            verify_size=verify_size,
            writable=writable,
            handles=self._table_of(handles),
        )

    def read_files(
        self, urls: Sequence[str], sizes: Sequence[int], **options: Unpack[BatchOptions]
    ) -> Contents:
        paths = plain_paths(urls, self._beginning()) if options.get("out") is None else None
        if not paths or len(sizes) != len(paths) or min(sizes) < UNKNOWN_SIZE or max(sizes) > MOST_BYTES:
            return super().read_files(urls, sizes, **options)
        in_flight = options.get("max_in_flight", DEFAULT_IN_FLIGHT)
        timeout_s = options.get("timeout_s", DEFAULT_TIMEOUT_S)
        in_flight, _ = check_read_options(max_in_flight=in_flight, timeout_s=timeout_s)
        failures: _Failures = []

        def failed(row: int | None, operation: str, code: int) -> DatapipesError:
            request = None if row is None else ReadRequest(urls[row], 0, WHOLE, sizes[row])
            failures.append(self._item_error(request, operation, code))
            return failures[-1]

        contents = self._session(urls[0], "open").read_batch(
            list(zip(paths, repeat(0), repeat(WHOLE), sizes, range(len(paths)), strict=False)),
            error=failed,
            max_in_flight=in_flight,
            timeout_s=timeout_s or 0.0,
            verify_size=options.get("verify_size", False),
            writable=options.get("writable", False),
            handles=self._table_of(options.get("handles")),
        )
        if failures:
            raise failures[0]
        return contents

    def _table_of(self, handles: HandleFile | None) -> _dfs.Handles | None:
        return table_at(handles) if handles is not None and self.table() == "dfs" else None

    def _item_error(self, request: ReadRequest | None, operation: str, code: int) -> DatapipesError:
        if request is None:  # no item's fault
            return self._failure(self._beginning(), operation, code)
        if isinstance(request, Refused):
            return request.reason
        if code == errno.ENOMEM and self._is_shorter(request):
            code = errno.ENODATA  # no memory for what is not there
        return self._failure(request.url, operation, code)

    def _is_shorter(self, request: ReadRequest) -> bool:
        try:
            found = self.stat(request.url).size
        except DatapipesError:
            return False
        return found < max(request.size, request.offset + request.length)

    def _unopened(self, error: OSError) -> Callable[[int, ReadRequest], ReadResult]:
        """Answers every request where there is no container. Raises what is not the store's fault."""
        broken = self._not_opened(self._beginning(), "open", error)
        if not isinstance(broken, BackendIOError):
            raise broken

        def answer(position: int, request: ReadRequest) -> ReadResult:
            *_, tag = translated_with_care(request, self._path)
            if isinstance(tag, Refused):
                return ReadResult(position, request, None, tag.reason)
            return ReadResult(position, request, None, self._not_opened(request.url, "open", error))

        return answer

    def stat(self, url: str) -> FileEntry:
        path, session = self._path(url), self._session(url, "stat")
        try:
            kind, size, _ = session.stat(path.rstrip("/"))
        except OSError as error:
            raise self._from_os(error, url, "stat") from None
        if kind == "dir":
            raise self._failure(url, "stat", errno.EISDIR)
        if path.endswith("/"):
            raise self._failure(url, "stat", errno.ENOTDIR)
        return FileEntry(format_url(self.scheme, self.authority, self._absolute(path)), size)

    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        _, session, path = self._target(url)
        try:
            session.write(path, data)
        except OSError as error:
            raise self._from_os(error, url, "write") from None

    def open_write(
        self,
        url: str,
        *,
        chunk_bytes: int = DEFAULT_WRITE_BYTES,
        max_in_flight: int = 1,
        new_file: NewFile = AS_IT_IS,
    ) -> BinaryIO:
        """See ``Backend``; ``new_file`` says how the file is made."""
        chunk_bytes, max_in_flight = check_write_options(chunk_bytes, max_in_flight)
        failure = partial(self._from_os, url=url, operation="write")
        return cast("BinaryIO", TreeWriter(*self._target(url), failure, chunk_bytes, max_in_flight, new_file))

    def _target(self, url: str) -> tuple[str, _dfs.Session, str]:
        path, session = self._path(url), self._session(url, "write")
        if not path or path.endswith("/"):
            raise self._failure(url, "write", errno.EISDIR)
        return url, session, path

    def remove(self, url: str) -> None:
        path, session = self._path(url), self._session(url, "remove")
        kind = ""  # of nothing, and of a link that leads nowhere, which can be removed
        try:
            with contextlib.suppress(FileNotFoundError):
                kind = session.stat(path.rstrip("/"))[0]
            if kind == "dir":  # the engine would remove an empty one
                raise self._failure(url, "remove", errno.EISDIR)
            if kind and path.endswith("/"):
                raise self._failure(url, "remove", errno.ENOTDIR)
            session.remove(path.rstrip("/"))
        except OSError as error:
            raise self._from_os(error, url, "remove") from None
