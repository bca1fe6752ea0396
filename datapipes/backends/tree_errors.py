"""What went wrong with a file of a directory tree, and what to do about it."""

from __future__ import annotations

import errno

from datapipes.errors import BackendIOError, SizeMismatchError, error_from_errno

__all__ = ["failure"]

_HINTS = {
    errno.ENOENT: "List its directory to see what is there; it may have been removed since it was listed",
    errno.ENOTDIR: "A file stands where the URL has a directory",
    errno.EISDIR: "List it, and read the files in it",
    errno.EACCES: "Ask for the right to it, or run as a user who has it",
    errno.EPERM: "Ask for the right to it, or run as a user who has it",
    errno.ENODATA: "It was cut or replaced since its size was taken: list the files again",
    errno.EFBIG: "It has grown since its size was taken: list the files again",
    errno.EMFILE: "Raise the limit on open files (ulimit -n) or lower max_in_flight",
    errno.ENFILE: "The machine's table of open files is full: lower max_in_flight",
    errno.ENOSPC: "Free some space; nothing of the file was left behind",
    errno.ETIMEDOUT: "Raise timeout_s if the store may be this slow",
    errno.ENAMETOOLONG: "File systems take names of up to 255 bytes",
}


def failure(code: int, *, url: str, operation: str) -> BackendIOError:
    """The exception for an errno of the engine's.

    Of an item read, ENODATA says that the file is shorter than it was said to be, and EFBIG that it is longer.
    """
    hint = _HINTS.get(code, "")
    if code == errno.EFBIG and operation in ("open", "read"):
        return SizeMismatchError(
            f"{operation} {url!r} failed: it is longer than expected [EFBIG]. {hint}",
            url=url,
            operation=operation,
            errno=code,
        )
    return error_from_errno(code, url=url, operation=operation, hint=hint)
