"""One iteration of a resumable graph: a copy of it, sharded and seeded, started anywhere."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator
from typing import Any, ClassVar

from torch.utils.data import IterDataPipe
from torch.utils.data.datapipes.iter import IterableWrapper

from datapipes.errors import OptionError, StateError
from datapipes.iter.base import StagePipe, is_face
from datapipes.iter.graph import copy_graph, replace_source, shard_graph
from datapipes.iter.list_files import StoreFileLister
from datapipes.iter.pivot import ReplayedNames, find_pivot
from datapipes.iter.shard_files import Share
from datapipes.stages.state import FINISHED_KEY, fresh_copy

__all__ = ["Run"]

_UNSHARDED = (
    "nothing in this graph splits the names, so every worker of every rank delivers all of them. "
    "Put .shard_files() (or torch's .sharding_filter()) between the lister and the loader."
)


class Run:
    """A started copy of the graph. Its state is that of the pivot, and what it must be held against."""

    EPOCH_KEY = "epoch"
    GRAPH_KEY = "graph"
    NAMES_KEY = "names"
    PIVOT_KEY = "pivot"
    RANKS_KEY = "ranks"
    SEED_KEY = "seed"
    WORKERS_KEY = "workers"

    _MISMATCH: ClassVar[dict[str, str]] = {
        GRAPH_KEY: "the pipes up to the loader are others",
        SEED_KEY: "the seed is another",
        RANKS_KEY: "the [rank, world size] is another",
        WORKERS_KEY: "the [worker, number of workers] is another",
        NAMES_KEY: "the names are others: files were added, removed or changed, or other ones are listed",
    }

    def __init__(
        self,
        datapipe: IterDataPipe[Any],
        *,
        share: Share,
        seed: int,
        epoch: int,
        stateless: tuple[type, ...],
    ) -> None:
        self.epoch = epoch
        graph = copy_graph(datapipe)
        self._pivot, self._after, self._before = find_pivot(graph, stateless)
        self._seed, self._share = seed, share
        instances = share.num_workers * share.world_size
        if instances > 1 and not any(hasattr(pipe, "apply_sharding") for pipe in self._before):
            warnings.warn(_UNSHARDED, RuntimeWarning, stacklevel=4)
        # DataLoader's own numbering: workers outside, ranks inside.
        shard_graph(graph, instances, share.worker * share.world_size + share.rank)
        self._head: dict[str, Any] | None = None
        self._moved = False  # something came out, or a position was restored
        self._held: dict[str, Any] | None = None  # the pivot's state before an output under way
        for place, pipe in enumerate(self._before):
            if isinstance(pipe, StagePipe):
                pipe.pin_epoch(epoch)
            if hasattr(pipe, "set_seed"):
                pipe.set_seed(_derived_seed(seed, epoch, place))
        self._position, feed = self._start_pivot()
        if self._after and not replace_source(self._after[-1], self._pivot, feed):
            raise OptionError(
                f"{type(self._after[-1]).__qualname__} hides its source; .resumable() cannot set it"
            )
        self._items: Iterator[Any] = iter(self._after[0]) if self._after else feed

    def _start_pivot(self) -> tuple[Any, Iterator[Any]]:
        """(who keeps the position, what the pivot yields)."""
        if isinstance(self._pivot, StagePipe) and is_face(self._pivot):
            stage = self._pivot.stage()
            return stage, self._pivot.deliver(stage)
        names = ReplayedNames(self._pivot)
        return names, names

    def step(self) -> Any:
        """The next output. StopIteration at the end; after any exception this run gives no more."""
        self._moved = True
        if not self._after:
            return next(self._items)
        # A batch may fail half-way, with samples taken that never came out: keep the state before it.
        self._held = self._position.get_state()
        try:
            item = next(self._items)
        except StopIteration:
            self._held = None
            raise
        self._held = None
        return item

    def state(self) -> dict[str, Any]:
        """After the last output of ``step``. Before the first one it asks no store: loaders want a state from
        each worker when they start."""
        if not self._moved:
            return {**self._identity(with_names=False), self.PIVOT_KEY: None}
        if self._head is None:
            self._head = self._identity(with_names=True)
        position = self._position.get_state() if self._held is None else self._held
        return {**fresh_copy(self._head), self.PIVOT_KEY: position}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on after ``state``. StateError when it is of another pipeline, data, seed or share."""
        pivot = state.get(self.PIVOT_KEY, self)
        if not isinstance(pivot, dict) and pivot is not None:
            raise StateError(f"the saved state is damaged: it says nothing of {self.PIVOT_KEY!r}")
        here = self._identity(with_names=pivot is not None)
        for key, difference in self._MISMATCH.items():
            if state.get(key) != here[key]:
                raise StateError(
                    f"the saved state does not fit: {difference} (saved: {state.get(key)!r}, "
                    f"here: {here[key]!r})"
                )
        if pivot is None:
            return
        self._head, self._moved = here, True
        self._position.reset(pivot)
        if pivot.get(FINISHED_KEY):
            # The last output had come out when the pivot had already ended (a short batch is only given
            # then). A stage starts its next epoch from such a state; here nothing is left of this one.
            self._position.close()
            self._position, self._items = Ended(pivot), iter(())

    def _identity(self, *, with_names: bool) -> dict[str, Any]:
        """What must be the same where a state is restored."""
        share = self._share
        return {
            self.SEED_KEY: self._seed,
            self.EPOCH_KEY: self.epoch,
            self.RANKS_KEY: [share.rank, share.world_size],
            self.WORKERS_KEY: [share.worker, share.num_workers],
            self.GRAPH_KEY: [type(pipe).__qualname__ for pipe in self._before],
            self.NAMES_KEY: self._digests() if with_names else None,
        }

    def close(self) -> None:
        """Cancel what is in flight."""
        self._position.close()

    def _digests(self) -> list[str]:
        """What identifies the names where the pivot's own state does not: behind pipes of torch."""
        return [
            pipe.stage().index().fingerprint
            for pipe in self._before
            if isinstance(pipe, StoreFileLister) and type(pipe.source_datapipe) is IterableWrapper
        ]


class Ended:
    """A pivot that has ended."""

    def __init__(self, state: dict[str, Any]) -> None:
        self._state = state

    def get_state(self) -> dict[str, Any]:
        return dict(self._state)

    def close(self) -> None:
        """Nothing is held."""


def _derived_seed(seed: int, epoch: int, place: int) -> int:
    """A seed for the pipe at ``place``, another one in each epoch, of 63 bits as torch draws them."""
    digest = hashlib.sha256(f"{seed} {epoch} {place}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
