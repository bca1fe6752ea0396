"""Many objects by one request, whose answer brings one after the other.

A batch hands its items only what came whole and as expected, in the order of the request. Whatever it does
not give, for any reason, is asked for singly, and meets its own error there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import pycurl

from datapipes.errors import DatapipesError
from datapipes.transport.budget import Budget
from datapipes.transport.channel import Channel
from datapipes.transport.exchange import Exchange
from datapipes.transport.failures import Failure
from datapipes.transport.item import Begun, HttpRequest, Item
from datapipes.transport.options import HttpOptions, check_headers
from datapipes.transport.part import Part
from datapipes.transport.verdict import redirect_target

__all__ = ["Batch", "BatchRequest", "Batching"]

_KEEPS_THE_BODY = frozenset({307, 308})
_SLACK_BYTES = 256 * 1024
"""Of an answer that may be held beyond what is promised to the object that comes in: two pieces as libcurl
gives them, which end in other objects."""
_FIRST_NEED_BYTES = 64 * 1024
"""Promised to an object of which no size is known."""


class BatchRequest(NamedTuple):
    """A GET with a JSON body that asks for several objects.

    Attributes:
        url: as it goes on the wire.
        body: JSON.
        unpack: takes the answer piece by piece; gives (index of the request, data) of each object that is
            now whole, in ascending order. Raises a DatapipesError where the answer makes no sense.
    """

    url: str
    body: bytes
    unpack: Callable[[bytes], list[tuple[int, bytes]]]


class Batching(NamedTuple):
    """How requests are asked for together: at most ``size`` at once, of those with the same ``together``."""

    size: int
    ask: Callable[[Sequence[HttpRequest]], BatchRequest]


class Batch:
    """Items that are asked for together, as the one item that their exchange belongs to.

    Args:
        arrived: takes the items that are done, each with its batch.
        strays: takes the items that the answer has left out, to be asked for singly.
    """

    def __init__(
        self,
        items: list[Item],
        batching: Batching,
        options: HttpOptions,
        *,
        arrived: list[tuple[Item, Batch]],
        strays: list[Item],
    ) -> None:
        self._items = items
        self._asked = batching.ask([item.request for item in items])
        self._options = options
        self._arrived = arrived
        self._strays = strays
        self._at = 0  # the item that is expected next
        self._pending = 0  # bytes of the answer since the last object that was whole
        self.budget, self.spent_s = items[0].budget, items[0].spent_s
        self.request = HttpRequest(self._asked.url, self._asked.url)
        self.begun = 0.0  # since when the item is expected that comes next
        self.done = False

    def together(self) -> Exchange:
        """The request for all of them."""
        return _BatchExchange(self, Part(0, None), self._asked.url, self._asked.body)

    def begin(self) -> Begun:
        """What is still missing, singly."""
        self.done = True
        rest = self._items[self._at :]
        self._at = len(self._items)
        return [begun for item in rest for begun in item.begin()]

    def wants(self, exchange: Exchange) -> bool:  # noqa: ARG002 - there is one
        """Whether the answer is still of use."""
        return not self.done

    # --- while the answer comes in

    @property
    def position(self) -> int:
        """That of the item whose bytes come next; at the end, of the last."""
        return self._items[min(self._at, len(self._items) - 1)].position

    @property
    def claim(self) -> Item | None:
        """Whose memory the next bytes are."""
        return self._items[self._at] if self._at < len(self._items) else None

    def lacks(self, size: int) -> int:
        """Bytes that the item that is coming in has not been promised yet, if ``size`` more may come."""
        claim = self.claim
        if claim is None:
            return 0
        return max(0, self._pending + size - _SLACK_BYTES - max(0, claim.need))

    def feed(self, piece: bytes) -> None:
        """The next piece of the answer. Raises DatapipesError where it makes no sense."""
        if self._at == len(self._items):
            return  # what follows the last object
        self._pending += len(piece)
        for index, data in self._asked.unpack(piece):
            self._pending = 0
            while self._at < index:
                self._pass()
            item = self._items[index]
            if 0 <= item.request.size != len(data):
                self._pass()
                continue
            item.came_with_others(data)
            self._at += 1
            self._arrived.append((item, self))

    def _pass(self) -> None:
        self._strays.append(self._items[self._at])
        self._at += 1

    # --- when it has ended

    def ended(self, exchange: Exchange, code: int, message: str, now: float) -> Begun:  # noqa: ARG002 - as of Item
        """Go where a redirect leads; else ask singly for what has not come."""
        head = exchange.note_head()
        if not code and head.status in _KEEPS_THE_BODY and b"location" in head.fields:
            target = redirect_target(exchange, head, self.request, self._options)
            if not isinstance(target, Failure):
                hop = self.together()
                hop.hops, hop.with_headers, hop.url = exchange.hops, exchange.with_headers, exchange.url
                hop.redirected(target)
                return [(0.0, hop)]
        return self.begin()

    def failed(self, exchange: Exchange, failure: Failure, now: float) -> Begun:  # noqa: ARG002 - as of Item
        """Ask singly: whatever is wrong with this answer need not be so with another."""
        return self.begin()

    def expired(self, timeout_s: float) -> Begun:
        """The item that is expected next has taken longer than it may; those after it have not begun."""
        claim = self.claim
        if claim is not None:
            claim.expired(timeout_s)
            self._arrived.append((claim, self))
            self._at += 1
        return self.begin()

    def refused(self, error: DatapipesError) -> Begun:  # noqa: ARG002 - as of Item
        """The request cannot be sent."""
        return self.begin()


class _BatchExchange(Exchange):
    """The GET of a batch, with its body; its answer goes to the batch as it comes."""

    __slots__ = ("_batch", "_body", "_claim")

    def __init__(self, batch: Batch, part: Part, url: str, body: bytes) -> None:
        super().__init__(cast("Any", batch), part, url)  # of an item it has what an exchange needs
        self._batch = batch
        self._body = body
        self._claim: Item | None = None  # who waits for memory

    def prepare(self, channel: Channel, options: HttpOptions, now: float) -> None:
        super().prepare(channel, options, now)
        easy = channel.easy
        # Without an empty Expect libcurl would wait for a "100 Continue" before a large body.
        channel.header_lines = (*channel.header_lines, "Content-Type: application/json", "Expect:")
        easy.setopt(pycurl.HTTPHEADER, list(check_headers(channel.header_lines)))
        easy.setopt(pycurl.POSTFIELDS, self._body)
        easy.setopt(pycurl.CUSTOMREQUEST, "GET")
        channel.posted = True

    def receive(self, piece: bytes) -> int | None:
        if self.head is None:
            self.note_head()
        if self.good:
            if not self._may_hold(len(piece)):
                self._starve()
                return int(pycurl.WRITEFUNC_PAUSE)
            try:
                self._batch.feed(piece)
            except DatapipesError:
                return -1
        self.received += len(piece)
        return None

    def _may_hold(self, size: int) -> bool:
        self._claim, self.lacks = self._batch.claim, self._batch.lacks(size)
        return self._claim is None or _is_promised(self._claim, self.lacks)

    def is_fed(self) -> bool:
        claim = self._claim
        return claim is None or claim.done or _is_promised(claim, self.lacks)


def _is_promised(claim: Item, lacks: int) -> bool:
    budget: Budget = claim.budget
    if claim.need < 0:
        claim.need = _FIRST_NEED_BYTES
    if not budget.ask(claim):
        return False
    return not lacks or budget.grow(claim, max(lacks, claim.need))
