"""A stream whose file appears when it is closed without an error, and not at all otherwise."""

from __future__ import annotations

import io
import os
from types import TracebackType
from typing import TYPE_CHECKING, Self

from datapipes.errors import DatapipesError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["AtomicWriter"]

_CHUNK_BYTES = 1 << 20


class AtomicWriter(io.BufferedIOBase):
    """Collects small writes into chunks; a store says where these go, and how the file appears.

    A writer that is dropped without ``close``, one whose ``with`` block raised, one of whose writes failed,
    and one that a forked child inherited make no file.

    Note to implementers: ``put`` is called with chunks in order, then ``commit`` or ``abandon`` once.
    """

    _pid = 0  # of a writer whose constructor failed: nothing to abandon
    _failure: DatapipesError | None = None

    def __init__(self, url: str) -> None:
        super().__init__()
        self.name = url
        self._chunk = bytearray()
        self._at = 0
        self._pid = os.getpid()

    def put(self, data: bytearray | memoryview) -> None:
        """Take the next bytes of the file. Raises DatapipesError."""
        raise NotImplementedError

    def commit(self) -> None:
        """Make the file appear with all that was put. Raises DatapipesError, and then there is no file."""
        raise NotImplementedError

    def abandon(self) -> None:
        """Leave nothing behind; raises nothing."""
        raise NotImplementedError

    def writable(self) -> bool:
        return not self.closed

    def tell(self) -> int:
        return self._at

    def write(self, data: Buffer, /) -> int:
        if self.closed:
            raise ValueError("write to a closed file")
        view = memoryview(data).cast("B")
        if len(view) >= _CHUNK_BYTES:
            self.flush()
            self._put(view)
        else:
            self._chunk += view
            if len(self._chunk) >= _CHUNK_BYTES:
                self.flush()
        self._at += len(view)
        return len(view)

    def flush(self) -> None:
        """Hand what has been collected to the store; the file does not appear before ``close``."""
        if self._chunk and not self.closed:
            chunk, self._chunk = self._chunk, bytearray()
            self._put(chunk)

    def _put(self, data: bytearray | memoryview) -> None:
        if self._failure is not None:
            raise self._failure
        try:
            self.put(data)
        except DatapipesError as error:
            self._failure = error
            raise

    def close(self) -> None:
        """Publish the file. Raises the error of an earlier write again: there is no file then."""
        if self.closed:
            return
        try:
            self._finish()
        except BaseException:
            self.discard()
            raise
        self._pid = 0
        super().close()

    def _finish(self) -> None:
        self.flush()
        if self._failure is not None:
            raise self._failure
        if self._pid != os.getpid():
            raise io.UnsupportedOperation(f"{self.name!r} is written by the parent process; open it anew")
        self.commit()

    def discard(self) -> None:
        """Close without making the file."""
        mine, self._pid = self._pid == os.getpid(), 0
        self._chunk = bytearray()
        if mine:
            self.abandon()
        if not self.closed:
            super().close()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()

    def __enter__(self) -> Self:
        super().__enter__()
        return self

    def __del__(self) -> None:
        self.discard()
