"""DAOS containers, by libdfs, or from directories: the embedded container."""

from __future__ import annotations

import errno
import multiprocessing
import os
import re
from dataclasses import dataclass
from typing import Any

from datapipes.backends.tree import TreeBackend
from datapipes.backends.tree_errors import failure
from datapipes.backends.tree_root import Table
from datapipes.backends.tree_writer import NewFile
from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    BackendUnavailableError,
    ContainerMissingError,
    DatapipesError,
    StoreConnectionError,
    StoreTimeoutError,
    UrlError,
)
from datapipes.urls import parse_url

__all__ = ["ROOT_VARIABLE", "DaosBackend", "NewFile"]

LIBRARIES_VARIABLE = "DATAPIPES_LIBDFS_DIR"
"""Environment variable: the directory of DAOS's libraries, where the system does not find them by itself."""

ROOT_VARIABLE = "DATAPIPES_DAOS_ROOT"
"""Environment variable: the directory in which ``pool/container`` stand for ``daos://pool/container``."""

_LABEL = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._:-]{1,127}")
"""What DAOS takes as a pool's or container's label (or UUID)."""


_CLASSES: dict[int, type[BackendIOError]] = {
    errno.ENOENT: ContainerMissingError,
    errno.EINVAL: ContainerMissingError,  # a name that none can have, or a container that is not POSIX
    errno.EIO: StoreConnectionError,
    errno.ETIMEDOUT: StoreTimeoutError,
    errno.EPERM: AccessDeniedError,
}
"""What a session is not opened for; the engine says why in the error's ``strerror``."""


@dataclass(frozen=True)
class DaosBackend(TreeBackend):
    """``daos://pool/container/path``, read by the engine through libdfs: no dfuse mount, no interception.

    With ``DATAPIPES_DAOS_ROOT`` set, it is ``$DATAPIPES_DAOS_ROOT/pool/container/path`` instead. The
    variable is read whenever work begins, in the process that does it. A pickled back end takes its value
    along to workers, since those of a ``forkserver`` have the variables of the moment when that was started.
    A ``..`` may not lead out of the container; symbolic links inside it are followed.

    Attributes:
        pool: label or UUID of the pool.
        container: label or UUID of the container in it.
    """

    pool: str
    container: str

    scheme = "daos"

    def __post_init__(self) -> None:
        for label in (self.pool, self.container):
            if not _LABEL.fullmatch(label):
                raise UrlError(
                    f"'daos://{self.pool}/{self.container}': {label!r} is no label that DAOS takes "
                    "(up to 127 of letters, digits, '.', '_', ':' and '-')",
                    url=f"daos://{self.pool}/{self.container}",
                    operation="parse",
                )

    @property
    def authority(self) -> str:
        return f"{self.pool}/{self.container}"

    def _directory(self) -> str | None:
        told: tuple[int, str | None] | None = self.__dict__.get("_told")
        parent = multiprocessing.parent_process()
        if told is not None and parent is not None and parent.pid == told[0]:
            return told[1]
        return os.environ.get(ROOT_VARIABLE)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_told": (os.getpid(), self._directory())}

    def table(self) -> Table:
        return "posix" if self._directory() else "dfs"

    def root(self) -> str:
        directory = self._directory()
        if not directory:
            return self.authority
        return os.path.join(os.path.abspath(directory), self.pool, self.container)

    def _not_opened(self, url: str, operation: str, error: OSError) -> DatapipesError:
        code = error.errno or errno.EIO
        if self.table() == "posix":
            return self._no_container(url, operation, code)
        if code == errno.ELIBACC:
            return BackendUnavailableError(
                f"{operation} {url!r} failed: {error.strerror}. There are two ways out. Install DAOS's "
                f"client libraries (package daos-client), or say with {LIBRARIES_VARIABLE} where they are. "
                f"Or set {ROOT_VARIABLE}=/dir, and the directory /dir/{self.authority} is read instead (the "
                "embedded container)",
                url=url,
                operation=operation,
            )
        cls = _CLASSES.get(code)
        if cls is None:
            return failure(code, url=url, operation=operation)
        message = f"{operation} {url!r} failed: {error.strerror} [{errno.errorcode[code]}]"
        return cls(message, url=url, operation=operation, errno=code)

    def _absence(self) -> str:
        return super()._absence() if self.table() == "posix" else "DAOS knows none of this name"


def from_url(url: str) -> DaosBackend:
    """The container that ``url`` names."""
    return DaosBackend(*parse_url(url).container.split("/"))
