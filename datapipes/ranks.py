"""Which rank this process is: read by the faces, handed down to stages and samplers as plain numbers.

``torch.distributed`` knows best where it is initialised; before that, or without it, the launcher's
environment does (torchrun, Slurm, MPI: ``datapipes.jobs.launcher_rank``).
"""

from __future__ import annotations

import operator
import sys

from datapipes.errors import OptionError
from datapipes.launchers import MOST_RANKS, launcher_rank
from datapipes.stages.state import check_count

__all__ = ["check_rank", "current_rank"]


def check_rank(rank: int | None, world_size: int | None) -> None:
    """Raise OptionError unless both are None, or both are given and ``0 <= rank < world_size``."""
    if rank is None and world_size is None:
        return
    if rank is None or world_size is None:
        raise OptionError(f"rank={rank!r} and world_size={world_size!r}: give both, or neither")
    check_count("world_size", world_size, least=1, most=MOST_RANKS)
    check_count("rank", rank, least=0)
    if rank >= world_size:
        raise OptionError(f"rank={rank} must be below world_size={world_size}")


def current_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """(rank, world_size): as given, else of ``torch.distributed``, else of the launcher, else (0, 1)."""
    check_rank(rank, world_size)
    if rank is not None and world_size is not None:
        return operator.index(rank), operator.index(world_size)
    # A process that never imported torch.distributed has initialised nothing: no reason to import it here.
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return launcher_rank()
