"""Errors of AIStore: ours, each of which is also what the aistore SDK raises for the same fault.

Code that catches the SDK's ``ErrBckNotFound`` or ``AISError`` goes on working. The SDK is loaded by the first
error, and where it is not installed the errors are ours alone.
"""

from __future__ import annotations

import errno
import importlib
import json
import re
import socket
from collections.abc import Mapping
from typing import Any, NamedTuple

from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    BackendUnavailableError,
    ChecksumMismatchError,
    ContainerMissingError,
    DatapipesError,
    FileMissingError,
    IsDirectoryError,
    OptionError,
    SizeMismatchError,
    StoreConnectionError,
    StoreTimeoutError,
    UrlError,
)

__all__ = [
    "AisAnswer",
    "EtlMissingError",
    "ais_error",
    "client",
    "error_from_answer",
    "error_from_exception",
    "is_busy",
]

_BUCKET_MISSING = {"ErrBckNotFound", "ErrRemoteBckNotFound", "ErrRemoteBucketNotFound"}
_NO_BUCKET_TEXT = re.compile(r'(?:bucket|remote cluster) "[^"]*" does not exist')
_NO_OBJECT_TEXT = re.compile(r"does(?: not|n't) exist")
_BAD_NAME_TEXT = re.compile(r"invalid (?:object name|archpath|prefix)")
_TARGET_GONE_TEXT = re.compile(
    r"dial tcp|connection re(?:fused|set)|: EOF\b|not present in Smap|no route to host"
)
_BUSY = {408, 425, 429, 500, 502, 503, 504}
_LONGEST_TEXT = 500


class EtlMissingError(BackendIOError):
    """No ETL of the name that was asked for is running."""


class AisAnswer(NamedTuple):
    """What AIStore said when it refused: status, its message, its own name of the error (often empty)."""

    status: int
    message: str
    kind: str = ""

    @classmethod
    def of(cls, status: int, body: bytes | str = b"", headers: Mapping[str, str] | None = None) -> AisAnswer:
        """From the body of an answer or, for HEAD, from its header ``Hdr-Error``."""
        if isinstance(body, bytes):
            body = body.decode("utf-8", "replace")
        if not body.strip() and headers:
            body = next((text for name, text in headers.items() if name.lower() == "hdr-error"), "")
        try:
            fields = json.loads(body)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            return cls(status, str(fields.get("message", "")), str(fields.get("tcode", "")))
        return cls(status, body.strip()[:_LONGEST_TEXT])


def ais_error(
    kind: type[DatapipesError],
    message: str,
    *,
    url: str | None,
    operation: str,
    number: int | None = None,
    code: int | str | None = None,
) -> DatapipesError:
    """An error of ``kind`` which is also the SDK's for that fault, where the SDK has one and is installed."""
    from datapipes.backends.ais_sdk_errors import SDK_KINDS  # noqa: PLC0415 - loads the SDK

    return SDK_KINDS.get(kind, kind)(message, url=url, operation=operation, errno=number, code=code)


def client(module: str) -> Any:
    """A module of the SDK, or of what comes with it; BackendUnavailableError where it is not installed."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise BackendUnavailableError(
            f"AIStore needs the package {package!r} ({error}): pip install torch-datapipes[ais]",
            operation="open",
        ) from None


def is_busy(error: BaseException) -> bool:
    """May the same request succeed a moment later, with nothing mended by anybody?"""
    if isinstance(error, ChecksumMismatchError):
        return True
    if isinstance(error, (StoreTimeoutError, StoreConnectionError)):
        return True
    return isinstance(error, BackendIOError) and (error.code in _BUSY or error.errno == errno.EBUSY)


def error_from_answer(answer: AisAnswer, *, url: str, operation: str) -> DatapipesError:
    """The one right error for an answer of AIStore whose status is 400 or more."""
    kind, number = _kind_of(answer)
    said = answer.message or "no reason given"
    message = f"{operation} {url!r} failed: {said} [HTTP {answer.status}]"
    hint = _HINTS.get(kind)
    if hint:
        message += f". {hint}"
    return ais_error(kind, message, url=url, operation=operation, number=number, code=answer.status)


_HINTS: dict[type[DatapipesError], str] = {
    AccessDeniedError: "Give a token that allows it (AIS_AUTHN_TOKEN, or token=)",
    ContainerMissingError: "Make the bucket, or mend the URL",
}


def _kind_of(answer: AisAnswer) -> tuple[type[DatapipesError], int | None]:
    status, text, kind = answer.status, answer.message, answer.kind
    if kind in _BUCKET_MISSING or _NO_BUCKET_TEXT.search(text):
        return ContainerMissingError, errno.ENOENT
    if status in (401, 403):
        return AccessDeniedError, errno.EACCES
    if kind == "errInvalidPath" or (status == 400 and _BAD_NAME_TEXT.search(text)):
        return UrlError, None
    if kind == "ErrMv" and "virtual directory" in text:
        return IsDirectoryError, errno.EISDIR
    if kind == "ErrMv" and "in its path" in text:
        return FileMissingError, errno.ENOTDIR
    if "BadCksum" in kind or "BAD DATA CHECKSUM" in text:
        return ChecksumMismatchError, errno.EIO
    if status in (400, 404) and _TARGET_GONE_TEXT.search(text):
        return StoreConnectionError, errno.ECONNREFUSED
    if "etl job" in text.lower() and status == 404:
        return EtlMissingError, errno.ENOENT
    if status == 404 and (kind == "ErrNotFound" or _NO_OBJECT_TEXT.search(text)):
        return FileMissingError, errno.ENOENT
    return _BY_STATUS.get(status, (BackendIOError, errno.EIO))


_BY_STATUS: dict[int, tuple[type[DatapipesError], int | None]] = {
    404: (BackendIOError, errno.EIO),  # not in AIStore's words: another server, or another path
    408: (StoreTimeoutError, errno.ETIMEDOUT),
    409: (BackendIOError, errno.EBUSY),
    416: (SizeMismatchError, errno.ENODATA),
    429: (BackendIOError, errno.EAGAIN),
    501: (BackendIOError, errno.EOPNOTSUPP),
    502: (StoreConnectionError, errno.ECONNRESET),
    503: (StoreConnectionError, errno.ECONNREFUSED),
    504: (StoreTimeoutError, errno.ETIMEDOUT),
}


def error_from_exception(error: BaseException, *, url: str, operation: str) -> DatapipesError:
    """Our error for what the SDK, or requests below it, has raised."""
    if isinstance(error, DatapipesError):
        return error
    sdk, http = client("aistore.sdk.errors"), client("requests.exceptions")
    if isinstance(error, sdk.AISError):
        response = getattr(error.__cause__, "response", None)
        headers = response.headers if response is not None else None
        answer = AisAnswer.of(error.status_code, error.message or "", headers)
        return error_from_answer(answer, url=url, operation=operation)
    kind: type[DatapipesError] = BackendIOError
    number: int | None = errno.EIO
    cause = error.args[0] if error.args else None
    if isinstance(error, http.Timeout) or isinstance(
        getattr(cause, "reason", cause), client("urllib3.exceptions").ReadTimeoutError
    ):
        kind, number = StoreTimeoutError, errno.ETIMEDOUT
    elif isinstance(error, (http.MissingSchema, http.InvalidSchema, http.InvalidURL, http.InvalidHeader)):
        kind, number = OptionError, None
    elif isinstance(error, (sdk.InvalidURLException, sdk.InvalidBckProvider)):
        kind, number = UrlError, None
    elif isinstance(error, (http.ConnectionError, http.ChunkedEncodingError, http.ContentDecodingError)):
        kind, number = StoreConnectionError, _number_in(error, errno.ECONNRESET)
    elif isinstance(error, sdk.NoTargetError):
        kind, number = StoreConnectionError, errno.ECONNREFUSED
    elif isinstance(error, ValueError):  # of the decoders: an answer, but not AIStore's
        number = errno.EPROTO
    message = f"{operation} {url!r} failed: {_first_line(error)} [{type(error).__name__}]"
    return ais_error(kind, message, url=url, operation=operation, number=number)


def _number_in(error: BaseException, otherwise: int) -> int:
    """The errno of the socket error at the bottom of what requests wraps, if there is one."""
    seen: list[object] = [error]
    for part in seen:
        if isinstance(part, socket.gaierror):  # its numbers are of another kind
            return errno.EHOSTUNREACH
        if isinstance(part, OSError) and isinstance(part.errno, int):
            return part.errno
        if isinstance(part, BaseException) and len(seen) < 20:
            seen += [part.__cause__, part.__context__, getattr(part, "reason", None), *part.args]
    return otherwise


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:_LONGEST_TEXT]
