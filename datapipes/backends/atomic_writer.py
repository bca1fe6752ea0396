"""A stream whose file appears when it is closed without an error, and not at all otherwise."""

from __future__ import annotations

import errno
import io
import os
import warnings
from types import TracebackType
from typing import TYPE_CHECKING, Self

from datapipes.backends.base import DEFAULT_WRITE_BYTES
from datapipes.errors import BackendIOError, DatapipesError

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["AtomicWriter"]


class AtomicWriter(io.BufferedIOBase):
    """Collects small writes into chunks; a store says where these go, and how the file appears.

    A writer that is dropped without ``close``, one whose ``with`` block raised, one of whose writes failed or
    was interrupted, and one that a forked child inherited make no file. The first of these is a
    RuntimeWarning, since nothing else would say so.

    Note to implementers: ``put`` is called with chunks in order, then ``commit`` or ``abandon`` once. A
    bytearray is put's to keep; a memoryview is of the caller's memory and good for the call only. A
    constructor that raises after this one calls ``discard`` first.
    """

    _pid = 0  # of a writer whose constructor failed: nothing to abandon
    _failure: DatapipesError | None = None

    def __init__(self, url: str, chunk_bytes: int = DEFAULT_WRITE_BYTES) -> None:
        super().__init__()
        self.name = url
        self.chunk_bytes = chunk_bytes
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
        if len(self._chunk) + len(view) > self.chunk_bytes:
            self.flush()
        if len(view) >= self.chunk_bytes:
            self._put(view)
        else:
            self._chunk += view
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
        self._check_process()
        try:
            self.put(data)
        except DatapipesError as error:
            self._failure = error
            raise
        except BaseException as error:
            why = f"write {self.name!r} failed: {type(error).__name__} came while it was written"
            self._failure = BackendIOError(why, url=self.name, operation="write", errno=errno.EINTR)
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
        self._check_process()
        self.commit()

    def _check_process(self) -> None:
        if self._pid != os.getpid():
            raise io.UnsupportedOperation(f"{self.name!r} is written by the parent process; open it anew")

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
        # Not written after all: a writer that an exception passed by is dropped too, and holds half a file.
        lost = not self.closed and self._failure is None and self._pid == os.getpid()
        self.discard()
        if lost:
            warnings.warn(
                f"{self.name!r} was not written: its writer was dropped without close(). Open it in a "
                "`with` block, or close it",
                RuntimeWarning,
                stacklevel=2,
            )
