from __future__ import annotations

import errno
import random
import threading
import time

import pytest

from datapipes.backends.faults import Fault, FaultBackend
from datapipes.backends.memory import MemoryBackend
from datapipes.backends.retry import RetryBackend, is_transient
from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    FileMissingError,
    StoreConnectionError,
    StoreTimeoutError,
    UrlError,
)
from datapipes.records import ReadRequest

URLS = [f"memory://retry/{i}" for i in range(10)]


def store(*faults: Fault, budget_s: float = 5.0) -> RetryBackend:
    inner = MemoryBackend("retry")
    for url in URLS:
        inner.write(url, url.encode())
    return RetryBackend(FaultBackend(inner, faults), retry_budget_s=budget_s, first_wait_s=0.001)


@pytest.mark.parametrize("ordered", [True, False])
def test_transient_faults_of_reads_are_healed_in_place(*, ordered: bool) -> None:
    backend = store(Fault(url="*/[258]", errno=errno.ECONNRESET, times=6))
    reads = backend.read_many([ReadRequest(url) for url in URLS], ordered=ordered)
    assert sorted((r.position, r.data) for r in reads) == [(i, url.encode()) for i, url in enumerate(URLS)]
    assert reads.stats()["retries"] >= 3


def test_permanent_fault_is_raised_at_once() -> None:
    backend = store(Fault(errno=errno.EACCES, times=1), budget_s=60)
    began = time.monotonic()
    results = list(backend.read_many([ReadRequest(URLS[0]), ReadRequest(URLS[1])]))
    assert time.monotonic() - began < 1
    assert type(results[0].error) is AccessDeniedError
    assert "tries" not in str(results[0].error)
    assert results[1].data == URLS[1].encode()


def test_budget_spent_is_the_last_error_with_the_number_of_tries() -> None:
    backend = store(Fault(errno=errno.ESTALE), budget_s=0.2)
    began = time.monotonic()
    (result,) = backend.read_batch([ReadRequest(URLS[0])])
    assert time.monotonic() - began < 2
    assert type(result.error) is BackendIOError
    assert (result.error.errno, result.error.url) == (errno.ESTALE, URLS[0])
    assert "given up after" in str(result.error)


def test_no_budget_means_no_second_try() -> None:
    (result,) = store(Fault(errno=errno.ESTALE, times=1), budget_s=0).read_batch([ReadRequest(URLS[0])])
    assert result.error is not None


def test_listing_goes_on_after_the_last_entry_given() -> None:
    backend = store(
        Fault(operation="list", errno=errno.ETIMEDOUT, times=1, after_entries=4),
        Fault(operation="list", errno=errno.ETIMEDOUT, times=1, after_entries=3),
    )
    assert [entry.url for entry in backend.list("memory://retry/")] == URLS


def test_listing_of_what_is_missing_raises_at_once() -> None:
    with pytest.raises(FileMissingError):
        list(store(budget_s=60).list("memory://retry/nothing"))


def test_stat_and_write_try_again_and_remove_does_not() -> None:
    hiccups = [
        Fault(operation=operation, errno=errno.EAGAIN, times=2) for operation in ("stat", "write", "remove")
    ]
    backend = store(*hiccups)
    assert backend.stat(URLS[0]).size == len(URLS[0])
    backend.write(URLS[0], b"new")
    assert backend.read(URLS[0]) == b"new"
    with pytest.raises(BackendIOError):
        backend.remove(URLS[0])  # the first try may have removed it: a second would not find it


def test_close_ends_a_wait_for_the_next_try() -> None:
    backend = RetryBackend(store(Fault(errno=errno.ESTALE)).inner, retry_budget_s=600, first_wait_s=60)
    reads = backend.read_many([ReadRequest(URLS[0])])
    closer = threading.Timer(0.1, reads.close)
    closer.start()
    began = time.monotonic()
    assert list(reads) == []
    assert time.monotonic() - began < 5
    closer.join()


def test_retrying_draws_nothing_from_the_users_random_numbers() -> None:
    random.seed(7)
    before = random.getstate()
    assert store(Fault(errno=errno.ESTALE, times=3)).read(URLS[0]) == URLS[0].encode()
    assert random.getstate() == before


def test_is_transient_tells_what_may_pass_from_what_will_not() -> None:
    assert is_transient(StoreTimeoutError("x"))
    assert is_transient(StoreConnectionError("x"))
    assert is_transient(BackendIOError("x", errno=errno.ESTALE))
    assert not is_transient(BackendIOError("x", errno=errno.EIO))
    assert not is_transient(FileMissingError("x", errno=errno.ENOENT))
    assert not is_transient(UrlError("x"))
    assert not is_transient(OSError(errno.EAGAIN, "not ours"))
