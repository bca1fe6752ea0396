"""Errors: caught as the builtin one would catch, rebuilt from a message, mapped from errno."""

from __future__ import annotations

import errno
import pickle

import pytest

import datapipes.errors as errors_module
from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    BackendUnavailableError,
    ChecksumMismatchError,
    ContainerMissingError,
    DatapipesError,
    FileMissingError,
    IndexFileError,
    IsDirectoryError,
    OptionError,
    ShardError,
    SizeMismatchError,
    StateError,
    StoreConnectionError,
    StoreTimeoutError,
    UrlError,
    error_from_errno,
    error_from_os,
)

CLASSES = [
    value
    for value in vars(errors_module).values()
    if isinstance(value, type) and issubclass(value, DatapipesError)
]

BUILTINS: dict[type[DatapipesError], type[Exception]] = {
    UrlError: ValueError,
    OptionError: ValueError,
    StateError: ValueError,
    IndexFileError: ValueError,
    ShardError: ValueError,
    BackendUnavailableError: ImportError,
    BackendIOError: OSError,
    FileMissingError: FileNotFoundError,
    ContainerMissingError: FileNotFoundError,
    AccessDeniedError: PermissionError,
    IsDirectoryError: IsADirectoryError,
    StoreTimeoutError: TimeoutError,
    StoreConnectionError: ConnectionError,
    SizeMismatchError: OSError,
    ChecksumMismatchError: OSError,
}


def test_every_class_is_tried_here() -> None:
    assert set(CLASSES) == {DatapipesError, *BUILTINS}
    assert {cls.__name__ for cls in CLASSES} < set(errors_module.__all__)


@pytest.mark.parametrize(("cls", "builtin"), BUILTINS.items(), ids=lambda cls: cls.__name__)
def test_error_is_caught_as_the_builtin(cls: type[DatapipesError], builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match=r"^what happened$"):
        raise cls("what happened")


@pytest.mark.parametrize("cls", CLASSES)
def test_error_is_rebuilt_from_its_message_alone(cls: type[DatapipesError]) -> None:
    # DataLoader does this with an exception of a worker.
    error = cls("read 'a' failed", url="a", operation="read", errno=errno.ENOENT, code=-1005)
    again = type(error)(str(error))
    assert str(again) == str(error) == "read 'a' failed"
    assert (again.url, again.operation, again.errno, again.code) == (None, None, None, None)


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_error_keeps_its_attributes_when_pickled(cls: type[DatapipesError], protocol: int) -> None:
    error = cls("message", url="daos://p/c/x", operation="open", errno=errno.EIO, code="DER_IO")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is cls
    assert str(again) == "message"
    assert (again.url, again.operation, again.errno, again.code) == (
        "daos://p/c/x",
        "open",
        errno.EIO,
        "DER_IO",
    )


@pytest.mark.parametrize(
    ("number", "cls"),
    [
        (errno.ENOENT, FileMissingError),
        (errno.ENOTDIR, FileMissingError),
        (errno.EACCES, AccessDeniedError),
        (errno.EPERM, AccessDeniedError),
        (errno.EISDIR, IsDirectoryError),
        (errno.ETIMEDOUT, StoreTimeoutError),
        (errno.ECONNREFUSED, StoreConnectionError),
        (errno.ECONNRESET, StoreConnectionError),
        (errno.EPIPE, StoreConnectionError),
        (errno.EHOSTUNREACH, StoreConnectionError),
        (errno.ENODATA, SizeMismatchError),
        (errno.ENOSPC, BackendIOError),
        (errno.EMFILE, BackendIOError),
    ],
)
def test_errno_decides_the_class(number: int, cls: type[BackendIOError]) -> None:
    error = error_from_errno(number, url="u", operation="read", hint="Do this", code=7)
    assert type(error) is cls
    assert (error.url, error.operation, error.errno, error.code) == ("u", "read", number, 7)
    message = str(error)
    assert message.startswith("read 'u' failed: ")
    assert errno.errorcode[number] in message
    assert message.endswith("Do this")


def test_unknown_errno_is_named_by_its_number() -> None:
    error = error_from_errno(9999, url="u", operation="read")
    assert type(error) is BackendIOError
    assert "9999" in str(error)


def test_os_error_becomes_ours_once() -> None:
    ours = error_from_os(FileNotFoundError(errno.ENOENT, "no"), url="u", operation="stat")
    assert type(ours) is FileMissingError
    assert error_from_os(ours, url="other", operation="other") is ours
    assert error_from_os(OSError("no number"), url="u", operation="stat").errno == errno.EIO
