"""The contract of a stage: one resumable step of a pipeline, proved by ``datapipes.testing.StageContract``.

A stage is an iterator that can say where it is (``get_state``) and go on from there (``reset(state)``). It
consists of a specification, which is all that is pickled, and of a *run*: one iteration over one epoch,
made anew by every ``reset``. A run owns its position, its lock and its reads, so a ``__next__`` that still
waits in another thread when ``reset`` is called belongs to the old run: it ends there and can neither move
the new one on nor deliver an item of it.
States are described in ``state.py``.
"""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from datapipes.errors import StateError
from datapipes.stages.state import (
    EPOCH_KEY,
    FINGERPRINT_KEY,
    FINISHED_KEY,
    KIND_KEY,
    POSITION_KEY,
    SOURCE_KEY,
    VERSION_KEY,
    State,
    check_count,
    check_kind,
    fresh_copy,
    stored_count,
)

__all__ = [
    "EPOCH_KEY",
    "FINGERPRINT_KEY",
    "FINISHED_KEY",
    "KIND_KEY",
    "POSITION_KEY",
    "SKIP",
    "SOURCE_KEY",
    "VERSION_KEY",
    "EpochClock",
    "Run",
    "Skip",
    "Stage",
    "State",
    "is_stateful",
]


class Skip(enum.Enum):
    """The type of ``SKIP``; an enum, because it stays one object when pickled."""

    SKIP = "skip"

    def __repr__(self) -> str:
        return "SKIP"


SKIP: Final = Skip.SKIP
"""What an ``on_error`` callable returns to leave an item out."""

T_co = TypeVar("T_co", covariant=True)


class Run(Protocol):
    """One iteration over one epoch."""

    def state(self) -> State:
        """The state after what ``__next__`` returned last; never waits for a read."""

    def close(self) -> None:
        """End it from any thread: a waiting ``__next__`` ends with StopIteration. Safe to call twice."""


class EpochClock:
    """Which epoch comes next; the stages of one chain share one clock, so they are never out of step."""

    def __init__(self) -> None:
        self._last: int | None = None
        self._set: int | None = None

    def upcoming(self) -> int:
        """The epoch of the next ``reset(None)``."""
        if self._set is not None:
            return self._set
        return 0 if self._last is None else self._last + 1

    def current(self) -> int:
        """The epoch that runs, or the one to come where none has been started."""
        return self.upcoming() if self._last is None else self._last

    def set(self, epoch: int) -> None:
        epoch = check_count("epoch", epoch, least=0)
        self._set = epoch

    def keep(self) -> None:
        """The epoch that runs comes next once more, unless another was set."""
        if self._set is None:
            self._set = self._last

    def started(self, epoch: int) -> None:
        self._last, self._set = epoch, None

    def __getstate__(self) -> State:
        # A copy starts where a new stage would, at the epoch that was set; how far this one came is live.
        return {"_last": None, "_set": self._set}


class Stage(ABC, Generic[T_co]):
    """One step of a pipeline; see the module's docstring for how it is built.

    Epochs: the first ``reset(None)`` (or the first ``__next__`` without any reset) starts epoch 0 or what
    ``set_epoch`` said; every later one starts the next epoch, unless ``set_epoch`` was called since.
    States: ``reset(state)`` goes on with the item after the one the state was taken at. A state taken after
    the last item has nothing left; one taken after StopIteration starts the next epoch. A state wins over
    ``set_epoch`` for the epoch it resumes.
    Threads: every method may be called from any thread at any time, ``reset`` and ``close`` while
    ``__next__`` waits; they end that wait. ``get_state`` never waits for one.
    """

    KIND: ClassVar[str]
    VERSION: ClassVar[int] = 1

    def __init__(self, clock: EpochClock | None = None) -> None:
        self.clock = EpochClock() if clock is None else clock
        self.__dict__.update(self._live())

    @abstractmethod
    def __next__(self) -> T_co:
        """The next item. StopIteration at the end of the epoch, and again until ``reset``."""

    @abstractmethod
    def _start(self, epoch: int, state: State | None) -> Run:
        """A new run of ``epoch``, from its start or from ``state``, whose kind, version and epoch are
        checked already. Raises StateError where the state does not fit."""

    @abstractmethod
    def _state_at_start(self, epoch: int) -> State:
        """The state of a run of ``epoch`` before its first item, without starting one."""

    def stats(self) -> dict[str, float]:
        """Counters of this stage in this process since it was made; empty where it counts nothing."""
        return {}

    def __iter__(self) -> Iterator[T_co]:
        if self._run is None:
            self._begin()
        return self

    def reset(self, state: State | None = None) -> None:
        """Start the next epoch, or go on from ``state``. Raises StateError where it does not fit, and then
        the stage is ended: it delivers nothing until a ``reset`` succeeds."""
        with self._lock:
            self._generation += 1
            generation, old = self._generation, self._run
        if old is not None:
            old.close()
        epoch = self.clock.upcoming() if state is None else self._epoch_of(state)
        # A finished state has no position: the next epoch starts as any other does.
        run = self._start(epoch, state)
        with self._lock:
            if generation == self._generation:
                self._run = run
                self.clock.started(epoch)
                return
        run.close()  # another thread has reset or closed the stage meanwhile: its word is the last

    def get_state(self) -> State:
        """Where the stage is, after what ``__next__`` returned last: fresh, small and JSON-able.

        Before the first item, and before any ``reset``, it is the start of the epoch.
        """
        run = self._run
        if run is not None:
            state: State = run.state()
            return state
        interrupted = self._interrupted
        if interrupted is not None:
            return dict(fresh_copy(interrupted))
        return self._state_at_start(self.clock.upcoming())

    def set_epoch(self, epoch: int) -> None:
        """The next ``reset(None)`` starts this epoch; the ones after it count on."""
        self.clock.set(epoch)

    def keep_epoch(self) -> None:
        """The next ``reset(None)`` starts the present epoch once more, unless ``set_epoch`` was called since:
        for executors that reset a stage and then ask it for nothing."""
        self.clock.keep()

    def close(self) -> None:
        """End the iteration and free what it holds; ``__next__`` then raises StopIteration until ``reset``.
        Safe to call twice, from any thread, and in the middle of an epoch."""
        with self._lock:
            self._generation += 1
            run = self._run
        if run is not None:
            run.close()

    def _begin(self) -> Any:
        """The run, started if none was; None only where another thread closed the stage meanwhile."""
        with self._begin_lock:
            if self._run is None:
                self.reset(self._interrupted)
            return self._run

    def _interrupt(self, run: Any) -> None:
        """End a run that an interrupt (Ctrl-C) hit at a random place; ``__next__`` goes on from its state.

        The interrupt may have ended a generator of the source: reading on would end the epoch early, unseen.
        """
        state = run.state()
        run.close()
        with self._lock:
            if self._run is run:
                self._run, self._interrupted = None, state

    def _epoch_of(self, state: State) -> int:
        """The epoch that ``state`` resumes; StateError unless it is a state of this kind and version."""
        check_kind(state, self.KIND, self.VERSION)
        finished = state.get(FINISHED_KEY)
        if not isinstance(finished, bool):
            raise StateError(f"the state is damaged: its {FINISHED_KEY!r} is {finished!r}, not true or false")
        return stored_count(state, EPOCH_KEY) + finished

    def _live(self) -> State:
        """The attributes that do not travel, as they are in a new stage."""
        return {
            "_lock": threading.Lock(),
            "_begin_lock": threading.RLock(),
            "_generation": 0,
            "_run": None,
            "_interrupted": None,
        }

    _lock: threading.Lock
    _begin_lock: threading.RLock
    _generation: int
    _run: Any
    _interrupted: State | None

    def __getstate__(self) -> State:
        live = self._live()
        return {name: value for name, value in self.__dict__.items() if name not in live}

    def __setstate__(self, state: State) -> None:
        self.__dict__.update(state)
        self.__dict__.update(self._live())


def is_stateful(source: Any) -> bool:
    """Has the source torchdata's node protocol: a stage, a node?"""
    return all(callable(getattr(source, name, None)) for name in ("reset", "get_state", "__next__"))
