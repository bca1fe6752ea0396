"""One request on the wire and its answer, as far as it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pycurl

from datapipes.transport import failures
from datapipes.transport.failures import Failure
from datapipes.transport.head import Head, content_range, parse_head
from datapipes.transport.options import HttpOptions, check_headers, origin_of
from datapipes.transport.part import Part

if TYPE_CHECKING:
    from datapipes.transport.channel import Channel
    from datapipes.transport.item import Item

__all__ = ["Exchange"]

_MOST_ERROR_BYTES = 64 * 1024
"""Of the body of an answer that is no success; its beginning says what is wrong."""


class Exchange:
    """A GET of one part of an object, over all its redirects."""

    __slots__ = (
        "begun",
        "broken",
        "channel",
        "closing",
        "head",
        "hops",
        "item",
        "lacks",
        "moved",
        "part",
        "paused",
        "received",
        "said",
        "seen",
        "sent_range",
        "unsized",
        "url",
        "with_headers",
    )

    def __init__(self, item: Item, part: Part, url: str) -> None:
        self.item = item
        self.part = part
        self.url = url
        self.hops = 0
        self.with_headers = True
        self.channel: Channel | None = None
        self.broken: BaseException | None = None

    def prepare(self, channel: Channel, options: HttpOptions, now: float) -> None:
        """Set ``channel`` up for this request."""
        self.channel = channel
        channel.exchange = self
        self.head: Head | None = None
        self.received = 0
        self.seen = -1
        self.begun = self.moved = now
        self.paused = False
        self.closing = False
        self.unsized = False
        self.lacks = 0
        self.said = bytearray()
        easy, part = channel.easy, self.part
        easy.setopt(pycurl.URL, self.url)
        channel.origin = origin_of(self.url)
        lines = options.headers_for(channel.origin) if self.with_headers else ()
        if lines is not channel.header_lines:
            if lines:
                easy.setopt(pycurl.HTTPHEADER, list(check_headers(lines)))
            else:
                easy.unsetopt(pycurl.HTTPHEADER)  # an empty list would leave those of the last request
            channel.header_lines = lines
        first = part.first + part.got
        self.sent_range = first > 0 or part.end is not None
        if self.sent_range:
            easy.setopt(pycurl.RANGE, f"{first}-" if part.end is None else f"{first}-{part.end - 1}")
            channel.ranged = True
        elif channel.ranged:
            easy.unsetopt(pycurl.RANGE)
            channel.ranged = False
        if channel.posted:
            easy.setopt(pycurl.HTTPGET, 1)
            easy.unsetopt(pycurl.CUSTOMREQUEST)
            channel.posted = False

    def receive(self, piece: bytes) -> int | None:
        """A piece of the body has come; what libcurl is told (None: go on)."""
        if self.head is None:
            reply = self._begin()
            if reply is not None:
                return reply
        if self.good:
            part = self.part
            if self.unsized and not self._has_room(part.got + len(piece)):
                return int(pycurl.WRITEFUNC_PAUSE)
            part.write(piece)
            part.got += len(piece)
        elif len(self.said) < _MOST_ERROR_BYTES:
            self.said += piece
        self.received += len(piece)
        return None

    def _has_room(self, size: int) -> bool:
        """Whether there is memory for a body that has come to ``size`` bytes and did not say how many."""
        item = self.item
        if size <= item.need:
            return True
        self.lacks = max(size - item.need, item.need)
        if item.budget.grow(item, self.lacks):
            return True
        self._starve()
        return False

    def _starve(self) -> None:
        self.paused = True
        self.item.budget.starved.append(self)

    def is_fed(self) -> bool:
        """Whether there is memory now for what had to wait for it."""
        budget, item = self.item.budget, self.item
        return budget.grow(item, self.lacks) if self.lacks else budget.ask(item)

    def _begin(self) -> int | None:
        head = self.note_head()
        if not self.good:
            return None
        to_come = head.length
        if head.status == 206:
            said = content_range(head)
            if said is None or said[0] != self.part.first + self.part.got:
                self.closing = True
                return -1  # what it means cannot be known: cut off, and begun anew
            to_come = said[1] - said[0]
        if not self.item.wants(self) or not self.item.admits(self, head, to_come):
            return -1
        if not self.item.budget.ask(self.item):
            self.head = None  # libcurl gives the same piece again once it goes on
            self._starve()
            return int(pycurl.WRITEFUNC_PAUSE)
        self.unsized = not 0 <= to_come <= self.item.need  # or larger than was said: as far as there is room
        if not self.unsized:
            self.part.expect(to_come)
        return None

    def note_head(self) -> Head:
        """The answer's head, complete when its body begins or it ends."""
        if self.head is None:
            assert self.channel is not None  # noqa: S101 - there is an answer
            self.head = parse_head(self.channel.headers)
        return self.head

    @property
    def good(self) -> bool:
        """Whether the answer carries the object's bytes."""
        return self.head is not None and self.head.status in (200, 206)

    def stalled(self, now: float, options: HttpOptions) -> Failure | None:
        """The failure of an exchange that has not moved for too long."""
        channel = self.channel
        assert channel is not None  # noqa: S101 - it is under way
        seen = len(channel.headers) + int(channel.easy.getinfo(pycurl.SIZE_DOWNLOAD_T))
        label = self.item.request.label
        if seen != self.seen:
            self.seen, self.moved = seen, now
        if seen:
            if now - self.moved > options.stall_timeout_s:
                reason = f"nothing came for {options.stall_timeout_s:g} s after {self.received} bytes"
                return failures.stalled(label, reason)
        elif not channel.easy.getinfo(pycurl.PRETRANSFER_TIME):
            if now - self.begun > options.connect_timeout_s:
                return failures.unreached(label, options.connect_timeout_s)
        elif now - self.begun > options.first_byte_timeout_s:
            return failures.stalled(label, f"no answer within {options.first_byte_timeout_s:g} s")
        return None

    def resume(self, now: float) -> None:
        """Let libcurl go on with a body that had to wait for memory."""
        assert self.channel is not None  # noqa: S101 - it was paused
        self.paused = False
        self.item.begun += now - self.moved  # it was our wait, not the server's
        self.moved = now
        self.channel.easy.pause(pycurl.PAUSE_CONT)

    def redirected(self, to: str) -> None:
        """The next hop is ``to``."""
        before, after = origin_of(self.url), origin_of(to)
        self.hops += 1
        self.url = to
        if before.scheme == "https" and after.scheme == "http":
            self.with_headers = False
