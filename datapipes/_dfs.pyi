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

    def __init__(self, table: Literal["posix", "dfs"], root: str | bytes, *, open_delay_us: int = 0) -> None:
        """root: a directory's path, or "POOL/CONTAINER" by labels or UUIDs. For dfs the error says in its
        ``strerror`` what is amiss: no library (errno ELIBACC), no agent (EIO), no engine (ETIMEDOUT), no such
        pool or container (ENOENT), a name that is none or a container that is not POSIX (EINVAL).

        open_delay_us: each open sleeps so long first (a store with a round trip, for benchmarks)."""
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
        writable: bool = False,
        handles: Handles | None = None,
    ) -> ReadIterator:
        """Yields ``result((position, tag, data or None, exception or None))``, a tuple subclass made without
        calling its ``__new__``. error(tag, operation, errno) makes the exception of a failed item and, with
        tag None, what is raised when not one thread could be started. depth: 0 adapts the number of threads
        to the measured throughput, N fixes it. Data are bytes; with writable bytearrays; with views read-only
        memoryviews of engine memory that returns to the engine when the last view is dropped. timeout_s:
        seconds in calls to the store before an item fails with ETIMEDOUT; 0: no bound. A file that ends
        before the size or length asked for fails with ENODATA; with verify_size, one longer than its size
        with EFBIG. A size of 0 counts as not known: files whose content is made as they are read tell it.
        handles: files that were read before with the same table are opened without a round trip, and read
        without asking for their size, on stores where that counts; whatever then goes wrong is looked at
        again by path.

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
        writable: bool = False,
        handles: Handles | None = None,
    ) -> list[Any]:
        """All of a batch, in request order; threads read, and the caller waits without the GIL. Without a
        result class the data of each item, or its exception, stands for itself. With ``out``, a writable
        C-contiguous buffer, item i lands at out[spans[i][0]:spans[i][1]] and its data is a memoryview of that
        part; a span that does not fit its request is a ValueError. Memory that a thread which timed out may
        still write to stays exported until that thread has come back. writable: without ``out``, data are
        bytearrays."""
    def list(
        self,
        path: str,
        *,
        recursive: bool = True,
        start_after: str | None = None,
        sizes: bool = True,
        types: bool = True,
        handles: HandleSpool | None = None,
        depth: int = 0,
    ) -> ListIterator:
        """Yields blocks: lists of (path relative to the root, size or -1), in byte order of the path.

        path: a directory ("" is the root) or one file. A link to a file is listed with the size of the file,
        one that leads nowhere with -1, one to a directory not at all (unless it is ``path`` itself); sockets,
        pipes and devices are left out. sizes=False asks for no sizes: those that do not come by themselves
        are -1. types=False without sizes: where the type does not come with the name (dfs), each name is
        taken for a file's, and nothing is asked but names. handles: where looking at a file opens it (dfs),
        what opens it again is kept there. depth: 0 adapts the number of threads, N fixes it."""
    def stat(self, path: str) -> tuple[Literal["file", "dir", "link", "other"], int, int]:
        """(kind, size in bytes, mtime in ns), symbolic links followed."""
    def write(self, path: str, data: Buffer) -> None:
        """Create or replace at once (a temporary name beside it, synced, renamed); parents are made."""
    def create(
        self, path: str, *, mode: int = 0, object_class: str | None = None, chunk_bytes: int = 0
    ) -> WriteFile:
        """A new or emptied file for writing. mode: its permissions; object_class, by name, and chunk_bytes:
        how DAOS lays it out. Without them it is as the store has it. EINVAL: there is no such class."""
    def rename(self, source: str, target: str) -> None: ...
    def remove(self, path: str) -> None: ...
    def mkdir(self, path: str) -> None:
        """With parents; one that exists is fine."""
    def stats(self) -> Mapping[str, int]:
        """Now: threads, files_open, buffers_live, bytes_live and bytes_kept (of buffers in use, and kept for
        reuse), readers_live, listings_live, graveyard (items given up on whose thread has not come back). In
        all: reads, read_bytes, lists, handle_hits (files opened by a handle that was kept)."""
    def close(self) -> None:
        """Refuse new work, stop what runs; waits for threads as ``ReadIterator.close`` does."""

@final
class ReadIterator(Iterator[Any]):
    def __iter__(self) -> ReadIterator: ...
    def __next__(self) -> Any: ...
    def close(self) -> None:
        """Cancel what is in flight and free it; from any thread, any number of times. Waits a second at most,
        and while a KeyboardInterrupt is handled 40 ms: what hangs longer is left to its thread."""
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
    def write(self, data: Buffer, offset: int = ..., /) -> int:
        """All of ``data`` behind what was written so far, or at ``offset``, where several threads may write
        at once. Its length in bytes."""
    def sync(self) -> None: ...
    def close(self) -> None: ...

@final
class Handles:
    """A table of handles and sizes of files: a file that all processes which read the same data map, shared.
    Used by any number of threads, and in forked children. What is in it are hints, which reading checks."""

    def __init__(self, path: str, *, identity: str, files: int, max_bytes: int) -> None:
        """Open the table at ``path``, or make it: for so many files, as far as they fit into ``max_bytes`` (a
        table that is there keeps its size). One that was made for another ``identity``, or is damaged, is
        replaced. Raises OSError: it cannot be made, or another kind of file lies there (EEXIST)."""

@final
class HandleSpool:
    """Handles that listings come by, in a file without a name, until their table can be made."""

    def __init__(self, directory: str, *, max_bytes: int, masks: Sequence[str] = ()) -> None:
        """In ``directory``, for a table of ``max_bytes`` at most. masks: shell patterns, one of which a
        file's name must match, without its directory; none: all are kept. Raises OSError."""
    def settle(self, path: str, *, identity: str, files: int, max_bytes: int) -> None:
        """Make the table at ``path`` as ``Handles`` would, in place of one that is there, of all that was
        kept; it appears when it is complete. Raises OSError."""
    def give_up(self) -> None:
        """Let go of all that was kept, and keep nothing more: the room is needed."""

@final
class TarError(ValueError):
    """A tar archive is damaged, cut short, or not readable here; ``args`` are the reason and the offset, in
    bytes from the archive's start, at which it shows."""

    args: tuple[str, int]

def tar_members(buffer: Buffer, /, *, start: int = 0) -> list[tuple[str, int, int]]:
    """(name, offset of the data, size) of every regular file of the archive in ``buffer``, in stored order.

    start: the offset of a header, where the walk begins. Offsets count from the buffer's start. Names are
    UTF-8 with surrogate escapes. Read are ustar, pax (``path`` and ``size``; global headers are passed over),
    GNU long names, base-256 sizes and the headers from before these, where a name that ends with a slash is a
    directory's. Passed over are directories, devices and links: a hard link has no data of its own, which
    stands under the name of the file that came first. So are members of unknown type, with their data.

    TarError for what is damaged or cut short, an archive that ends without its marker (one block of zeros at
    least: without it, one cut between two members could not be told from a whole one), sparse files, and a
    global pax header that gives all members one path or size. What follows the marker is not looked at."""

@final
class TarStream:
    """The same for an archive that comes in pieces."""

    def __init__(self, *, offset: int = 0, views: bool = False, max_member_bytes: int = ...) -> None:
        """offset: where in the archive the first piece begins: at a header, which may be an extended one.
        max_member_bytes: a larger member is a TarError (no bound by default), as is one that does not fit
        into memory."""
    def feed(self, piece: Buffer, /) -> list[tuple[str, bytes | memoryview, int]]:
        """(name, data, offset where the archive goes on) of the members that end within ``piece``.

        A stream that goes on after a member starts at that offset. Data are bytes, or with views read-only
        memoryviews: of the piece, which they keep, where a body lies in one, else of memory of its own. A
        body is copied once, or not at all. Nothing else of a piece is kept. A TarError comes from the first
        call that has no members from before it to return, and from every later one. RuntimeError while
        another call runs."""
    def finish(self) -> None:
        """The last piece was given: TarError unless the end marker was met."""
    @property
    def ended(self) -> bool:
        """Whether the end marker was met: no more pieces are needed."""

build_type: Literal["release", "debug"]

def call_log(calls: list[tuple[object, ...]], /) -> Callable[..., None]:
    """A callable that appends the tuple of its arguments to ``calls`` and does nothing else. It runs no
    bytecode, so no signal's handler is run in it: for libraries that print the exceptions of their callbacks
    and go on."""

def add_shared(memory: Buffer, first: int, amounts: Sequence[float], /) -> None:
    """Add ``amounts``, at most 64, to the 8-byte floats of ``memory`` from number ``first`` on. Any number of
    threads and processes that share the memory may do so at the same time: nothing is lost, nobody waits."""

def index_rows(
    mapped: Buffer, blocks: Buffer, roots: tuple[str, ...], rows: list[int], /
) -> tuple[list[str], list[int]]:
    """URLs and sizes (-1 where unknown) of ``rows`` of a mapped index file, in the order given. ``blocks``
    has five 8-byte integers for each block: where starts, sizes and upper halves of sizes lie (in words of 4
    bytes; -1 for no upper halves), where names lie, and how many bytes they have. ``roots`` has what the
    names of each block begin with. IndexError for a row that is not there, TypeError for one that is no plain
    int, ValueError where the file is damaged."""
