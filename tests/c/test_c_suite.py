"""The native core without Python: each program here is compiled with it and run under sanitizers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "_ext" / "core"
PROGRAMS = sorted(HERE.glob("test_*.c"))
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]
WATCHED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer"]
COMPILER = os.environ.get("CC", "cc")


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core's object files, with AddressSanitizer and UndefinedBehaviorSanitizer."""
    if shutil.which(COMPILER) is None:
        pytest.fail("the engine's tests need a C compiler")
    folder = tmp_path_factory.mktemp("core")
    sources = [str(path) for path in sorted(CORE.glob("*.c"))]
    subprocess.run([COMPILER, *FLAGS, *WATCHED, "-c", *sources], cwd=folder, check=True)
    return folder


def build(core: Path, program: Path) -> Path:
    """The program and the core in one; a line " * link: OPTION..." in the program's heading adds options."""
    target = core / program.stem
    more = re.findall(r"^ \* link: (.+)$", program.read_text(), re.MULTILINE)
    objects = [str(path) for path in sorted(core.glob("*.o"))]
    subprocess.run(
        [COMPILER, *FLAGS, *WATCHED, *more, f"-I{CORE}", str(program), *objects, "-o", str(target)],
        check=True,
    )
    return target


def run(target: Path) -> subprocess.CompletedProcess[str]:
    options = {"ASAN_OPTIONS": "detect_leaks=1", "UBSAN_OPTIONS": "print_stacktrace=1"}
    return subprocess.run(
        [target], env={**os.environ, **options}, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_core_is_right_and_leaks_nothing(core: Path, program: Path) -> None:
    done = run(build(core, program))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "test_" in done.stdout, "the program ran no test"


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ("char *volatile lost = malloc(10); lost = NULL; if (lost) return 1;", "LeakSanitizer"),
        ("volatile char *volatile here = malloc(10); here[10] = 1; free((char *)here);", "AddressSanitizer"),
        ("volatile int most = 2147483647; most++;", "runtime error"),
    ],
    ids=["leak", "overrun", "overflow"],
)
def test_harness_notices(core: Path, tmp_path: Path, fault: str, says: str) -> None:
    program = tmp_path / "faulty.c"
    program.write_text(f"#include <stdlib.h>\nint main(void)\n{{\n{fault}\nreturn 0;\n}}\n")
    done = run(build(core, program))
    assert done.returncode != 0
    assert says in done.stderr
