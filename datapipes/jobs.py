"""``Job``: what the processes of one run share on one host, and how they find each other."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import uuid
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from datapipes.errors import FileMissingError, IndexFileError
from datapipes.index import FileIndex
from datapipes.job_directory import JobDirectory, base_directory, directory_name
from datapipes.job_locks import exclusive, process_mutex
from datapipes.job_tables import Origin, SharedCounters, SharedTable, TableLocks
from datapipes.launchers import launcher_job_id, launcher_rank

__all__ = ["DEFAULT_BUILD_TIMEOUT_S", "Job", "SharedCounters", "launcher_rank"]

DEFAULT_BUILD_TIMEOUT_S = 6 * 3600.0
"""How long a process waits for another one that lists: as long as the largest listings take."""

_jobs: dict[str, Job] = {}
_current: dict[str, Job] = {}


class Job:
    """The directory that all processes of a run share on this host: indexes, epochs, counters.

    The run is named by its launcher (torchrun, Slurm, MPI) or, without one, is this process and what it
    starts: forked children inherit the job, and everything that is pickled with a job in it carries the path.
    The directory lies below ``DATAPIPES_JOB_DIR``, else below the system's temporary directory, and goes with
    the last process; ``datapipes.job_directory`` tells how. A job that has ended and is met again, through a
    pickle, starts empty.
    """

    def __init__(self, path: Path) -> None:
        """Use ``current`` or ``at``, which give one object for each path and process."""
        self._directory = JobDirectory(path)
        self._ordinals = itertools.count()
        # Only those in use: a process may make any number of pipes.
        self._tables: weakref.WeakValueDictionary[str, SharedTable] = weakref.WeakValueDictionary()
        self._locks: TableLocks | None = None

    @classmethod
    def current(cls) -> Job:
        """The job of this process; its directory is made, and held until the process ends."""
        job = _current.get("job")
        if job is None:
            name = directory_name(_as_file_name(launcher_job_id() or uuid.uuid4().hex))
            job = _current.setdefault("job", cls.at(base_directory() / name))
        job.path  # noqa: B018 - before any child is forked, so that a child's end does not end the job
        return job

    @classmethod
    def at(cls, path: str | os.PathLike[str]) -> Job:
        """The job whose directory is ``path``; on another host, a directory of the same job there."""
        where = Path(os.path.abspath(path))
        where = where.with_name(directory_name(where.name.rpartition("@")[0] or where.name))
        return _jobs.setdefault(str(where), cls(where))

    @property
    def path(self) -> Path:
        """The absolute path of the directory, which exists and is held by this process."""
        if self._directory.hold():
            self._forget_tables()  # of a directory that is gone
        return self._directory.path

    def close(self) -> None:
        """Let go of the directory before the process ends; the last one out deletes it."""
        self._forget_tables()
        self._directory.release()

    def _forget_tables(self) -> None:
        self._tables.clear()
        self._locks = None

    def next_ordinal(self) -> int:
        """0, 1, 2, ...: ranks that build the same pipes in the same order give them the same numbers."""
        return next(self._ordinals)

    def shared_index(
        self,
        key: str,
        build: Callable[[Path], FileIndex],
        *,
        epoch: int | None = None,
        timeout_s: float = DEFAULT_BUILD_TIMEOUT_S,
    ) -> FileIndex:
        """The index for ``key``: the first process that asks builds it, all the others map what it built.

        Args:
            key: says all that the names depend on: sources, options, ordinal.
            build: writes the index to the path that it is given, and returns it.
            epoch: there is one for each epoch. Building one deletes those of epochs before the last:
                who has read from them keeps them.
            timeout_s: bound for waiting while another process builds.

        Raises:
            StoreTimeoutError: another process has been building for longer than ``timeout_s``.
            Whatever ``build`` raises; the next process to ask then tries again, as it does when the builder
            was killed.
        """
        path = self._file("index", key)
        if epoch is not None:
            path = path.with_name(f"{path.name}.{epoch}")
        index = _opened(path)
        if index is not None:
            return index
        lock = path.with_name(path.name + ".lock")
        with exclusive(lock, timeout_s=timeout_s, waiting_for="another process that lists the names"):
            index = _opened(path)
            if index is not None:
                return index
            for left in path.parent.glob(f".{path.name}.*.partial"):  # of a builder that was killed
                left.unlink(missing_ok=True)
            if epoch is not None:
                _delete_epochs_before(epoch - 1, path.with_suffix(""))
            return build(path)

    def counters(self, key: str, fields: Sequence[str]) -> SharedCounters:
        """Counters named ``fields`` of the pipe ``key`` on this rank, zero at first."""
        path = self._file("counters", _of_this_rank(f"{key} {list(fields)}"))
        origin = (_counters, (self, key, tuple(fields)))
        return SharedCounters(self._table(path, len(fields), origin), fields)

    def __repr__(self) -> str:
        return f"Job({str(self._directory.path)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _job_at, (str(self.path),)

    def _file(self, kind: str, key: str) -> Path:
        return self.path / f"{kind}-{hashlib.sha256(key.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}"

    def _table(self, path: Path, columns: int, origin: Origin) -> SharedTable:
        with process_mutex(f"{path.parent} tables"):
            table = self._tables.get(path.name)
            if table is None:
                if self._locks is None:
                    self._locks = TableLocks(path.parent / "tables.lock")
                table = self._tables[path.name] = SharedTable(path, columns, origin, self._locks)
        return table


def _job_at(path: str) -> Job:
    return Job.at(path)


def _counters(job: Job, key: str, fields: Sequence[str]) -> SharedCounters:
    return job.counters(key, fields)


def _of_this_rank(key: str) -> str:
    """Ranks share a host and a job, but each has counters of its own."""
    rank, world_size = launcher_rank()
    return f"{key} {rank}/{world_size}"


def _opened(path: Path) -> FileIndex | None:
    """The index at ``path``; None where there is none, or one that cannot be read and must be built anew."""
    try:
        return FileIndex.open(path)
    except (FileMissingError, IndexFileError):
        return None


def _delete_epochs_before(first: int, series: Path) -> None:
    for path in series.parent.glob(f"{series.name}.*"):
        epoch = path.name.removeprefix(f"{series.name}.").partition(".")[0]
        if epoch.isdecimal() and int(epoch) < first:
            path.unlink(missing_ok=True)


def _as_file_name(job_id: str) -> str:
    """A file name for the id, and another one for every other id."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", job_id).lstrip(".")[:80]
    return safe if safe == job_id else f"{safe}-{hashlib.sha256(job_id.encode()).hexdigest()[:12]}"
