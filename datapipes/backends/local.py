"""Plain directories: local disk, or any file system that is mounted (Lustre, NFS, a dfuse mount)."""

from __future__ import annotations

from dataclasses import dataclass, field

from datapipes.backends.checks import check_option
from datapipes.backends.tree import TreeBackend

__all__ = ["LocalBackend"]


@dataclass(frozen=True)
class LocalBackend(TreeBackend):
    """``file:///absolute/path`` URLs and plain paths; listings yield the former.

    Symbolic links to files are files; links to directories are not listed through, their files are listed
    where they are. Sockets, pipes and devices are left out of listings.

    Attributes:
        open_delay_us: each open for reading sleeps so long first, in microseconds: a store with a round
            trip, for benchmarks and tests.
    """

    open_delay_us: int = field(default=0, kw_only=True)

    scheme = "file"
    raw = "/"

    def __post_init__(self) -> None:
        check_option("open_delay_us", self.open_delay_us, least=0, most=1e9)

    @property
    def authority(self) -> str:
        return ""

    def root(self) -> str:
        return "/"


def from_url(url: str) -> LocalBackend:  # noqa: ARG001 - one back end serves every path
    """The machine's directories, whatever ``url`` names."""
    return LocalBackend()
