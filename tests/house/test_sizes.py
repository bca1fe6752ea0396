"""Files and functions stay small enough to hold in the head."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PYTHON_FILE = 300
PYTHON_FUNCTION = 60
C_FILE = 320
C_FUNCTION = 60
"""Lines: what a head holds, with the docstrings that are the contract."""

PYTHON = sorted(
    path for folder in ("datapipes", "demo", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)
NATIVE = sorted((ROOT / "_ext").rglob("*.[ch]"))


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def c_functions(text: str) -> list[tuple[str, int]]:
    """(last line of the head, number of lines of the body) of each function, in this project's layout."""
    found, head, begin = [], "", None
    lines = text.splitlines()
    for number, line in enumerate(lines):
        if line == "{":
            begin, head = number, lines[number - 1]
        elif line == "}" and begin is not None:
            found.append((head, number - begin))
            begin = None
    return found


@pytest.mark.parametrize("path", PYTHON, ids=name_of)
def test_python_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    lines = len(text.splitlines())
    assert lines <= PYTHON_FILE, (
        f"{name_of(path)} has {lines} lines (at most {PYTHON_FILE}): one verb, one file"
    )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            length = (node.end_lineno or node.lineno) - node.lineno
            assert length <= PYTHON_FUNCTION, f"{node.name} has {length} lines (at most {PYTHON_FUNCTION})"


@pytest.mark.parametrize("path", NATIVE, ids=name_of)
def test_c_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    lines = len(text.splitlines())
    assert lines <= C_FILE, f"{name_of(path)} has {lines} lines (at most {C_FILE})"
    for head, length in c_functions(text):
        assert length <= C_FUNCTION, f"{head!r} has {length} lines (at most {C_FUNCTION})"


def test_this_test_sees_c_functions() -> None:
    text = "static int one(void)\n{\n\treturn 1;\n}\n\nstruct two {\n\tint x;\n};\n"
    assert c_functions(text) == [("static int one(void)", 2)]
    assert any(c_functions(path.read_text()) for path in NATIVE)


@pytest.mark.parametrize("path", [*PYTHON, *NATIVE], ids=name_of)
def test_no_room_without_a_name(path: Path) -> None:
    assert not re.fullmatch(r"_?(utils?|helpers?|misc|common|tools)", path.stem), "name the room"
