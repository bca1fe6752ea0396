"""``Checkpoint``: files of a container for ``torch.save`` and ``torch.load``."""

from __future__ import annotations

import errno
import io
import os
import re
import stat
from collections.abc import Iterator
from contextlib import closing, suppress
from types import TracebackType
from typing import BinaryIO, Self, TypeVar, cast, overload

from datapipes.backends.base import DEFAULT_BUFFER_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S
from datapipes.backends.checks import (
    MOST_CHUNK_BYTES,
    MOST_IN_FLIGHT,
    MOST_WRITERS,
    check_count,
    check_read_options,
)
from datapipes.backends.daos import DaosBackend, NewFile
from datapipes.backends.registry import backend_for
from datapipes.datasets.daos_names import container_of, text_of, url_in
from datapipes.errors import BackendIOError, IsDirectoryError, OptionError
from datapipes.records import ReadRequest

__all__ = ["Checkpoint"]

Stream = TypeVar("Stream", bound=BinaryIO)

DEFAULT_CHUNK_SIZE = 64 * 1024 * 1024

_MOST_FILE_CHUNK = (1 << 63) - 1
"""No file is larger."""

_FLAGS = os.O_CREAT | os.O_RDWR | os.O_WRONLY | os.O_TRUNC
"""All that ``open_flags`` may say: a checkpoint is made, or replaced."""


class Checkpoint:
    """Reads and writes files below ``prefix`` of a container. Takes the place of ``pydaos.torch.Checkpoint``.

    A checkpoint is there when its writer is closed, whole, or not at all: not while it is written, and not
    after a ``with`` block that raised. One of the same name is replaced at that moment. A writer that is
    dropped without ``close`` is a RuntimeWarning, and no checkpoint.

    Args:
        pool, cont: label or UUID each. ``container`` is another name of ``cont``.
        prefix: a directory of the container; the root by default. An absolute ``file`` stands by itself.
        open_flags: OptionError for flags that ask for something else than to make or to replace a file.
        transfer_chunk_size: bytes of one read or write, several of which are under way at once. 0: one read
            for all of a file, and writes in order, as they come.
        chunks_limit: chunks under way at most; 0 leaves it to us: as many as ``workers`` where each costs
            memory of its own, else 64.
        workers: threads that write the chunks of one file.
        mode: permissions of the files.
        class_name, file_chunk_size: their object class, by name, and the bytes of one of their chunks in
            DAOS; ``"OC_UNKNOWN"`` and 0 leave it to the container.
        timeout_s: bound on each read in seconds; None for none.
    """

    def __init__(
        self,
        pool: str | None = None,
        cont: str | None = None,
        prefix: str | os.PathLike[str] = "/",
        mode: int = stat.S_IFREG | stat.S_IRUSR | stat.S_IWUSR | stat.S_IRGRP | stat.S_IROTH,
        open_flags: int = os.O_CREAT | os.O_RDWR,
        class_name: str = "OC_UNKNOWN",
        file_chunk_size: int = 0,
        transfer_chunk_size: int = DEFAULT_CHUNK_SIZE,
        chunks_limit: int = 0,
        workers: int = 4,
        *,
        container: str | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        self._container = container_of(pool, cont, container)
        counts = (
            ("mode", mode, 0, 0o177777),
            ("open_flags", open_flags, 0, 1 << 32),
            ("file_chunk_size", file_chunk_size, 0, _MOST_FILE_CHUNK),
            ("transfer_chunk_size", transfer_chunk_size, 0, MOST_CHUNK_BYTES),
            ("chunks_limit", chunks_limit, 0, MOST_IN_FLIGHT),
            ("workers", workers, 1, MOST_WRITERS),
        )
        mode, open_flags, file_chunk_size, transfer_chunk_size, chunks_limit, workers = (
            check_count(name, value, least=least, most=most) for name, value, least, most in counts
        )
        if not open_flags & os.O_CREAT or open_flags & ~_FLAGS:
            raise OptionError(
                f"open_flags={open_flags:#o}: a checkpoint is made or replaced as a whole. They must have "
                "O_CREAT, and may have O_RDWR, O_WRONLY and O_TRUNC"
            )
        check_read_options(max_in_flight=1, timeout_s=timeout_s)
        self._timeout_s = timeout_s
        self._prefix = os.path.join("/", text_of("prefix", prefix))
        self._chunk = transfer_chunk_size
        self._chunks_limit = chunks_limit
        self._new_file = NewFile(stat.S_IMODE(mode), _object_class(class_name), file_chunk_size)
        given = {"class_name": self._new_file.object_class and class_name, "file_chunk_size": file_chunk_size}
        self._layout = " and ".join(f"{name}={value!r}" for name, value in given.items() if value)
        self._workers = workers

    @overload
    def reader(self, file: str | os.PathLike[str], stream: None = None) -> io.BytesIO: ...

    @overload
    def reader(self, file: str | os.PathLike[str], stream: Stream) -> Stream: ...

    def reader(self, file: str | os.PathLike[str], stream: BinaryIO | None = None) -> BinaryIO:
        """The content of ``file``, as a BytesIO or written to ``stream``; at position 0 when it is returned.

        A stream gets chunk after chunk, ``chunks_limit`` (or ``workers``) of them in memory at most, or
        64 MiB where that is more. Nobody may replace the file meanwhile: its chunks are read one by one.

        Raises FileMissingError, IsDirectoryError, SizeMismatchError and others; ``stream`` may then hold any
        part.
        """
        url = self._url(file)
        backend = backend_for(url)
        size = backend.stat(url).size
        requests = list(self._requests(url, size))
        if stream is None:
            memory = io.BytesIO(bytes(size))
            for result in backend.read_batch(
                requests,
                out=memory.getbuffer(),
                max_in_flight=self._chunks_limit or DEFAULT_IN_FLIGHT,
                timeout_s=self._timeout_s,
            ):
                result.unwrap()
            return memory
        results = backend.read_many(
            requests,
            max_in_flight=self._chunks_limit or DEFAULT_IN_FLIGHT,
            max_buffer_bytes=max((self._chunks_limit or self._workers) * self._chunk, DEFAULT_BUFFER_BYTES),
            timeout_s=self._timeout_s,
        )
        with closing(results):
            for result in results:
                stream.write(result.unwrap())
        stream.seek(0)
        return stream

    def writer(self, file: str | os.PathLike[str], ensure_path: bool = True) -> BinaryIO:  # noqa: FBT001, FBT002 - as there
        """A stream to write ``file`` with, and a context manager.

        What is written is collected into chunks of ``transfer_chunk_size``, of which ``workers`` (at most
        ``chunks_limit``) are being written while the next one is filled; so one more is in memory. A larger
        piece, the storage of a tensor, say, is written in such parts from where it lies. Where one of them
        fails, its error comes from a later ``write``, or from ``close``, and the file does not appear.

        Missing directories are made; with ``ensure_path=False`` they are a FileMissingError. An object class
        that DAOS does not know, or cannot lay out there, is an OptionError.
        """
        url = self._url(file)
        backend = cast("DaosBackend", backend_for(url))
        if not ensure_path:
            with suppress(IsDirectoryError):  # as it should be
                backend.stat(url.rpartition("/")[0] + "/")
        try:
            if not self._chunk:
                return backend.open_write(url, new_file=self._new_file)
            at_once = min(self._workers, self._chunks_limit or self._workers)
            return backend.open_write(
                url, chunk_bytes=self._chunk, max_in_flight=at_once, new_file=self._new_file
            )
        except BackendIOError as error:
            if type(error) is not BackendIOError or error.errno != errno.EINVAL or not self._layout:
                raise
            # Names and containers that cannot be have errors of other classes.
            raise OptionError(
                f"DAOS makes no file with {self._layout}: {error}",
                url=url,
                operation=error.operation,
                errno=error.errno,
            ) from error

    def close(self) -> None:
        """Nothing is held: connections belong to the process. For old lines."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Checkpoint({self._container!r}, prefix={self._prefix!r})"

    def _url(self, file: str | os.PathLike[str] | None) -> str:
        if file is None or file == "":
            raise OptionError(f"file is required: a path below {self._prefix!r}; it is {file!r}")
        return url_in(self._container, os.path.join(self._prefix, text_of("file", file)))

    def _requests(self, url: str, size: int) -> Iterator[ReadRequest]:
        chunk = self._chunk or max(size, 1)
        for offset in range(0, size, chunk):
            yield ReadRequest(url, offset, min(chunk, size - offset), size)


def _object_class(name: object) -> str | None:
    """The object class as DAOS calls it, None for the container's own; OptionError for what no class is
    called. Which ones there are DAOS says when a file is made."""
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_]+", name.removeprefix("OC_")):
        raise OptionError(f"class_name must be the name of an object class, 'OC_SX' say, not {name!r:.200}")
    return None if name == "OC_UNKNOWN" else name.removeprefix("OC_")
