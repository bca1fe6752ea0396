"""``shuffle_files``: all names in an order drawn anew for each epoch, without a buffer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.permutation import Permutation
from datapipes.records import FileEntry
from datapipes.stages.indexed import IndexedStage, Order, Rows, chained, indexed
from datapipes.stages.state import check_count

__all__ = ["ShuffleFiles"]


class ShuffleFiles(IndexedStage):
    """Yields every name of the source once, in an order that is a pure function of names, seed and epoch.

    A full permutation, computed block by block in constant memory: it is the same in every process, and
    going on in the middle of it costs nothing.

    Args:
        source: a lister or another indexed stage, a FileIndex, or any iterable of names, of which an index
            is made once for the job: it must then give the same names in every process.
        seed: never drawn from the process: the same seed gives the same orders in every run.
        job, ordinal: see :class:`ListFiles`; used only where an index has to be made.
    """

    KIND = "shuffle_files"
    SEED_KEY = "seed"

    def __init__(
        self,
        source: IndexedStage | FileIndex | Iterable[str | FileEntry],
        *,
        seed: int = 0,
        job: Job | None = None,
        ordinal: int | None = None,
    ) -> None:
        seed = check_count("seed", seed, least=0)
        self.source = indexed(source, job=job, ordinal=ordinal)
        super().__init__(entries=self.source.entries, clock=self.source.clock)
        self.seed = seed

    def order(self, epoch: int) -> Order:
        source = self.source.order(epoch)
        permutation = Permutation(source.length, self.seed, epoch)

        def rows(positions: Rows) -> Rows:
            return source.rows(permutation(positions))

        return replace(source, rows=rows, identity=chained(self, source, {self.SEED_KEY: self.seed}))

    def close(self) -> None:
        super().close()
        self.source.close()
