from __future__ import annotations

import errno
import pickle
from collections.abc import Callable

import pytest

from datapipes.backends.faults import Fault, FaultBackend
from datapipes.backends.memory import MemoryBackend
from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    DatapipesError,
    FileMissingError,
    SizeMismatchError,
    StoreConnectionError,
)
from datapipes.records import ReadRequest

URLS = [f"memory://faults/{i}" for i in range(10)]


def store(*faults: Fault) -> FaultBackend:
    inner = MemoryBackend("faults")
    for url in URLS:
        inner.write(url, url.encode())
    return FaultBackend(inner, faults)


def failed(backend: FaultBackend, urls: list[str] = URLS) -> list[int]:
    results = list(backend.read_many([ReadRequest(url) for url in urls]))
    assert all(result.data == result.request.url.encode() for result in results if result.error is None)
    return [result.position for result in results if result.error is not None]


def test_fault_without_conditions_fails_every_read() -> None:
    backend = store(Fault(errno=errno.EACCES))
    assert failed(backend) == list(range(10))
    with pytest.raises(AccessDeniedError, match="ordered"):
        backend.read(URLS[0])
    with pytest.raises(AccessDeniedError), backend.open(URLS[0]) as file:
        file.read()


def test_fault_by_pattern_by_number_and_for_a_time() -> None:
    assert failed(store(Fault(url="*/[37]"))) == [3, 7]
    assert failed(store(Fault(first=4))) == [3, 4, 5, 6, 7, 8, 9]
    assert failed(store(Fault(first=4, times=2))) == [3, 4]
    assert failed(store(Fault(url="*/[5-8]", first=2, times=2))) == [6, 7]


def test_faults_of_two_kinds_the_first_that_applies_decides() -> None:
    backend = store(Fault(url="*/1", errno=errno.ENOENT), Fault(url="*/[12]", errno=errno.ECONNRESET))
    results = list(backend.read_many([ReadRequest(url) for url in URLS[:4]]))
    assert [type(result.error) for result in results] == [
        type(None),
        FileMissingError,
        StoreConnectionError,
        type(None),
    ]


def test_numbers_are_counted_over_calls_and_anew_in_a_copy() -> None:
    backend = store(Fault(first=2, times=1))
    assert [failed(backend, URLS[:1]) for _ in range(3)] == [[], [0], []]
    assert failed(pickle.loads(pickle.dumps(backend))) == [1]


@pytest.mark.parametrize("operation", ["stat", "write", "remove", "list"])
def test_fault_of_each_operation_fails_that_alone(operation: str) -> None:
    backend = store(Fault(operation=operation))  # type: ignore[arg-type]
    url = URLS[0]
    calls: dict[str, Callable[[], object]] = {
        "read": lambda: backend.read(url),
        "stat": lambda: backend.stat(url),
        "write": lambda: backend.write(url, b""),
        "list": lambda: list(backend.list("memory://faults/")),
        "remove": lambda: backend.remove(url),
    }
    for name, call in calls.items():
        if name == operation:
            with pytest.raises(BackendIOError) as caught:
                call()
            assert (caught.value.operation, caught.value.errno) == (name, errno.EIO)
        else:
            call()


def test_open_write_fails_as_write_does() -> None:
    with pytest.raises(BackendIOError):
        store(Fault(operation="write")).open_write(URLS[0])


def test_listing_breaks_after_the_entries_ordered() -> None:
    entries = store(Fault(operation="list", after_entries=4)).list("memory://faults/")
    assert [next(entries).url for _ in range(4)] == URLS[:4]
    with pytest.raises(DatapipesError):
        next(entries)


def test_shrunk_file_is_short_data_only_where_nobody_could_know() -> None:
    backend = store(Fault(keep_bytes=5))
    requests = [
        ReadRequest(URLS[0]),
        ReadRequest(URLS[0], 2),
        ReadRequest(URLS[0], 2, 3),
        ReadRequest(URLS[0], 2, 4),
        ReadRequest(URLS[0], size=len(URLS[0])),
    ]
    results = list(backend.read_many(requests))
    assert [result.data for result in results] == [b"memor", b"mor", b"mor", None, None]
    assert [type(result.error) for result in results[3:]] == [SizeMismatchError] * 2
