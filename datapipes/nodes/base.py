"""What our nodes have in common: a stage, and torchdata's protocol around it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any, TypeVar

from datapipes.errors import BackendUnavailableError, OptionError
from datapipes.stages.base import FINISHED_KEY, POSITION_KEY, Stage, State
from datapipes.stages.reading import AHEAD_KEY
from datapipes.stages.state import fresh_copy

try:
    from torchdata.nodes import BaseNode, IterableWrapper
except ImportError as error:
    try:
        _found = f"torchdata {metadata.version('torchdata')}, which has no nodes, is"
    except metadata.PackageNotFoundError:
        _found = "no torchdata is"
    raise BackendUnavailableError(
        f"datapipes.nodes needs torchdata 0.11 or newer, and {_found} installed: "
        "pip install 'torch-datapipes[nodes]'"
    ) from error

__all__ = ["StageNode", "as_source"]

T = TypeVar("T")


class StageNode(BaseNode[T]):
    """A stage as a node of ``torchdata.nodes``; the state is the stage's, nothing added.

    Each ``reset()`` starts the next epoch, so each iteration of a ``torchdata.nodes.Loader`` does. An epoch
    of which nobody has asked an item is not counted: torchdata resets a node to learn its first state.
    Where our nodes follow each other, their stages are nested directly.

    A node that is reset to a state from after the end has nothing left, and its next ``reset()`` starts the
    next epoch, as torchdata's own nodes do: ``Unbatcher`` would drop the first items of a node that went on.
    """

    def __init__(self, stage: Stage[T], source: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torchdata's are not annotated
        self.stage = stage
        self.source = source
        self._begun = False
        self._ended: State | None = None  # the state from after the end that this node was reset to

    def reset(self, initial_state: State | None = None) -> None:
        """Start the next epoch, or go on from ``initial_state``. Raises StateError where it does not fit."""
        super().reset(initial_state)
        state = initial_state
        if state is None:
            state, self._ended = self._ended, None  # the stage, given it, starts the next epoch
        else:
            given: Any = state  # what is no state at all, the stage refuses
            over = isinstance(given, Mapping) and given.get(FINISHED_KEY)
            self._ended = fresh_copy(given) if over else None
        if state is None and self._begun and _at_start(self.stage.get_state()):
            self.stage.keep_epoch()
        self._begun = True
        self.stage.reset(state)

    def next(self) -> T:
        if self._ended is not None:
            raise StopIteration
        return next(self.stage)

    def get_state(self) -> State:
        ended = self._ended
        return self.stage.get_state() if ended is None else dict(fresh_copy(ended))

    def set_epoch(self, epoch: int) -> None:
        """The next ``reset()`` starts this epoch; the ones after it count on."""
        self.stage.set_epoch(epoch)

    def stats(self) -> dict[str, float]:
        """Counters of the stage in this process; see the stage."""
        return self.stage.stats()

    def close(self) -> None:
        """End the iteration and free what it holds, as dropping the node does; ``reset()`` starts anew."""
        self.stage.close()

    def shutdown(self) -> None:
        """What torchdata newer than 0.11 calls where 0.11 calls nothing: ``close``."""
        self.close()


def _at_start(state: State) -> bool:
    return not (state[POSITION_KEY] or state[FINISHED_KEY] or state.get(AHEAD_KEY))


def as_source(source: Any) -> Any:
    """``source`` as a stage takes it: the stage of one of our nodes, else as it is."""
    if type(source) is IterableWrapper and isinstance(source.iterable, str):
        text = source.iterable
        raise OptionError(
            f"IterableWrapper({text!r}) yields letters: give a list, IterableWrapper([{text!r}])"
        )
    return source.stage if isinstance(source, StageNode) else source
