"""Small tables of numbers that the processes of a job share: counters."""

from __future__ import annotations

import contextlib
import mmap
import operator
import os
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapipes.errors import OptionError, error_from_os
from datapipes.job_locks import Deadline, locked_file, open_lock, process_mutex

__all__ = ["MAX_SLOTS", "Origin", "SharedCounters", "SharedTable", "TableLocks"]

MAX_SLOTS = 4096
"""Slots of a table: more than the workers of a host."""

_TIMEOUT_S = 30.0

_LOCKS = 256
"""Of a job: bytes of one file. Two tables that share one wait for each other, for some microseconds."""

Origin = tuple[Callable[..., Any], tuple[Any, ...]]


class TableLocks:
    """The locks of all tables of a job, in one file.

    The file has one descriptor, kept open: closing any other of this process would drop its locks.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._fd = path, open_lock(path)
        weakref.finalize(self, os.close, self._fd)

    @contextlib.contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Keep every other process and thread from making the table ``name`` longer."""
        at = zlib.crc32(name.encode()) % _LOCKS
        deadline = Deadline(_TIMEOUT_S, url=str(self._path), waiting_for="a table of the job")
        mutex = process_mutex(f"{self._path} {at}")
        while not mutex.acquire(timeout=deadline.left()):
            pass
        try:
            with locked_file(self._fd, deadline, at=at):
                yield
        finally:
            mutex.release()


class SharedTable:
    """A mapped file of rows of 8-byte floats, zero at first; the same memory in every process that opens it.

    It is as long as the rows that were asked for need, by the page. What is made of it travels as the call
    that makes it again: ``origin``, a callable and its arguments.
    """

    def __init__(self, path: Path, columns: int, origin: Origin, locks: TableLocks) -> None:
        self.origin = origin
        self._path, self._locks, self._columns = path, locks, columns
        self._held, self._rows = self._mapped(1)

    def rows(self, least: int) -> NDArray[np.float64]:
        """The rows that any process has asked for, and at least so many."""
        if len(self._rows) < least or self._held.size() > len(self._held):
            self._held, self._rows = self._mapped(least)
        return self._rows

    def _mapped(self, least: int) -> tuple[mmap.mmap, NDArray[np.float64]]:
        row_bytes = 8 * self._columns
        step = max(1, mmap.PAGESIZE // row_bytes)
        needed = -(-least // step) * step * row_bytes
        try:
            fd = open_lock(self._path)
            try:
                with self._locks.held(self._path.name):  # nobody else makes it longer meanwhile
                    size = os.fstat(fd).st_size
                    if size < needed:
                        _write_zeros(fd, size, needed)  # a full disk is an error here, not a crash later
                    held = mmap.mmap(fd, max(size, needed))
            finally:
                os.close(fd)
        except OSError as error:
            hint = "Make room there, or set DATAPIPES_JOB_DIR to another directory of your own"
            raise error_from_os(error, url=str(self._path), operation="open job", hint=hint) from error
        whole = len(held) // row_bytes * self._columns  # a writer may have died in the middle of a row
        return held, np.frombuffer(held, "<f8", whole).reshape(-1, self._columns)


def _write_zeros(fd: int, at: int, end: int) -> None:
    while at < end:
        at += os.pwrite(fd, bytes(end - at), at)


class SharedCounters:
    """Numbers that workers add to and anyone sums up, one row of them for each worker."""

    def __init__(self, table: SharedTable, fields: Sequence[str]) -> None:
        from datapipes import _dfs  # noqa: PLC0415 - loads the engine

        self._table = table
        self._fields = tuple(fields)
        self._add = _dfs.add_shared

    def __reduce__(self) -> Origin:
        return self._table.origin

    def add(self, slot: int, amounts: Mapping[str, float]) -> None:
        """Add to the numbers of ``slot``.

        Any number of processes and threads may add to the same slot; nobody waits.
        """
        unknown = amounts.keys() - self._fields
        if unknown:
            raise OptionError(f"no such counter: {sorted(unknown)}; there are {list(self._fields)}")
        row = check_slot(slot)
        numbers = self._table.rows(row + 1).data
        more = [amounts.get(field, 0.0) for field in self._fields]
        self._add(numbers, row * len(more), more)

    def total(self) -> dict[str, float]:
        """The sums over all slots."""
        return dict(zip(self._fields, self._table.rows(1).sum(axis=0).tolist(), strict=True))

    def of_slot(self, slot: int) -> dict[str, float]:
        """The numbers of one slot."""
        row = check_slot(slot)
        return dict(zip(self._fields, self._table.rows(row + 1)[row].tolist(), strict=True))


def check_slot(slot: int) -> int:
    """``slot``, or OptionError."""
    flag = isinstance(slot, bool) or not hasattr(slot, "__index__")
    number = -1 if flag else operator.index(slot)
    if not 0 <= number < MAX_SLOTS:
        raise OptionError(f"slot must be an integer of at least 0 and below {MAX_SLOTS}, not {slot!r}")
    return number
