"""The part of ``BackendContract`` about what reading may hold, how it ends, and how long it may wait."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from collections.abc import Iterable, Iterator

import pytest

from datapipes.backends.base import Backend
from datapipes.errors import StoreTimeoutError
from datapipes.records import ReadRequest
from datapipes.testing.backend_hooks import (
    BackendHooks,
    check_error,
    in_thread,
    open_descriptors,
    requests_of,
    resident_bytes,
    wait_until,
)

__all__ = ["BoundsContract"]

LONG_S = 30.0
"""How slow a store is that must not be waited for."""


class _Watched:
    """Requests that tell how many were pulled, and whether the generator they came from has ended."""

    def __init__(self, requests: Iterable[ReadRequest]) -> None:
        self._requests = requests
        self.pulled = 0
        self.ended = False

    def __iter__(self) -> Iterator[ReadRequest]:
        try:
            for request in self._requests:
                self.pulled += 1
                yield request
        finally:
            self.ended = True


class _Failing:
    """Requests that raise once after those given, and would then go on."""

    def __init__(self, requests: list[ReadRequest]) -> None:
        self._requests = iter([*requests, None, *requests])

    def __iter__(self) -> Iterator[ReadRequest]:
        return self

    def __next__(self) -> ReadRequest:
        request = next(self._requests)
        if request is None:
            raise ZeroDivisionError("of the caller's own")
        return request


class BoundsContract(BackendHooks):
    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("max_in_flight", [1, 7, 64])
    def test_requests_are_pulled_as_results_are_taken(self, max_in_flight: int, *, ordered: bool) -> None:
        _, contents = self.seeded(200)
        watched = _Watched(requests_of(contents))
        reads = self.make().read_many(watched, max_in_flight=max_in_flight, ordered=ordered)
        assert watched.pulled <= max_in_flight
        for taken, _ in enumerate(reads, 1):
            assert taken <= watched.pulled <= taken + max_in_flight
            if taken == 20:
                time.sleep(0.05)  # nothing goes on behind a caller that does not come back
                assert watched.pulled <= taken + max_in_flight
        assert watched.pulled == 200
        assert watched.ended

    def test_requests_without_end_can_be_read_from(self) -> None:
        _, contents = self.seeded(5)
        endless = (request for _ in iter(int, 1) for request in requests_of(contents))
        reads = self.make().read_many(endless, max_in_flight=4)
        assert [next(reads).position for _ in range(100)] == list(range(100))
        reads.close()

    @pytest.mark.parametrize("ordered", [True, False])
    @pytest.mark.parametrize("good", [0, 1, 100])
    def test_exception_of_the_requests_comes_after_the_results_before_it(
        self, good: int, *, ordered: bool
    ) -> None:
        _, contents = self.seeded(max(good, 1))

        failing = _Failing(requests_of(contents)[:good])
        reads = self.make().read_many(failing, max_in_flight=16, ordered=ordered)
        urls: list[str] = []
        with pytest.raises(ZeroDivisionError, match="of the caller's own"):
            urls.extend(result.request.url for result in reads if result.error is None)
        assert sorted(urls) == list(contents)[:good]
        assert list(reads) == []

    def test_read_ahead_is_bounded_in_bytes(self) -> None:
        size, count, bound = 2 << 20, 64, 4 << 20
        data = bytes(size)
        prefix = self.seed({f"{i:02}": data for i in range(count)})
        requests = [ReadRequest(self.url(prefix, f"{i:02}")) for i in range(count)]
        for known in (-1, size):
            requests = [request._replace(size=known) for request in requests]
            backend = self.make()
            for result in backend.read_many(requests[:16], max_buffer_bytes=bound):
                assert len(result.unwrap()) == size  # and is let go: what first use costs is not read-ahead
            before = resident_bytes()
            reads = backend.read_many(requests, max_in_flight=64, max_buffer_bytes=bound)
            next(reads)
            time.sleep(0.2)  # a stalled consumer
            assert resident_bytes() - before < 32 << 20
            assert sum(len(result.unwrap()) for result in reads) == size * (count - 1)
            reads.close()

    def test_file_larger_than_the_byte_bound_is_read_alone(self) -> None:
        data = bytes(range(256)) * 8000
        prefix = self.seed({"0": b"a", "1": data, "2": b"b", "3": data})
        requests = [ReadRequest(self.url(prefix, name)) for name in "0123"]
        results = list(self.make().read_many(requests, max_buffer_bytes=1000))
        assert [bytes(result.unwrap()) for result in results] == [b"a", data, b"b", data]

    @pytest.mark.parametrize("taken", [0, 1, 30])
    def test_close_early_cancels_and_frees(self, taken: int) -> None:
        _, contents = self.seeded(300)
        backend = self.make()
        list(backend.read_many(requests_of(contents)))  # what first use opens, stays open
        descriptors = open_descriptors()
        watched = _Watched(requests_of(contents))
        reads = backend.read_many(watched, max_in_flight=32)
        for _ in range(taken):
            next(reads)
        reads.close()
        reads.close()
        assert list(reads) == []
        assert taken <= reads.stats()["items"] <= taken + 32
        assert watched.pulled <= taken + 32
        del reads
        gc.collect()
        assert watched.ended or watched.pulled == 0
        self._nothing_left(backend, descriptors)

    def test_dropping_an_iterator_frees_like_close(self) -> None:
        _, contents = self.seeded(300)
        backend = self.make()
        list(backend.read_many(requests_of(contents)))
        descriptors = open_descriptors()
        watched = _Watched(requests_of(contents))
        alive = weakref.ref(watched)
        reads = backend.read_many(watched, max_in_flight=32)
        next(reads)
        del reads, watched
        gc.collect()
        assert alive() is None
        self._nothing_left(backend, descriptors)

    def _nothing_left(self, backend: Backend, descriptors: int) -> None:
        assert wait_until(lambda: open_descriptors() <= descriptors)
        for name in ("files_open", "buffers_live", "readers_live"):
            assert wait_until(lambda name=name: not backend.stats().get(name, 0)), name  # type: ignore[misc]

    def test_close_from_another_thread_ends_a_next_that_waits(self) -> None:
        _, contents = self.seeded(10)
        reads = self.slow(LONG_S).read_many(requests_of(contents), timeout_s=None)
        closer = threading.Timer(0.2, reads.close)
        closer.start()
        began = time.monotonic()
        assert list(reads) == []
        assert time.monotonic() - began < 5
        closer.join()

    def test_close_does_not_wait_for_a_slow_store(self) -> None:
        _, contents = self.seeded(10)
        reads = self.slow(LONG_S).read_many(requests_of(contents), timeout_s=None)
        waiting = in_thread(lambda: list(reads))
        time.sleep(0.1)
        began = time.monotonic()
        reads.close()
        assert time.monotonic() - began < 5
        waiting.join(5)
        assert not waiting.is_alive()

    @pytest.mark.parametrize("ordered", [True, False])
    def test_item_that_takes_too_long_is_a_timeout_in_its_place(self, *, ordered: bool) -> None:
        _, contents = self.seeded(3)
        backend = self.slow(LONG_S)
        began = time.monotonic()
        results = list(backend.read_many(requests_of(contents), timeout_s=0.2, ordered=ordered))
        batch = backend.read_batch(requests_of(contents), timeout_s=0.2)
        assert time.monotonic() - began < 10
        for result in results + batch:
            assert type(result.error) is StoreTimeoutError
            check_error(result.error)
        assert sorted(result.position for result in results) == [0, 1, 2]

    def test_time_out_is_an_items_own_and_not_the_whole_readings(self) -> None:
        _, contents = self.seeded(6)
        backend = self.slow(0.15)
        results = list(backend.read_many(requests_of(contents), timeout_s=0.6, max_in_flight=1))
        assert [result.error for result in results] == [None] * 6

    def test_requests_in_flight_wait_side_by_side(self) -> None:
        _, contents = self.seeded(64)
        backend = self.slow(0.1)
        list(backend.read_many(requests_of(contents), max_in_flight=64))  # an adaptive depth learns here
        began = time.monotonic()
        results = list(backend.read_many(requests_of(contents), max_in_flight=64))
        assert [result.error for result in results] == [None] * 64
        assert time.monotonic() - began < 64 * 0.1 / 3

    @pytest.mark.parametrize("call", ["read_many", "read_batch"])
    def test_interrupt_is_heard_at_once(self, call: str) -> None:
        prefix, contents = self.seeded(10)
        backend = self.slow(LONG_S)

        def read() -> None:
            if call == "read_many":
                next(backend.read_many(requests_of(contents), timeout_s=None))
            else:
                backend.read_batch(requests_of(contents), timeout_s=None)

        rung: list[float] = []

        def ring(thread: int) -> None:
            rung.append(time.monotonic())
            signal.pthread_kill(thread, signal.SIGINT)

        ringer = threading.Timer(0.3, ring, (threading.get_ident(),))

        def read_until_it_rings() -> None:
            ringer.start()
            read()
            ringer.join()  # a read that came back early must not leave the signal to another test

        with pytest.raises(KeyboardInterrupt):
            read_until_it_rings()
        assert time.monotonic() - rung[0] < 0.1 + 0.8  # 100 ms are promised; a busy machine gets more
        assert len(list(self.make().list(prefix))) == 10
