"""Every exception this package raises: one fault, one type, whatever the store.

Each class is a :class:`DatapipesError` and the builtin a caller would catch anyway. An exception can be
built from its message alone and that message says all there is to say, because DataLoader rebuilds a
worker's exception from its type and one string; the attributes (``url``, ``operation``, ``errno``,
``code``) are promised in the process that raised it, and survive pickling.
"""

from __future__ import annotations

import errno as errno_codes
import os
from typing import Any

__all__ = [
    "AccessDeniedError",
    "BackendIOError",
    "BackendUnavailableError",
    "ChecksumMismatchError",
    "ContainerMissingError",
    "DatapipesError",
    "FileMissingError",
    "IndexFileError",
    "IsDirectoryError",
    "OptionError",
    "ShardError",
    "SizeMismatchError",
    "StateError",
    "StoreConnectionError",
    "StoreTimeoutError",
    "UrlError",
    "error_from_errno",
    "error_from_os",
]


class DatapipesError(Exception):
    """Base of every exception of this package.

    Attributes:
        url: what was being worked on, or None.
        operation: the verb that failed (``"list"``, ``"open"``, ``"read"``, ...), or None.
        errno: the operating system's code, or None.
        code: of AIStore and HTTP, the status of the answer, or libcurl's ``CURLE_*`` number where none came;
            else None: DAOS and file systems answer with an errno, and that is ``errno``.
    """

    url: str | None = None
    operation: str | None = None
    code: int | str | None = None

    def __init__(
        self,
        message: str,
        *,
        url: str | None = None,
        operation: str | None = None,
        errno: int | None = None,
        code: int | str | None = None,
    ) -> None:
        super().__init__(message)
        self.url = url
        self.operation = operation
        self.errno = errno
        self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), str(self), self.url, self.operation, self.errno, self.code)


def _rebuild(
    cls: type[DatapipesError],
    message: str,
    url: str | None,
    operation: str | None,
    errno: int | None,
    code: int | str | None,
) -> DatapipesError:
    return cls(message, url=url, operation=operation, errno=errno, code=code)


class UrlError(DatapipesError, ValueError):
    """A URL that is malformed, of an unknown scheme, of another store, or that leads out of its container."""


class OptionError(DatapipesError, ValueError):
    """An option outside its range, or options that contradict each other."""


class StateError(DatapipesError, ValueError):
    """A saved state that does not fit: another pipeline, version, data set, seed or number of ranks."""


class IndexFileError(DatapipesError, ValueError):
    """An index file that is damaged, foreign, or of another version."""


class ShardError(DatapipesError, ValueError):
    """A shard that is damaged or cut short; the message names shard and offset."""


class BackendUnavailableError(DatapipesError, ImportError):
    """The store's client library is missing or too old; the message says what to install."""


class BackendIOError(DatapipesError, OSError):
    """The store failed in a way that has no class of its own; ``errno`` and ``code`` say which."""


class FileMissingError(BackendIOError, FileNotFoundError):
    """No such file or directory."""


class ContainerMissingError(FileMissingError):
    """No such container, pool or bucket."""


class AccessDeniedError(BackendIOError, PermissionError):
    """The store refused access."""


class IsDirectoryError(BackendIOError, IsADirectoryError):
    """A directory stands where a file should be."""


class StoreTimeoutError(BackendIOError, TimeoutError):
    """The store did not answer within ``timeout_s``."""


class StoreConnectionError(BackendIOError, ConnectionError):
    """The store could not be reached, or the connection broke."""


class SizeMismatchError(BackendIOError):
    """A file or range is shorter (or, with ``verify="size"``, longer) than it was said to be."""


class ChecksumMismatchError(BackendIOError):
    """What came is not what the store says it holds, also when read again."""


_CLASS_BY_ERRNO: dict[int, type[BackendIOError]] = {
    errno_codes.ENOENT: FileMissingError,
    errno_codes.ENOTDIR: FileMissingError,  # a file where a directory should be: nothing lies below it
    errno_codes.EACCES: AccessDeniedError,
    errno_codes.EPERM: AccessDeniedError,
    errno_codes.EISDIR: IsDirectoryError,
    errno_codes.ETIMEDOUT: StoreTimeoutError,
    errno_codes.ECONNREFUSED: StoreConnectionError,
    errno_codes.ECONNRESET: StoreConnectionError,
    errno_codes.EPIPE: StoreConnectionError,
    errno_codes.EHOSTUNREACH: StoreConnectionError,
    errno_codes.ENODATA: SizeMismatchError,  # the engine's code for "ended before the promised size"
}


def error_from_errno(
    errno: int, *, url: str, operation: str, hint: str = "", code: int | str | None = None
) -> BackendIOError:
    """The exception for an errno; the message names operation, url, errno and ``hint`` (what to do)."""
    cls = _CLASS_BY_ERRNO.get(errno, BackendIOError)
    name = errno_codes.errorcode.get(errno, str(errno))
    reason = "it is shorter than expected" if cls is SizeMismatchError else os.strerror(errno)
    message = f"{operation} {url!r} failed: {reason} [{name}]"
    if hint:
        message += f". {hint}"
    return cls(message, url=url, operation=operation, errno=errno, code=code)


def error_from_os(error: OSError, *, url: str, operation: str, hint: str = "") -> BackendIOError:
    """Our exception for an :class:`OSError` raised by Python or the engine."""
    if isinstance(error, BackendIOError):
        return error
    return error_from_errno(error.errno or errno_codes.EIO, url=url, operation=operation, hint=hint)
