"""What a launcher (torchrun, Open MPI, MPICH and kin, Slurm) says of this process in its environment.

Where one launcher runs inside another (torchrun under srun, mpirun in a batch script), both have left their
variables; the innermost one started this process and is believed: torchrun, then MPI, then Slurm.
"""

from __future__ import annotations

import os

from datapipes.errors import OptionError

__all__ = ["MOST_RANKS", "launcher_job_id", "launcher_rank"]

MOST_RANKS = 1 << 31
"""More ranks (or workers of one) than this are taken for a mistake."""

_REMEDY = "Correct them, or unset them to run as one process"


def launcher_rank() -> tuple[int, int]:
    """(rank, world_size) of this process; (0, 1) where no launcher started it.

    Read from RANK and WORLD_SIZE, OMPI_COMM_WORLD_RANK and _SIZE, PMI_RANK and PMI_SIZE, or SLURM_PROCID and
    SLURM_STEP_NUM_TASKS or SLURM_NTASKS. The script of a batch job that Slurm started without ``srun`` sees
    the numbers of a whole job and is one process all the same. Raises OptionError where one of a pair is
    missing, is no number, or the rank is not below the world size.
    """
    if _value("RANK") is not None or _value("WORLD_SIZE") is not None:
        return _pair("RANK", "WORLD_SIZE")
    for rank, size in (("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")):
        if _value(rank) is not None:
            return _pair(rank, size)
    if _value("SLURM_PROCID") is not None and not _is_batch_script():
        sizes = [name for name in ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS", "SLURM_NPROCS") if _value(name)]
        return _pair("SLURM_PROCID", sizes[0] if sizes else "SLURM_NTASKS")
    return 0, 1


def launcher_job_id() -> str | None:
    """What all processes of this run have in common and no other run has; None without a launcher."""
    run, port = _value("TORCHELASTIC_RUN_ID"), _value("MASTER_PORT")
    if run is not None and (run != "none" or port is not None):  # "none": torchrun was given no run id
        # Two runs on one host may have the same run id, but not the same port at the same time.
        return _join("torchrun", run, _value("TORCHELASTIC_RESTART_COUNT"), _value("MASTER_ADDR"), port)
    restart = _value("SLURM_RESTART_COUNT")
    for name in ("OMPI_MCA_ess_base_jobid", "PMIX_NAMESPACE", "PMI_JOBID"):
        if _value(name) is not None:
            return _join("mpi", _value(name), _value("SLURM_JOB_ID"), restart)
    step = _value("SLURM_STEP_ID")
    if _value("SLURM_JOB_ID") is not None and step is not None:
        return _join("slurm", _value("SLURM_JOB_ID"), step, restart)
    return None


def _is_batch_script() -> bool:
    """Slurm sets SLURM_PROCID=0 and SLURM_NTASKS of the whole job in the script itself, but no step."""
    in_step = any(_value(name) is not None for name in ("SLURM_STEP_ID", "SLURM_STEP_NUM_TASKS"))
    return _value("SLURM_JOB_ID") is not None and not in_step


def _pair(rank_name: str, size_name: str) -> tuple[int, int]:
    rank, size = _number(rank_name, size_name), _number(size_name, rank_name)
    if size > MOST_RANKS:
        raise OptionError(f"{size_name}={size} is more than the {MOST_RANKS} ranks possible. {_REMEDY}")
    if not 0 <= rank < size:
        raise OptionError(f"{rank_name}={rank} must be at least 0 and below {size_name}={size}. {_REMEDY}")
    return rank, size


def _number(name: str, other: str) -> int:
    text = _value(name)
    if text is None:
        raise OptionError(f"{other}={_value(other)} is set in the environment and {name} is not. {_REMEDY}")
    try:
        return int(text)
    except ValueError:
        raise OptionError(f"{name}={text!r} in the environment is no number. {_REMEDY}") from None


def _value(name: str) -> str | None:
    return os.environ.get(name, "").strip() or None


def _join(*parts: str | None) -> str:
    return "-".join(part or "0" for part in parts)
