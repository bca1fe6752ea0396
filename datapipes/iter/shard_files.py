"""``shard_files``: this rank's and this worker's part of the names, each name exactly once."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from torch.utils.data import IterDataPipe, get_worker_info
from torch.utils.data.datapipes.iter import ShardingFilter
from torch.utils.data.datapipes.iter.sharding import SHARDING_PRIORITIES

from datapipes.errors import OptionError
from datapipes.iter.base import StagePipe, as_pipe, has_stage, source_of
from datapipes.ranks import check_rank, current_rank
from datapipes.stages.shard_files import ShardFiles, Uneven, rank_length

__all__ = ["FileSharder", "Share", "ToldRanks", "known_ranks", "tell_ranks"]

_NO_GROUP = -1
"""A sharding group that no executor uses: the filter keeps the groups it is told and filters nothing."""


class Share(NamedTuple):
    """Which part of the names is delivered here."""

    rank: int
    world_size: int
    worker: int
    num_workers: int


class FileSharder(StagePipe[str]):
    """Splits names over ranks and DataLoader workers (functional name: ``shard_files``).

    Ranks come from whoever knows: ``rank`` and ``world_size`` given here; else the executor, where it has
    told (DataLoader and DistributedReadingService do, once torch.distributed is initialised); else
    torch.distributed itself; else the launcher's environment (torchrun, Slurm, MPI). Workers come from the
    executor. No ``worker_init_fn`` is needed.

    Args:
        source_datapipe: a pipe of names, a list, or one URL.
        rank, world_size: of this process; both or neither.
        uneven: ``"keep"`` delivers every name exactly once and ranks may differ by one; ``"pad"`` repeats
            names from the start and ``"drop"`` leaves out the last ones, so that all ranks have as many
            (unequal ranks hang DistributedDataParallel). Workers split what their rank has.
    """

    # The source is a genuine torch ShardingFilter: executors find it by its exact type, seed everything
    # before it alike in all workers, and refuse to shard twice. A class of our own with apply_sharding got
    # worker-local seeds from DataLoader2, and samples were lost and repeated.

    def __init__(
        self,
        source_datapipe: str | Iterable[Any],
        *,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: Uneven = "keep",
    ) -> None:
        check_rank(rank, world_size)
        if uneven not in ("keep", "pad", "drop"):
            raise OptionError(f"uneven must be 'keep', 'pad' or 'drop', not {uneven!r}")
        super().__init__(ShardingFilter(as_pipe(source_datapipe), sharding_group_filter=_NO_GROUP))
        self.rank, self.world_size, self.uneven = rank, world_size, uneven
        self._told: ToldRanks | None = None

    def stage(self) -> Any:
        source, groups = _behind_filter(self.source_datapipe)
        share = self._share(groups)
        if not has_stage(source):
            return deal(source, share, self.uneven)
        return ShardFiles(
            source_of(source), **share._asdict(), uneven=self.uneven, job=self.job, ordinal=self.ordinal
        )

    def has_stage(self) -> bool:
        # The order of another pipe is its own affair, epoch by epoch: it is dealt out as it comes.
        return has_stage(_behind_filter(self.source_datapipe)[0])

    def _share(self, groups: dict[int, tuple[int, int]]) -> Share:
        worker, num_workers, told = _executor_share(groups)
        if self.rank is not None and self.world_size is not None:
            rank, world_size = self.rank, self.world_size
        elif told is not None:
            rank, world_size = told
        else:
            rank, world_size = known_ranks(self._told)
        return Share(rank, world_size, worker, num_workers)

    def __len__(self) -> int:
        source, groups = _behind_filter(self.source_datapipe)
        names, share = len(source), self._share(groups)  # TypeError where it has none
        of_rank = rank_length(names, share.rank, share.world_size, self.uneven)
        return len(range(share.worker, of_rank, share.num_workers))

    def __getstate__(self) -> Any:
        # A spawned worker cannot ask torch.distributed, which is initialised in its parent only.
        if IterDataPipe.getstate_hook is not None:
            return super().__getstate__()
        return {**self.__dict__, "_told": tell_ranks() or self._told}


def deal(names: Iterable[Any], share: Share, uneven: Uneven) -> Iterator[Any]:
    """What ``ShardFiles`` would yield of ``names``, without an index: they are taken as they come.

    Rounds of one name for each rank are dealt out; only the last round can be incomplete.
    """
    first: list[Any] = []  # what padding takes from; at most one round
    of_rank = 0

    def mine() -> bool:
        nonlocal of_rank
        of_rank += 1
        return (of_rank - 1) % share.num_workers == share.worker

    round_: list[Any] = []
    for name in names:
        round_.append(name)
        if len(round_) == share.world_size:
            first = first or round_
            if mine():
                yield round_[share.rank]
            round_ = []
    if not round_ or uneven == "drop":
        return
    if uneven == "pad":
        while len(round_) < share.world_size:
            # Fewer names than ranks: they go round until each rank has one.
            round_ += (first or list(round_))[: share.world_size - len(round_)]
    if share.rank < len(round_) and mine():
        yield round_[share.rank]


class ToldRanks(NamedTuple):
    """The ranks of torch.distributed in the process that pickled a pipe, for the workers it was meant for."""

    pid: int
    rank: int
    world_size: int


def tell_ranks() -> ToldRanks | None:
    """The ranks of this process as torch.distributed has them; None where it is not initialised."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return ToldRanks(os.getpid(), distributed.get_rank(), distributed.get_world_size())


def known_ranks(told: ToldRanks | None) -> tuple[int, int]:
    """(rank, world_size) of torch.distributed, here or in the parent that told, or of the launcher."""
    parent = multiprocessing.parent_process()
    if told is not None and parent is not None and parent.pid == told.pid and tell_ranks() is None:
        return told.rank, told.world_size
    return current_rank()


def _behind_filter(source: IterDataPipe[Any]) -> tuple[IterDataPipe[Any], dict[int, tuple[int, int]]]:
    """What the filter filters, and the groups it was told; or another pipe that was put in its place."""
    if type(source) is ShardingFilter and source.sharding_group_filter == _NO_GROUP:
        return source.source_datapipe, source.groups
    return source, {}


def _executor_share(groups: dict[int, tuple[int, int]]) -> tuple[int, int, tuple[int, int] | None]:
    """(worker, num_workers, (rank, world_size) or None where the executor did not say), from the groups."""
    info = get_worker_info()
    instances, instance = groups.get(SHARDING_PRIORITIES.DEFAULT, (1, 0))
    if instances > 1:
        # DataLoader numbers its instances worker * world_size + rank, of num_workers * world_size.
        num_workers = info.num_workers if info is not None and instances % info.num_workers == 0 else 1
        world_size = instances // num_workers
        told = (instance % world_size, world_size) if world_size > 1 else None
        return instance // world_size, num_workers, told
    # A DataLoader's worker that was told nothing: the pipe is hidden in a dataset of the user's.
    of_dataloader = (1, 0) if info is None else (info.num_workers, info.id)
    num_workers, worker = groups.get(SHARDING_PRIORITIES.MULTIPROCESSING, of_dataloader)
    of_dataloader2 = groups.get(SHARDING_PRIORITIES.DISTRIBUTED)
    return worker, num_workers, None if of_dataloader2 is None else (of_dataloader2[1], of_dataloader2[0])
