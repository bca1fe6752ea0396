"""That ``DAOS_POOL`` and ``DAOS_CONT`` make the contracts run, tried where a stand-in serves them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from .standin import StandIn, compiled

pytestmark = [compiled, pytest.mark.timeout(200)]

HERE = Path(__file__).parent
CONTRACTS = HERE / "test_daos_pool_backend.py"
FEW = "missing_container or write_ or list_start_after or resumes"


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    made = StandIn(tmp_path_factory.mktemp("standin"))
    (made.root / "tank" / "train").mkdir(parents=True)
    (made.root / "tank" / "train" / "theirs").write_bytes(b"of others")
    return made


def run(standin: StandIn, chosen: str, **variables: str) -> tuple[int, str]:
    """Exit status and output of the contracts in an interpreter of their own."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("DAOS_POOL", "DAOS_CONT")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen, CONTRACTS],
        env={**inherited, **standin.variables, **variables},
        cwd=HERE.parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_contracts_run_in_a_folder_that_is_gone_afterwards(standin: StandIn) -> None:
    status, output = run(standin, FEW, DAOS_POOL="tank", DAOS_CONT="train")
    assert status == 0, output
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None, output
    assert int(passed[1]) > 20
    assert " skipped" not in output
    assert os.listdir(standin.root / "tank" / "train") == ["theirs"]


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"DAOS_POOL": "none", "DAOS_CONT": "train"}, "cannot be reached: .*daos://none/train"),
        (
            {"DAOS_POOL": "tank", "DAOS_CONT": "train", "DATAPIPES_LIBDFS_DIR": "/nowhere"},
            "cannot be reached: .*libdfs.so",
        ),
        ({"DAOS_POOL": "tank"}, "both are needed"),
    ],
    ids=["pool", "library", "half"],
)
def test_what_is_set_and_not_reached_is_a_failure(
    standin: StandIn, variables: dict[str, str], words: str
) -> None:
    status, output = run(standin, "missing_container", **variables)
    assert status == 1
    assert re.search(words, output), output
    assert " passed" not in output
    assert " skipped" not in output


def test_where_nothing_is_set_the_contracts_are_skipped_and_say_so(standin: StandIn) -> None:
    _, output = run(standin, "missing_container")
    assert re.search(r"SKIPPED .*DAOS_POOL and DAOS_CONT name no container", output), output
    assert " passed" not in output
