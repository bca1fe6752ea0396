"""``StageContract``: what every stage promises, as a class of tests to inherit from.

A subclass says how to make the stage and what it yields; pytest collects the rest::

    class TestTakeEvery(StageContract):
        stage_type = TakeEvery

        def make(self):
            return TakeEvery(range(100), step=3)

        def expected(self, epoch):
            return list(range(0, 100, 3))

Stages that read payload inherit from ``datapipes.testing.loading_contract.LoadingContract`` on top.
"""

from __future__ import annotations

import copy
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any, ClassVar

import pytest

from datapipes.errors import OptionError
from datapipes.stages.base import EPOCH_KEY, FINISHED_KEY, POSITION_KEY, State
from datapipes.testing.state_contract import StateContract, take, through_json, through_pickle

__all__ = ["StageContract"]


class StageContract(StateContract):
    """Order, epochs, resume, life cycle and threads; states in the class it inherits from."""

    # -- order and epochs ------------------------------------------------------------------------------

    def test_type_made_is_type_claimed(self) -> None:
        assert type(self.make()) is self.stage_type

    def test_epochs_give_expected_items(self) -> None:
        stage = self.make()
        for epoch in range(3):
            stage.reset()
            self.check_items(list(stage), self.expected(epoch))

    def test_iteration_without_reset_is_first_epoch(self) -> None:
        stage = self.make()
        assert iter(stage) is stage
        self.check_items(list(stage), self.expected(0))

    def test_end_stays_end_until_reset(self) -> None:
        stage = self.start()
        list(stage)
        for _ in range(3):
            with pytest.raises(StopIteration):
                next(stage)

    def test_reset_in_mid_epoch_starts_next_epoch(self) -> None:
        stage = self.start()
        next(stage)
        stage.reset()
        self.check_items(list(stage), self.expected(1))

    def test_set_epoch_names_next_epoch_and_counting_goes_on(self) -> None:
        stage = self.make()
        stage.set_epoch(4)
        for epoch in (4, 5):
            stage.reset()
            assert stage.get_state()[EPOCH_KEY] == epoch
            self.check_items(list(stage), self.expected(epoch))
        stage.set_epoch(2)
        stage.reset()
        self.check_items(list(stage), self.expected(2))

    def test_set_epoch_in_mid_epoch_leaves_present_epoch_alone(self) -> None:
        stage = self.start()
        items = [next(stage)]
        stage.set_epoch(7)
        self.check_items(items + list(stage), self.expected(0))

    def test_set_epoch_before_state_yields_to_state(self) -> None:
        state = self.start().get_state()
        stage = self.make()
        stage.set_epoch(9)
        stage.reset(state)
        self.check_items(list(stage), self.expected(0))
        stage.reset()
        self.check_items(list(stage), self.expected(1))

    def test_keep_epoch_starts_the_present_epoch_again(self) -> None:
        stage = self.make()
        stage.set_epoch(3)
        stage.reset()
        stage.keep_epoch()
        stage.reset()
        self.check_items(list(stage), self.expected(3))
        stage.reset()
        self.check_items(list(stage), self.expected(4))

    @pytest.mark.parametrize("epoch", [-1, True, 1.0, "1", None])
    def test_set_epoch_refuses_what_is_no_count(self, epoch: Any) -> None:
        with pytest.raises(OptionError):
            self.make().set_epoch(epoch)

    # -- resume ----------------------------------------------------------------------------------------

    @pytest.mark.parametrize("epoch", [0, 1])
    @pytest.mark.parametrize("through", ["json", "pickle"])
    def test_restore_at_every_step_gives_the_rest(self, epoch: int, through: str) -> None:
        travel: Callable[[State], State] = through_json if through == "json" else through_pickle
        expected = self.expected(epoch)
        stage = self.make()
        stage.set_epoch(epoch)
        stage.reset()
        delivered: list[Any] = []
        for step in range(len(expected) + 1):
            resumed = self.start(travel(stage.get_state()))
            self.check_items(delivered + list(resumed), expected)
            resumed.close()
            if step < len(expected):
                delivered.append(next(stage))

    def test_restore_of_a_restored_stage_gives_the_rest(self) -> None:
        expected = self.expected(0)
        stage, delivered = self.start(), []
        for _ in range(len(expected)):
            delivered.append(next(stage))
            stage = self.start(through_json(stage.get_state()))
        self.check_items(delivered, expected)
        assert list(stage) == []

    def test_restore_into_a_stage_in_use_gives_the_rest(self) -> None:
        stage = self.start()
        first = [next(stage)]
        state = stage.get_state()
        for _ in range(2):
            self.check_items(first + list(stage), self.expected(0))
            stage.reset(state)

    def test_epoch_after_a_restored_one_is_the_next(self) -> None:
        stage = self.make()
        stage.set_epoch(3)
        stage.reset()
        next(stage)
        resumed = self.start(stage.get_state())
        list(resumed)
        resumed.reset()
        self.check_items(list(resumed), self.expected(4))

    def test_state_before_anything_is_the_start_of_the_epoch(self) -> None:
        untouched = self.make()
        state = untouched.get_state()
        assert state == self.start().get_state()
        self.check_items(list(self.start(state)), self.expected(0))
        untouched.reset()  # asking for the state has started nothing
        self.check_items(list(untouched), self.expected(0))
        later = self.make()
        later.set_epoch(2)
        self.check_items(list(self.start(later.get_state())), self.expected(2))

    def test_state_after_last_item_has_nothing_left_and_next_epoch_follows(self) -> None:
        stage = self.start()
        for _ in self.expected(0):
            next(stage)
        resumed = self.start(stage.get_state())
        assert list(resumed) == []
        resumed.reset()
        self.check_items(list(resumed), self.expected(1))

    def test_state_after_the_end_starts_next_epoch(self) -> None:
        stage = self.start()
        list(stage)
        state = through_json(stage.get_state())
        self.check_items(list(self.start(state)), self.expected(1))
        stage.reset(state)
        self.check_items(list(stage), self.expected(1))

    def test_state_between_epochs_starts_the_epoch(self) -> None:
        stage = self.start()
        list(stage)
        stage.reset()
        self.check_items(list(self.start(stage.get_state())), self.expected(1))

    # -- life cycle ------------------------------------------------------------------------------------

    def test_close_ends_and_reset_opens_again(self) -> None:
        stage = self.start()
        items = [next(stage)]
        stage.close()
        stage.close()
        with pytest.raises(StopIteration):
            next(stage)
        self.check_items(items + list(self.start(stage.get_state())), self.expected(0))
        stage.reset()
        self.check_items(list(stage), self.expected(1))

    def test_close_of_an_unused_stage_changes_nothing(self) -> None:
        stage = self.make()
        stage.close()
        stage.reset()
        self.check_items(list(stage), self.expected(0))

    @pytest.mark.parametrize("items", [0, 1, None])
    def test_pickled_stage_is_a_new_one(self, items: int | None) -> None:
        stage = self.make()
        if items != 0:
            take(stage, items)
        for twin in (through_pickle(stage), copy.deepcopy(stage)):
            self.check_items(list(twin), self.expected(0))

    def test_dropped_stage_is_freed_at_once(self) -> None:
        gc.collect()
        gc.disable()
        try:
            stage = self.start()
            next(stage)
            gone = weakref.ref(stage)
            del stage
            assert gone() is None
        finally:
            gc.enable()

    def test_stats_are_numbers(self) -> None:
        stage = self.make()
        for _ in range(2):
            stats: dict[Any, Any] = stage.stats()
            assert all(isinstance(k, str) and isinstance(v, (int, float)) for k, v in stats.items())
            list(stage)

    # -- threads ---------------------------------------------------------------------------------------

    def test_state_from_another_thread_is_always_whole(self) -> None:
        stage = self.start()
        states: list[State] = []
        done = threading.Event()

        def watch() -> None:
            while not done.is_set():
                states.append(stage.get_state())

        watcher = threading.Thread(target=watch)
        watcher.start()
        items = list(stage)
        done.set()
        watcher.join(30)
        assert not watcher.is_alive()
        self.check_items(items, self.expected(0))
        for state in states[:: max(1, len(states) // 20)]:
            rest = list(self.start(state))
            if state[FINISHED_KEY]:
                self.check_items(rest, self.expected(1))
            elif self.ordered:
                assert rest == items[len(items) - len(rest) :]
                assert len(rest) == len(items) - state[POSITION_KEY]

    ordered: ClassVar[bool] = True
    """Do items come in one order, so that a state's position is the number of items before it?"""

    def test_next_from_several_threads_gives_every_item_once(self) -> None:
        stage = self.start()
        taken: list[list[Any]] = [[] for _ in range(4)]

        def drain(mine: list[Any]) -> None:
            mine.extend(stage)

        threads = [threading.Thread(target=drain, args=(mine,)) for mine in taken]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        assert Counter(map(repr, chain.from_iterable(taken))) == Counter(map(repr, self.expected(0)))
