"""What is public: sorted, present, documented, shipped."""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import datapipes

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "datapipes"
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())

NEED_TORCHDATA = "datapipes.nodes"

DOORS = [
    "datapipes.backends.base",
    "datapipes.backends.registry",
    "datapipes.datasets",
    "datapipes.datasets.ais",
    "datapipes.datasets.daos",
    "datapipes.errors",
    "datapipes.index",
    "datapipes.iter",
    "datapipes.nodes",
    "datapipes.records",
    "datapipes.stages",
    "datapipes.urls",
]
"""Modules that users import from."""

MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
)


def load(name: str) -> Any:
    if name.startswith(NEED_TORCHDATA):
        pytest.importorskip("torchdata.nodes", reason="needs torchdata 0.11 or newer")
    return importlib.import_module(name)


@pytest.mark.parametrize("name", MODULES)
def test_all_is_sorted_and_true(name: str) -> None:
    module = load(name)
    names = getattr(module, "__all__", None)
    if names is None:
        public = [n for n in vars(module) if not n.startswith("_") and _is_own(module, n)]
        assert name.endswith(("backends", "testing")) or not public, f"{name} has no __all__ for {public}"
        return
    assert len(set(names)) == len(names)
    for public in names:
        assert hasattr(module, public), f"{name}.__all__ names {public}, which is not there"
    assert names == sorted(names, key=_isort_order), f"{name}.__all__ is not sorted"


def _isort_order(name: str) -> tuple[int, str]:
    """CONSTANTS, then Classes, then functions: the order that ruff keeps."""
    return (0 if name.isupper() else 1 if name[:1].isupper() else 2), name


def _is_own(module: object, name: str) -> bool:
    value = getattr(module, name)
    return getattr(value, "__module__", None) == getattr(module, "__name__", "")


@pytest.mark.parametrize("name", MODULES)
def test_modules_and_their_public_things_have_docstrings(name: str) -> None:
    module = load(name)
    assert inspect.getdoc(module), f"{name} has no docstring"
    for public in getattr(module, "__all__", []):
        thing = getattr(module, public)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name}.{public} has no docstring"


@pytest.mark.parametrize("name", DOORS)
def test_methods_that_users_call_have_docstrings(name: str) -> None:
    module = load(name)
    for public in module.__all__:
        thing = getattr(module, public)
        if not inspect.isclass(thing) or not thing.__module__.startswith("datapipes"):
            continue
        for attribute, value in vars(thing).items():
            if inspect.isfunction(value) and not attribute.startswith("_"):
                # getdoc looks at base classes too: an implementation need not repeat the contract.
                assert inspect.getdoc(getattr(thing, attribute)), f"{name}.{public}.{attribute}"


def test_every_package_of_the_tree_is_shipped() -> None:
    listed = SETTINGS["tool"]["setuptools"]["packages"]
    found = sorted(".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py"))
    assert listed == found


def test_the_version_is_said_once() -> None:
    assert datapipes.__version__ == SETTINGS["project"]["version"]


def test_every_exception_is_in_the_readme() -> None:
    from datapipes import errors

    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    classes = {name: getattr(errors, name) for name in errors.__all__ if name.endswith("Error")}
    assert {name for name, _ in rows} == set(classes)
    for name, builtin in rows:
        base = vars(__import__("builtins"))[builtin]
        assert issubclass(classes[name], base), f"{name} is no {builtin}"


def test_every_variable_of_ours_is_in_the_readme() -> None:
    sources = [*PACKAGE.rglob("*.py"), ROOT / "setup.py", *(ROOT / "_ext").rglob("*.c")]
    used = {name for path in sources for name in re.findall(r"DATAPIPES_[A-Z_]+", path.read_text())}
    readme = (ROOT / "README.md").read_text()
    assert not {name for name in used if name not in readme}


def test_every_functional_form_is_in_the_readme() -> None:
    pytest.importorskip("torch")
    from torch.utils.data import IterDataPipe

    import datapipes.iter  # noqa: F401 - registers

    readme = (ROOT / "README.md").read_text()
    forms = {
        name: form.func
        for name, form in IterDataPipe.functions.items()
        if isinstance(form, functools.partial) and str(form.func.__module__).startswith("datapipes")
    }
    assert "list_files_by_daos" in forms
    assert [name for name in forms if f".{name}(" not in readme] == []
