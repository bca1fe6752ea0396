"""The variables of the Makefile do what the README says, as far as a dry run shows."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def dry_run(tmp_path: Path, *arguments: str) -> list[str]:
    """What make would run from nothing (VENV names a place where nothing is)."""
    done = subprocess.run(
        ["make", "--dry-run", "--no-print-directory", "-C", str(ROOT), f"VENV={tmp_path}/venv", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("target", ["demo", "lane-dataloader2", "lane-wheel", "lane-oldest"])
def test_torch_index_changes_where_torch_comes_from_and_nothing_else(tmp_path: Path, target: str) -> None:
    plain = dry_run(tmp_path, target)
    chosen = dry_run(tmp_path, target, "TORCH_INDEX=https://example.test/cpu")
    changed = [(before, after) for before, after in zip(plain, chosen, strict=True) if before != after]
    for before, after in changed:
        assert before.split()[-1] == "torch"
        assert after.replace("--index-url https://example.test/cpu ", "").split() == before.split()
    installs_torch = [line for line in plain if line.split()[-1:] == ["torch"]]
    assert len(changed) == len(installs_torch) >= bool("SKIPPED" not in "".join(plain))


def test_the_system_python_only_makes_environments(tmp_path: Path) -> None:
    lines = [line for line in dry_run(tmp_path, "demo", "PYTHON=python3") if line.startswith("python3")]
    assert lines
    assert all("-m venv" in line or "sys.version_info" in line for line in lines)


def test_every_lane_of_make_test_exists() -> None:
    text = (ROOT / "Makefile").read_text()
    lanes = next(line for line in text.splitlines() if ".ci/lanes" in line).split()[1:]
    readme = (ROOT / "README.md").read_text()
    for lane in lanes:
        assert f"\nlane-{lane}:" in text
        assert f"| `{lane}` |" in readme
