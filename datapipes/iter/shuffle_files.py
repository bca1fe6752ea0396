"""``shuffle_files``: all names in an order drawn anew for each epoch, without a buffer."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from datapipes.errors import OptionError
from datapipes.iter.base import StagePipe, has_stage
from datapipes.iter.graph import Graph
from datapipes.stages.shuffle_files import ShuffleFiles

__all__ = ["FileShuffler"]


class FileShuffler(StagePipe[str]):
    """Yields every name once, in random order (functional name: ``shuffle_files``).

    A full permutation in constant memory: a pure function of names, ``seed`` and epoch, the same in every
    rank, worker and process. Each new iteration is the next epoch; ``set_epoch`` says which one it is.
    An executor's seed has no say here (it reaches torch's own shufflers).

    Args:
        source_datapipe: a lister, or any pipe, list or URL that gives the same names in every process.
        seed: never drawn: the same seed gives the same orders in every run.
    """

    def __init__(self, source_datapipe: str | Iterable[Any], *, seed: int = 0) -> None:
        super().__init__(source_datapipe)
        self.seed = seed
        self._check_source()
        self._build(())  # the stage checks its options, and does nothing else before it is iterated

    def _build(self, source: Any) -> ShuffleFiles:
        return ShuffleFiles(source, seed=self.seed, job=self.job, ordinal=self.ordinal)

    def stage(self) -> ShuffleFiles:
        stage = self._build(self.source())
        stage.set_epoch(self.begin_epoch())
        return stage

    def _check_source(self) -> None:
        # Of a pipe that is not ours one index is made for all workers: each would take the first one's part.
        if has_stage(self.source_datapipe):
            return
        for pipe in Graph(self.source_datapipe).pipes:
            if hasattr(pipe, "apply_sharding"):
                raise OptionError(
                    "shuffle_files needs the same names in every process, and "
                    f"{type(pipe).__qualname__} before it gives each its own: put .shuffle_files() first"
                )

    def __len__(self) -> int:
        return len(self.source_datapipe)  # TypeError where it has none
