"""Importing does no work: no torch where it is not needed, nothing written, nothing asked of a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROBE = """
import json, sys, time
import importlib
events = []
def hook(name, args):
    if name == "open" and len(args) > 2 and isinstance(args[2], int) and args[2] & 0o3:
        events.append(["opened for writing", str(args[0])])
    elif name in ("os.mkdir", "os.rename", "os.remove") or name.startswith("socket.") or name == "os.fork":
        events.append([name, str(args)])
for name in sys.argv[2:]:
    importlib.import_module(name)  # third parties: what they do at import is theirs
before = set(sys.modules)
sys.dont_write_bytecode = True
sys.addaudithook(hook)
begin = time.perf_counter()
importlib.import_module(sys.argv[1])
seconds = time.perf_counter() - begin
new = sorted(set(sys.modules) - before)
print(json.dumps({"seconds": seconds, "events": events, "modules": new}))
"""


def probe(module: str, *first: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE, module, *first], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def test_the_package_is_imported_in_no_time() -> None:
    seen = probe("datapipes")
    assert seen["modules"] == ["datapipes"]
    assert seen["events"] == []
    assert seen["seconds"] < 0.5  # 1 ms here; the bound is for a loaded machine


@pytest.mark.parametrize(
    "module",
    [
        "datapipes.errors",
        "datapipes.records",
        "datapipes.urls",
        "datapipes.index",
        "datapipes.permutation",
        "datapipes.jobs",
        "datapipes.backends.registry",
        "datapipes.backends.local",
        "datapipes.backends.daos",
        "datapipes.backends.memory",
        "datapipes.stages",
    ],
)
def test_what_lies_below_the_faces_needs_no_torch_and_touches_nothing(module: str) -> None:
    seen = probe(module, "numpy")
    assert not [name for name in seen["modules"] if name.partition(".")[0] in ("torch", "torchdata")]
    assert seen["events"] == []


@pytest.mark.parametrize("module", ["datapipes.iter", "datapipes.datasets", "datapipes.nodes"])
def test_faces_do_no_work_at_import(module: str) -> None:
    pytest.importorskip("torch")
    needs = ["torch.utils.data"]
    if module == "datapipes.nodes":
        pytest.importorskip("torchdata.nodes", reason="needs torchdata 0.11 or newer")
        needs.append("torchdata.nodes")
    assert probe(module, *needs)["events"] == []


def test_stores_are_imported_by_their_first_url_only() -> None:
    modules = probe("datapipes.stages", "numpy")["modules"]
    assert "datapipes._dfs" not in modules
    assert "datapipes.backends.daos" not in modules


def test_the_probe_sees_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "busy_module.py").write_text(f"open({str(tmp_path / 'made')!r}, 'w').close()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert probe("busy_module")["events"] == [["opened for writing", str(tmp_path / "made")]]
