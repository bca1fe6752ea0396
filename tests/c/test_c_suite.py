"""The native core without Python: each program here is compiled with it and run under sanitizers.

Address, undefined behaviour and leaks as a rule. With ``DATAPIPES_C_SANITIZER=thread`` (``make lane-races``)
threads instead, as no program can have both; then programs of one thread are left out.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "_ext" / "core"
RACES = os.environ.get("DATAPIPES_C_SANITIZER") == "thread"
ONE_THREAD = ("test_listing_memory", "test_tar")
PROGRAMS = [path for path in sorted(HERE.glob("test_*.c")) if not (RACES and path.stem in ONE_THREAD)]
FLAGS = ["-std=c11", "-D_GNU_SOURCE", "-pthread", "-g", "-O1", "-Wall", "-Wextra", "-Werror"]
WATCHED = [
    *(
        ["-fsanitize=thread"]
        if RACES
        else ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    ),
    "-fno-omit-frame-pointer",
]
COMPILER = os.environ.get("CC", "cc")


@pytest.fixture(scope="session")
def core(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The core's object files, with sanitizers."""
    if shutil.which(COMPILER) is None:
        pytest.fail("the engine's tests need a C compiler")
    folder = tmp_path_factory.mktemp("core")
    sources = [str(path) for path in sorted(CORE.glob("*.c"))]
    subprocess.run([COMPILER, *FLAGS, *WATCHED, "-c", *sources], cwd=folder, check=True)
    return folder


@pytest.fixture(scope="session")
def watched_standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in for DAOS, with the same sanitizers."""
    folder = tmp_path_factory.mktemp("standin")
    # The system's linker frees thread-local memory of loaded libraries unseen by ThreadSanitizer, which takes
    # that for a race of the next thread with the last one: this model needs none.
    tls = ["-ftls-model=initial-exec"] if RACES else []
    subprocess.run([HERE / "standin" / "build", folder, *WATCHED, *tls], check=True)
    return folder


def build(core: Path, program: Path) -> Path:
    """The program and the core in one; a line " * link: OPTION..." in the program's heading adds options."""
    target = core / program.stem
    more = re.findall(r"^ \* link: (.+)$", program.read_text(), re.MULTILINE)
    objects = [str(path) for path in sorted(core.glob("*.o"))]
    subprocess.run(
        [COMPILER, *FLAGS, *WATCHED, *more, f"-I{CORE}", str(program), *objects, "-ldl", "-o", str(target)],
        check=True,
    )
    return target


def run(target: Path, **more: str) -> subprocess.CompletedProcess[str]:
    options = {
        "ASAN_OPTIONS": "detect_leaks=1",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        # Some tests fork beside threads, and their children start threads: that is what they are about.
        "TSAN_OPTIONS": "halt_on_error=1:die_after_fork=0:second_deadlock_stack=1",
        **more,
    }
    return subprocess.run(
        [target], env={**os.environ, **options}, capture_output=True, text=True, timeout=240, check=False
    )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_core_is_right_and_sanitizers_are_silent(core: Path, watched_standin: Path, program: Path) -> None:
    done = run(build(core, program), DATAPIPES_LIBDFS_DIR=str(watched_standin))
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "test_" in done.stdout, "the program ran no test"


FAULTS = {
    "leak": ("char *volatile lost = malloc(10); lost = NULL; if (lost) return 1;", "LeakSanitizer"),
    "overrun": (
        "volatile char *volatile here = malloc(10); here[10] = 1; free((char *)here);",
        "AddressSanitizer",
    ),
    "overflow": ("volatile int most = 2147483647; most++;", "runtime error"),
    "race": (
        "pthread_t other; pthread_create(&other, NULL, add, NULL); add(NULL); pthread_join(other, NULL);",
        "data race",
    ),
}
HEADING = """
#include <pthread.h>
#include <stdlib.h>
static int shared;
static void *add(void *unused) { shared++; return unused; }
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["race"] if RACES else ["leak", "overrun", "overflow"])
def test_harness_notices(core: Path, tmp_path: Path, name: str) -> None:
    fault, says = FAULTS[name]
    program = tmp_path / "faulty.c"
    program.write_text(f"{HEADING}\nint main(void)\n{{\nadd(NULL);\n{fault}\nreturn 0;\n}}\n")
    done = run(build(core, program))
    assert done.returncode != 0
    assert says in done.stderr
