"""What travels between the rooms: small immutable tuples, cheap to make by the million."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datapipes.errors import DatapipesError

__all__ = ["UNKNOWN_SIZE", "WHOLE", "FileEntry", "HandleFile", "ReadRequest", "ReadResult"]

WHOLE = -1
"""``length`` of a request that reads to the end of the file."""

UNKNOWN_SIZE = -1
"""``size`` of a file whose size nobody has asked for."""


class FileEntry(NamedTuple):
    """What a lister knows of a file: its URL and its size in bytes (``UNKNOWN_SIZE`` where not asked for)."""

    url: str
    size: int = UNKNOWN_SIZE


class ReadRequest(NamedTuple):
    """Bytes wanted: ``length`` bytes of ``url`` from byte ``offset`` on (``WHOLE``: to the end).

    ``size`` is the size of the whole file in bytes as far as the caller knows it. A known size spares the
    store a question and the data a copy; a file that turns out shorter is an error.
    """

    url: str
    offset: int = 0
    length: int = WHOLE
    size: int = UNKNOWN_SIZE


class ReadResult(NamedTuple):
    """One answer of ``Backend.read_many``: data or an error, never both, never neither.

    ``position`` counts the requests of one call from 0; with ``ordered=False`` it tells which came early.
    """

    position: int
    request: ReadRequest
    data: bytes | bytearray | memoryview | None
    error: DatapipesError | None

    def unwrap(self) -> bytes | bytearray | memoryview:
        """The data, or raise the error."""
        if self.error is not None:
            raise self.error
        assert self.data is not None  # noqa: S101 - the invariant of this class
        return self.data


class HandleFile(NamedTuple):
    """Where a store may keep what opening and reading the files of one index has taught it.

    ``identity`` is of the index that lists them, of ``files`` names; the file at ``path`` may grow to
    ``max_bytes``.
    """

    path: str
    identity: str
    files: int
    max_bytes: int
