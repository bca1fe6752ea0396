"""``FileSharder``: this rank's part of the names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from datapipes.index import FileIndex
from datapipes.nodes.base import StageNode, as_source
from datapipes.ranks import check_rank, current_rank
from datapipes.stages.indexed import Order
from datapipes.stages.shard_files import ShardFiles

__all__ = ["FileSharder"]


class FileSharder(StageNode[Any]):
    """Yields this rank's part of the source: every name on one rank, unless ``uneven`` says otherwise.

    Args:
        source: see :class:`FileShuffler`.
        rank, world_size: both or neither. By default those of ``torch.distributed`` where it is initialised,
            else of the launcher (torchrun, Slurm, MPI), read when an epoch starts.
        uneven: see :class:`datapipes.stages.ShardFiles`.
    """

    def __init__(
        self,
        source: FileIndex | Iterable[Any],
        *,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: Literal["keep", "pad", "drop"] = "keep",
    ) -> None:
        check_rank(rank, world_size)
        if rank is None or world_size is None:
            stage: ShardFiles = _ShardOfThisRank(as_source(source), uneven=uneven)
        else:
            stage = ShardFiles(as_source(source), rank=rank, world_size=world_size, uneven=uneven)
        super().__init__(stage, source)


class _ShardOfThisRank(ShardFiles):
    """Asks for the ranks when an epoch starts: nodes are often built before the process group is."""

    def order(self, epoch: int) -> Order:
        self.rank, self.world_size = current_rank()
        return super().order(epoch)
