"""Small tables of numbers that the processes of a job share: counters."""

from __future__ import annotations

import contextlib
import mmap
import operator
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapipes.errors import OptionError, error_from_os
from datapipes.job_locks import Deadline, locked_file, open_lock, process_mutex

__all__ = ["MAX_SLOTS", "Origin", "SharedCounters", "SharedTable"]

MAX_SLOTS = 4096
"""Slots of a table: more than the workers of a host."""

_TIMEOUT_S = 30.0

Origin = tuple[Callable[..., Any], tuple[Any, ...]]


class SharedTable:
    """A mapped file of 8-byte floats, zero at first; the same memory in every process that opens it.

    What is made of it travels as the call that makes it again: ``origin``, a callable and its arguments.
    """

    def __init__(self, path: Path, rows: int, columns: int, origin: Origin) -> None:
        self._path, self.origin = path, origin
        size = 8 * rows * columns
        # One descriptor, kept open: closing any other of this process would drop the lock.
        self._fd = open_lock(path)
        weakref.finalize(self, os.close, self._fd)
        try:
            with self.locked():
                if os.fstat(self._fd).st_size != size:
                    _write_zeros(self._fd, size)  # a full disk is an error here, not a crash later
                self._map = mmap.mmap(self._fd, size)
        except OSError as error:
            hint = "Make room there, or set DATAPIPES_JOB_DIR to another directory of your own"
            raise error_from_os(error, url=str(path), operation="open job", hint=hint) from error
        self.numbers: NDArray[np.float64] = np.frombuffer(self._map, "<f8").reshape(rows, columns)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process and thread from changing the table."""
        deadline = Deadline(_TIMEOUT_S, url=str(self._path), waiting_for="a table of the job")
        mutex = process_mutex(str(self._path))
        while not mutex.acquire(timeout=deadline.left()):
            pass
        try:
            with locked_file(self._fd, deadline):
                yield
        finally:
            mutex.release()


def _write_zeros(fd: int, size: int) -> None:
    at = 0
    while at < size:
        at += os.pwrite(fd, bytes(size - at), at)


class SharedCounters:
    """Numbers that workers add to and anyone sums up, one row of them for each worker."""

    def __init__(self, table: SharedTable, fields: Sequence[str]) -> None:
        self._table = table
        self._fields = tuple(fields)

    @staticmethod
    def shape(fields: Sequence[str]) -> tuple[int, int]:
        """Rows and columns of the table."""
        return MAX_SLOTS, len(fields)

    def __reduce__(self) -> Origin:
        return self._table.origin

    def add(self, slot: int, amounts: Mapping[str, float]) -> None:
        """Add to the numbers of ``slot``: about 5 us, so gather first and add now and then.

        Any number of processes and threads may add to the same slot.
        """
        unknown = set(amounts) - set(self._fields)
        if unknown:
            raise OptionError(f"no such counter: {sorted(unknown)}; there are {list(self._fields)}")
        more = [float(amounts.get(field, 0.0)) for field in self._fields]
        row = check_slot(slot)
        with self._table.locked():
            self._table.numbers[row] += more

    def total(self) -> dict[str, float]:
        """The sums over all slots."""
        return dict(zip(self._fields, self._table.numbers.sum(axis=0).tolist(), strict=True))

    def of_slot(self, slot: int) -> dict[str, float]:
        """The numbers of one slot."""
        return dict(zip(self._fields, self._table.numbers[check_slot(slot)].tolist(), strict=True))


def check_slot(slot: int) -> int:
    """``slot``, or OptionError."""
    flag = isinstance(slot, bool) or not hasattr(slot, "__index__")
    number = -1 if flag else operator.index(slot)
    if not 0 <= number < MAX_SLOTS:
        raise OptionError(f"slot must be an integer of at least 0 and below {MAX_SLOTS}, not {slot!r}")
    return number
