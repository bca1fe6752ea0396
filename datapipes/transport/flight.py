"""What is on its way for one reading: exchanges to start, under way, and to be tried again later."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Callable, Hashable

from datapipes.errors import DatapipesError
from datapipes.transport.batch import Batch, Batching
from datapipes.transport.budget import Budget
from datapipes.transport.channel import Channel
from datapipes.transport.driver import Driver, borrow, most_in_flight, take_back
from datapipes.transport.exchange import Exchange
from datapipes.transport.item import Begun, Item
from datapipes.transport.options import HttpOptions

__all__ = ["Flight"]

_SLICE_S = 0.05
"""The longest wait without a look at what other threads ask for."""
_SWEEP_S = 0.25
"""How often progress is judged, at least."""


class Flight:
    """Items that are not done yet, and the driver that reads them.

    ``landed(item)`` is called once for each, in the order of completion.
    """

    def __init__(
        self,
        options: HttpOptions,
        budget: Budget,
        landed: Callable[[Item], None],
        *,
        max_in_flight: int,
        timeout_s: float | None,
        batching: Batching | None = None,
    ) -> None:
        self._options = options
        self._budget = budget
        self._landed = landed
        self._timeout_s = timeout_s
        self._batching = batching
        self._gathered: list[Item] = []  # to be asked for together
        self._arrived: list[tuple[Item, Batch]] = []  # by batches, to be landed
        self._strays: list[Item] = []  # left out by batches
        self.depth = most_in_flight(max_in_flight)
        self.reached = 0
        """The most requests that were on the wire at once."""
        self._driver: Driver | None = None
        self.going: dict[int, Item] = {}
        """Items by position."""
        self._hungry: deque[Item] = deque()  # known sizes that wait for memory
        self._to_start: list[tuple[int, int, Exchange]] = []  # a heap: (position, order of coming, exchange)
        self._queued = 0
        self._later: list[tuple[float, Exchange]] = []
        self._away_s = 0.0
        self._left = time.monotonic()
        self._next_sweep = 0.0
        self._sweep_s = _SWEEP_S if timeout_s is None else min(_SWEEP_S, max(0.01, timeout_s / 4))

    def enter(self) -> None:
        """Somebody waits for results: until :meth:`leave` the clock of all time-outs runs."""
        self._away_s += time.monotonic() - self._left

    def leave(self) -> None:
        """Nobody waits: the caller's own time is not the server's fault."""
        self._left = time.monotonic()

    def add(self, item: Item) -> None:
        """One more item; items come in the order of their positions."""
        self.going[item.position] = item
        self._budget.enter(item)
        if item.request.refused is not None:
            item.need = 0
            item.refused(item.request.refused)
            self._land(item)
            return
        if item.need >= 0 and (self._hungry or not self._budget.ask(item)):
            self._hungry.append(item)
        else:
            self._admit(item)

    def _admit(self, item: Item) -> None:
        if self._batching is not None and item.request.together is not None:
            self._gathered.append(item)
        else:
            self._plan(item.begin())

    def _gather(self, batching: Batching) -> None:
        """Ask together for what may be; one alone is asked for singly."""
        groups: dict[Hashable, list[Item]] = {}
        for item in self._gathered:
            groups.setdefault(item.request.together, []).append(item)
        self._gathered = []
        for items in groups.values():
            for at in range(0, len(items), batching.size):
                some = items[at : at + batching.size]
                if len(some) == 1:
                    self._plan(some[0].begin())
                else:
                    batch = Batch(some, batching, self._options, arrived=self._arrived, strays=self._strays)
                    self._queue(batch.together())

    def _note_batches(self) -> None:
        """Deal with what batches have brought, or left out."""
        while self._strays:
            self._plan(self._strays.pop().begin())
        if self._arrived:
            now = self._now()
            for item, batch in self._arrived:
                batch.begun = now  # that of the next one
                self._land(item)
            self._arrived.clear()

    def _plan(self, begun: Begun) -> None:
        for wait_s, exchange in begun:
            if wait_s:
                self._later.append((self._now() + wait_s, exchange))
            else:
                self._queue(exchange)

    def _queue(self, exchange: Exchange) -> None:
        """``exchange`` may start: what is tried again goes before what has not been tried yet."""
        self._queued += 1
        heapq.heappush(self._to_start, (exchange.item.position, self._queued, exchange))

    def send(self) -> None:
        """Start what may start."""
        if self._driver is None:
            self._driver = borrow(self._options, self.depth)
        driver = self._driver
        while self._hungry and self._budget.ask(self._hungry[0]):
            self._admit(self._hungry.popleft())
        if self._batching is not None and self._gathered:
            self._gather(self._batching)
        if self._budget.starved:
            self._feed()
        started = False
        while self._to_start and self._may_start(driver):
            exchange = heapq.heappop(self._to_start)[-1]
            item = exchange.item
            if item.wants(exchange):
                started = self._start(driver, item, exchange) or started
        if started:
            self.reached = max(self.reached, len(driver.active))
            driver.kick()

    def _may_start(self, driver: Driver) -> bool:
        if len(driver.active) < self.depth:
            return True
        # All may wait for memory, and it for what comes before them all.
        first = self._to_start[0][0]
        exchanges = (channel.exchange for channel in driver.active.values())
        return all(exchange.paused and exchange.item.position > first for exchange in exchanges)

    def _feed(self) -> None:
        """Let go on what waited for memory and may have it now."""
        starved, self._budget.starved = self._budget.starved, []
        for exchange in starved:
            channel: Channel | None = exchange.channel
            if channel is None or channel.exchange is not exchange:
                continue  # ended meanwhile
            if exchange.is_fed():
                exchange.resume(self._now())
            else:
                self._budget.starved.append(exchange)

    def _start(self, driver: Driver, item: Item, exchange: Exchange) -> bool:
        channel = driver.channel()
        now = self._now()
        try:
            exchange.prepare(channel, self._options, now)
        except DatapipesError as error:
            driver.stop(channel)
            self._plan(item.refused(error))
            self._land(item)
            return False
        item.begun = item.begun or now - item.spent_s
        driver.start(channel)
        return True

    def work(self) -> None:
        """Wait a slice for something to happen, and deal with it."""
        now = self._now()
        if self._later:
            due = [exchange for at, exchange in self._later if at <= now]
            if due:
                self._later = [entry for entry in self._later if entry[0] > now]
                for exchange in due:
                    self._queue(exchange)
        self.send()
        if not self.going:
            return
        assert self._driver is not None  # noqa: S101 - _send() borrowed it
        soonest = min((at - now for at, _ in self._later), default=_SLICE_S)
        broken = None
        for channel, code, message in self._driver.step(max(0.0, min(soonest, _SLICE_S))):
            broken = self._settle(channel, code, message) or broken
        self._note_batches()
        if self._now() >= self._next_sweep:
            self._next_sweep = self._now() + self._sweep_s
            self._sweep(self._driver)
        if broken is not None:
            raise broken

    def _settle(self, channel: Channel, code: int, message: str) -> BaseException | None:
        exchange: Exchange = channel.exchange
        assert self._driver is not None  # noqa: S101 - the channel is its
        item = exchange.item
        if exchange.broken is not None:
            self._plan(item.begin())
        elif item.wants(exchange):
            self._plan(item.ended(exchange, code, message, self._now()))
        self._driver.stop(channel)
        self._land(item)
        return exchange.broken

    def _land(self, item: Item) -> None:
        if item.done and self.going.get(item.position) is item:
            del self.going[item.position]
            self._landed(item)

    def _sweep(self, driver: Driver) -> None:
        """Judge progress, byte by byte and not by libcurl's average; let go on what waited for memory."""
        now, options, limit_s = self._now(), self._options, self._timeout_s
        for channel in list(driver.active.values()):
            exchange: Exchange = channel.exchange
            item = exchange.item
            failure = None
            if not item.wants(exchange):
                driver.stop(channel)
                continue
            if exchange.paused:
                continue
            if limit_s is not None and now - item.begun > limit_s:
                self._plan(item.expired(limit_s))
            else:
                failure = exchange.stalled(now, options)
            if failure is not None:
                self._plan(item.failed(exchange, failure, now))
            if failure is not None or item.done:
                driver.stop(channel)
                self._land(item)
        self._note_batches()
        if limit_s is not None:
            self._expire_waiting(now, limit_s)

    def _expire_waiting(self, now: float, limit_s: float) -> None:
        for _, exchange in self._later:
            item = exchange.item
            if not item.done and now - item.begun > limit_s:
                item.expired(limit_s)
                self._land(item)

    def forget(self, position: int) -> None:
        """Nothing was made of this position after all, if there is one."""
        item = self.going.pop(position, None)
        if item is not None:
            self._budget.give_back(item)
            self._hungry = deque(other for other in self._hungry if other is not item)

    def recover(self) -> None:
        """After an exception from anywhere: read anew whatever was not finished then."""
        if self._driver is not None:
            self._driver.stop_all()
        for left in (self._later, self._to_start, self._gathered, self._arrived, self._strays):
            left.clear()
        hungry = set(self._hungry)
        for item in list(self.going.values()):
            if item.done:
                self._land(item)
            elif item not in hungry:
                self._plan(item.begin())

    def close(self) -> None:
        """Cancel everything, and give the driver back."""
        driver, self._driver = self._driver, None
        if driver is not None:
            driver.stop_all()
            take_back(driver)
        self.going.clear()
        for left in (self._hungry, self._to_start, self._later, self._gathered, self._arrived, self._strays):
            left.clear()

    def _now(self) -> float:
        """Seconds that somebody has waited here."""
        return time.monotonic() - self._away_s
