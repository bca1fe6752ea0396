"""The native engine: many opens and reads in flight without the GIL, on directories (`posix`) and, with
libdfs, on DAOS containers. Paths are relative to the session's root; names that are not UTF-8 are surrogate
escaped. See ``_ext/README.md`` for layers, ownership and threads."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, final

from typing_extensions import Buffer

Request = tuple[str, int, int, int, Any]
"""(path, offset, length or -1, size of the whole file or -1, tag): see ``records.ReadRequest``; the tag is
any object and comes back with the result."""

@final
class Session:
    """One root directory or container opened in this process. Threads start at first use. Used in a forked
    child it raises RuntimeError: make a new one from the specification. Two threads may share a session.

    Raises OSError (errno, strerror, root) when the root cannot be opened, ValueError for an unknown table.
    """

    def __init__(self, table: Literal["posix"], root: str | bytes, *, open_delay_us: int = 0) -> None:
        """open_delay_us: each open sleeps so long first (a store with a round trip, for benchmarks)."""
    pid: int
    def read_many(
        self,
        requests: Iterable[Request],
        *,
        result: type[tuple[Any, ...]],
        error: Callable[[Any, str, int], BaseException],
        max_in_flight: int,
        max_buffer_bytes: int,
        ordered: bool = True,
        depth: int = 0,
        views: bool = False,
        timeout_s: float = 0.0,
        verify_size: bool = False,
    ) -> ReadIterator:
        """Yields ``result((position, tag, data or None, exception or None))``, a tuple subclass made without
        calling its ``__new__``. error(tag, operation, errno) makes the exception of a failed item and, with
        tag None, what is raised when not one thread could be started. depth: 0 adapts the number of threads
        to the measured throughput, N fixes it. views: data are read-only memoryviews of engine memory that
        returns to the engine when the last view is dropped. timeout_s: seconds in calls to the store before
        an item fails with ETIMEDOUT; 0: no bound. A file that ends before the size or length asked for fails
        with ENODATA; with verify_size, one longer than its size with EFBIG. A size of 0 counts as not known:
        files whose content is made as they are read tell it.

        Requests are pulled as results are taken, at most max_in_flight ahead. What the iterable raises is
        raised after the results before it. Two threads may share the iterator. Raises ValueError when the
        session is closed meanwhile, RuntimeError in a forked child."""
    def read_batch(
        self,
        requests: Sequence[Request],
        *,
        result: type[tuple[Any, ...]] | None = None,
        error: Callable[[Any, str, int], BaseException],
        max_in_flight: int,
        out: Buffer | None = None,
        spans: Sequence[tuple[int, int]] | None = None,
        timeout_s: float = 0.0,
        verify_size: bool = False,
    ) -> list[Any]:
        """All of a batch, in request order; threads read, and the caller waits without the GIL. Without a
        result class the data of each item, or its exception, stands for itself. With ``out``, a writable
        C-contiguous buffer, item i lands at out[spans[i][0]:spans[i][1]] and its data is a memoryview of that
        part; a span that does not fit its request is a ValueError. Memory that a thread which timed out may
        still write to stays exported until that thread has come back."""
    def list(
        self,
        path: str,
        *,
        recursive: bool = True,
        start_after: str | None = None,
        sizes: bool = True,
        depth: int = 0,
    ) -> ListIterator:
        """Yields blocks: lists of (path relative to the root, size or -1), in byte order of the path.

        path: a directory ("" is the root) or one file. A link to a file is listed with the size of the file,
        one that leads nowhere with -1, one to a directory not at all (unless it is ``path`` itself); sockets,
        pipes and devices are left out. sizes=False asks nothing about files but their names. depth: 0 adapts
        the number of threads, N fixes it."""
    def stat(self, path: str) -> tuple[Literal["file", "dir", "link", "other"], int, int]:
        """(kind, size in bytes, mtime in ns), symbolic links followed."""
    def write(self, path: str, data: Buffer) -> None:
        """Create or replace at once (a temporary name beside it, synced, renamed); parents are made."""
    def create(self, path: str) -> WriteFile: ...
    def rename(self, source: str, target: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def mkdir(self, path: str) -> None:
        """With parents; one that exists is fine."""
    def stats(self) -> Mapping[str, int]:
        """Now: threads, files_open, buffers_live, bytes_live and bytes_kept (of buffers in use, and kept for
        reuse), readers_live, listings_live, graveyard (items given up on whose thread has not come back). In
        all: reads, read_bytes, lists."""
    def close(self) -> None:
        """Refuse new work, stop what runs; waits a second at most for threads."""

@final
class ReadIterator(Iterator[Any]):
    def __iter__(self) -> ReadIterator: ...
    def __next__(self) -> Any: ...
    def close(self) -> None:
        """Cancel what is in flight and free it; from any thread, any number of times. Waits a second at most:
        what hangs longer is left to its thread."""
    def stats(self) -> dict[str, float]:
        """items, bytes, errors (taken), wait_s, depth (threads wanted), threads, in_flight (now)."""

@final
class ListIterator(Iterator[list[tuple[str, int]]]):
    def __iter__(self) -> ListIterator: ...
    def __next__(self) -> list[tuple[str, int]]:
        """An OSError names the path it concerns; it comes after all entries before that path, and stays."""
    def close(self) -> None: ...
    def stats(self) -> dict[str, int]:
        """entries, directories, left_out (special files, links to directories), depth (threads)."""

@final
class WriteFile:
    def write(self, data: Buffer) -> int: ...
    def sync(self) -> None: ...
    def close(self) -> None: ...

build_type: Literal["release", "debug"]
