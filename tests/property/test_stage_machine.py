"""Any sequence of calls on a stage does what a list, an epoch and a position do."""

from __future__ import annotations

import functools
import json
import pickle
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from datapipes.backends.memory import MemoryBackend
from datapipes.index import FileIndex
from datapipes.permutation import Permutation
from datapipes.stages import LoadFiles, ShardFiles, ShuffleFiles, Stage

COUNT = 7
STORE = "stage-machine"
URLS = [f"memory://{STORE}/{i}" for i in range(COUNT)]


@pytest.fixture(autouse=True)
def _files() -> None:
    for i, url in enumerate(URLS):
        MemoryBackend(STORE).write(url, bytes([i]))


def shuffled(epoch: int) -> list[str]:
    return [URLS[i] for i in Permutation(COUNT, 0, epoch)(np.arange(COUNT))]


def loaded(urls: list[str]) -> list[Any]:
    return [(url, bytes([URLS.index(url)])) for url in urls]


@functools.cache
def rows() -> FileIndex:
    return FileIndex.from_entries(URLS)


class StageMachine(RuleBasedStateMachine):
    """The model: which epoch runs, how many items of it are out, whether its end was met."""

    states = Bundle("states")

    def make(self) -> Stage[Any]:
        raise NotImplementedError

    def expected(self, epoch: int) -> list[Any]:
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.stage = self.make()
        self.pending: int | None = None
        self.last: int | None = None
        self.at, self.ended, self.closed = 0, False, False

    def begin(self) -> None:
        self.last = self.upcoming()
        self.pending, self.at, self.ended, self.closed = None, 0, False, False

    def upcoming(self) -> int:
        if self.pending is not None:
            return self.pending
        return 0 if self.last is None else self.last + 1

    @rule(count=st.integers(1, 4))
    def draw(self, count: int) -> None:
        if self.last is None:
            self.begin()
        assert self.last is not None
        for _ in range(count):
            left = [] if self.closed else self.expected(self.last)[self.at :]
            got = next(self.stage, "end")
            assert got == (left[0] if left else "end")
            if left:
                self.at += 1
            elif not self.closed:
                self.ended = True

    @rule(target=states)
    def save(self) -> Any:
        epoch = self.upcoming() if self.last is None else self.last
        return json.dumps(self.stage.get_state()), epoch, self.at, self.ended

    @rule(saved=states)
    def resume(self, saved: Any) -> None:
        text, epoch, at, ended = saved
        self.stage.reset(json.loads(text))
        self.last, self.at = (epoch + 1, 0) if ended else (epoch, at)
        self.pending, self.ended, self.closed = None, False, False

    @rule()
    def start_next(self) -> None:
        self.stage.reset()
        self.begin()

    @rule(epoch=st.integers(0, 5))
    def set_epoch(self, epoch: int) -> None:
        self.stage.set_epoch(epoch)
        self.pending = epoch

    @rule()
    def close(self) -> None:
        self.stage.close()
        if self.last is not None:
            self.closed = True

    @rule()
    def travel(self) -> None:
        self.stage = pickle.loads(pickle.dumps(self.stage))
        self.last, self.at, self.ended, self.closed = None, 0, False, False

    @rule()
    def refuse(self) -> None:
        with pytest.raises(ValueError, match="state"):
            self.stage.reset({"kind": "other", "version": 1})
        if self.last is not None:
            self.closed = True

    @invariant()
    def state_tells_epoch_and_position(self) -> None:
        state = self.stage.get_state()
        assert state["epoch"] == (self.upcoming() if self.last is None else self.last)
        assert (state["position"], state["finished"]) == (self.at, self.ended)


class ShardMachine(StageMachine):
    def make(self) -> Stage[Any]:
        return ShardFiles(ShuffleFiles(rows()), rank=0, world_size=2)

    def expected(self, epoch: int) -> list[Any]:
        return shuffled(epoch)[::2]


class LoadMachine(StageMachine):
    def make(self) -> Stage[Any]:
        return LoadFiles(ShuffleFiles(rows()), max_in_flight=3)

    def expected(self, epoch: int) -> list[Any]:
        return loaded(shuffled(epoch))


class LoadListMachine(StageMachine):
    def make(self) -> Stage[Any]:
        return LoadFiles(URLS, max_in_flight=2)

    def expected(self, epoch: int) -> list[Any]:
        return loaded(URLS)


class LoadStageMachine(LoadMachine):
    """Over a stage that is taken for any node: its state is nested in the loader's."""

    class Opaque:
        """Only the protocol of a node shows."""

        names: ClassVar[tuple[str, ...]] = ("reset", "get_state", "set_epoch", "close")

        def __init__(self) -> None:
            self.stage = ShuffleFiles(rows())

        def __iter__(self) -> Any:
            return self

        def __next__(self) -> Any:
            return next(self.stage)

        def __getattr__(self, name: str) -> Any:
            if name not in LoadStageMachine.Opaque.names:
                raise AttributeError(name)
            return getattr(self.stage, name)

    def make(self) -> Stage[Any]:
        return LoadFiles(self.Opaque(), max_in_flight=2)


@pytest.mark.parametrize("machine", [ShardMachine, LoadMachine, LoadListMachine, LoadStageMachine])
def test_stage_behaves_as_its_model(machine: type[StageMachine]) -> None:
    run_state_machine_as_test(
        machine, settings=settings(max_examples=60, stateful_step_count=30, deadline=None)
    )
