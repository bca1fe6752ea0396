"""Reading what was found, many at once: names through the back end, users' objects through themselves."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any

from datapipes.backends.base import DEFAULT_BUFFER_BYTES, Backend, BatchOptions
from datapipes.backends.checks import check_read_options
from datapipes.calling import call
from datapipes.datasets.ais_found import Found, GetBatch, sdk_etl
from datapipes.records import UNKNOWN_SIZE, WHOLE, ReadRequest

__all__ = ["FoundReader"]


class FoundReader:
    """Reads whole objects; holds no handles and travels by its options.

    Args:
        etl_name: read what this ETL makes of them.
        get_batch: read by Get-Batch.
        own: reads an object that is not exactly the SDK's; by default ``get_reader(etl=...).read_all()``.
    """

    def __init__(
        self,
        etl_name: str | None,
        *,
        max_in_flight: int,
        timeout_s: float | None,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        get_batch: GetBatch | None = None,
        own: Callable[[Any], Any] | None = None,
    ) -> None:
        max_in_flight, max_buffer_bytes = check_read_options(
            max_in_flight=max_in_flight, timeout_s=timeout_s, max_buffer_bytes=max_buffer_bytes
        )
        self._etl_name = etl_name
        self._get_batch = get_batch
        self._max_in_flight = max_in_flight
        self._max_buffer_bytes = max_buffer_bytes
        self._timeout_s = timeout_s
        self._own = own

    def read_own(self, found: Found) -> Any:
        """The content of an object that reads itself."""
        if self._own is not None:
            return call(self._own, found.thing)
        return call(found.thing.get_reader(etl=sdk_etl(self._etl_name)).read_all)

    def read(self, founds: Iterable[Found]) -> Generator[tuple[Found, Any, Exception | None], None, None]:
        """Each of ``founds``, in order, with its content, or with the error that it has met.

        At most ``max_in_flight`` and ``max_buffer_bytes`` ahead. Close it to cancel what is in flight. An
        object that reads itself is read when its turn comes, and what it raises is raised.
        """
        stores: dict[int, tuple[Any, Backend]] = {}  # holds the places, so that no id comes twice

        def backend_of(found: Found) -> Backend | None:
            place = found.place
            if place is None:
                return None
            if id(place) not in stores:
                stores[id(place)] = place, place.backend(self._etl_name, self._get_batch)
            return stores[id(place)][1]

        for backend, group in groupby(founds, backend_of):
            if backend is None:
                for found in group:
                    yield found, self.read_own(found), None
            else:
                yield from self._read_store(backend, group)

    def _read_store(
        self, backend: Backend, founds: Iterator[Found]
    ) -> Generator[tuple[Found, Any, Exception | None], None, None]:
        asked: deque[Found] = deque()

        def requests() -> Iterator[ReadRequest]:
            for found in founds:
                asked.append(found)
                yield _request(found)

        results = backend.read_many(
            requests(),
            max_in_flight=self._max_in_flight,
            max_buffer_bytes=self._max_buffer_bytes,
            timeout_s=self._timeout_s,
        )
        try:
            for _, _, data, error in results:
                yield asked.popleft(), data, error
        finally:
            results.close()

    def read_all(self, founds: Sequence[Found]) -> list[Any]:
        """The contents of all of ``founds``, read at once. Raises the error of one that failed."""
        contents: list[Any] = [None] * len(founds)
        for backend, positions in self._by_store(founds):
            urls = [founds[position].url for position in positions]
            sizes = [founds[position].size or UNKNOWN_SIZE for position in positions]
            found = backend.read_files(urls, sizes, **self._batch_options())
            for position, data in zip(positions, found, strict=True):
                contents[position] = data
        for position, found_one in enumerate(founds):
            if found_one.place is None:
                contents[position] = self.read_own(found_one)
        return contents

    def read_apart(self, founds: Sequence[Found]) -> list[Callable[[], Any]]:
        """All of ``founds``, read at once: for each a function that returns its content or raises."""
        results: list[Callable[[], Any]] = [partial(self.read_own, found) for found in founds]
        for backend, positions in self._by_store(founds):
            requests = [_request(founds[at]) for at in positions]
            answers = backend.read_batch(requests, **self._batch_options())
            for position, answer in zip(positions, answers, strict=True):
                results[position] = answer.unwrap
        return results

    def _batch_options(self) -> BatchOptions:
        return {"max_in_flight": self._max_in_flight, "timeout_s": self._timeout_s}

    def _by_store(self, founds: Sequence[Found]) -> list[tuple[Backend, list[int]]]:
        """Positions of what is read by name, store by store."""
        stores: dict[int, tuple[Backend, list[int]]] = {}
        for position, found in enumerate(founds):
            place = found.place
            if place is None:
                continue
            if id(place) in stores:
                stores[id(place)][1].append(position)
            else:
                stores[id(place)] = place.backend(self._etl_name), [position]
        return list(stores.values())


def _request(found: Found) -> ReadRequest:
    """A size of 0 may mean that a remote bucket did not say it."""
    return ReadRequest(found.url, 0, WHOLE, found.size or UNKNOWN_SIZE)
