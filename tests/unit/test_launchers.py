"""What launchers say in the environment: rank, world size, the run's id."""

from __future__ import annotations

import pytest

from datapipes.errors import OptionError
from datapipes.jobs import launcher_rank
from datapipes.launchers import launcher_job_id

TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "TORCHELASTIC_RUN_ID": "none",
    "TORCHELASTIC_RESTART_COUNT": "1",
    "MASTER_ADDR": "node1",
    "MASTER_PORT": "29500",
}
OPENMPI = {"OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_SIZE": "3", "OMPI_MCA_ess_base_jobid": "1337"}
MPICH = {"PMI_RANK": "1", "PMI_SIZE": "2", "PMI_JOBID": "kvs_77"}
SLURM_BATCH = {"SLURM_JOB_ID": "42", "SLURM_PROCID": "0", "SLURM_NTASKS": "8"}
SLURM = {**SLURM_BATCH, "SLURM_PROCID": "5", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8"}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in list(os.environ):
        if name.startswith(("SLURM_", "OMPI_", "PMI", "TORCHELASTIC_", "MASTER_")) or name in (
            "RANK",
            "WORLD_SIZE",
        ):
            monkeypatch.delenv(name)


def surround(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "4"}, (3, 4)),
        (TORCHRUN, (3, 4)),
        (OPENMPI, (2, 3)),
        (MPICH, (1, 2)),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}, (1, 4)),
        ({"SLURM_PROCID": "0", "SLURM_NPROCS": "4"}, (0, 4)),
        (SLURM, (5, 8)),
        ({**SLURM, "SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "2"}, (1, 2)),  # a step of part of the job
        (SLURM_BATCH, (0, 1)),  # the batch script itself: one process, whatever the job's numbers
        ({"SLURM_JOB_ID": "42", "SLURM_NTASKS": "8"}, (0, 1)),  # a shell that salloc opened
        ({**SLURM, **TORCHRUN}, (3, 4)),  # torchrun under srun
        ({**SLURM, "SLURM_PROCID": "0", **OPENMPI}, (2, 3)),  # mpirun, its daemons started by srun
        ({**OPENMPI, **TORCHRUN}, (3, 4)),
        ({"RANK": "", "WORLD_SIZE": ""}, (0, 1)),
        ({"RANK": " 1 ", "WORLD_SIZE": "2"}, (1, 2)),
    ],
    ids=str,
)
def test_rank_is_the_innermost_launchers(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], expected: tuple[int, int]
) -> None:
    surround(monkeypatch, variables)
    assert launcher_rank() == expected


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"RANK": "1"}, "WORLD_SIZE is not"),
        ({"WORLD_SIZE": "1"}, "RANK is not"),
        ({"RANK": "4", "WORLD_SIZE": "4"}, "RANK=4 must be .* below WORLD_SIZE=4"),
        ({"RANK": "-1", "WORLD_SIZE": "4"}, "RANK=-1"),
        ({"RANK": "0", "WORLD_SIZE": "9" * 30}, "ranks possible"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "WORLD_SIZE=0"),
        ({"RANK": "one", "WORLD_SIZE": "4"}, "'one'"),
        ({"RANK": "1", "WORLD_SIZE": "4.0"}, "'4.0'"),
        ({"OMPI_COMM_WORLD_RANK": "1"}, "OMPI_COMM_WORLD_SIZE is not"),
        ({"PMI_RANK": "7", "PMI_SIZE": "2"}, "PMI_RANK=7"),
        ({"SLURM_PROCID": "1"}, "SLURM_NTASKS is not"),
        ({"SLURM_PROCID": "3", "SLURM_NTASKS": "2"}, "SLURM_PROCID=3"),
    ],
    ids=str,
)
def test_absurd_environment_is_refused(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], says: str
) -> None:
    surround(monkeypatch, variables)
    with pytest.raises(OptionError, match=says):
        launcher_rank()


RUNS = [
    TORCHRUN,
    {**TORCHRUN, "TORCHELASTIC_RESTART_COUNT": "2"},
    {**TORCHRUN, "TORCHELASTIC_RUN_ID": "mine"},
    {**TORCHRUN, "MASTER_PORT": "29501"},
    OPENMPI,
    {**OPENMPI, "OMPI_MCA_ess_base_jobid": "1338"},
    MPICH,
    {"PMIX_NAMESPACE": "prterun-host-77@1"},
    SLURM,
    {**SLURM, "SLURM_JOB_ID": "43"},
    {**SLURM, "SLURM_STEP_ID": "1"},
    {**SLURM, "SLURM_RESTART_COUNT": "1"},
    {**OPENMPI, "SLURM_RESTART_COUNT": "1"},
]


def test_every_run_and_every_restart_has_an_id_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = []
    for variables in RUNS:
        with monkeypatch.context() as patch:
            surround(patch, variables)
            ids.append(launcher_job_id())
    assert None not in ids
    assert len(set(ids)) == len(RUNS)


@pytest.mark.parametrize(
    ("run", "rank"),
    [(TORCHRUN, "RANK"), (OPENMPI, "OMPI_COMM_WORLD_RANK"), (MPICH, "PMI_RANK"), (SLURM, "SLURM_PROCID")],
)
def test_ranks_of_one_run_have_one_id(
    monkeypatch: pytest.MonkeyPatch, run: dict[str, str], rank: str
) -> None:
    surround(monkeypatch, run)
    first = launcher_job_id()
    monkeypatch.setenv(rank, "0")
    assert launcher_job_id() == first


@pytest.mark.parametrize(
    "variables", [{}, SLURM_BATCH, {"RANK": "0", "WORLD_SIZE": "2"}, {"TORCHELASTIC_RUN_ID": "none"}]
)
def test_without_a_launchers_id_there_is_none(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    # Two programs in one batch script are not one run.
    surround(monkeypatch, variables)
    assert launcher_job_id() is None
