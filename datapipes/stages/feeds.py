"""Where a loading stage gets its requests from, and what of it a state must hold.

A feed cuts the names of a source into segments: requests of one store, read by one ``read_many``. There are
two: :class:`IndexFeed` here walks an indexed stage in blocks, and
:class:`~datapipes.stages.name_feed.NameFeed` pulls names one by one from anything else.

What a feed hands out is referenced by the reader, and the reader by the run: a feed knows neither, so that a
dropped stage is freed at once.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from datapipes.backends.base import Backend
from datapipes.calling import call
from datapipes.errors import DatapipesError
from datapipes.records import WHOLE, ReadRequest
from datapipes.stages.indexed import BLOCK, Order
from datapipes.stages.state import State, copy_identity
from datapipes.urls import parse_url

__all__ = ["Cursor", "IndexFeed", "Segment", "Stores", "new_request"]

new_request = partial(tuple.__new__, ReadRequest)  # half the price of ReadRequest(...)


class Cursor:
    """Which results have been delivered: all before ``position``, and those in ``ahead``."""

    __slots__ = ("_lock", "ahead", "position")

    def __init__(self, position: int, ahead: list[int]) -> None:
        self.position = position
        self.ahead = set(ahead)
        self._lock = threading.Lock()

    def take(self, position: int) -> None:
        """``position`` has been delivered, out of turn perhaps. Called by one thread at a time."""
        if position == self.position and not self.ahead:
            self.position = position + 1  # one value, so nobody can see half of the change
            return
        with self._lock:
            if position != self.position:
                self.ahead.add(position)
                return
            position += 1
            while position in self.ahead:
                self.ahead.remove(position)
                position += 1
            self.position = position

    def count(self) -> int:
        """How many have been delivered."""
        with self._lock:
            return self.position + len(self.ahead)

    def snapshot(self) -> tuple[int, list[int]]:
        with self._lock:
            return self.position, sorted(self.ahead)


class Segment(NamedTuple):
    """Requests of one store, or one request that no store takes, with the reason."""

    backend: Backend | None
    requests: Iterator[ReadRequest]
    error: DatapipesError | None = None


class Stores:
    """The back end of a URL; what is known of a store's URLs is told by their common beginning."""

    def __init__(self, resolve: Callable[[str], Backend]) -> None:
        self._resolve = resolve
        self._known: dict[str, Backend] = {}
        self._last: tuple[str, Backend] | None = None

    def locate(self, url: str) -> tuple[str, Backend]:
        """(beginning, back end): every URL that begins so is of this back end. DatapipesError if none is."""
        last = self._last
        if last is None or not url.startswith(last[0]):
            last = self._last = self._look(url)
        return last

    def _look(self, url: str) -> tuple[str, Backend]:
        beginning = _beginning(url)
        backend = self._known.get(beginning)
        if backend is None:
            backend = call(self._resolve, url)
            if not beginning.endswith(_ALONE):
                self._known[beginning] = backend
        return beginning, backend


_ALONE = "\0"
"""No URL holds it: none begins with a beginning that ends so, not even the one it was made of."""


def _beginning(url: str) -> str:
    """What URLs of the same container begin with, and no others."""
    if "://" not in url:
        # A plain path: whatever begins with the same name and a slash is one too, for no scheme does.
        first, slash, _ = url.partition("/")
        return first + slash if slash and ":" not in first else url + _ALONE
    scheme, container, _, _ = parse_url(url)
    beginning = url[: len(scheme) + 3 + len(container) + 1]
    return beginning if beginning.endswith("/") else url + _ALONE


class IndexFeed:
    """Requests over an order of an index, from the cursor's position on, with sizes."""

    def __init__(self, order: Order, cursor: Cursor, stores: Stores, *, window: int | None) -> None:
        """window: how far beyond the first gap requests may go, in items; None: results come in order."""
        self._order = order
        self._cursor = cursor
        self._stores = stores
        self._window = window
        self._block = BLOCK if window is None else max(1, window // 4)
        self._done = np.array(sorted(cursor.ahead), dtype=np.int64)
        self._next = cursor.position
        self._urls: list[str] = []
        self._sizes: list[int] = []

    def segment(self) -> Segment | None:
        """The next requests of one store; None at the end."""
        if not self._fill():
            return None
        try:
            beginning, backend = self._stores.locate(self._urls[0])
        except DatapipesError as error:
            return Segment(None, self._cut(1), error)
        return Segment(backend, itertools.chain.from_iterable(self._cuts(beginning)))

    def _cuts(self, beginning: str) -> Iterator[Iterator[ReadRequest]]:
        yield self._cut(1)
        while self._fill():
            urls = self._urls
            if all(map(str.startswith, urls, itertools.repeat(beginning))):
                yield self._cut(len(urls))
                continue
            same = sum(1 for _ in itertools.takewhile(lambda url: url.startswith(beginning), urls))
            if same:
                yield self._cut(same)
            return

    def _cut(self, count: int) -> Iterator[ReadRequest]:
        urls, self._urls = self._urls[:count], self._urls[count:]
        sizes, self._sizes = self._sizes[:count], self._sizes[count:]
        return map(new_request, zip(urls, itertools.repeat(0), itertools.repeat(WHOLE), sizes, strict=False))

    def _fill(self) -> bool:
        """Names at hand? False at the end, and where the window is used up: once the reads under way are
        done there is no gap, and the next segment goes on."""
        order = self._order
        while not self._urls and self._next < order.length:
            start = self._next
            if self._window is not None and start + self._block > self._cursor.position + self._window:
                return False
            self._next = min(start + self._block, order.length)
            positions = np.arange(start, self._next, dtype=np.int64)
            if self._done.size and start <= self._done[-1]:
                positions = positions[~np.isin(positions, self._done)]
            rows = order.rows(positions)
            self._urls, self._sizes = order.index.urls_and_sizes(rows)
        return bool(self._urls)

    def state(self, position: int, *, finished: bool) -> State | None:  # noqa: ARG002 - for other feeds
        """What of the source a state needs where ``position`` comes next; None where another thread has gone
        on meanwhile: ask again with the new position."""
        return copy_identity(self._order.identity)

    def close(self) -> None:
        """Nothing is held."""
