"""The root of a tree of files as a store: its URLs, its engine session in this process, its errors."""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from datapipes import _dfs
from datapipes.backends.base import Backend
from datapipes.backends.paths import path_in
from datapipes.backends.tree_errors import failure
from datapipes.errors import BackendIOError, ContainerMissingError, DatapipesError
from datapipes.urls import format_url

__all__ = ["Table", "TreeRoot"]

Table = Literal["posix", "dfs"]


class _Opened(NamedTuple):
    """A root as this process opened it."""

    pid: int
    place: tuple[Table, str]
    identity: tuple[int, int]
    session: _dfs.Session


class TreeRoot(Backend):
    """A root, which a subclass names: a directory, or a container of DAOS.

    One engine session for each process, opened at first use and again where the root has become another.
    """

    open_delay_us = 0
    raw: str | None = None
    """What a path begins with that is taken as it is, where this store takes such."""

    _opened: _Opened | None = None

    @property
    @abstractmethod
    def authority(self) -> str:
        """The container's part of the URLs; ``""`` where the scheme has none."""

    @abstractmethod
    def root(self) -> str:
        """What the engine opens: a directory's path, or pool and container, as things stand now."""

    def table(self) -> Table:
        """Which of the engine's stores ``root`` is of, as things stand now."""
        return "posix"

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_opened", None)
        return state

    def stats(self) -> Mapping[str, float]:
        opened = self._opened
        return opened.session.stats() if opened is not None and opened.pid == os.getpid() else {}

    def _beginning(self) -> str:
        return format_url(self.scheme, self.authority, self._absolute(""))

    def _absolute(self, path: str) -> str:
        return path if self.authority else "/" + path

    def _path(self, url: str) -> str:
        return path_in(url, scheme=self.scheme, container=self.authority)

    def _session(self, url: str, operation: str) -> _dfs.Session:
        try:
            return self._open()
        except OSError as error:
            raise self._not_opened(url, operation, error) from None

    def _open(self) -> _dfs.Session:
        """The session of this process. Raises the engine's OSError."""
        place, opened = (self.table(), self.root()), self._opened
        if opened is not None and opened.pid == os.getpid() and opened.place == place:
            return opened.session
        session = _dfs.Session(*place, open_delay_us=self.open_delay_us)
        identity = _identity(place)
        # Two threads may both come here: one of the sessions is then used for one call only.
        object.__setattr__(self, "_opened", _Opened(os.getpid(), place, identity, session))
        return session

    def _not_opened(self, url: str, operation: str, error: OSError) -> DatapipesError:
        """Why there is no session."""
        return self._no_container(url, operation, error.errno or errno.EIO)

    def _from_os(self, error: OSError, url: str, operation: str) -> BackendIOError:
        if isinstance(error, BackendIOError):
            return error
        return self._failure(url, operation, error.errno or errno.EIO)

    def _failure(self, url: str, operation: str, code: int) -> BackendIOError:
        opened = self._opened
        if code == errno.ENOENT and opened is not None and not _stands(opened):
            object.__setattr__(self, "_opened", None)  # a container made anew is opened by the next call
            return self._no_container(url, operation, code)
        return failure(code, url=url, operation=operation)

    def _no_container(self, url: str, operation: str, code: int) -> BackendIOError:
        if code not in (errno.ENOENT, errno.ENOTDIR):
            return failure(code, url=url, operation=operation)
        return ContainerMissingError(
            f"{operation} {url!r} failed: no container {self.authority!r}: {self._absence()} [ENOENT]. "
            "Make it, or mend the URL",
            url=url,
            operation=operation,
            errno=errno.ENOENT,
        )

    def _absence(self) -> str:
        """How it looks that there is no container."""
        return f"{self.root()!r} is no directory, or was replaced while it was read"


def _identity(place: tuple[Table, str]) -> tuple[int, int]:
    """What tells a directory from another one in its place."""
    table, root = place
    if table != "posix":
        return 0, 0
    found = os.stat(root)
    return found.st_dev, found.st_ino


def _stands(opened: _Opened) -> bool:
    try:
        return _identity(opened.place) == opened.identity
    except OSError:
        return False
