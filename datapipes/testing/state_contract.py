"""The part of ``StageContract`` that is about states: what they hold, and which are refused."""

from __future__ import annotations

import copy
import json
import pickle
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import pytest

from datapipes.errors import StateError
from datapipes.stages.base import EPOCH_KEY, KIND_KEY, POSITION_KEY, VERSION_KEY, Stage, State

__all__ = ["StateContract", "shape_of", "take", "through_json", "through_pickle"]

T = TypeVar("T")


class StateContract(ABC):
    """Hooks first, which a suite fills in; every ``test_`` method is a promise to users."""

    stage_type: ClassVar[type[Stage[Any]]]

    @abstractmethod
    def make(self) -> Stage[Any]:
        """A new stage, never used, over the same data at every call within one test; two items or more."""

    @abstractmethod
    def expected(self, epoch: int) -> list[Any]:
        """The items of ``epoch`` in order, found without the stage under test."""

    def others(self) -> Mapping[str, Stage[Any]]:
        """Stages that must refuse a state of :meth:`make`, by what is different: data, seed, rank."""
        return {}

    def check_items(self, items: list[Any], expected: list[Any]) -> None:
        """Overridden where items come in no certain order."""
        assert items == expected

    def start(self, state: State | None = None) -> Stage[Any]:
        """A new stage, reset to ``state``."""
        stage = self.make()
        stage.reset(state)
        return stage

    def test_state_keeps_its_structure_and_size(self) -> None:
        stage = self.make()
        first = stage.get_state()
        for _ in range(2):
            stage.reset()
            for state in self._states(stage):
                assert shape_of(state) == shape_of(first)
                # Only numbers may have grown, by digits.
                assert len(json.dumps(state)) <= len(json.dumps(first)) + self.state_growth

    state_growth: ClassVar[int] = 64
    """Bytes of JSON by which a state may be longer than the first one."""

    def _states(self, stage: Stage[Any]) -> Iterator[State]:
        yield stage.get_state()
        for _ in stage:
            yield stage.get_state()
        yield stage.get_state()

    def test_state_names_kind_and_version(self) -> None:
        state = self.make().get_state()
        assert state[KIND_KEY] == self.stage_type.KIND
        assert state[VERSION_KEY] == self.stage_type.VERSION

    def test_state_asked_twice_is_equal_and_moves_nothing(self) -> None:
        stage, items = self.start(), []
        for _ in self.expected(0):
            assert stage.get_state() == stage.get_state()
            items.append(next(stage))
        self.check_items(items, self.expected(0))

    def test_state_is_a_copy_of_its_own(self) -> None:
        stage = self.start()
        items = [next(stage)]
        kept = copy.deepcopy(stage.get_state())
        _spoil(stage.get_state())
        assert stage.get_state() == kept
        given = copy.deepcopy(kept)
        resumed = self.start(given)
        assert given == kept
        _spoil(given)
        assert resumed.get_state() == kept
        self.check_items(items + list(resumed), self.expected(0))

    def test_state_of_another_kind_or_version_is_refused(self) -> None:
        state = self.make().get_state()
        for change in ({KIND_KEY: "other"}, {VERSION_KEY: state[VERSION_KEY] + 1}, {VERSION_KEY: None}):
            self._refused({**state, **change})

    def test_state_of_other_data_seed_or_rank_is_refused(self) -> None:
        for where in ("start", "middle", "end"):
            stage = self.start()
            if where != "start":
                next(stage)
            if where == "end":
                list(stage)
            state = stage.get_state()
            for other in self.others().values():
                with pytest.raises(StateError):
                    other.reset(state)

    @pytest.mark.parametrize("garbage", [{}, [], (), "state", 5, 0, b"x", {"position": 3}])
    def test_state_that_is_none_is_refused(self, garbage: Any) -> None:
        self._refused(garbage)

    def test_state_with_a_key_missing_is_refused(self) -> None:
        stage = self.start()
        next(stage)
        state = stage.get_state()
        for key in state:
            self._refused({k: v for k, v in state.items() if k != key})

    @pytest.mark.parametrize("value", [-1, "1", 1.5, True, None])
    @pytest.mark.parametrize("key", [POSITION_KEY, EPOCH_KEY])
    def test_state_with_a_count_that_is_none_is_refused(self, key: str, value: Any) -> None:
        self._refused({**self.start().get_state(), key: value})

    def test_state_beyond_the_end_is_refused(self) -> None:
        self._refused({**self.start().get_state(), POSITION_KEY: 1 << 62})

    def _refused(self, state: Any) -> None:
        stage = self.make()
        with pytest.raises(StateError) as caught:
            stage.reset(state)
        assert len(str(caught.value)) > 20  # it says what is wrong
        stage.reset()
        self.check_items(list(stage), self.expected(0))  # and the stage is as good as new

    def test_state_refused_in_use_ends_the_stage(self) -> None:
        stage = self.start()
        next(stage)
        with pytest.raises(StateError):
            stage.reset({})
        assert list(stage) == []


def take(stage: Stage[Any], count: int | None) -> list[Any]:
    """The next ``count`` items (None: all), or fewer at the end."""
    items: list[Any] = []
    while count is None or len(items) < count:
        try:
            items.append(next(stage))
        except StopIteration:
            break
    return items


def shape_of(value: Any) -> Any:
    """Keys and types, nested; a list is its type, for what it holds comes and goes."""
    if isinstance(value, dict):
        return {key: shape_of(inner) for key, inner in value.items()}
    return type(value).__name__


def _spoil(value: Any) -> None:
    if isinstance(value, dict):
        for inner in value.values():
            _spoil(inner)
        value.clear()
    elif isinstance(value, list):
        value.append("spoilt")


def through_json(state: State) -> State:
    """``state`` as it comes back from a file of JSON."""
    copied: State = json.loads(json.dumps(state))
    return copied


def through_pickle(value: T) -> T:
    """``value`` as another process would get it."""
    copied: T = pickle.loads(pickle.dumps(value))  # noqa: S301 - our own, a moment ago
    return copied
