"""What every test gets: a job directory of its own run, Hypothesis profiles, and a look into the engine."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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


_stores: list[weakref.ref[Any]] = []
"""Back ends that were made before the last freeze."""


def pytest_collection_finish() -> None:
    """Torch and pytest have made half a million objects by now that no test need look through again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="module", autouse=True)
def objects_set_aside() -> Iterator[None]:
    """Nor at those that the tests of a file have left; ``engine_left_empty`` would, after each test."""
    yield
    gc.collect()
    _stores[:] = [weakref.ref(store) for store in _live_stores()]
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
    held: dict[str, float] = {}
    for store in _live_stores():
        for name, number in store.stats().items():
            if name in LIVE and number:
                held[name] = held.get(name, 0) + number
    return held


def _live_stores() -> list[Any]:
    if "datapipes.backends.base" not in sys.modules:
        return []
    from datapipes.backends.base import Backend

    classes = {Backend}
    while more := {sub for cls in classes for sub in cls.__subclasses__()} - classes:
        classes |= more
    older = [store for store in (ref() for ref in _stores) if store is not None]
    return older + [thing for thing in gc.get_objects() if type(thing) in classes]


@pytest.fixture
def on_small_disk() -> Callable[[Path, str], list[str]]:
    """``on_small_disk(folder, size)``: what a command begins with that is to have a disk of that size at
    ``folder``. It ends by listing the folder. Skips where the kernel lets us mount no file system."""

    def before(folder: Path, size: str) -> list[str]:
        inside = f'mount -t tmpfs -o size={size} none {folder} && "$@" && ls -A {folder}'
        own = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh"]
        if (
            shutil.which("unshare") is None
            or subprocess.run([*own, "true"], capture_output=True, check=False).returncode
        ):
            pytest.skip("this machine lets us mount no file system to fill up")
        return own

    return before
