"""DAOS containers. This version serves them from directories: the embedded container."""

from __future__ import annotations

import multiprocessing
import os
import re
from dataclasses import dataclass
from typing import Any

from datapipes.backends.tree import TreeBackend
from datapipes.errors import BackendUnavailableError, UrlError
from datapipes.urls import parse_url

__all__ = ["ROOT_VARIABLE", "DaosBackend"]

ROOT_VARIABLE = "DATAPIPES_DAOS_ROOT"
"""Environment variable: the directory in which ``pool/container`` stand for ``daos://pool/container``."""

_LABEL = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._:-]{1,127}")
"""What DAOS takes as a pool's or container's label (or UUID)."""


@dataclass(frozen=True)
class DaosBackend(TreeBackend):
    """``daos://pool/container/path``, served from ``$DATAPIPES_DAOS_ROOT/pool/container/path``.

    The variable is read whenever work begins, in the process that does it. A pickled back end takes its value
    along to workers, since those of a ``forkserver`` have the variables of the moment when that was started.
    A ``..`` may not lead out of the container; symbolic links inside it are followed wherever they lead.

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

    def root(self) -> str:
        directory = self._directory()
        if not directory:
            url = f"daos://{self.authority}/"
            raise BackendUnavailableError(
                f"open {url!r} failed: there is no DAOS to read it from. There are two ways out. Set "
                f"{ROOT_VARIABLE}=/dir, and it is served from the directory /dir/{self.authority} (the "
                "embedded container): this is what this version of datapipes does. Or read a real pool: that "
                "takes the DAOS client libraries (libdfs, DAOS 2.6 or newer) and the next version of "
                "datapipes, as this one cannot use them yet; until then a dfuse mount of the container can "
                "be read as plain paths",
                url=url,
                operation="open",
            )
        return os.path.join(os.path.abspath(directory), self.pool, self.container)


def from_url(url: str) -> DaosBackend:
    """The container that ``url`` names."""
    return DaosBackend(*parse_url(url).container.split("/"))
