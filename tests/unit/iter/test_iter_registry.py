"""Functional names are ours in the end, whoever is imported first, in each import order its own process."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

OURS = [
    "list_files_by_daos",
    "list_files_by_local",
    "load_files_by_daos",
    "load_files_by_local",
    "resumable",
    "shard_files",
    "shuffle_files",
]

CHECK = f"""
from torch.utils.data import IterDataPipe
for name in {OURS!r}:
    form = IterDataPipe.functions[name]
    assert form.func.__module__.startswith("datapipes."), (name, form.func)
    assert form.__doc__, name
"""

REPLACE = """
from datapipes.iter.registry import register_functional_forms
register_functional_forms({"list_files_by_ais": lambda source: ("ours", source)})
"""


def has_torchdata_pipes() -> bool:
    return importlib.util.find_spec("torchdata") is not None and (
        importlib.util.find_spec("torchdata.datapipes") is not None
    )


needs_torchdata_pipes = pytest.mark.skipif(not has_torchdata_pipes(), reason="needs torchdata <= 0.9")


def run(script: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_importing_twice_keeps_our_forms_without_a_warning() -> None:
    run(f"import datapipes.iter, importlib\nimportlib.reload(datapipes.iter)\n{CHECK}")


@needs_torchdata_pipes
def test_ours_first_leaves_torchdata_importable_and_names_ours() -> None:
    run(f"import datapipes.iter\n{REPLACE}\nimport torchdata.datapipes.iter\n{CHECK}{LAST}")


@needs_torchdata_pipes
def test_torchdata_first_is_replaced_and_its_other_forms_stay() -> None:
    first = "import warnings\nwith warnings.catch_warnings():\n    warnings.simplefilter('ignore')\n    "
    run(f"{first}import torchdata.datapipes.iter\nimport datapipes.iter\n{REPLACE}{CHECK}{LAST}")


LAST = """
from torch.utils.data.datapipes.iter import IterableWrapper
assert IterableWrapper([]).list_files_by_ais()[0] == "ours"
assert "list_files_by_s3" in IterDataPipe.functions  # torchdata's own stay
"""
