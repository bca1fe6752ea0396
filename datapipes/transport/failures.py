"""What goes wrong between here and a server, as exceptions: one fault, one type."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import NamedTuple

from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    ChecksumMismatchError,
    DatapipesError,
    FileMissingError,
    StoreConnectionError,
    StoreTimeoutError,
    UrlError,
)
from datapipes.transport.head import Head

__all__ = [
    "PASSING_STATUS",
    "Failure",
    "StatusError",
    "cut_short",
    "damaged",
    "of_curl",
    "of_status",
    "plain_status",
    "protocol",
    "stalled",
    "unreached",
]

StatusError = Callable[[str, Head, bytes], DatapipesError]
"""Makes the exception for an answer that is no success from (label, head, the body's beginning)."""

PASSING_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers that may be another one a moment later."""

_CERTIFICATE = frozenset({51, 53, 54, 58, 59, 60, 66, 77, 80, 82, 83, 90, 91, 98})
_PROTOCOL = frozenset({1, 8, 16, 56, 61, 92, 95, 96, 100})
_NO_SERVER = frozenset({5, 6, 7, 28, 35, 97})
_ERRNO = {
    5: errno.EHOSTUNREACH,  # no address is known of the proxy's name
    6: errno.EHOSTUNREACH,  # nor of the server's
    7: errno.ECONNREFUSED,
    97: errno.ECONNREFUSED,
}
_TOO_LARGE = ("Too large", "too large", "exceeds")


class Failure(NamedTuple):
    """Why one exchange failed: the exception it becomes if nothing helps, and what may help."""

    error: DatapipesError
    passing: bool = False
    """Whether the same request may succeed a moment later."""
    no_server: bool = False
    """Whether nothing was reached at that address."""
    wait_s: float = 0.0
    """How long the server asks to be left alone."""


def of_curl(label: str, code: int, message: str, *, received: int) -> Failure:
    """The failure that libcurl reports as ``code`` (CURLE_*)."""
    reason = message or f"libcurl error {code}"
    if received:
        reason += f" (after {received} bytes)"
    if code == 3:  # CURLE_URL_MALFORMAT
        return Failure(_no_url(label, reason))
    if code in _CERTIFICATE:
        return Failure(
            _made(StoreConnectionError, label, f"no trusted connection: {reason}", errno.EPROTO, code)
        )
    if code == 100 or (code in _PROTOCOL and any(word in message for word in _TOO_LARGE)):
        return Failure(
            _made(BackendIOError, label, f"the answer's headers are too large: {reason}", errno.EPROTO, code)
        )
    if code in (1, 8, 61):
        return Failure(_made(BackendIOError, label, f"the answer is no HTTP: {reason}", errno.EPROTO, code))
    kind = _ERRNO.get(code, errno.ECONNRESET)
    error = _made(StoreConnectionError, label, reason, kind, code)
    return Failure(error, passing=True, no_server=code in _NO_SERVER)


def of_status(label: str, head: Head, body: bytes, make: StatusError | None) -> Failure:
    """The failure of an answer with a status that is no success."""
    error = (make or plain_status)(label, head, body)
    wait = head.text(b"retry-after")
    return Failure(
        error, passing=head.status in PASSING_STATUS, wait_s=float(wait) if wait.isdigit() else 0.0
    )


def plain_status(label: str, head: Head, body: bytes) -> DatapipesError:
    """The exception for a status, where the store has no words of its own."""
    kinds = {
        401: (AccessDeniedError, errno.EACCES),
        403: (AccessDeniedError, errno.EACCES),
        404: (FileMissingError, errno.ENOENT),
        410: (FileMissingError, errno.ENOENT),
    }
    kind, code = kinds.get(head.status, (BackendIOError, errno.EIO))
    said = " ".join(body[:500].decode("utf-8", "replace").split())
    return _made(kind, label, f"HTTP status {head.status}" + (f": {said}" if said else ""), code, head.status)


def stalled(label: str, reason: str) -> Failure:
    """No progress for too long."""
    return Failure(_made(StoreTimeoutError, label, reason, errno.ETIMEDOUT, None), passing=True)


def unreached(label: str, seconds: float) -> Failure:
    """No connection within the time allowed."""
    failure = stalled(label, f"no connection within {seconds:g} s")
    return failure._replace(no_server=True)


def cut_short(label: str, reason: str) -> Failure:
    """A body that ended before it should."""
    return Failure(_made(StoreConnectionError, label, reason, errno.ECONNRESET, None), passing=True)


def damaged(label: str, kind: str, said: str, found: str) -> Failure:
    """A body whose checksum is not the one that came with it."""
    reason = f"its {kind} checksum is {found} and should be {said}"
    return Failure(_made(ChecksumMismatchError, label, reason, errno.EBADMSG, None))


def protocol(label: str, reason: str) -> Failure:
    """An answer that breaks the rules of HTTP."""
    return Failure(_made(BackendIOError, label, reason, errno.EPROTO, None))


def _no_url(label: str, reason: str) -> UrlError:
    return UrlError(f"read {label!r} failed: {reason}", url=label, operation="read")


def _made(
    kind: type[BackendIOError], label: str, reason: str, code: int, store_code: int | None
) -> BackendIOError:
    name = errno.errorcode[code]
    return kind(
        f"read {label!r} failed: {reason} [{name}]", url=label, operation="read", errno=code, code=store_code
    )
