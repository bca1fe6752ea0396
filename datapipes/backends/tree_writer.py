"""Writing a file of a directory tree: beside its place first, then into it by one rename."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import NamedTuple

from datapipes import _dfs
from datapipes.backends.atomic_writer import AtomicWriter
from datapipes.errors import BackendIOError

__all__ = ["PART", "NewFile", "TreeWriter"]

PART = ".datapipes-part-"
"""How a file's name begins while it is written, as in the engine; listings leave such names out."""


class NewFile(NamedTuple):
    """How a file is made; without a word, as the store has it. DAOS alone knows object classes and chunks."""

    mode: int = 0
    object_class: str | None = None
    chunk_bytes: int = 0


class TreeWriter(AtomicWriter):
    """Writes ``path`` of ``session``; missing parent directories are made.

    With ``max_in_flight`` above 1 so many chunks are written at the same time, by threads.
    """

    _file: _dfs.WriteFile | None = None
    _threads: ThreadPoolExecutor | None = None

    def __init__(
        self,
        url: str,
        session: _dfs.Session,
        path: str,
        failure: Callable[[OSError], BackendIOError],
        chunk_bytes: int,
        max_in_flight: int,
        new_file: NewFile,
    ) -> None:
        """failure: makes our exception of the engine's."""
        super().__init__(url, chunk_bytes)
        self._session = session
        self._path = path
        parent = os.path.dirname(path)
        self._part = os.path.join(parent, PART + secrets.token_hex(8))
        self._failure_of = failure
        self._max_in_flight = max_in_flight
        self._new_file = new_file
        self._offset = 0  # of the next chunk
        self._under_way: set[Future[int]] = set()
        try:
            self._file = self._create(parent)
        except OSError as error:
            self.discard()
            raise failure(error) from None

    def _create(self, parent: str) -> _dfs.WriteFile:
        try:
            return self._session.create(self._part, **self._new_file._asdict())
        except FileNotFoundError:
            self._session.mkdir(parent)
            return self._session.create(self._part, **self._new_file._asdict())

    def put(self, data: bytearray | memoryview) -> None:
        offset, self._offset = self._offset, self._offset + len(data)
        try:
            if self._max_in_flight == 1:
                self._opened().write(data, offset)
            elif isinstance(data, bytearray):
                self._start(data, offset)
            else:
                self._put_parts(data, offset)
        except OSError as error:
            raise self._failure_of(error) from None

    def _put_parts(self, data: memoryview, offset: int) -> None:
        """All of the caller's memory, which nobody may look at any more once this returns or raises."""
        try:
            for start in range(0, len(data), self.chunk_bytes):
                self._start(data[start : start + self.chunk_bytes], offset + start)
            self._settle()
        finally:
            self._stop()

    def _start(self, data: bytearray | memoryview, offset: int) -> None:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._max_in_flight, thread_name_prefix="datapipes-write")
        while len(self._under_way) >= self._max_in_flight:
            done, self._under_way = wait(self._under_way, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
        self._under_way.add(self._threads.submit(self._opened().write, data, offset))

    def _settle(self) -> None:
        """Wait for what is under way. Raises the error of one that failed."""
        while self._under_way:
            done, self._under_way = wait(self._under_way, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()

    def _stop(self) -> None:
        """Let no thread write any more, whatever comes of what is under way."""
        for future in self._under_way:
            future.cancel()
        interrupted: BaseException | None = None
        while self._under_way:
            try:
                _, self._under_way = wait(self._under_way)
            except BaseException as error:  # noqa: BLE001 - raised once nobody looks at the memory any more
                interrupted = error
        if interrupted is not None:
            raise interrupted

    def commit(self) -> None:
        try:
            self._settle()
            self._opened().sync()
            self._opened().close()
            self._session.rename(self._part, self._path)
        except OSError as error:
            raise self._failure_of(error) from None
        self._end()

    def abandon(self) -> None:
        self._stop()
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError):  # ValueError: the session is closed
                self._file.close()
                self._session.remove(self._part)
        self._end()

    def _opened(self) -> _dfs.WriteFile:
        assert self._file is not None  # noqa: S101 - put comes before commit and abandon
        return self._file

    def _end(self) -> None:
        self._file = None
        if self._threads is not None:
            self._threads.shutdown(wait=False)
        self._threads = None
