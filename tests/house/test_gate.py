"""The gate's totals are true: a lane that fails, or that ran nothing, is not taken for one that passed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

CI = Path(__file__).parents[2] / ".ci"

FAKE_MAKE = """#!/bin/sh
case "$2" in
lane-good) echo "== 30 passed, 1 skipped in 2.05s ==";;
lane-long) echo "== 2 failed, 30 passed, 3 skipped, 1 error in 72.05s (0:01:12) =="; exit 1;;
lane-broken) echo "no environment"; exit 2;;
lane-absent) echo "SKIPPED: not on this Python";;
lane-demo) echo "demo: all ok";;
esac
"""


def run_lanes(place: Path, *lanes: str) -> subprocess.CompletedProcess[str]:
    fake = place / "bin/make"
    fake.parent.mkdir(exist_ok=True)
    fake.write_text(FAKE_MAKE)
    fake.chmod(0o755)
    path = f"{fake.parent}:{os.environ['PATH']}"
    return subprocess.run(
        [str(CI / "lanes"), *lanes],
        cwd=place,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(
    ("lanes", "last_line", "status"),
    [
        (["good", "demo"], "31 passed, 0 failed, 1 skipped", 0),
        (["good", "absent"], "30 passed, 0 failed, 2 skipped", 0),
        (["long", "good"], "60 passed, 3 failed, 4 skipped", 1),
        (["broken", "good"], "30 passed, 1 failed, 1 skipped", 1),
    ],
    ids=["all good", "one skipped", "one failed", "one never ran"],
)
def test_totals_count_every_lane(tmp_path: Path, lanes: list[str], last_line: str, status: int) -> None:
    done = run_lanes(tmp_path, *lanes)
    assert done.stdout.splitlines()[-1] == last_line
    assert done.returncode == status
    for lane in lanes:
        assert f"######## lane: {lane}" in done.stdout


@pytest.mark.parametrize("script", ["run", "lanes", "outside"])
def test_scripts_are_executable_and_parse(script: str) -> None:
    assert os.access(CI / script, os.X_OK)
    assert subprocess.run(["bash", "-n", str(CI / script)], check=False).returncode == 0
