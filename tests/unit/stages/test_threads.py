"""``reset``, ``close`` and ``get_state`` while ``next`` runs in another thread, over sources that wait."""

from __future__ import annotations

import itertools
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import pytest

from datapipes.backends.base import Backend
from datapipes.index import FileIndex
from datapipes.stages import IndexRows, LoadFiles, ShuffleFiles, Stage
from datapipes.stages.state import State

BOUND_S = 20.0


class Gate:
    """Shut, it holds the next who comes, until it is opened or its owner closed; others pass."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.waiting = threading.Event()
        self.closed = threading.Event()
        self.armed = False

    def shut(self) -> None:
        self.open.clear()
        self.waiting.clear()
        self.armed = True

    def pass_through(self) -> bool:
        """False where the gate's owner was closed meanwhile."""
        if not self.armed:
            return True
        self.armed = False
        closed = self.closed  # of this run
        while not self.open.is_set() and not closed.is_set():
            self.waiting.set()
            time.sleep(0.002)
        return not closed.is_set()


class Node:
    """A source in the protocol of torchdata's nodes, which waits at a gate and cannot be interrupted."""

    def __init__(self, urls: list[str], gate: Gate) -> None:
        self.urls, self.gate, self.at = urls, gate, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def reset(self, state: State | None = None) -> None:
        self.at = 0 if state is None else state["at"]

    def __next__(self) -> str:
        self.gate.pass_through()
        if self.at == len(self.urls):
            raise StopIteration
        self.at += 1
        return self.urls[self.at - 1]

    def get_state(self) -> State:
        return {"at": self.at}


class WaitingRun:
    def __init__(self, stage: WaitingStage, epoch: int, position: int) -> None:
        self.stage, self.epoch, self.position, self.finished = stage, epoch, position, False
        self.closed = stage.gate.closed = threading.Event()

    def state(self) -> State:
        return {
            "kind": WaitingStage.KIND,
            "version": WaitingStage.VERSION,
            "epoch": self.epoch,
            "position": self.position,
            "finished": self.finished,
        }

    def close(self) -> None:
        self.closed.set()


class WaitingStage(Stage[str]):
    """A stage of the tests' own that is no indexed one, and ends its wait when closed, as stages must."""

    KIND = "waiting"

    def __init__(self, urls: list[str], gate: Gate) -> None:
        super().__init__()
        self.urls, self.gate, self.start_gate = urls, gate, Gate()

    def __next__(self) -> str:
        run: WaitingRun = self._run or self._begin()
        if not self.gate.pass_through():
            raise StopIteration
        if run.position == len(self.urls):
            run.finished = True
            raise StopIteration
        run.position += 1
        return self.urls[run.position - 1]

    def _start(self, epoch: int, state: State | None) -> WaitingRun:
        if state is None:
            self.start_gate.pass_through()
        return WaitingRun(self, epoch, 0 if state is None or state["finished"] else state["position"])

    def _state_at_start(self, epoch: int) -> State:
        return WaitingRun(self, epoch, 0).state()


def held_next(stage: Stage[Any], gate: Gate) -> Callable[[], Any]:
    """Start a ``next`` that is held in the source; the function returned joins it."""
    outcome: list[Any] = []
    thread = threading.Thread(target=lambda: outcome.append(next(stage, "stopped")), daemon=True)
    thread.start()
    assert gate.waiting.wait(BOUND_S)

    def join() -> Any:
        thread.join(BOUND_S)
        assert not thread.is_alive()
        return outcome[0]

    return join


@pytest.mark.parametrize("again", ["state", "next epoch"])
def test_reset_while_a_stage_waits_in_its_source(store: Any, again: str) -> None:
    urls, gate = store.fill(6), Gate()
    stage = LoadFiles(WaitingStage(urls, gate), max_in_flight=1)
    first = [next(stage)]
    state = stage.get_state()
    gate.shut()
    stale = held_next(stage, gate)
    began = time.monotonic()
    stage.reset(state if again == "state" else None)
    assert time.monotonic() - began < BOUND_S / 2  # the source's wait was ended, not waited for
    assert stale() == "stopped"
    gate.open.set()
    expected = store.items(urls)
    assert (first if again == "state" else []) + list(stage) == expected


def test_reset_waits_for_a_node_and_takes_nothing_of_its_old_item(store: Any) -> None:
    urls, gate = store.fill(6), Gate()
    stage = LoadFiles(Node(urls, gate), max_in_flight=1)
    first = [next(stage)]
    state = stage.get_state()
    gate.shut()
    stale = held_next(stage, gate)
    threading.Timer(0.2, gate.open.set).start()
    stage.reset(state)
    assert stale() == "stopped"
    assert first + list(stage) == store.items(urls)


def test_error_of_a_closed_source_is_an_end(store: Any) -> None:
    """What the closing made of a wait is no error of the new iteration, nor of the old one."""
    urls, gate = store.fill(3), Gate()

    class Breaking(Node):
        def __next__(self) -> str:
            held = gate.armed
            name = super().__next__()
            if held:
                raise ConnectionResetError
            return name

    stage = LoadFiles(Breaking(urls, gate), max_in_flight=1)
    gate.shut()
    stale = held_next(stage, gate)
    stage.close()
    gate.open.set()
    assert stale() == "stopped"
    stage.reset()
    assert list(stage) == store.items(urls)


def test_close_while_a_store_is_looked_up_leaves_no_reader(store: Any, probe: Any) -> None:
    urls, gate = store.fill(3), Gate()

    def resolve(url: str) -> Backend:
        gate.pass_through()
        return cast("Backend", probe.resolve(url))

    stage = LoadFiles(IndexRows(urls), resolve=resolve)
    gate.shut()
    stale = held_next(stage, gate)
    stage.close()
    gate.open.set()
    assert stale() == "stopped"
    assert probe.open_readers == 0
    assert not stage.get_state()["finished"]


def test_state_while_the_source_waits(store: Any) -> None:
    urls, gate = store.fill(6), Gate()
    stage = LoadFiles(Node(urls, gate), max_in_flight=1)
    items = [next(stage)]
    state = stage.get_state()
    gate.shut()
    stale = held_next(stage, gate)
    assert stage.get_state() == state
    gate.open.set()
    items.append(stale())
    assert items + list(stage) == store.items(urls)


def test_later_call_wins_over_a_reset_that_takes_longer() -> None:
    urls = [f"memory://x/{i}" for i in range(6)]
    stage = WaitingStage(urls, Gate())
    for _ in range(4):
        next(stage)
    state = stage.get_state()
    calls: list[tuple[Callable[[], None], list[str]]] = [
        (partial(stage.reset, state), urls[4:]),
        (stage.close, []),
    ]
    for later, left in calls:
        stage.start_gate = Gate()
        stage.start_gate.shut()
        slow = threading.Thread(target=stage.reset)
        slow.start()
        assert stage.start_gate.waiting.wait(BOUND_S)
        later()
        stage.start_gate.open.set()
        slow.join(BOUND_S)
        assert stage.get_state()["epoch"] == 0
        assert list(stage) == left


@pytest.fixture
def nervous() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("nervous")
@pytest.mark.parametrize("loading", [False, True])
def test_threads_that_draw_together_get_every_name_once(tmp_path: Any, loading: bool) -> None:
    urls = [f"memory://x/{i:05}" for i in range(30_000)]  # many blocks, whose ends are where they meet
    stage: Stage[Any] = ShuffleFiles(FileIndex.from_entries(urls, tmp_path / "index"))
    if loading:
        stage = LoadFiles(stage, on_error=lambda url, error: url, max_in_flight=2)  # no such store: fast
    taken: list[list[str]] = [[] for _ in range(4)]
    threads = [threading.Thread(target=mine.extend, args=(stage,)) for mine in taken]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(BOUND_S)
        assert not thread.is_alive()
    assert sorted(itertools.chain.from_iterable(taken)) == urls
    assert stage.get_state()["position"] == len(urls)


@pytest.mark.usefixtures("nervous")
def test_state_over_names_is_of_one_moment() -> None:
    """Its position and what it says of its source belong together, whoever asks and when."""
    urls = [f"memory://x/{i:05}" for i in range(5_000)]
    stage = LoadFiles(urls, on_error=lambda url, error: url, max_in_flight=2)
    stage.reset()
    states: list[State] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            states.append(stage.get_state())

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(4_999):
        next(stage)
    stop.set()
    for thread in threads:
        thread.join(BOUND_S)
    for state in states:
        source = state["source"]
        assert state["position"] == source["snapshot_position"] + source["names_since"]


@pytest.mark.parametrize("through", ["index", "list"])
def test_storm_of_calls_leaves_the_stage_whole(store: Any, through: str) -> None:
    """Threads draw, ask, reset and close at random; afterwards every state resumes and nothing is stuck."""
    urls = store.fill(300)
    source: Any = ShuffleFiles(IndexRows(urls)) if through == "index" else urls
    stage = LoadFiles(source, max_in_flight=4)
    stage.reset()
    states: list[State] = [stage.get_state()]
    errors: list[Exception] = []
    stop = threading.Event()

    calls: list[Callable[[], Any]] = [
        *[lambda: next(stage, None)] * 90,
        *[lambda: states.append(stage.get_state())] * 6,
        *[lambda: stage.reset(random.choice(states[-20:]))] * 2,
        stage.reset,
        stage.close,
    ]

    def call(seed: int) -> None:
        rng = random.Random(seed)
        try:
            while not stop.is_set():
                rng.choice(calls)()
        except Exception as error:  # noqa: BLE001 - any that comes is a fault
            errors.append(error)

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    stop.set()
    for thread in threads:
        thread.join(BOUND_S)
        assert not thread.is_alive()
    assert errors == []
    for state in random.Random(0).sample(states, min(len(states), 30)):
        resumed = LoadFiles(source, max_in_flight=4)
        resumed.reset(state)
        epoch = state["epoch"] + state["finished"]
        position = 0 if state["finished"] else state["position"]
        assert list(resumed) == store.items(order(source, epoch))[position:]


def order(source: Any, epoch: int) -> list[str]:
    """The names of ``source`` in ``epoch``."""
    if isinstance(source, list):
        return source
    stage = ShuffleFiles(source.source, seed=source.seed)
    stage.set_epoch(epoch)
    return list(stage)
