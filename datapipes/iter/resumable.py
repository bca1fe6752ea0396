"""``.resumable()``, put last: exact resume for a graph of pipes, under every loader that asks for state.

DataLoader hides an IterDataPipe behind a wrapper, so state on pipes is never asked for, and
StatefulDataLoader fast-forwards instead: it reads all payload again, and with torch's shuffle in the graph
it loses and repeats samples. So this is an IterableDataset that is no pipe. It copies the graph for each
iterator, shards and seeds the copy itself, and keeps the position of one pipe in it, the *pivot*: the
loader, or else the last pipe that is more than a function of its input. Pipes after the pivot keep nothing
between outputs and are started afresh; pipes before it are restored by their stages, or give names again
from the recorded seed. Payload is never read again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

from torch.utils.data import IterableDataset, IterDataPipe, get_worker_info

from datapipes.epochs import Epochs
from datapipes.errors import OptionError, StateError
from datapipes.iter.base import StagePipe
from datapipes.iter.graph import Graph
from datapipes.iter.pivot import find_pivot
from datapipes.iter.run import Run
from datapipes.iter.shard_files import Share, ToldRanks, known_ranks, tell_ranks
from datapipes.jobs import Job
from datapipes.stages.state import check_count, fresh_copy
from datapipes.turns import Turn

__all__ = ["Resumable", "ResumableIterator"]

T_co = TypeVar("T_co", covariant=True)


class Resumable(IterableDataset[T_co]):
    """A graph of pipes whose iterators can be saved and restored (functional form: ``.resumable()``).

    Give it to StatefulDataLoader with ``batch_size=None``, or to DataLoader (which never asks for state), or
    iterate it directly: its iterators have ``state_dict()`` and ``load_state_dict(state)``. Each new
    iteration is the next epoch, in all workers alike; ``set_epoch`` says which one it is; a loaded state
    says so for the iteration it resumes. No ``worker_init_fn`` is needed.

    The number of workers cannot change between save and load, nor can ranks, seed, data or graph: a
    StateError says which. From workers to none, or back, StatefulDataLoader itself refuses, with an
    AssertionError that names a key of its state. Random augmentation in ``.map`` is not restored.
    ``len()`` is a TypeError: it would depend on the number of workers.

    Args:
        datapipe: the last pipe of the graph. Classes of pipes that cannot be restored are refused here.
        seed: seeds torch's own shufflers before the loader, differently for each epoch and alike in every
            rank and worker. It is never drawn.
        stateless: classes of yours that keep nothing between two outputs and give the same again.
    """

    def __init__(
        self,
        datapipe: IterDataPipe[T_co],
        *,
        seed: int = 0,
        stateless: Sequence[type[IterDataPipe[Any]]] = (),
    ) -> None:
        super().__init__()
        seed = check_count("seed", seed, least=0)
        self.datapipe = datapipe
        self.seed = seed
        self.stateless = _classes(stateless)
        self._job = Job.current()
        self.epochs = Epochs(self._job)
        self._told: ToldRanks | None = None
        find_pivot(datapipe, self.stateless)

    def __iter__(self) -> ResumableIterator[T_co]:
        return ResumableIterator(self)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is ``epoch``, here and in workers; after it, epochs count on by themselves."""
        self.epochs.set_epoch(epoch)

    def stats(self) -> dict[str, float]:
        """The counters of every pipe of ours in the graph, summed, across workers too."""
        total: dict[str, float] = {}
        for pipe in Graph(self.datapipe).pipes:
            if isinstance(pipe, StagePipe):
                for name, value in pipe.stats().items():
                    total[name] = total.get(name, 0.0) + value
        return total

    def __getstate__(self) -> dict[str, Any]:
        # A spawned worker cannot ask torch.distributed, which is initialised in its parent only.
        return {**self.__dict__, "_told": tell_ranks() or self._told}

    def start(self, epoch: int) -> Run:
        """A run of ``epoch`` for this rank, as torch.distributed or the launcher say, and this worker."""
        rank, world_size = known_ranks(self._told)
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        share = Share(rank, world_size, worker, num_workers)
        return Run(self.datapipe, share=share, seed=self.seed, epoch=epoch, stateless=self.stateless)


class ResumableIterator(Iterator[T_co]):
    """One iteration. Nothing starts before the first item, or state, is asked for.

    A state taken after an item goes on with the next one. After an exception the iteration is over, and its
    state is still the one before the output that failed: load it to try that output again.

    Threads may share it: each output goes to one of them, and states wait for what is under way.
    """

    VERSION_KEY = "version"
    VERSION = 1
    KIND_KEY = "kind"
    KIND = "resumable"
    FINISHED_KEY = "finished"

    def __init__(self, dataset: Resumable[T_co]) -> None:
        self._dataset = dataset
        self._run: Run | None = None
        self._over = False  # nothing more comes out of this iterator
        self._held: dict[str, Any] | None = None  # the state to give when the run cannot be asked any more
        self._turn = Turn()  # to use the run; closing does not wait for it
        self._ending = Turn()

    def __next__(self) -> T_co:
        with self._turn:
            run = self._run  # before it is asked whether all is over, or closing could make it begin anew
            if self._over:
                raise StopIteration
            run = run or self._begin()
            try:
                item: T_co = run.step()
            except StopIteration:
                self._end(finished=True)
                raise
            except BaseException:
                self._end(finished=False)
                raise
            return item

    def state_dict(self) -> dict[str, Any]:
        """Small, JSON-able, and independent of this iterator: what came out so far, and of which epoch."""
        with self._turn:
            with self._ending:
                if self._run is not None:
                    return self._state(self._run, finished=False)
                if self._held is not None:
                    held: dict[str, Any] = fresh_copy(self._held)
                    return held
            return self._state(self._begin(), finished=False)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on after ``state_dict``. StateError when it is of another pipeline, data, seed or rank.

        A finished state starts the next epoch, except in a DataLoader's worker: there it stays finished,
        because the other workers may still be in that epoch.
        """
        self.close()
        with self._turn:
            self._load(state_dict)

    def _load(self, state: dict[str, Any]) -> None:
        if not isinstance(state, Mapping):
            raise StateError(
                f"this is not a state of .resumable(): {state!r:.200}; pass what state_dict() returned"
            )
        if state.get(self.KIND_KEY) != self.KIND or state.get(self.VERSION_KEY) != self.VERSION:
            raise StateError(
                f"this is not a state of .resumable(), version {self.VERSION}: it says "
                f"{state.get(self.KIND_KEY)!r}, version {state.get(self.VERSION_KEY)!r}"
            )
        finished, epoch = state.get(self.FINISHED_KEY), state.get(Run.EPOCH_KEY)
        if not isinstance(finished, bool) or not isinstance(epoch, int) or epoch < 0:
            raise StateError(f"the state is damaged: finished is {finished!r}, epoch is {epoch!r}")
        run = self._dataset.start(epoch)
        run.restore(state)
        self._dataset.epochs.resume(epoch)
        if not finished:
            self._run, self._over, self._held = run, False, None
            return
        run.close()
        if get_worker_info() is None:
            self._run, self._over, self._held = None, False, None
        else:
            self._held = fresh_copy(state)

    def close(self) -> None:
        """Cancel what is in flight and free it; the iterator gives nothing more, except its state."""
        self._end(finished=False)

    def _begin(self) -> Run:
        self._run = self._dataset.start(self._dataset.epochs.begin())
        return self._run

    def _end(self, *, finished: bool) -> None:
        with self._ending:
            run, self._over, self._run = self._run, True, None
            if run is not None:
                self._held = self._state(run, finished=finished)
                run.close()

    def _state(self, run: Run, *, finished: bool) -> dict[str, Any]:
        return {
            self.VERSION_KEY: self.VERSION,
            self.KIND_KEY: self.KIND,
            self.FINISHED_KEY: finished,
            **run.state(),
        }


def _classes(stateless: Any) -> tuple[type[IterDataPipe[Any]], ...]:
    if not isinstance(stateless, Iterable) or isinstance(stateless, (str, bytes)):
        raise OptionError(f"stateless must be a list of classes of pipes, not {stateless!r:.200}")
    classes = tuple(stateless)
    for wrong in (cls for cls in classes if not isinstance(cls, type)):
        raise OptionError(f"stateless must be a list of classes of pipes, and holds {wrong!r:.200}")
    return classes
