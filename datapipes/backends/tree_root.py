"""The root of a directory tree as a store: its URLs, its engine session in this process, its errors."""

from __future__ import annotations

import errno
import os
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, NamedTuple

from datapipes import _dfs
from datapipes.backends.base import Backend
from datapipes.backends.paths import path_in
from datapipes.backends.tree_errors import failure
from datapipes.errors import BackendIOError, ContainerMissingError
from datapipes.urls import format_url

__all__ = ["TreeRoot"]


class _Opened(NamedTuple):
    """A root as this process opened it."""

    pid: int
    root: str
    identity: tuple[int, int]
    session: _dfs.Session


class TreeRoot(Backend):
    """A root directory, which a subclass names.

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
        """The directory that is the container, as things stand now. May raise DatapipesError."""

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
        root, opened = self.root(), self._opened
        if opened is not None and opened.pid == os.getpid() and opened.root == root:
            return opened.session
        try:
            session = _dfs.Session("posix", root, open_delay_us=self.open_delay_us)
            identity = _identity(root)
        except OSError as error:
            raise self._no_container(url, operation, error.errno or errno.EIO) from None
        # Two threads may both come here: one of the sessions is then used for one call only.
        object.__setattr__(self, "_opened", _Opened(os.getpid(), root, identity, session))
        return session

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
            f"{operation} {url!r} failed: no container {self.authority!r}: {self.root()!r} is no directory, "
            f"or was replaced while it was read [ENOENT]. Make it, or mend the URL",
            url=url,
            operation=operation,
            errno=errno.ENOENT,
        )


def _identity(root: str) -> tuple[int, int]:
    found = os.stat(root)
    return found.st_dev, found.st_ino


def _stands(opened: _Opened) -> bool:
    try:
        return _identity(opened.root) == opened.identity
    except OSError:
        return False
