"""File locks: waited for in short slices with a bound, and never left to a forked child.

Two kinds, for two purposes. ``flock`` belongs to the open file and is shared with forked children: right for
"somebody of this job is alive". POSIX locks (``lockf``) belong to the process: a child that was forked while
its parent built something does not hold them, and they vanish with the process that died. They do not keep
the threads of one process apart, and are lost when any descriptor of the file is closed; so each is paired
with a mutex.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from datapipes.errors import StoreTimeoutError, error_from_os

__all__ = ["Deadline", "exclusive", "flock", "is_at", "locked_file", "open_lock", "process_mutex"]

_ADVICE = "DATAPIPES_JOB_DIR must be a directory of your own on a file system with locks (a local disk)"
_SLICE_S = 0.1
_mutexes: dict[tuple[int, str], threading.Lock] = {}


class Deadline:
    """A bound for waiting; ``pause`` sleeps a little, ever longer up to a tenth of a second."""

    def __init__(self, timeout_s: float, *, url: str, waiting_for: str) -> None:
        self._end = time.monotonic() + timeout_s
        self._timeout_s, self._url, self._waiting_for = timeout_s, url, waiting_for
        self._pause = 0.002

    def left(self) -> float:
        """Seconds until the next look, at most a slice. Raises StoreTimeoutError when the time is over."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise StoreTimeoutError(
                f"waited {self._timeout_s:g} s for {self._waiting_for}: {self._url!r}",
                url=self._url,
                operation="lock",
                errno=errno.ETIMEDOUT,
            )
        return min(left, _SLICE_S)

    def pause(self) -> None:
        """Sleep for a slice; Ctrl-C interrupts it."""
        time.sleep(min(self.left(), self._pause))
        self._pause = min(2 * self._pause, _SLICE_S)


def process_mutex(name: str) -> threading.Lock:
    """The mutex of this process for ``name``; a forked child has another, which no thread holds."""
    return _mutexes.setdefault((os.getpid(), name), threading.Lock())


def open_lock(path: Path) -> int:
    """A descriptor of a lock file, made where it is missing; never through a symbolic link."""
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise error_from_os(error, url=str(path), operation="lock", hint=_ADVICE) from error


def flock(fd: int, path: Path, *, shared: bool) -> bool:
    """Try to lock the open file ``path``; True when it was possible at once."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise error_from_os(error, url=str(path), operation="lock", hint=_ADVICE) from error
    return True


def is_at(fd: int, path: Path) -> bool:
    """True while ``path`` still names the open file."""
    try:
        there, here = os.stat(path, follow_symlinks=False), os.fstat(fd)
    except FileNotFoundError:
        return False
    return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)


@contextlib.contextmanager
def exclusive(path: Path, *, timeout_s: float, waiting_for: str) -> Iterator[None]:
    """Hold the lock file ``path`` alone, among the processes and threads of this host.

    Raises StoreTimeoutError when another holds it longer than ``timeout_s``. A holder that dies lets go.
    """
    deadline = Deadline(timeout_s, url=str(path), waiting_for=waiting_for)
    mutex = process_mutex(str(path))
    while not mutex.acquire(timeout=deadline.left()):
        pass
    try:
        fd = open_lock(path)
        try:
            with locked_file(fd, deadline):
                yield
        finally:
            os.close(fd)
    finally:
        mutex.release()


@contextlib.contextmanager
def locked_file(fd: int, deadline: Deadline, *, at: int = 0) -> Iterator[None]:
    """Hold the POSIX lock of byte ``at`` of an open file; the caller holds the mutex."""
    while True:
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, at)
            break
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
        deadline.pause()
    try:
        yield
    finally:
        fcntl.lockf(fd, fcntl.LOCK_UN, 1, at)
