"""One iteration of a dataset of AIStore, with a state: how StatefulDataLoader resumes it exactly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from torch.utils.data import get_worker_info

from datapipes.errors import BackendUnavailableError, StateError
from datapipes.stages.state import (
    FINISHED_KEY,
    KIND_KEY,
    POSITION_KEY,
    VERSION_KEY,
    State,
    check_kind,
    fresh_copy,
    match_identity,
    stored_count,
)
from datapipes.turns import Turn

__all__ = ["Progress", "Walk", "Walked", "progress_bar", "resumed"]

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

VERSION = 1
WITHIN_KEY = "within"
LAST_KEY = "last"
EXTRA_KEY = "extra"


@dataclass
class Progress:
    """How far an iteration has come: units (objects, shards, batches), and outputs of the present unit.

    ``last`` is the name of the unit that the latest output came from; ``extra`` is the dataset's own. What it
    holds at the end stays when the iteration starts anew.
    """

    position: int = 0
    within: int = 0
    last: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    def over(self, name: str, units: int = 1) -> None:
        """``units`` more are done with, the last of them called ``name``."""
        self.position += units
        self.within = 0
        self.last = name


class Walked(Protocol[T_co]):
    """A dataset that can be walked."""

    def outputs(self, progress: Progress) -> Iterator[T_co]:
        """What comes after ``progress``, which is kept up to date before each output is given."""


class Walk(Iterator[T_co]):
    """One iteration. Nothing is listed or read before the first item is asked for.

    A state taken after an item goes on with the next one; what was delivered is not read again, names are
    listed again. After an exception the iteration is over, and its state is still the one before the output
    that failed. A state taken at the end starts anew, except in a DataLoader's worker: there it stays
    finished, because the other workers may not be. Threads may share it: each item goes to one of them.
    """

    def __init__(self, dataset: Walked[T_co], kind: str) -> None:
        self._dataset = dataset
        self._kind = kind
        self._progress = Progress()
        self._outputs: Iterator[T_co] | None = None
        self._finished = False
        self._closed = False
        self._turn = Turn()

    def __next__(self) -> T_co:
        with self._turn:
            if self._finished or self._closed:
                raise StopIteration
            if self._outputs is None:
                self._outputs = self._dataset.outputs(self._progress)
            try:
                return next(self._outputs)
            except StopIteration:
                self._finished = True
                raise
            except BaseException:
                self._closed = True
                raise

    def close(self) -> None:
        """Cancel what is in flight; nothing more comes, and the state stays."""
        close = getattr(self._outputs, "close", None)
        if close is not None:
            close()
        self._outputs, self._closed = None, True

    def state_dict(self) -> State:
        """Small, JSON-able, a fresh copy."""
        progress = self._progress
        return {
            **self._identity(),
            POSITION_KEY: progress.position,
            WITHIN_KEY: progress.within,
            LAST_KEY: progress.last,
            EXTRA_KEY: fresh_copy(progress.extra),
            FINISHED_KEY: self._finished,
        }

    def load_state_dict(self, state_dict: State) -> None:
        """Go on after ``state_dict``. StateError where it is of another dataset, worker or number of workers;
        where the data is other, the first item says so."""
        check_kind(state_dict, self._kind, VERSION)
        match_identity(state_dict, self._identity())
        last, extra = state_dict.get(LAST_KEY), state_dict.get(EXTRA_KEY)
        finished = state_dict.get(FINISHED_KEY)
        if not isinstance(last, str) or not isinstance(extra, dict) or not isinstance(finished, bool):
            raise StateError(f"the state is damaged: {state_dict!r:.200}")
        self.close()
        self._closed = False
        self._progress = Progress(
            stored_count(state_dict, POSITION_KEY),
            stored_count(state_dict, WITHIN_KEY),
            last,
            fresh_copy(extra),
        )
        self._finished = finished and get_worker_info() is not None
        if finished and not self._finished:
            self._progress = Progress(extra=self._progress.extra)

    def _identity(self) -> State:
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        return {KIND_KEY: self._kind, VERSION_KEY: VERSION, "worker": worker, "num_workers": num_workers}


def resumed(units: Iterator[T], progress: Progress, name_of: Any) -> Iterator[T]:
    """``units`` from ``progress`` on. StateError where the one that it was taken at is another now."""
    last = progress.last
    for _ in range(progress.position):
        unit = next(units, None)
        if unit is None:
            raise _other_data(f"it has fewer than {progress.position} objects or shards for this worker")
    if progress.position and not progress.within and name_of(unit) != last:
        raise _other_data(f"{name_of(unit)!r} now stands where {last!r} was")
    if not progress.within:
        return units
    present = next(units, None)
    if present is None or name_of(present) != last:
        raise _other_data(f"{last!r} is not where it was")
    return _chained(present, units)


def _chained(first: T, rest: Iterator[T]) -> Iterator[T]:
    yield first
    yield from rest


def _other_data(why: str) -> StateError:
    return StateError(
        f"the state belongs to other data: {why}. Resume over the same objects, or start the epoch anew"
    )


def progress_bar(items: Iterable[T], title: str, *, shown: bool) -> Iterable[T]:
    """``items`` with tqdm's bar, if it is to be shown. BackendUnavailableError where tqdm is missing."""
    if not shown:
        return items
    try:
        from tqdm import tqdm  # noqa: PLC0415 - an extra
    except ImportError:
        raise BackendUnavailableError(
            "show_progress needs tqdm: pip install torch-datapipes[progress]"
        ) from None
    return tqdm(items, desc=title)
