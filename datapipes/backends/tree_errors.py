"""What went wrong with a file of a directory tree, and what to do about it."""

from __future__ import annotations

import errno

from datapipes.errors import BackendIOError, SizeMismatchError, error_from_errno

__all__ = ["failure"]

_HINTS = {
    errno.ENOENT: "List its directory to see what is there; it may have been removed since it was listed",
    errno.ENOTDIR: "A file stands where the URL has a directory",
    errno.EISDIR: "List it: its files have URLs of their own",
    errno.EACCES: "Ask for the right to it, or run as a user who has it",
    errno.EPERM: "Ask for the right to it, or run as a user who has it",
    errno.ENODATA: "It has changed since its size was taken: list the files again",
    errno.EOPNOTSUPP: "Only regular files can be read",
    errno.ENXIO: "Only regular files can be read",  # a socket
    errno.ESPIPE: "Only regular files can be read",  # a FIFO
    errno.ELOOP: "A symbolic link leads back to itself: mend or remove it",
    errno.EFBIG: "The file system or a limit (ulimit -f) allows no larger file",
    errno.EMFILE: "Raise the limit on open files (ulimit -n) or lower max_in_flight",
    errno.ENFILE: "The machine's table of open files is full: lower max_in_flight",
    errno.ENOMEM: "No memory, or not one thread could be started: see ulimit -v and ulimit -u",
    errno.ENOSPC: "Free some space; nothing of the file was left behind",
    errno.ETIMEDOUT: "Raise timeout_s if the store may be this slow",
    errno.ENAMETOOLONG: "File systems take names of up to 255 bytes",
}


def failure(code: int, *, url: str, operation: str) -> BackendIOError:
    """The exception for an errno of the engine, which says of a file that is read ENODATA where it is shorter
    than promised, and EFBIG where it is longer."""
    if code == errno.EFBIG and operation == "read":
        return SizeMismatchError(
            f"{operation} {url!r} failed: it is longer than expected [EFBIG]. {_HINTS[errno.ENODATA]}",
            url=url,
            operation=operation,
            errno=code,
        )
    return error_from_errno(code, url=url, operation=operation, hint=_HINTS.get(code, ""))
