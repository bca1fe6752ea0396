"""What goes wrong on purpose, and what was asked: switches and counters, changed while the server runs."""

from __future__ import annotations

import fnmatch
from collections import Counter, deque
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["Effect", "Fault", "Faults", "Request"]

REMEMBERED = 100_000
"""Requests that are remembered one by one; all are counted."""

Effect = Literal["delay", "status", "truncate", "drop", "stall"]


@dataclass(slots=True)
class Fault:
    """Something that happens to the requests it matches.

    Attributes:
        effect: ``delay`` (answers ``ms`` later), ``status`` (an error instead of the answer), ``truncate``
            (closes the connection after ``after`` bytes of the body), ``drop`` (closes it before the
            headers), ``stall`` (falls silent before the headers, or after ``after`` bytes of the body).
        name: which objects, as ``fnmatch`` pattern of ``bucket/object``; requests without an object match
            ``*`` only.
        node: ``proxy``, ``target``, the id or number of one target, or ``""`` for all.
        method: one HTTP method, or ``""`` for all.
        times: how often, None for always.
    """

    effect: Effect
    name: str = "*"
    node: str = ""
    method: str = ""
    times: int | None = None
    ms: float = 0.0
    status: int = 500
    after: int | None = None
    retry_after_s: float | None = None

    def matches(self, request: Request) -> bool:
        """Whether it happens to this request; one of its times is used up."""
        if self.times == 0 or (self.method and self.method != request.method):
            return False
        if self.node and self.node not in (request.kind, request.node, str(request.number)):
            return False
        if self.name != "*" and not fnmatch.fnmatchcase(f"{request.bucket}/{request.name}", self.name):
            return False
        if self.times is not None:
            self.times -= 1
        return True


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came.

    Attributes:
        kind: ``proxy`` or ``target``.
        node: the node's id; ``number`` is the target's position, -1 for the proxy.
        path: the path as sent, without the query.
        authorization: the header's value, or "".
        range: the ``Range`` header's value, or "".
    """

    kind: str
    node: str
    number: int
    method: str
    path: str
    query: str
    bucket: str
    name: str
    authorization: str
    range: str


class Faults:
    """The switches that are on, and the requests that came."""

    def __init__(self) -> None:
        self.active: list[Fault] = []
        self.requests: deque[tuple[Any, ...]] = deque(maxlen=REMEMBERED)
        self.counts: Counter[tuple[str, str]] = Counter()

    def see(self, request: tuple[Any, ...]) -> list[Fault]:
        """Counts a request, given as the fields of :class:`Request`; the faults that happen to it."""
        self.requests.append(request)  # a plain tuple, which the garbage collector forgets
        self.counts[request[0], request[3]] += 1
        if not self.active:
            return []
        seen = Request(*request)
        return [fault for fault in self.active if fault.matches(seen)]

    def seen(self) -> list[dict[str, Any]]:
        """The requests that came, oldest first, as plain values."""
        return [asdict(Request(*request)) for request in self.requests]

    def counted(self) -> dict[str, int]:
        """How many requests came, by node kind and method."""
        return {f"{kind} {method}": count for (kind, method), count in self.counts.items()}

    def clear(self) -> None:
        """Switches everything off and forgets what came."""
        self.active.clear()
        self.requests.clear()
        self.counts.clear()
