"""Which rank this process is: read by the faces, handed down to stages and samplers as plain numbers.

``torch.distributed`` knows best where it is initialised; before that, or without it, the launcher's
environment does (torchrun, Slurm, MPI: ``datapipes.jobs.launcher_rank``).
"""

from __future__ import annotations

import sys

from datapipes.errors import OptionError
from datapipes.jobs import launcher_rank

__all__ = ["check_rank", "current_rank"]


def check_rank(rank: int | None, world_size: int | None) -> None:
    """Raise OptionError unless both are None, or both are given and ``0 <= rank < world_size``."""
    if (rank is None) != (world_size is None):
        raise OptionError(f"rank={rank!r} and world_size={world_size!r}: give both, or neither")
    if rank is None or world_size is None:
        return
    if not all(isinstance(number, int) and not isinstance(number, bool) for number in (rank, world_size)):
        raise OptionError(f"rank={rank!r} and world_size={world_size!r} must be integers")
    if not 0 <= rank < world_size:
        raise OptionError(f"rank={rank} must be at least 0 and below world_size={world_size}")


def current_rank(rank: int | None = None, world_size: int | None = None) -> tuple[int, int]:
    """(rank, world_size): as given, else of ``torch.distributed``, else of the launcher, else (0, 1)."""
    check_rank(rank, world_size)
    if rank is not None and world_size is not None:
        return rank, world_size
    # A process that never imported torch.distributed has initialised nothing: no reason to import it here.
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return launcher_rank()
