"""How many bytes may be on their way or waiting to be taken, and who gets the next ones."""

from __future__ import annotations

from typing import Any, Protocol

__all__ = ["Budget", "Claim"]


class Claim(Protocol):
    """Whoever needs memory: an item of a reading."""

    need: int
    """Bytes wanted; -1 until it is known."""
    holds: int
    """Bytes promised in turn."""
    early: int
    """Bytes promised out of turn."""
    position: int


class Budget:
    """Promises bytes in the order of the requests, so that whatever the head of the line needs comes first.

    An eighth of the limit is promised out of turn, so that one slow answer at the head does not stop those
    behind it; they cannot lock the head out, whose turn needs none of that eighth. What is larger than the
    rest is promised when nothing else is.
    """

    def __init__(self, limit: int) -> None:
        self._spare = limit // 8
        self._limit = limit - self._spare
        self._used = self._early = 0
        # By position, and in that order: those that wait for their turn, and those whose turn has come.
        self._line: dict[int, Claim] = {}
        self._held: dict[int, Claim] = {}
        self.starved: list[Any] = []
        """Whoever has to be told when there is memory for it."""

    def enter(self, claim: Claim) -> None:
        """Stand in line; claims enter in the order of the requests."""
        self._line[claim.position] = claim

    def ask(self, claim: Claim) -> bool:
        """Whether ``claim`` may have what it needs now."""
        self._serve()
        if claim.holds >= 0 or claim.early >= 0:
            return True
        if self._early + claim.need > self._spare:
            return False
        claim.early = claim.need
        self._early += claim.need
        return True

    def give_back(self, claim: Claim) -> None:
        """The bytes of ``claim`` are free again, and it is forgotten."""
        if claim.holds >= 0:
            self._used -= claim.holds
            claim.holds = -1
            del self._held[claim.position]
        else:
            self._line.pop(claim.position, None)
            self._leave_early(claim)
        self._serve()

    def grow(self, claim: Claim, more: int) -> bool:
        """Whether ``claim``, which has been promised something, may have so many bytes ``more`` now: of an
        answer that does not say how long it is.

        The first in line may always, for what comes after it cannot be taken before it.
        """
        if claim.holds >= 0:
            first = next(iter(self._held))
            if self._used + more > self._limit and claim.position != first:
                return False
            claim.holds += more
            self._used += more
        else:
            if self._early + more > self._spare:
                return False
            claim.early += more
            self._early += more
        claim.need += more
        return True

    def settle(self, claim: Claim, size: int) -> None:
        """``claim`` has turned out to need ``size`` bytes, and has them already."""
        if claim.holds >= 0:
            self._used += size - claim.holds
            claim.holds = size
        elif claim.early >= 0:
            self._early += size - claim.early
            claim.early = size
        claim.need = size

    def _serve(self) -> None:
        while self._line:
            head = next(iter(self._line.values()))
            if head.need < 0 or (self._used and self._used + head.need > self._limit):
                return
            self._leave_early(head)
            head.holds = head.need
            self._used += head.need
            self._held[head.position] = self._line.pop(head.position)

    def _leave_early(self, claim: Claim) -> None:
        if claim.early >= 0:
            self._early -= claim.early
            claim.early = -1
