"""``shard_files``: this rank's and this worker's part of the names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal

from datapipes.errors import OptionError
from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.launchers import MOST_RANKS
from datapipes.records import FileEntry
from datapipes.stages.indexed import IndexedStage, Order, Rows, chained, indexed
from datapipes.stages.state import check_count

__all__ = ["ShardFiles"]

Uneven = Literal["keep", "pad", "drop"]


class ShardFiles(IndexedStage):
    """Yields one worker's part of one rank's part of the source, in the source's order.

    Rank r has the outputs r, r + world_size, r + 2 * world_size, ... of the source, and its worker w every
    ``num_workers``-th of these from the w-th on, or with ``contiguous`` the w-th of ``num_workers`` parts, of
    which the last ones may be shorter. Together, ranks and workers yield every name exactly once, unless
    ``uneven`` says otherwise; none of them needs to know of the others.

    Args:
        source: see :class:`ShuffleFiles`.
        rank, world_size, worker, num_workers: plain numbers; the faces read them from the executor.
        uneven: ``"keep"``: ranks may differ by one name. ``"pad"``: names from the start are repeated and
            ``"drop"``: the last ones left out, until every rank has as many (unequal ranks hang
            DistributedDataParallel). Workers of a rank may always differ by one, contiguous ones by more.
        contiguous: workers share a rank's names out in parts that hang together.
        job, ordinal: see :class:`ListFiles`; used only where an index has to be made.
    """

    KIND = "shard_files"

    def __init__(
        self,
        source: IndexedStage | FileIndex | Iterable[str | FileEntry],
        *,
        rank: int = 0,
        world_size: int = 1,
        worker: int = 0,
        num_workers: int = 1,
        uneven: Uneven = "keep",
        contiguous: bool = False,
        job: Job | None = None,
        ordinal: int | None = None,
    ) -> None:
        rank, world_size = _check_share("rank", rank, "world_size", world_size)
        worker, num_workers = _check_share("worker", worker, "num_workers", num_workers)
        if uneven not in ("keep", "pad", "drop"):
            raise OptionError(f"uneven must be 'keep', 'pad' or 'drop', not {uneven!r}")
        self.source = indexed(source, job=job, ordinal=ordinal)
        super().__init__(entries=self.source.entries, clock=self.source.clock)
        self.rank, self.world_size = rank, world_size
        self.worker, self.num_workers = worker, num_workers
        self.uneven: Uneven = uneven
        self.contiguous = bool(contiguous)

    def order(self, epoch: int) -> Order:
        source = self.source.order(epoch)
        of_rank = rank_length(source.length, self.rank, self.world_size, self.uneven)
        of_worker = range(self.worker, of_rank, self.num_workers)
        if self.contiguous:
            part = -(-of_rank // self.num_workers)
            of_worker = range(of_rank)[self.worker * part : (self.worker + 1) * part]
        first, step = self.rank + self.world_size * of_worker.start, self.world_size * of_worker.step

        def rows(positions: Rows) -> Rows:
            # Only padding reaches beyond the source, and there may be more ranks than names.
            return source.rows((first + step * positions) % source.length)

        own = {
            "rank": self.rank,
            "world_size": self.world_size,
            "worker": self.worker,
            "num_workers": self.num_workers,
            "uneven": self.uneven,
            "contiguous": self.contiguous,
        }
        return replace(source, length=len(of_worker), rows=rows, identity=chained(self, source, own))

    def close(self) -> None:
        super().close()
        self.source.close()


def rank_length(names: int, rank: int, world_size: int, uneven: Uneven) -> int:
    """How many of ``names`` a rank has."""
    if uneven == "keep":
        return len(range(rank, names, world_size))
    return -(-names // world_size) if uneven == "pad" else names // world_size


def _check_share(name: str, number: int, count_name: str, count: int) -> tuple[int, int]:
    count = check_count(count_name, count, least=1, most=MOST_RANKS)
    number = check_count(name, number, least=0)
    if number >= count:
        raise OptionError(f"{name}={number} must be below {count_name}={count}")
    return number, count
