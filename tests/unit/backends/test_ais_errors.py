"""Errors of AIStore: one fault, one type, which is the SDK's as well."""

from __future__ import annotations

import errno
import json
import pickle
from typing import Any

import pytest

from datapipes import errors as ours
from datapipes.backends import ais_sdk_errors
from datapipes.backends.ais_errors import (
    AisAnswer,
    EtlMissingError,
    ais_error,
    client,
    error_from_answer,
    error_from_exception,
    is_busy,
)

sdk: Any = pytest.importorskip("aistore.sdk.errors", reason="errors that are the SDK's need the SDK")
requests: Any = pytest.importorskip("requests")
urllib3: Any = pytest.importorskip("urllib3.exceptions")

URL = "ais://b/a b"


def kind_of(error: BaseException) -> type[BaseException]:
    """The class by which one catches it, whatever else it is."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ != ais_sdk_errors.__name__)


@pytest.mark.parametrize("name", [name for name in ais_sdk_errors.__all__ if name.startswith("Ais")])
def test_error_is_rebuilt_from_its_message_and_survives_pickling(name: str) -> None:
    kind = getattr(ais_sdk_errors, name)
    bare = kind("all there is to say")
    assert str(type(bare)(str(bare))) == "all there is to say"
    full = kind("message", url=URL, operation="read", errno=errno.EIO, code=503)
    copy = pickle.loads(pickle.dumps(full))
    assert type(copy) is kind
    assert str(copy) == "message"
    assert (copy.url, copy.operation, copy.errno, copy.code) == (URL, "read", errno.EIO, 503)
    assert (copy.status_code, copy.message, copy.req_url) == (503, "message", URL)


SAID = [  # status, AIStore's name of the error, its message (as recorded), our class, the SDK's or a builtin
    (404, "ErrBckNotFound", 'bucket "ais://b" does not exist', ours.ContainerMissingError, "ErrBckNotFound"),
    (400, "ErrBckNotFound", 'bucket "ais://b" does not exist', ours.ContainerMissingError, "AISError"),
    (501, "ErrRemoteBckNotFound", "does not exist", ours.ContainerMissingError, "ErrRemoteBckNotFound"),
    (
        404,
        "ErrFailedTo",
        't[T]: failed to HEAD remote bucket ais://@x#n/b, err: t[T]: remote cluster "x" does not exist',
        ours.ContainerMissingError,
        "ErrBckNotFound",
    ),
    (404, "ErrNotFound", "t[T]: ais://b/a b does not exist", ours.FileMissingError, "ErrObjNotFound"),
    (404, "", "ais://b/a b doesn't exist", ours.FileMissingError, "ErrObjNotFound"),
    (404, "ErrNotFound", "x in ais://b/s.tar does not exist", ours.FileMissingError, "AISError"),
    (404, "errNodeNotFound", "node x not present in Smap v5", ours.StoreConnectionError, None),
    (404, "", "<html>nginx</html>", ours.BackendIOError, "AISError"),
    (404, "", 'etl job "x" not found', EtlMissingError, "ErrETLNotFound"),
    (401, "", "direct target access denied", ours.AccessDeniedError, "AISError"),
    (403, "", "no", ours.AccessDeniedError, "AISError"),
    (400, "errInvalidPath", 'invalid object name "x/"', ours.UrlError, "InvalidURLException"),
    (400, "", "err: invalid archpath", ours.UrlError, "AISError"),
    (400, "ErrMv", "destination contains an object in its path", ours.FileMissingError, None),
    (400, "ErrMv", "destination exists and is a virtual directory", ours.IsDirectoryError, None),
    (400, "ErrFailedTo", "dial tcp T: connect: connection refused", ours.StoreConnectionError, None),
    (400, "ErrFailedTo", 'Get "http://T/v1": EOF', ours.StoreConnectionError, None),
    (400, "", "invalid action", ours.BackendIOError, "AISError"),
    (409, "", "object is locked", ours.BackendIOError, "AISError"),
    (416, "", "not satisfiable", ours.SizeMismatchError, None),
    (429, "", "slow down", ours.BackendIOError, "AISError"),
    (500, "ErrBadCksum", "BAD DATA CHECKSUM", ours.ChecksumMismatchError, None),
    (500, "PathError", "[fs-path] invalid argument", ours.BackendIOError, "AISError"),
    (501, "ErrUnsupp", "operation not supported", ours.BackendIOError, "AISError"),
    (502, "", "", ours.StoreConnectionError, None),
    (503, "", "starting", ours.StoreConnectionError, None),
    (504, "", "", ours.StoreTimeoutError, None),
    (418, "", "", ours.BackendIOError, "AISError"),
]


@pytest.mark.parametrize(("status", "tcode", "message", "kind", "theirs"), SAID)
def test_answer_is_the_one_right_error(
    status: int, tcode: str, message: str, kind: type[Exception], theirs: str | None
) -> None:
    body = json.dumps({"tcode": tcode, "message": message, "status": status})
    for answer in (AisAnswer.of(status, body.encode()), AisAnswer.of(status, b"", {"hdr-Error": body})):
        error = error_from_answer(answer, url=URL, operation="read")
        assert kind_of(error) is kind
        assert isinstance(error, getattr(sdk, theirs) if theirs else OSError)
        assert (error.url, error.operation, error.code) == (URL, "read", status)
        assert (error.errno is None) == (kind is ours.UrlError)
        assert repr(URL) in str(error)
        assert message in str(error)


@pytest.mark.parametrize(
    ("status", "number"), [(409, "EBUSY"), (416, "ENODATA"), (429, "EAGAIN"), (504, "ETIMEDOUT")]
)
def test_answer_has_the_errno_that_says_what_it_means(status: int, number: str) -> None:
    error = error_from_answer(AisAnswer(status, ""), url=URL, operation="read")
    assert error.errno == getattr(errno, number)


def test_answer_that_is_not_aistores_is_quoted_as_it_is() -> None:
    assert AisAnswer.of(404, b"\xff<html>") == (404, "\ufffd<html>", "")
    assert AisAnswer.of(500, "[1]").message == "[1]"
    assert len(AisAnswer.of(500, "x" * 100_000).message) < 1000


def unreached(host: str) -> Exception:
    try:
        requests.get(f"http://{host}/", timeout=2)
    except OSError as error:
        return error
    raise AssertionError(f"something listens at {host}")


def wrapped_timeout() -> Exception:
    silent = urllib3.ReadTimeoutError(None, "/", "read timed out")
    found: Exception = requests.ConnectionError(urllib3.MaxRetryError(None, "/", silent))
    return found


@pytest.mark.parametrize(
    ("error", "kind", "number"),
    [
        (unreached("127.0.0.1:1"), ours.StoreConnectionError, errno.ECONNREFUSED),
        (unreached("no-such-host.invalid"), ours.StoreConnectionError, errno.EHOSTUNREACH),
        (wrapped_timeout(), ours.StoreTimeoutError, errno.ETIMEDOUT),
        (requests.ConnectTimeout("x"), ours.StoreTimeoutError, errno.ETIMEDOUT),
        (requests.ReadTimeout("x"), ours.StoreTimeoutError, errno.ETIMEDOUT),
        (requests.ConnectionError("Connection aborted."), ours.StoreConnectionError, errno.ECONNRESET),
        (requests.exceptions.ChunkedEncodingError("x"), ours.StoreConnectionError, errno.ECONNRESET),
        (requests.exceptions.InvalidURL("x"), ours.OptionError, None),
        (requests.exceptions.InvalidHeader("x"), ours.OptionError, None),
        (sdk.InvalidURLException("x"), ours.UrlError, None),
        (sdk.NoTargetError(3), ours.StoreConnectionError, errno.ECONNREFUSED),
        (ValueError("Expecting value\nline 1"), ours.BackendIOError, errno.EPROTO),
        (RuntimeError(), ours.BackendIOError, errno.EIO),
    ],
    ids=repr,
)
def test_exception_of_the_sdk_is_the_one_right_error(
    error: Exception, kind: type[Exception], number: int | None
) -> None:
    found = error_from_exception(error, url=URL, operation="list")
    assert isinstance(found, kind)
    assert (found.url, found.operation, found.errno) == (URL, "list", number)
    assert repr(URL) in str(found)
    assert "\n" not in str(found)


def test_error_of_the_sdk_without_a_body_is_read_from_its_header() -> None:
    response = requests.Response()
    response.headers["Hdr-Error"] = (
        '{"tcode": "ErrBckNotFound", "message": "bucket \\"ais://b\\" does not exist"}'
    )
    error = sdk.AISError(404, "", URL, None)
    error.__cause__ = requests.HTTPError(response=response)
    assert isinstance(error_from_exception(error, url=URL, operation="list"), ours.ContainerMissingError)
    bare = error_from_exception(sdk.AISError(404, "", URL, None), url=URL, operation="list")
    assert not isinstance(bare, ours.FileMissingError)


def test_our_own_error_stays_itself() -> None:
    error = ours.OptionError("x")
    assert error_from_exception(error, url=URL, operation="list") is error


def test_what_may_pass_by_itself_is_busy_and_the_rest_is_not() -> None:
    def busy(status: int, tcode: str = "") -> bool:
        body = json.dumps({"message": "x", "tcode": tcode})
        return is_busy(error_from_answer(AisAnswer.of(status, body), url=URL, operation="write"))

    assert all(busy(status) for status in (408, 409, 429, 500, 502, 503, 504))
    assert busy(500, "ErrBadCksum")
    assert not any(busy(status) for status in (400, 401, 403, 404, 416, 501))
    assert is_busy(error_from_exception(requests.ReadTimeout("x"), url=URL, operation="list"))
    assert not is_busy(ours.OptionError("x"))
    assert not is_busy(KeyboardInterrupt())


def test_kind_that_the_sdk_does_not_have_is_ours_alone() -> None:
    error = ais_error(ours.StoreTimeoutError, "x", url=URL, operation="read", number=errno.ETIMEDOUT)
    assert type(error) is ours.StoreTimeoutError


def test_missing_package_is_named_with_what_to_install() -> None:
    with pytest.raises(ours.BackendUnavailableError, match=r"'nosuchthing'.*torch-datapipes\[ais\]"):
        client("nosuchthing.sdk")
