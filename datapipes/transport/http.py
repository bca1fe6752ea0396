"""The fan-out reader: many GETs at once by one thread, results in order or as they come.

It knows nothing of any store. Whoever takes results drives the transfers: while nobody does, what is in
flight goes on in the kernel's buffers, and no thread competes with the caller for the interpreter.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from datapipes.errors import DatapipesError
from datapipes.transport.batch import Batching, BatchRequest
from datapipes.transport.budget import Budget
from datapipes.transport.failures import StatusError
from datapipes.transport.flight import Flight
from datapipes.transport.item import HttpRequest, Item
from datapipes.transport.options import HttpOptions

__all__ = ["BatchRequest", "Batching", "HttpReads", "HttpRequest", "HttpResult"]


_COUNTED = ("items", "bytes", "errors", "retries", "elsewhere", "batched")


class HttpResult(NamedTuple):
    """The answer to one request: its bytes, or an error.

    ``total`` is the size of the whole object in bytes, which a range may end before; -1 with an error.
    ``elsewhere``: the first address did not give it.
    """

    position: int
    request: HttpRequest
    data: bytes | None
    error: DatapipesError | None
    total: int
    elsewhere: bool


class HttpReads:
    """Results of many requests; see ``Backend.read_many`` for what is promised.

    Args:
        requests: pulled as results are taken, at most ``max_in_flight`` ahead.
        translate: makes the requests to be sent of some that were pulled together, one of each; where there
            is none they are ``HttpRequest`` already.
        options: those of the store.
        max_in_flight: requests at once, at most as many as the process may open connections.
        max_buffer_bytes: bytes on their way or waiting to be taken (one larger object comes alone).
        ordered: results in the order of the requests, or as they are completed.
        timeout_s: for one item with all its tries, in which the caller's own time does not count; None: none.
        make_error: the exception for an answer that is no success.
        batching: how requests that say so are asked for together.
    """

    def __init__(
        self,
        requests: Iterable[Any],
        options: HttpOptions,
        *,
        translate: Callable[[list[Any]], list[HttpRequest]] | None = None,
        max_in_flight: int,
        max_buffer_bytes: int,
        ordered: bool = True,
        timeout_s: float | None = None,
        make_error: StatusError | None = None,
        batching: Batching | None = None,
    ) -> None:
        self._requests: Iterator[Any] | None = iter(requests)
        self._translate = translate
        self._options = options
        self._ahead = max_in_flight
        self._budget = Budget(max_buffer_bytes)
        self._ordered = ordered
        self._make_error = make_error
        self._flight = Flight(
            options,
            self._budget,
            self._land,
            max_in_flight=max_in_flight,
            timeout_s=timeout_s,
            batching=batching,
        )
        self._burst = max(1, self._flight.depth // 4)
        self._least = 1 if batching is None else min(batching.size, max_in_flight)  # pulled at once
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._closed = self._shaken = False
        self._source_error: BaseException | None = None
        self._line: deque[Item] = deque()  # ordered: not taken yet, by position; else: done and not taken yet
        self._raw: deque[tuple[int, Any]] = (
            deque()
        )  # (position, request): pulled, and nothing made of them yet
        self._begun = self._taken = self._gap = 0
        self._counts = {"wait_s": 0.0} | dict.fromkeys(_COUNTED, 0)

    def __iter__(self) -> Iterator[HttpResult]:
        return self

    def __next__(self) -> HttpResult:
        if self._pid != os.getpid():
            raise RuntimeError("this reading was begun by another process; begin one here")
        with self._lock:
            if self._closed:
                raise StopIteration
            entered = time.monotonic()
            self._flight.enter()
            try:
                item = self._next()
            except BaseException:
                self._shaken = True  # what was being noted down may be lost
                raise
            finally:
                self._flight.leave()
                self._counts["wait_s"] += time.monotonic() - entered
            if item is None:
                self._finish()
                if self._source_error is not None:
                    raise self._source_error
                raise StopIteration
            return HttpResult(item.position, item.request, item.data, item.error, item.total, item.at_other)

    def close(self) -> None:
        """Cancel what is in flight and free its memory."""
        self._closed = True  # ends a ``next`` of another thread within a slice
        if self._pid == os.getpid():
            with self._lock:
                self._finish()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True) and not sys.is_finalizing():
            self.close()

    def stats(self) -> Mapping[str, float]:
        """See ``ReadIterator``; ``retries``; ``elsewhere``: items that the first address did not give;
        ``batched``: items that came with others."""
        return {**self._counts, "depth": self._flight.reached}

    def _finish(self) -> None:
        self._closed = True
        self._flight.close()
        self._requests = None
        self._line.clear()

    def _next(self) -> Item | None:
        if self._shaken:
            self._recover()
        while not self._closed:
            item = self._ready()
            if item is not None:
                self._count(item)
                if self._gap >= self._burst:  # the network is kept busy while the caller works
                    self._refill()
                    self._flight.send()
                return item
            self._refill()
            if self._flight.going:
                self._flight.work()
            elif not self._line:
                return None
        return None

    def _ready(self) -> Item | None:
        return self._line.popleft() if self._line and self._line[0].done else None

    def _land(self, item: Item) -> None:
        if not self._ordered:
            self._line.append(item)

    def _count(self, item: Item) -> None:
        self._taken += 1
        self._gap += 1
        self._budget.give_back(item)
        counts = self._counts
        counts["items"] += 1
        counts["retries"] += item.retries
        counts["elsewhere"] += item.at_other
        counts["batched"] += item.batched
        if item.error is None:
            counts["bytes"] += len(item.data or b"")
        else:
            counts["errors"] += 1

    def _refill(self) -> None:
        self._gap = 0
        raw, wanted = self._raw, self._ahead - (self._begun - self._taken)
        if wanted < self._least and not raw:
            return
        try:
            while self._requests is not None and len(raw) < wanted:
                raw.append((self._begun + len(raw), next(self._requests)))
        except StopIteration:
            self._requests = None
        except BaseException as error:  # noqa: BLE001 - raised when the results before it are taken
            self._requests, self._source_error = None, error
        if not raw or self._closed:
            return
        requests = [request for _, request in raw]
        entered = time.monotonic()
        made = self._translate(requests) if self._translate is not None else requests
        spent_s = time.monotonic() - entered
        for request in made:
            item = Item(self._begun, request, self._options, self._budget, self._make_error)
            item.spent_s = spent_s
            if self._ordered:
                self._line.append(item)
            self._flight.add(item)
            self._begun += 1
            raw.popleft()

    def _recover(self) -> None:
        """Go on after an exception from anywhere, a signal's handler, say: nothing is lost or doubled."""
        self._shaken = False
        if self._ordered and self._line and self._line[-1].position == self._begun:
            self._line.pop()
        self._flight.forget(self._begun)
        while self._raw and self._raw[0][0] < self._begun:
            self._raw.popleft()
        self._flight.recover()
