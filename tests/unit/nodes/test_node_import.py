"""Without torchdata, or with one that has no nodes yet: an error that says what to install."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from importlib import metadata

import pytest

IMPORT = """
try:
    import datapipes.nodes
except ImportError as error:
    print(type(error).__name__, error)
"""


def said(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


@pytest.mark.parametrize("missing", ["torchdata", "torchdata.nodes"])
def test_missing_torchdata_is_an_import_error_that_says_what_to_install(missing: str) -> None:
    message = said(f"import sys; sys.modules[{missing!r}] = None\n{IMPORT}")
    assert message.startswith("BackendUnavailableError")
    assert "needs torchdata 0.11 or newer" in message
    assert "pip install 'torch-datapipes[nodes]'" in message


def test_torchdata_too_old_for_nodes_is_named() -> None:
    if importlib.util.find_spec("torchdata") is None or importlib.util.find_spec("torchdata.nodes"):
        pytest.skip("this torchdata has nodes, or there is none")
    assert f"torchdata {metadata.version('torchdata')}, which has no nodes" in said(IMPORT)
