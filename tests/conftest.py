"""What every test gets: a job directory of its own run, Hypothesis profiles, and a look into the engine."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# derandomize: a gate gives the same answer twice. The blob printed with a failure replays it anywhere.
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True, max_examples=100)
settings.register_profile("dev", deadline=None, print_blob=True, max_examples=100)
settings.register_profile(
    "nightly", deadline=None, print_blob=True, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "dev"))

# A background job of a shell starts with SIGINT ignored, and so would its children: no Ctrl-C would be heard.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

LIVE = ("files_open", "buffers_live", "readers_live", "listings_live")
"""Counters of a session that are zero whenever nobody reads or lists."""

FOREIGN = ("RANK", "WORLD_SIZE", "OMPI_", "PMI_", "PMIX_", "SLURM_", "TORCHELASTIC_", "DATAPIPES_DAOS_ROOT")
"""How variables of the surroundings begin that would change what a test sees."""


def pytest_collection_finish() -> None:
    """Torch and pytest have made half a million objects by now that no test need look through again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def job_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the run shares between processes lies in pytest's own folder, not among the machine's jobs."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(FOREIGN)]:
            patch.delenv(name)
        patch.setenv("DATAPIPES_JOB_DIR", str(tmp_path_factory.mktemp("jobs")))
        yield


@pytest.fixture
def fresh_forkserver() -> None:
    """The next forkserver starts with this test's environment, not that of an earlier test."""
    from multiprocessing import forkserver

    forkserver._forkserver._stop()  # type: ignore[attr-defined]  # made for tests like this one


@pytest.fixture
def daos_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of the embedded container: ``daos://tank/train/x`` is ``daos_root / "tank/train/x"``."""
    root = tmp_path / "daos"
    (root / "tank/train").mkdir(parents=True)
    monkeypatch.setenv("DATAPIPES_DAOS_ROOT", str(root))
    return root


@pytest.fixture(autouse=True)
def engine_left_empty() -> Iterator[None]:
    """After each test no back end's session holds a file, a buffer, a reader or a listing."""
    yield
    if "datapipes._dfs" not in sys.modules or not _held():
        return
    gc.collect()  # what a test dropped in a cycle, or kept in a traceback
    held = _held()
    assert not held, f"the engine still holds {held}: close or drop what was read with"


def _held() -> dict[str, float]:
    from datapipes.backends.base import Backend

    classes = {Backend}
    while more := {sub for cls in classes for sub in cls.__subclasses__()} - classes:
        classes |= more
    held: dict[str, float] = {}
    for thing in gc.get_objects():
        if type(thing) in classes:
            for name, number in thing.stats().items():
                if name in LIVE and number:
                    held[name] = held.get(name, 0) + number
    return held
