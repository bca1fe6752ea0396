"""The layers of the C sources: only bind/ knows Python, only core/ does I/O."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

EXT = Path(__file__).parents[2] / "_ext"
CORE = sorted((EXT / "core").glob("*.[ch]"))
BIND = sorted((EXT / "bind").glob("*.[ch]"))

GIL_RELEASES = {
    "py_handles.c": 1,
    "py_listing.c": 2,
    "py_spool.c": 3,
    "py_wait.c": 7,
    "py_write.c": 2,
    "session_type.c": 2,
}
"""Where the GIL is let go, and how often; a new place is a decision: write it here and in _ext/README.md."""


def code_of(path: Path) -> str:
    """The source without comments and strings."""
    text = re.sub(r'"(\\.|[^"\\\n])*"', '""', path.read_text())
    return re.sub(r"/\*.*?\*/|//[^\n]*", " ", text, flags=re.DOTALL)


def test_sources_are_found() -> None:
    assert len(CORE) > 5
    assert len(BIND) > 2


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.name)
def test_core_does_not_know_python(path: Path) -> None:
    assert "Python.h" not in path.read_text()
    assert not re.search(r"\bPy[A-Z]\w*|\bPy_\w+", code_of(path))


@pytest.mark.parametrize("path", BIND, ids=lambda path: path.name)
def test_bind_does_no_io(path: Path) -> None:
    calls = re.findall(
        r"\b((?:dfs|daos)_\w+|open|openat|p?read|p?write|f?stat|statx|opendir|readdir|rename|unlink|mkdir)\s*\(",
        code_of(path),
    )
    assert not calls, f"{path.name} calls {calls}: I/O belongs to core/"


def test_the_gil_is_released_in_known_places_only() -> None:
    release = re.compile(r"Py_BEGIN_ALLOW_THREADS|PyEval_SaveThread")
    found = Counter({path.name: len(release.findall(code_of(path))) for path in BIND})
    assert dict(+found) == GIL_RELEASES


@pytest.mark.parametrize("path", [*CORE, *BIND], ids=lambda path: path.name)
def test_no_macro_hides_a_return(path: Path) -> None:
    code = re.sub(r"\\\n", " ", path.read_text())
    hidden = [line for line in re.findall(r"^#define .*", code, flags=re.MULTILINE) if "return" in line]
    assert not hidden, hidden


@pytest.mark.parametrize("path", [*CORE, *BIND], ids=lambda path: path.name)
def test_no_reserved_names_and_no_unbounded_strings(path: Path) -> None:
    code = code_of(path)
    assert not re.findall(r"#define (_[A-Z]\w+)(?!\w)", code)
    assert not re.findall(r"\b(strcpy|strcat|sprintf|gets|alloca)\s*\(", code)
