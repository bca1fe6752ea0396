"""Records: defaults, and the invariant of a result."""

from __future__ import annotations

import pickle

import pytest

from datapipes.errors import FileMissingError
from datapipes.records import UNKNOWN_SIZE, WHOLE, FileEntry, ReadRequest, ReadResult


def test_entry_without_a_size_says_so() -> None:
    assert FileEntry("a") == ("a", UNKNOWN_SIZE)


def test_request_reads_the_whole_file_by_default() -> None:
    request = ReadRequest("a")
    assert (request.offset, request.length, request.size) == (0, WHOLE, UNKNOWN_SIZE)


@pytest.mark.parametrize("data", [b"abc", b""])
def test_result_with_data_gives_it(data: bytes) -> None:
    assert ReadResult(0, ReadRequest("a"), data, None).unwrap() == data


def test_result_with_an_error_raises_it() -> None:
    error = FileMissingError("gone", url="a", operation="read")
    with pytest.raises(FileMissingError, match="gone") as caught:
        ReadResult(3, ReadRequest("a"), None, error).unwrap()
    assert caught.value is error


@pytest.mark.parametrize(
    "record",
    [FileEntry("a", 3), ReadRequest("a", 1, 2, 3), ReadResult(0, ReadRequest("a"), b"x", None)],
)
def test_records_travel(record: object) -> None:
    assert pickle.loads(pickle.dumps(record)) == record
