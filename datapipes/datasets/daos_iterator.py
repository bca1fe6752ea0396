"""One iteration of ``IterableDataset``, with a state: how StatefulDataLoader resumes it exactly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import get_worker_info

from datapipes.calling import call
from datapipes.epochs import Epochs
from datapipes.stages.load_files import LoadFiles
from datapipes.stages.state import FINISHED_KEY, POSITION_KEY, State, check_kind, fresh_copy
from datapipes.turns import Turn

__all__ = ["DaosIterator"]


class DaosIterator(Iterator[Any]):
    """One iteration. Nothing is read before the first item is asked for.

    A state taken after an item goes on with the next one; what was delivered is not read again. After an
    exception the iteration is over, and its state is still the one before the sample that failed. A state
    taken at the end starts the next epoch, except in a DataLoader's worker: there it stays finished, because
    the other workers may not be. Threads may share it: each sample goes to one of them.
    """

    def __init__(
        self,
        make_stage: Callable[[], LoadFiles],
        transform: Callable[[bytearray], Any] | None,
        epochs: Epochs | None,
    ) -> None:
        """epochs: counts them where they differ: where the order is shuffled."""
        self._make_stage, self._transform, self._epochs = make_stage, transform, epochs
        self._stage: LoadFiles | None = None
        self._held: State | None = None  # the state, when the stage cannot be asked any more
        self._over = False
        self._turn = Turn()  # to begin, to end, to load a state; not to read

    def __next__(self) -> Any:
        stage = self._stage or self._running()
        if stage is None:
            raise StopIteration
        try:
            _, sample = next(stage)
        except BaseException:  # the end, too
            self._end(stage, stage.get_state())
            raise
        if self._transform is None:
            return sample
        try:
            return call(self._transform, sample)
        except BaseException:
            state = stage.get_state()
            self._end(stage, {**state, POSITION_KEY: state[POSITION_KEY] - 1, FINISHED_KEY: False})
            raise

    def close(self) -> None:
        """Cancel what is in flight; nothing more comes, and the state stays."""
        with self._turn:
            if not self._over:
                state = self.state_dict()  # may begin one
                self._end(self._stage, state)

    def state_dict(self) -> State:
        """Small, JSON-able, a fresh copy."""
        with self._turn:
            if self._held is not None:
                held: State = fresh_copy(self._held)
                return held
            return (self._stage or self._begin()).get_state()

    def load_state_dict(self, state_dict: State) -> None:
        """Go on after ``state_dict``. StateError where it is of other data, another seed, rank or worker."""
        with self._turn:
            self._load(state_dict)

    def _load(self, state_dict: State) -> None:
        self._drop()
        self._over = True  # unless the state is taken up
        check_kind(state_dict, LoadFiles.KIND, LoadFiles.VERSION)  # reset() takes None for a new start
        stage = self._make_stage()
        stage.reset(state_dict)
        finished = state_dict[FINISHED_KEY]
        if self._epochs is not None:
            self._epochs.resume(stage.clock.current() - finished)
        self._over = finished and get_worker_info() is not None
        self._held = fresh_copy(state_dict) if self._over else None
        if finished:
            stage.close()
        else:
            self._stage = stage

    def _running(self) -> LoadFiles | None:
        """The stage, begun if it was not; None when all is over."""
        with self._turn:
            return None if self._over else self._stage or self._begin()

    def _begin(self) -> LoadFiles:
        stage = self._make_stage()
        stage.set_epoch(0 if self._epochs is None else self._epochs.begin())
        self._stage = stage
        return stage

    def _end(self, stage: LoadFiles | None, state: State) -> None:
        """The first thread to whom ``stage`` ended says in which state."""
        with self._turn:
            if self._stage is stage:
                self._held, self._over = state, True
                self._drop()

    def _drop(self) -> None:
        if self._stage is not None:
            self._stage.close()
        self._stage = None
