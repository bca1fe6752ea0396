"""mypy and pyright infer what the examples say."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = ["tests/typing/functional_forms.py", "tests/typing/daos_drop_ins.py"]


def run(module: str, *arguments: str) -> None:
    if importlib.util.find_spec(module) is None:
        pytest.skip(f"needs {module}")
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        capture_output=True,
        text=True,
        timeout=290,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_mypy_infers_the_examples() -> None:
    run("mypy", "--strict", *EXAMPLES)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pyright_infers_the_examples() -> None:
    run("basedpyright", "--pythonpath", sys.executable, *EXAMPLES)
