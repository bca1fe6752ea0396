"""Imports run downwards only: faces -> stages -> back ends -> engine."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "datapipes"

WORDS = {"errors", "records", "urls", "masks"}
"""What every room may speak of."""

BACKEND_DOOR = {"backends.base", "backends.registry"}
"""What may be known of stores above the back ends: the contract, and who serves a URL."""

SHARED = WORDS | {
    "index",
    "index_build",
    "index_format",
    "index_mapping",
    "job_directory",
    "job_locks",
    "job_tables",
    "jobs",
    "launchers",
    "permutation",
}
"""Tables and numbers that stages and faces share; they import no torch."""

MAY_IMPORT = {
    "backends": WORDS | {"backends", "_dfs"},
    "stages": SHARED | BACKEND_DOOR | {"stages"},
    "iter": SHARED | BACKEND_DOOR | {"stages", "iter", "ranks"},
    "nodes": SHARED | BACKEND_DOOR | {"stages", "nodes", "ranks"},
    "datasets": SHARED | BACKEND_DOOR | {"stages", "datasets", "ranks"},
    "ranks": SHARED | {"stages.state"},
    "testing": SHARED | {"backends", "stages", "testing"},
}
FACES = {"iter", "nodes", "datasets"}
EXECUTORS = ("torch", "torchdata")

MODULES = sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path: Path) -> set[str]:
    """Absolute names of everything ``path`` imports, in functions too; not what type checkers alone see."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for otherwise in node.orelse:
                visit(otherwise)
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            module = node.module or ""
            children = {f"{module}.{alias.name}" for alias in node.names}
            found.update(children if module in ("datapipes", "datapipes.backends") else {module})
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_downwards(path: Path) -> None:
    name = name_of(path)
    room = name.partition(".")[0]
    allowed = MAY_IMPORT.get(room, SHARED | BACKEND_DOOR)
    for imported in imports_of(path):
        if imported.partition(".")[0] != "datapipes" or imported == "datapipes":
            continue
        target = imported.removeprefix("datapipes.")
        parts = target.split(".")
        prefixes = {".".join(parts[: i + 1]) for i in range(len(parts))}
        assert prefixes & allowed, f"datapipes.{name} must not import {imported}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_faces_know_torch(path: Path) -> None:
    name = name_of(path)
    executors = {imported for imported in imports_of(path) if imported.partition(".")[0] in EXECUTORS}
    if executors:
        assert name.partition(".")[0] in FACES, f"datapipes.{name} must not import {executors}"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_back_ends_know_the_engine(path: Path) -> None:
    if any(imported.startswith("datapipes._dfs") for imported in imports_of(path)):
        assert name_of(path).startswith("backends."), "the engine is reached through a back end"


def test_this_test_sees_imports(tmp_path: Path) -> None:
    source = "import torch\nfrom datapipes import _dfs\ndef f():\n    import datapipes.backends.local\n"
    (tmp_path / "module.py").write_text(source)
    assert imports_of(tmp_path / "module.py") == {"torch", "datapipes._dfs", "datapipes.backends.local"}
