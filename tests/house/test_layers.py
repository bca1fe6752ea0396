"""Imports run downwards only: faces -> stages -> back ends -> engine, transport."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "datapipes"

WORDS = {"errors", "records", "urls", "masks"}
"""What every room may speak of."""

BACKEND_DOOR = {"backends.base", "backends.checks", "backends.handle_spool", "backends.registry"}
"""What may be known of stores above the back ends: the contract, its options, and who serves a URL."""

SHARED = WORDS | {
    "calling",
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
    "tar",
    "turns",
}
"""Tables and numbers that stages and faces share; they import no torch."""

MAY_IMPORT = {
    "backends": WORDS | {"backends", "transport", "tar", "_dfs"},
    "transport": {"errors", "transport", "_dfs"},
    "stages": SHARED | BACKEND_DOOR | {"stages"},
    "iter": SHARED | BACKEND_DOOR | {"stages", "iter", "ranks", "epochs"},
    "nodes": SHARED | BACKEND_DOOR | {"stages", "nodes", "ranks"},
    "datasets": SHARED | BACKEND_DOOR | {"stages", "datasets", "ranks", "epochs"},
    "ranks": SHARED | {"stages.state"},
    "epochs": SHARED | {"stages.state"},
    "index_mapping": {"errors", "index_format", "records", "_dfs"},
    "job_tables": {"errors", "job_locks", "_dfs"},
    "tar": WORDS | {"_dfs"},
    "testing": SHARED | {"backends", "stages", "testing"},
}
DOORS_OF_STORES = {
    "datasets.ais_found": {  # takes the SDK's objects, and from their client the cluster
        "backends.ais",
        "backends.ais_batches",
        "backends.ais_cluster",
        "backends.ais_errors",
        "backends.ais_names",
    },
    "datasets.daos_checkpoint": {"backends.daos"},  # says how files are laid out
    "iter.list_sources": {"backends.ais_sources"},  # lists the SDK's objects, which no URL names
    "nodes.ais": {"backends.ais_sources"},
}
"""Faces of what one store alone has."""
FACES = {"iter", "nodes", "datasets", "epochs"}
"""What may ask torch; ``epochs`` asks which worker this is, for the other faces."""
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
    allowed = MAY_IMPORT.get(room, SHARED | BACKEND_DOOR) | DOORS_OF_STORES.get(name, set())
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
def test_only_back_ends_and_transport_know_the_engine(path: Path) -> None:
    if any(imported.startswith("datapipes._dfs") for imported in imports_of(path)):
        name = name_of(path)
        assert name in ("tar", "index_mapping", "job_tables") or name.startswith(
            ("backends.", "transport.")
        ), (
            "the engine is reached through a back end, its tar walker through datapipes.tar, its reader of "
            "index files through datapipes.index_mapping, and what adds to numbers of several processes "
            "through datapipes.job_tables"
        )


def test_this_test_sees_imports(tmp_path: Path) -> None:
    source = "import torch\nfrom datapipes import _dfs\ndef f():\n    import datapipes.backends.local\n"
    (tmp_path / "module.py").write_text(source)
    assert imports_of(tmp_path / "module.py") == {"torch", "datapipes._dfs", "datapipes.backends.local"}
