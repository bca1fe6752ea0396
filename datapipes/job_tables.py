"""Small tables of numbers that the processes of a job share: epochs and counters."""

from __future__ import annotations

import contextlib
import mmap
import operator
import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from datapipes.errors import OptionError, error_from_os
from datapipes.job_locks import Deadline, locked_file, open_lock, process_mutex

__all__ = ["MAX_EPOCH", "MAX_SLOTS", "EpochSlots", "Number", "Origin", "SharedCounters", "SharedTable"]

MAX_SLOTS = 4096
"""Slots of a table: more than the workers of a host."""

MAX_EPOCH = 1 << 62

_TIMEOUT_S = 30.0

Number = Literal["<i8", "<f8"]
Origin = tuple[Callable[..., Any], tuple[Any, ...]]


class SharedTable:
    """A mapped file of 8-byte numbers, zero at first; the same memory in every process that opens it.

    What is made of it travels as the call that makes it again: ``origin``, a callable and its arguments.
    """

    def __init__(self, path: Path, rows: int, columns: int, number: Number, origin: Origin) -> None:
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
            raise error_from_os(error, url=str(path), operation="open job") from error
        self.numbers: NDArray[Any] = np.frombuffer(self._map, number).reshape(rows, columns)

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


class EpochSlots:
    """Which epoch an iteration is, agreed between the processes of one rank.

    Each worker counts in a slot of its own: its first iteration is epoch 0, each further one the next. After
    ``set_epoch(e)``, in whichever process, the next iteration of every slot is epoch ``e``.
    """

    # Row 0: generation, epoch of even generations, epoch of odd ones. A process that is killed half-way
    # through set_epoch leaves the old generation and its epoch untouched.
    # Row 1 + slot: generation last seen, epoch of the next iteration, iterations so far.

    def __init__(self, table: SharedTable) -> None:
        self._table = table

    @staticmethod
    def shape() -> tuple[int, int, Number]:
        """Rows, columns and type of the table."""
        return 1 + MAX_SLOTS, 3, "<i8"

    def __reduce__(self) -> Origin:
        return self._table.origin

    def set_epoch(self, epoch: int) -> None:
        """The next iteration of every slot is ``epoch``. Raises OptionError for what is no epoch."""
        wanted = _integer("epoch", epoch, MAX_EPOCH)
        with self._table.locked():
            head = self._table.numbers[0]
            generation = int(head[0]) + 1
            head[1 + generation % 2] = wanted
            head[0] = generation

    def advance(self, slot: int) -> int:
        """The epoch of the iteration that starts now in ``slot``; the next one is the epoch after it."""
        row = 1 + check_slot(slot)
        with self._table.locked():
            head, mine = self._table.numbers[0], self._table.numbers[row]
            generation = int(head[0])
            epoch = int(mine[1] if mine[0] == generation else head[1 + generation % 2])
            mine[:] = generation, epoch + 1, mine[2] + 1
        return epoch

    def was_set(self) -> bool:
        """True when ``set_epoch`` has been called, by any process."""
        return bool(self._table.numbers[0, 0] > 0)

    def iterations(self, slot: int) -> int:
        """How many iterations ``slot`` has started."""
        return int(self._table.numbers[1 + check_slot(slot), 2])


class SharedCounters:
    """Numbers that workers add to and anyone sums up, one row of them for each worker."""

    def __init__(self, table: SharedTable, fields: Sequence[str]) -> None:
        self._table = table
        self._fields = tuple(fields)

    @staticmethod
    def shape(fields: Sequence[str]) -> tuple[int, int, Number]:
        """Rows, columns and type of the table."""
        return MAX_SLOTS, len(fields), "<f8"

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
    return _integer("slot", slot, MAX_SLOTS)


def _integer(name: str, value: int, end: int) -> int:
    number = (
        -1 if value is True or value is False or not hasattr(value, "__index__") else operator.index(value)
    )
    if not 0 <= number < end:
        raise OptionError(f"{name} must be an integer of at least 0 and below {end}, not {value!r}")
    return number
