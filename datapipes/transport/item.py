"""One object, or a range of it, from the first request to its bytes or its error."""

from __future__ import annotations

import io
import random
from collections.abc import Hashable
from typing import Any, NamedTuple

from datapipes.errors import DatapipesError
from datapipes.transport import failures
from datapipes.transport.budget import Budget
from datapipes.transport.exchange import Exchange
from datapipes.transport.failures import Failure, StatusError
from datapipes.transport.head import Head, Identity, content_range, identity_of
from datapipes.transport.options import HttpOptions
from datapipes.transport.part import Part, reserved
from datapipes.transport.verdict import checksum_fault, length_fault, redirect_target

__all__ = ["HttpRequest", "Item"]

Begun = list[tuple[float, Exchange]]
"""Exchanges to begin, each after so many seconds."""

_RNG = random.SystemRandom()  # not the generator that the user has seeded
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ELSEWHERE = frozenset({400, 401, 403, 404, 410, 429, 500, 502, 503, 504})
"""Answers after which the other address is asked."""
_MOST_RESTARTS = 3
_NO_LENGTH_NEED = 64 * 1024
"""Bytes first asked for where the answer does not say how many will come."""


class HttpRequest(NamedTuple):
    """A GET of a whole object, or of ``length`` bytes (negative: all the rest) from byte ``offset`` on.

    Attributes:
        url: as it goes on the wire, percent-encoded.
        label: what errors call it.
        size: bytes of the whole object as far as the caller knows (negative: not known).
        otherwise: a second address of the same object, asked when the first does not give it.
        tag: anything of the caller's.
        refused: an error with which this is answered, nothing being sent.
        together: with what else it may be asked for in one request, see ``Batching``; None: with nothing.
    """

    url: str
    label: str
    offset: int = 0
    length: int = -1
    size: int = -1
    otherwise: str | None = None
    tag: Any = None
    refused: DatapipesError | None = None
    together: Hashable = None


class Item:
    """A request, its parts, its tries.

    One part as a rule; several for what is larger than ``range_bytes``. A part goes on where it broke off if
    what has come is provably of the same object as what comes, and begins anew otherwise.
    """

    def __init__(
        self,
        position: int,
        request: HttpRequest,
        options: HttpOptions,
        budget: Budget,
        make_error: StatusError | None,
    ) -> None:
        self.position = position
        self.request = request
        self.options = options
        self.budget = budget
        self.need, self.holds, self.early = self._known_need(), -1, -1
        self.data: bytes | None = None
        self.error: DatapipesError | None = None
        self.done = False
        self.total = -1
        self.begun = 0.0
        self.spent_s = 0.0  # on finding out where it is
        self.at_other = False
        self.batched = False
        self.retries = 0
        self._make_error = make_error
        self._url = request.url
        self._first_failure: float | None = None
        self._last: DatapipesError | None = None
        self._tries = self._restarts = 0
        self._identity: Identity | None = None
        self._large = -1  # its size, once an answer has told that it is worth parts
        self._one_by_one = False
        self._damaged = False
        self._joined: io.BytesIO | None = None
        self._missing: set[Part] = set()
        self._cut: tuple[int, int] | None = None

    def _known_need(self) -> int:
        """Bytes that will come, where the request says so; else -1."""
        _, _, offset, length, size, *_ = self.request
        if length >= 0:
            return length if size < 0 else max(0, min(length, size - offset))
        return max(0, size - offset) if size >= 0 else -1

    def begin(self) -> Begun:
        """What to send, from nothing."""
        _, _, offset, length, *_ = self.request
        self._identity = self._joined = self._cut = None
        end = offset + max(length, 1) if length >= 0 else None  # no range of 0 bytes can be asked for
        step = self.options.range_bytes
        if self._large >= 0 and not self._one_by_one:
            last = self._large if end is None else min(end, self._large)
            self._joined = reserved(last - offset)
            spans = [(at, min(at + step, last)) for at in range(offset, last, step)]
            with self._joined.getbuffer() as view:
                parts = [Part(at, to, view[at - offset : to - offset]) for at, to in spans]
        else:
            parts = [Part(offset, end)]
        self._missing = set(parts)
        return [(0.0, Exchange(self, part, self._url)) for part in parts]

    def wants(self, exchange: Exchange) -> bool:
        """Whether an exchange is still of use: not one of a try that was given up."""
        return not self.done and exchange.part in self._missing

    # --- while an answer comes in

    def admits(self, exchange: Exchange, head: Head, to_come: int) -> bool:
        """Whether this answer is one to go on with; if not, its exchange is marked as closing."""
        part = exchange.part
        ranged = content_range(head) if head.status == 206 else None
        total = ranged[2] if ranged is not None else to_come
        identity = identity_of(head, total, self.options)
        if ranged is None and exchange.sent_range:
            if self._joined is not None:  # no ranges here
                self._one_by_one = exchange.closing = True
                return False
            if part.first:
                self._cut = (part.first, self.request.length)
            part.first, part.end = 0, None
            part.restart()
        elif self._joined is not None or part.got:
            known = self._identity or identity
            if not identity.proof or identity != known:
                self._one_by_one = exchange.closing = True
                return False
        elif identity.proof and self._splits(to_come):
            self._large = total
            exchange.closing = True
            return False
        self._identity = identity
        if self.need < 0:
            self.need = to_come if to_come >= 0 else _NO_LENGTH_NEED
        return True

    def _splits(self, to_come: int) -> bool:
        """Whether what was just found to be large is to be read as ranges, for which there is memory now."""
        if to_come <= self.options.range_bytes or self._one_by_one:
            return False
        self.need = max(self.need, to_come)
        return self.budget.ask(self)

    # --- when it has ended

    def ended(self, exchange: Exchange, code: int, message: str, now: float) -> Begun:
        """What to send next; nothing where the item is done, or other parts are on their way."""
        if exchange.closing:
            return self._anew(now)
        label = self.request.label
        if code:
            return self.failed(
                exchange, failures.of_curl(label, code, message, received=exchange.received), now
            )
        head = exchange.note_head()
        if head.status in _REDIRECTS and b"location" in head.fields:
            return self._redirected(exchange, head, now)
        if not exchange.good:
            if head.status == 416 and exchange.sent_range:
                return self._beyond(exchange, head, now)
            failure = failures.of_status(label, head, bytes(exchange.said), self._make_error)
            return self.failed(exchange, failure, now, elsewhere=head.status in _ELSEWHERE)
        if not exchange.received and not self.admits(exchange, head, head.length):
            return self._anew(now)
        fault = length_fault(exchange, self.request)
        if fault is not None:
            return self.failed(exchange, fault, now)
        self._missing.discard(exchange.part)
        exchange.part.whole()
        return [] if self._missing else self._complete(exchange, head, now)

    def failed(self, exchange: Exchange, failure: Failure, now: float, *, elsewhere: bool = False) -> Begun:
        """What to do about a failure: ask elsewhere, wait and try again, or give up."""
        if self.request.otherwise is not None and not self.at_other and (elsewhere or failure.no_server):
            self.at_other = True
            self._url = self.request.otherwise
            return self.begin()
        if not failure.passing:
            return self._give_up(failure.error)
        if self._first_failure is None:
            self._first_failure = now
        self._tries, self._last = self._tries + 1, failure.error
        longest = self.options.first_wait_s * 2.0 ** min(self._tries - 1, 20)
        wait_s = max(_RNG.uniform(0.5, 1.0) * longest, failure.wait_s)
        spent_s = now - self._first_failure
        if spent_s + wait_s > self.options.retry_budget_s:
            return self._give_up(self._said(failure.error, spent_s))
        self.retries += 1
        part = exchange.part
        if self._identity is None or not self._identity.proof:
            part.restart()
        return [(wait_s, Exchange(self, part, self._url))]

    def came_with_others(self, data: bytes) -> None:
        """The whole object, out of an answer that brings several."""
        self.total, self.batched = len(data), True
        self.budget.settle(self, len(data))
        self._finish(data)

    def expired(self, timeout_s: float) -> Begun:
        """The item has taken longer than it may: its last fault, if it had one, is the error."""
        reason = f"it took longer than {timeout_s:g} s"
        if self._last is None:
            return self._give_up(failures.stalled(self.request.label, reason).error)
        return self._give_up(_with(self._last, f"given up after {self._tries} tries: {reason}"))

    def refused(self, error: DatapipesError) -> Begun:
        """The item cannot even be asked for."""
        return self._give_up(error)

    def _said(self, error: DatapipesError, spent_s: float) -> DatapipesError:
        if self._tries == 1:
            return error
        return _with(error, f"given up after {self._tries} tries in {spent_s:.1f} s")

    def _give_up(self, error: DatapipesError) -> Begun:
        self.error, self.done = error, True
        self._missing, self._joined = set(), None
        return []

    def _anew(self, now: float) -> Begun:
        self._restarts += 1
        if self._restarts <= _MOST_RESTARTS:
            return self.begin()
        failure = failures.cut_short(self.request.label, "it changes while it is read")
        self._restarts = 0
        (part, *_) = self._missing
        self._one_by_one = True
        return [(wait, again) for wait, again in self.failed(Exchange(self, part, self._url), failure, now)]

    def _redirected(self, exchange: Exchange, head: Head, now: float) -> Begun:
        target = redirect_target(exchange, head, self.request, self.options)
        if isinstance(target, Failure):
            return self.failed(exchange, target, now)
        hop = Exchange(self, exchange.part, exchange.url)
        hop.hops, hop.with_headers = exchange.hops, exchange.with_headers
        hop.redirected(target)
        return [(0.0, hop)]

    def _beyond(self, exchange: Exchange, head: Head, now: float) -> Begun:
        """No such range: of an object that ends before it, or that has changed."""
        said = content_range(head)
        if self._joined is not None or exchange.part.got or said is None:
            self._one_by_one = True
            self._cut = None
            return self._anew(now)
        self.total = said[2]
        return self._finish(b"")

    def _complete(self, exchange: Exchange, head: Head, now: float) -> Begun:
        # Of what is joined all views are released: this is its memory, not a copy.
        data = self._joined.getvalue() if self._joined is not None else exchange.part.take()
        ranged = content_range(head) if head.status == 206 else None
        self.total = ranged[2] if ranged is not None else len(data)
        if len(data) == self.total:
            fault = checksum_fault(data, head, self.request, self.options)
            if fault is not None and self._damaged:
                return self._give_up(fault.error)
            if fault is not None:
                self._damaged = True
                return self._anew(now)
        if self._cut is not None:
            first, length = self._cut
            data = data[first:] if length < 0 else data[first : first + length]
        elif 0 <= self.request.length < len(data):
            data = data[: self.request.length]  # the one byte that stood for none
        return self._finish(data)

    def _finish(self, data: bytes) -> Begun:
        self.data, self.done = data, True
        self._joined = None
        return []


def _with(error: DatapipesError, more: str) -> DatapipesError:
    return type(error)(
        f"{error} ({more})", url=error.url, operation=error.operation, errno=error.errno, code=error.code
    )
