"""A back end for contracts that watches and steers the reads of a stage: it counts, holds, mixes, fails."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from datapipes.backends.base import Backend
from datapipes.errors import DatapipesError, StoreConnectionError
from datapipes.records import HandleFile, ReadRequest, ReadResult

__all__ = ["Probe"]


class Probe:
    """The script of a test, shared by all back ends and readers made through it.

    Attributes:
        reads: every request handed to a store, in order.
        open_readers: readers neither exhausted, closed nor dropped.
        gate: cleared, it holds every ``__next__`` of a reader until it is set or the reader is closed.
        waiting: set while a ``__next__`` is held.
        jitter_s: each result is up to so much late, by ``rng``.
        fail_reads: numbers (from 0) of the requests that fail with StoreConnectionError.
        interrupt_results: numbers of the results in whose place KeyboardInterrupt is raised, once.
    """

    def __init__(self, resolve: Callable[[str], Backend], seed: int = 0) -> None:
        self._resolve = resolve
        self.rng = random.Random(seed)  # noqa: S311 - tests want it repeatable
        self.reads: list[ReadRequest] = []
        self.open_readers = 0
        self.results = 0
        self.gate = threading.Event()
        self.gate.set()
        self.waiting = threading.Event()
        self.jitter_s = 0.0
        self.fail_reads: set[int] = set()
        self.interrupt_results: set[int] = set()
        self.held: set[str] = set()  # with ordered=False: URLs that come last of what is under way

    def resolve(self, url: str) -> Backend:
        """In place of the registry."""
        return _ProbeBackend(self, self._resolve(url))


class _ProbeBackend(Backend):
    """Reads through the probe; everything else goes to the store behind it."""

    def __init__(self, probe: Probe, inner: Backend) -> None:
        self._probe = probe
        self._inner = inner

    def read_many(
        self,
        requests: Iterable[ReadRequest],
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 1 << 26,  # noqa: ARG002 - one file at a time
        ordered: bool = True,
        timeout_s: float | None = 60.0,
        verify_size: bool = False,
        writable: bool = False,
        handles: HandleFile | None = None,  # noqa: ARG002 - no business of the probe's
    ) -> _ProbeReader:
        def read(request: ReadRequest) -> ReadResult:
            return self._inner.read_batch(
                [request], timeout_s=timeout_s, verify_size=verify_size, writable=writable
            )[0]

        return _ProbeReader(self._probe, read, requests, max_in_flight, ordered=ordered)

    def list(self, prefix: str, **options: Any) -> Iterator[Any]:
        return self._inner.list(prefix, **options)

    def stat(self, url: str) -> Any:
        return self._inner.stat(url)

    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        self._inner.write(url, data)

    def open_write(self, url: str, **options: int) -> Any:
        return self._inner.open_write(url, **options)

    def remove(self, url: str) -> None:
        self._inner.remove(url)


class _ProbeReader:
    """Holds up to ``max_in_flight`` requests and answers the first, or with ``ordered=False`` any of them."""

    def __init__(
        self,
        probe: Probe,
        read: Callable[[ReadRequest], ReadResult],
        requests: Iterable[ReadRequest],
        max_in_flight: int,
        *,
        ordered: bool,
    ) -> None:
        self._probe = probe
        self._read = read
        self._requests = iter(requests)
        self._depth = max_in_flight
        self._ordered = ordered
        self._flight: list[tuple[int, ReadRequest, DatapipesError | None]] = []
        self._pulled = 0
        self._broken: BaseException | None = None
        self._closed = threading.Event()
        self._open = True
        self._bytes = 0
        probe.open_readers += 1

    def __iter__(self) -> Iterator[ReadResult]:
        return self

    def __next__(self) -> ReadResult:
        probe = self._probe
        self._fill()
        while not probe.gate.is_set() and not self._closed.is_set():
            probe.waiting.set()
            self._closed.wait(0.005)
        if probe.jitter_s:
            time.sleep(probe.rng.random() * probe.jitter_s)
        if self._closed.is_set():
            raise StopIteration
        if not self._flight:
            self._leave()
            if self._broken is not None:
                raise self._broken
            raise StopIteration
        probe.results += 1
        if probe.results - 1 in probe.interrupt_results:
            probe.interrupt_results.remove(probe.results - 1)
            raise KeyboardInterrupt
        position, request, error = self._flight.pop(self._choose())
        if error is not None:
            return ReadResult(position, request, None, error)
        result = self._read(request)
        self._bytes += len(result.data or b"")
        return ReadResult(position, request, result.data, result.error)

    def _choose(self) -> int:
        if self._ordered:
            return 0
        free = [i for i, (_, request, _) in enumerate(self._flight) if request.url not in self._probe.held]
        return self._probe.rng.choice(free or range(len(self._flight)))

    def _fill(self) -> None:
        probe = self._probe
        while len(self._flight) < self._depth and self._broken is None and not self._closed.is_set():
            try:
                request = next(self._requests)
            except StopIteration:
                return
            except BaseException as error:  # noqa: BLE001 - to be raised after the results before it
                self._broken = error
                return
            failure: DatapipesError | None = None
            if len(probe.reads) in probe.fail_reads:
                failure = StoreConnectionError(
                    f"read {request.url!r} failed: the test says so", url=request.url
                )
            probe.reads.append(request)
            self._flight.append((self._pulled, request, failure))
            self._pulled += 1

    def _leave(self) -> None:
        if self._open:
            self._open = False
            self._probe.open_readers -= 1

    def close(self) -> None:
        self._closed.set()
        self._leave()

    def __del__(self) -> None:
        self._leave()

    def stats(self) -> Mapping[str, float]:
        return {"items": self._pulled - len(self._flight), "bytes": self._bytes, "errors": 0, "wait_s": 0.0}
