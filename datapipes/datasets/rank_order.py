"""Which samples a rank gets in an epoch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from datapipes.permutation import Permutation
from datapipes.stages.shard_files import rank_length

__all__ = ["RankOrder", "Uneven"]

Uneven = Literal["keep", "pad", "drop"]


@dataclass(frozen=True, kw_only=True)
class RankOrder:
    """The samples of one rank in one epoch, by position: the order of ``shuffle_files`` and ``shard_files``.

    ``seed`` None keeps the order of the data.
    """

    epoch: int
    samples: int
    fingerprint: str | None
    rank: int
    world_size: int
    seed: int | None
    uneven: Uneven

    @property
    def length(self) -> int:
        return rank_length(self.samples, self.rank, self.world_size, self.uneven)

    def longest(self) -> int:
        """The length on the rank that has most: what a state of another rank in step may hold."""
        return rank_length(self.samples, 0, self.world_size, self.uneven)

    def shape(self) -> dict[str, Any]:
        """What must be equal for a position to mean the same samples on each rank."""
        return {
            "count": self.samples,
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "world_size": self.world_size,
            "uneven": self.uneven,
        }

    def block(self, start: int, stop: int) -> list[int]:
        """The samples at positions [start, stop)."""
        positions = self.rank + self.world_size * np.arange(start, stop, dtype=np.int64)
        if self.uneven == "pad":
            positions %= max(self.samples, 1)
        if self.seed is not None:
            positions = Permutation(self.samples, self.seed, self.epoch)(positions)
        indices: list[int] = positions.tolist()
        return indices
