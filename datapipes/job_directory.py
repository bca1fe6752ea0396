"""The directory that the processes of one job share on one host: made, held, deleted, swept.

Every process that uses it holds a shared ``flock`` on the file ``owners.lock`` in it, through a descriptor of
its own; the last one out deletes the directory. A directory that nobody holds is dead (its owners were
killed): it is never read. Who comes to a dead directory empties it first, and each new job sweeps all dead
ones. Every step that deletes holds the lock alone, and every step that enters looks, once it has the lock,
whether the file it locked is still the one at the path.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
import uuid
from multiprocessing import util as multiprocessing_util
from pathlib import Path

from datapipes.errors import AccessDeniedError, DatapipesError, error_from_os
from datapipes.job_locks import Deadline, flock, is_at, open_lock

__all__ = ["JobDirectory", "base_directory", "directory_name"]

_LOCK = "owners.lock"
_DEAD = ".dead-"
_TIMEOUT_S = 60.0
_ADVICE = "Set DATAPIPES_JOB_DIR to a directory of your own"


def base_directory() -> Path:
    """Where this user's jobs have their directories: below ``DATAPIPES_JOB_DIR``, else the system's
    temporary directory."""
    try:
        root = os.environ.get("DATAPIPES_JOB_DIR") or tempfile.gettempdir()
    except OSError as error:  # none of the usual ones can be written to: full, perhaps
        raise error_from_os(error, url="DATAPIPES_JOB_DIR", operation="open job", hint=_ADVICE) from error
    return Path(os.path.abspath(root)) / f"datapipes-{os.geteuid()}"


def directory_name(job_id: str) -> str:
    """The name of a job's directory on this host: two hosts that share a file system have one each."""
    return f"{job_id}@{os.uname().nodename}"


class JobDirectory:
    """The directory at ``path``, held by this process from the first ``hold`` on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: dict[int, int] = {}  # process id: descriptor; a forked child finds its parent's here

    def hold(self) -> bool:
        """Make sure that the directory is there and held by this process. True when it is a new one."""
        pid = os.getpid()
        held = self._held.get(pid)
        if held is not None:
            if is_at(held, self.path / _LOCK):
                return False
            del self._held[pid]  # somebody cleaned the temporary directory under us
            os.close(held)
        fd, is_new = self._enter()
        if self._held.setdefault(pid, fd) != fd:  # another thread was faster
            os.close(fd)
            return False
        for parent in [other for other in self._held if other != pid]:
            self._leave_to_parent(parent)
        multiprocessing_util.Finalize(None, self.release, exitpriority=-100)  # after children were joined
        return is_new

    def release(self) -> None:
        """Let go; the last one out deletes the directory. Called by itself at the end of the process."""
        fd = self._held.pop(os.getpid(), None)
        if fd is not None:
            try:
                _delete_unless_held(self.path, fd)
            finally:
                os.close(fd)

    def _enter(self) -> tuple[int, bool]:
        deadline = Deadline(_TIMEOUT_S, url=str(self.path), waiting_for="the directory of the job")
        self._settle()
        while True:
            try:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(self.path, 0o700)
                fd = open_lock(self.path / _LOCK)
            except OSError as error:
                if error.errno != errno.ENOENT:
                    raise error_from_os(
                        error, url=str(self.path), operation="open job", hint=_ADVICE
                    ) from error
                deadline.pause()  # deleted between the two lines: come again
                continue
            try:
                is_new = flock(fd, self.path / _LOCK, shared=False)
                # Alone, in the directory that is still at the path: what lies here is of dead processes.
                if is_new and is_at(fd, self.path / _LOCK):
                    _empty(self.path)
                while not flock(fd, self.path / _LOCK, shared=True):
                    deadline.pause()
                if is_at(fd, self.path / _LOCK):
                    if is_new:
                        _sweep(self.path)
                    return fd, is_new
                deadline.pause()
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)

    def _settle(self) -> None:
        """Make the parent directory; one that came from elsewhere and cannot be used here is replaced."""
        base = base_directory()
        try:
            _make_private(self.path.parent)
        except DatapipesError:
            if self.path.parent == base:
                raise
            _make_private(base)
            self.path = base / self.path.name

    def _leave_to_parent(self, parent: int) -> None:
        """Close the descriptor that was inherited by ``fork``; the lock stays with the parent."""
        fd = self._held.pop(parent)
        with contextlib.suppress(OSError):
            if is_at(fd, self.path / _LOCK):  # the number may have been closed and used again
                os.close(fd)


def _make_private(base: Path) -> None:
    """Make ``base``, or check that it is ours alone: nobody else may lead us elsewhere or plant files."""
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            base.mkdir(mode=0o700)
        found = os.lstat(base)
    except OSError as error:
        raise error_from_os(error, url=str(base), operation="open job", hint=_ADVICE) from error
    if stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022:
        return
    raise AccessDeniedError(
        f"{str(base)!r} is not a directory that you own and nobody else can write to; the names of your data "
        f"will not be kept there. {_ADVICE}, or remove it",
        url=str(base),
        operation="open job",
    )


def _empty(path: Path) -> None:
    for entry in list(os.scandir(path)):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
        elif entry.name != _LOCK:
            os.unlink(entry.path)


def _delete_unless_held(path: Path, fd: int) -> None:
    """Delete the directory whose lock file is open as ``fd``, unless somebody else holds it."""
    if not flock(fd, path / _LOCK, shared=False) or not is_at(fd, path / _LOCK):
        return
    # Moved away first: who waits for the lock then sees that the path is another file's, or nobody's.
    grave = path.with_name(directory_name(_DEAD + uuid.uuid4().hex))
    with contextlib.suppress(OSError):
        os.rename(path, grave)
        shutil.rmtree(grave, ignore_errors=True)


def _sweep(own: Path) -> None:
    """Delete what dead jobs of this user left on this host. What resists is left to the next job."""
    suffix = directory_name("")
    for entry in list(os.scandir(own.parent)):
        path = Path(entry.path)
        if not entry.name.endswith(suffix) or path == own or not entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):
            if entry.name.startswith(_DEAD):
                shutil.rmtree(path, ignore_errors=True)
                continue
            if not (path / _LOCK).exists():
                path.rmdir()  # only if it is empty: its owner may just be moving in
                continue
            fd = open_lock(path / _LOCK)
            try:
                _delete_unless_held(path, fd)
            finally:
                os.close(fd)
