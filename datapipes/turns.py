"""Whose turn it is, of the threads of a process."""

from __future__ import annotations

import os
import threading

__all__ = ["Turn"]


class Turn:
    """A reentrant lock for objects that travel: copies, and forked children, have one that nobody holds."""

    def __init__(self) -> None:
        self._locks: dict[int, threading.RLock] = {}

    def _lock(self) -> threading.RLock:
        pid = os.getpid()
        return self._locks.get(pid) or self._locks.setdefault(pid, threading.RLock())

    def __enter__(self) -> None:
        self._lock().acquire()

    def __exit__(self, *_: object) -> None:
        self._lock().release()

    def __reduce__(self) -> tuple[type[Turn], tuple[()]]:
        return Turn, ()
