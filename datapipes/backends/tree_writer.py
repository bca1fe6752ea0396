"""Writing a file of a directory tree: beside its place first, then into it by one rename."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable

from datapipes import _dfs
from datapipes.backends.atomic_writer import AtomicWriter
from datapipes.errors import BackendIOError

__all__ = ["PART", "TreeWriter"]

PART = ".datapipes-part-"
"""How a file's name begins while it is written, as in the engine; listings leave such names out."""


class TreeWriter(AtomicWriter):
    """Writes ``path`` of ``session``; missing parent directories are made."""

    _file: _dfs.WriteFile | None = None

    def __init__(
        self, url: str, session: _dfs.Session, path: str, failure: Callable[[OSError], BackendIOError]
    ) -> None:
        """failure: makes our exception of the engine's."""
        super().__init__(url)
        self._session = session
        self._path = path
        parent = os.path.dirname(path)
        self._part = os.path.join(parent, PART + secrets.token_hex(8))
        self._failure_of = failure
        try:
            self._file = self._create(parent)
        except OSError as error:
            raise failure(error) from None

    def _create(self, parent: str) -> _dfs.WriteFile:
        try:
            return self._session.create(self._part)
        except FileNotFoundError:
            self._session.mkdir(parent)
            return self._session.create(self._part)

    def put(self, data: bytearray | memoryview) -> None:
        assert self._file is not None  # noqa: S101 - put comes before commit and abandon
        try:
            self._file.write(data)
        except OSError as error:
            raise self._failure_of(error) from None

    def commit(self) -> None:
        assert self._file is not None  # noqa: S101
        try:
            self._file.sync()
            self._file.close()
            self._session.rename(self._part, self._path)
        except OSError as error:
            raise self._failure_of(error) from None
        self._file = None

    def abandon(self) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError, ValueError):  # ValueError: the session is closed
                self._file.close()
                self._session.remove(self._part)
        self._file = None
