"""The contract of a stage: one resumable step of a pipeline, proved by ``datapipes.testing.StageContract``.

A stage is an iterator that can say where it is (``get_state``) and go on from there (``reset(state)``). It
consists of a specification, which is all that is pickled, and of a *run*: one iteration over one epoch,
made anew by every ``reset``. A run owns its position, its lock and its reads, so a ``__next__`` that still
waits in another thread when ``reset`` is called belongs to the old run: it ends there and can neither move
the new one on nor deliver an item of it.

States are small JSON-able dicts. What must be equal for a position to mean the same item (names, seed,
ranks) stands in them and is compared at ``reset``, so a state is refused with a reason, never misread.
"""

from __future__ import annotations

import enum
import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from datapipes.errors import OptionError, StateError

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
    "check_count",
    "fresh_copy",
    "match_identity",
    "stored_count",
]

State = dict[str, Any]

VERSION_KEY: Final = "version"
KIND_KEY: Final = "kind"
EPOCH_KEY: Final = "epoch"
POSITION_KEY: Final = "position"
FINISHED_KEY: Final = "finished"
FINGERPRINT_KEY: Final = "fingerprint"
SOURCE_KEY: Final = "source"


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
        check_count("epoch", epoch, least=0)
        self._set = epoch

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
        self._clock = EpochClock() if clock is None else clock
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
        epoch = self._clock.upcoming() if state is None else self._epoch_of(state)
        # A finished state has no position: the next epoch starts as any other does.
        run = self._start(epoch, state)
        with self._lock:
            if generation == self._generation:
                self._run = run
                self._clock.started(epoch)
                return
        run.close()  # another thread has reset or closed the stage meanwhile: its word is the last

    def get_state(self) -> State:
        """Where the stage is, after what ``__next__`` returned last: fresh, small and JSON-able.

        Before the first item, and before any ``reset``, it is the start of the epoch.
        """
        run = self._run
        return self._state_at_start(self._clock.upcoming()) if run is None else run.state()

    def set_epoch(self, epoch: int) -> None:
        """The next ``reset(None)`` starts this epoch; the ones after it count on."""
        self._clock.set(epoch)

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
                self.reset()
            return self._run

    def _epoch_of(self, state: State) -> int:
        """The epoch that ``state`` resumes; StateError unless it is a whole state of this kind and version."""
        check_kind(state, self.KIND, self.VERSION)
        finished = state.get(FINISHED_KEY)
        if not isinstance(finished, bool):
            raise StateError(f"the state is damaged: its {FINISHED_KEY!r} is {finished!r}, not true or false")
        return stored_count(state, EPOCH_KEY) + finished

    def _live(self) -> State:
        """The attributes that do not travel, as they are in a new stage."""
        return {"_lock": threading.Lock(), "_begin_lock": threading.RLock(), "_generation": 0, "_run": None}

    _lock: threading.Lock
    _begin_lock: threading.RLock
    _generation: int
    _run: Any

    def __getstate__(self) -> State:
        live = self._live()
        return {name: value for name, value in self.__dict__.items() if name not in live}

    def __setstate__(self, state: State) -> None:
        self.__dict__.update(state)
        self.__dict__.update(self._live())


def check_count(name: str, value: int, *, least: int) -> None:
    """Raise OptionError unless ``value`` is an integer of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} must be an integer of at least {least}, not {value!r}")


def check_kind(state: Any, kind: str, version: int) -> None:
    """Raise StateError unless ``state`` was made by this kind of stage in this version."""
    if not isinstance(state, Mapping) or KIND_KEY not in state or VERSION_KEY not in state:
        raise StateError(f"this is not the state of a {kind} stage: {state!r:.200}; pass what get_state() returned")
    if state[KIND_KEY] != kind:
        raise StateError(
            f"the state is of another pipeline: made by {state[KIND_KEY]!r}, given to {kind!r}. "
            "Resume it with the pipeline that made it"
        )
    if state[VERSION_KEY] != version:
        raise StateError(
            f"the state of {kind} is of version {state[VERSION_KEY]!r}, and this release reads version {version}. "
            "Resume it with the release that made it, or start the epoch anew"
        )


def stored_count(state: State, key: str, *, most: int | None = None) -> int:
    """The count under ``key``; StateError where it is missing, no count, or beyond ``most``."""
    value = state.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise StateError(f"the state is damaged: its {key!r} is {value!r}, not a count")
    if most is not None and value > most:
        raise StateError(f"the state is damaged: its {key!r} is {value}, and the epoch has {most} items")
    return value


_REASONS = {
    FINGERPRINT_KEY: "the state belongs to other data: the names (or sizes, or their order) are not the same. "
    "Resume over the same files, or start the epoch anew",
    "seed": "the state belongs to another order. Resume with the same seed",
    "rank": "the state belongs to another rank. Give each rank the state it saved",
    "world_size": "the number of ranks has changed. Resume with as many, or start the epoch anew",
    "worker": "the state belongs to another worker. Give each worker the state it saved",
    "num_workers": "the number of workers has changed. Resume with as many, or start the epoch anew",
}


def match_identity(saved: Any, own: State, *, except_for: Collection[str] = ()) -> None:
    """Raise StateError, saying which and what to do, where ``saved`` lacks or differs in a key of ``own``.

    ``own`` is what must be equal: kinds, versions, seeds, ranks, fingerprints, sources nested likewise; keys
    in ``except_for`` may differ.
    """
    if KIND_KEY in own:
        check_kind(saved, own[KIND_KEY], own[VERSION_KEY])
    for key, value in own.items():
        if key == SOURCE_KEY and isinstance(value, dict):
            match_identity(saved.get(key), value, except_for=except_for)
        elif key in except_for:
            continue
        elif key not in saved:
            raise StateError(f"the state is damaged: {key!r} is missing")
        elif saved[key] != value or type(saved[key]) is not type(value):
            reason = _REASONS.get(key, "resume it with the options it was saved with")
            raise StateError(f"the state has {key}={saved[key]!r} and this pipeline {key}={value!r}: {reason}")


def fresh_copy(value: Any) -> Any:
    """A copy of nested dicts and lists; what they hold besides (numbers, strings) is immutable.

    A tenth of the price of ``copy.deepcopy``: executors ask for a state after every item.
    """
    if type(value) is dict:
        return {k: fresh_copy(v) if type(v) is dict or type(v) is list else v for k, v in value.items()}
    if type(value) is list:
        return [fresh_copy(v) if type(v) is dict or type(v) is list else v for v in value]
    return value
