"""``LoadingContract``: what stages that read payload promise on top of :class:`StageContract`."""

from __future__ import annotations

import threading
import time
from abc import abstractmethod
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from datapipes.backends.base import Backend
from datapipes.errors import StoreConnectionError
from datapipes.stages.base import Stage, State
from datapipes.testing.probe_backend import Probe
from datapipes.testing.stage_contract import StageContract
from datapipes.testing.state_contract import take, through_json

__all__ = ["LoadingContract"]

BOUND_S = 10.0
"""What must not wait has this long before a test fails."""


class LoadingContract(StageContract):
    """Reads go through a :class:`Probe`, which counts and steers them."""

    probe: Probe

    @abstractmethod
    def load(
        self, resolve: Callable[[str], Backend], *, max_in_flight: int = 4, ordered: bool = True
    ) -> Stage[Any]:
        """A new stage, over the same data at every call within one test; ``resolve`` finds its stores."""

    @abstractmethod
    def store(self, url: str) -> Backend:
        """The store itself."""

    @pytest.fixture(autouse=True)
    def probed(self) -> None:
        self.probe = Probe(self.store)

    def make(self) -> Stage[Any]:
        # Pickled stages leave the probe behind: what travels must be importable, so no method of it.
        return self.load(_Resolve(self.probe))

    # -- order ------------------------------------------------------------------------------------------

    @pytest.mark.parametrize("max_in_flight", [1, 2, 3, 64])
    def test_max_in_flight_changes_no_item(self, max_in_flight: int) -> None:
        stage = self.load(self.probe.resolve, max_in_flight=max_in_flight)
        stage.reset()
        self.check_items(list(stage), self.expected(0))

    def test_timing_changes_no_item(self) -> None:
        self.probe.jitter_s = 0.002
        for _ in range(3):
            self.check_items(list(self.start()), self.expected(0))

    @pytest.mark.parametrize("seed", range(5))
    def test_unordered_gives_every_item_once_and_resumes_at_every_step(self, seed: int) -> None:
        expected = Counter(map(repr, self.expected(0)))
        self.probe.rng.seed(seed)
        stage = self.load(self.probe.resolve, ordered=False)
        stage.reset()
        delivered: list[Any] = []
        for step in range(len(self.expected(0)) + 1):
            state = through_json(stage.get_state())
            resumed = self.load(self.probe.resolve, ordered=False)
            resumed.reset(state)
            # Resumed once more on the way, at another place of another order.
            more = take(resumed, min(step % 5, len(self.expected(0)) - step))
            last = self.load(self.probe.resolve, ordered=False)
            last.reset(through_json(resumed.get_state()))
            assert Counter(map(repr, delivered + more + list(last))) == expected
            delivered += take(stage, 1)
        assert Counter(map(repr, delivered)) == expected

    # -- payload ----------------------------------------------------------------------------------------

    def test_stage_that_was_only_made_has_read_nothing(self) -> None:
        stage = self.make()
        stage.get_state()
        stage.stats()
        assert self.probe.reads == []

    @pytest.mark.parametrize("max_in_flight", [1, 5])
    def test_resume_rereads_no_delivered_payload(self, max_in_flight: int) -> None:
        stage = self.load(self.probe.resolve, max_in_flight=max_in_flight)
        stage.reset()
        list(stage)
        whole = len(self.probe.reads)
        for step in range(len(self.expected(0)) + 1):
            self.probe.reads.clear()
            stage = self.load(self.probe.resolve, max_in_flight=max_in_flight)
            stage.reset()
            take(stage, step)
            state = stage.get_state()
            stage.close()
            before = len(self.probe.reads)
            resumed = self.load(self.probe.resolve, max_in_flight=max_in_flight)
            resumed.reset(state)
            list(resumed)
            assert len(self.probe.reads) <= whole + max_in_flight
            assert before - step <= max_in_flight

    def test_error_is_raised_in_place_and_again_and_resume_tries_once_more(self) -> None:
        expected = self.expected(0)
        for failing in range(len(expected)):
            self.probe.reads.clear()
            self.probe.fail_reads = {failing}
            stage = self.start()
            delivered: list[Any] = []
            with pytest.raises(StoreConnectionError):
                delivered.extend(iter(stage.__next__, None))
            if self.ordered:
                assert delivered == expected[: len(delivered)]
            assert len(delivered) < len(expected)
            state = stage.get_state()
            for _ in range(2):
                with pytest.raises(StoreConnectionError):
                    next(stage)
            assert stage.get_state() == state
            self.probe.fail_reads = set()
            self.check_items(delivered + list(self.start(state)), expected)
            stage.reset(state)
            self.check_items(delivered + list(stage), expected)

    # -- interrupts and threads -------------------------------------------------------------------------

    def test_interrupt_loses_nothing(self) -> None:
        for number in range(len(self.expected(0))):
            self.probe.results = 0
            self.probe.interrupt_results = {number}
            stage = self.start()
            delivered: list[Any] = []
            with pytest.raises(KeyboardInterrupt):
                delivered.extend(iter(stage.__next__, None))
            state = stage.get_state()
            self.check_items(delivered + list(stage), self.expected(0))
            self.check_items(delivered + list(self.start(state)), self.expected(0))

    def test_reset_during_next_is_bounded_and_undisturbed(self) -> None:
        stage = self.start()
        first = [next(stage)]
        state = stage.get_state()
        for to, before, epoch in ((state, first, 0), (None, [], 1)):
            stale = self._held_next(stage)
            self._bounded(partial(stage.reset, to))
            self.probe.gate.set()
            assert stale() == "stopped"
            self.check_items(before + list(stage), self.expected(epoch))
            stage.reset(state)

    def test_close_during_next_is_bounded(self) -> None:
        stage = self.start()
        items = [next(stage)]
        stale = self._held_next(stage)
        self._bounded(stage.close)
        assert stale() == "stopped"
        self.probe.gate.set()
        self.check_items(items + list(self.start(stage.get_state())), self.expected(0))

    def test_state_during_next_does_not_wait(self) -> None:
        stage = self.start()
        items = [next(stage)]
        before = stage.get_state()
        stale = self._held_next(stage)
        states: list[State] = []
        self._bounded(lambda: states.append(stage.get_state()))
        self._bounded(stage.stats)
        assert states == [before]
        self.probe.gate.set()
        items.append(stale())
        self.check_items(items + list(stage), self.expected(0))

    def _held_next(self, stage: Stage[Any]) -> Callable[[], Any]:
        """Start a ``next`` that waits; the function returned joins it and gives its item or ``"stopped"``."""
        self.probe.gate.clear()
        self.probe.waiting.clear()
        outcome: list[Any] = []

        def run() -> None:
            outcome.append(next(stage, "stopped"))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        assert self.probe.waiting.wait(BOUND_S)

        def join() -> Any:
            thread.join(BOUND_S)
            assert not thread.is_alive(), "a next() that should have ended still waits"
            return outcome[0]

        return join

    def _bounded(self, call: Callable[[], Any]) -> None:
        begin = time.monotonic()
        call()
        assert time.monotonic() - begin < BOUND_S

    # -- clean-up ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("how", ["exhausted", "closed", "reset", "dropped", "failed"])
    def test_no_reader_and_no_thread_is_left(self, how: str) -> None:
        threads = threading.active_count()
        stage = self.start()
        next(stage)
        if how == "exhausted":
            list(stage)
        elif how == "closed":
            stage.close()
        elif how == "reset":
            stage.reset()
        elif how == "dropped":
            del stage
        else:
            self.probe.fail_reads = set(range(1000))
            with pytest.raises(StoreConnectionError):
                list(self.start())
            stage.close()
        assert self.probe.open_readers == 0
        assert threading.active_count() <= threads


class _Resolve:
    """``probe.resolve`` that travels with its probe while in one process, and without it by pickle."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    def __call__(self, url: str) -> Backend:
        return self._probe.resolve(url)

    def __deepcopy__(self, memo: Any) -> _Resolve:
        return self

    def __reduce__(self) -> Any:
        return _through_registry, ()


def _through_registry() -> Callable[[str], Backend]:
    from datapipes.backends.registry import backend_for

    return backend_for
