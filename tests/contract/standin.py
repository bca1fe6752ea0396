"""The stand-in for DAOS, loaded into this process: the engine finds it as it would find the real one."""

from __future__ import annotations

import ctypes
import gc
import os
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from datapipes.backends.daos import from_url
from datapipes.backends.registry import register_backend

compiled = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
"""Mark of tests that build the stand-in."""

available = [
    pytest.mark.skipif(
        bool(os.environ.get("DAOS_POOL")), reason="a process has one libdfs, and this one's is real"
    ),
    compiled,
]
"""Marks of tests on the stand-in in this process."""

PRELUDE = """
    import ctypes, os
    from datapipes.backends.daos import DaosBackend
    from datapipes.records import ReadRequest

    backend = DaosBackend("tank", "train")
    url = "daos://tank/train/"

    def say(call):
        try:
            call()
        except Exception as error:
            print(type(error).__name__, "|", error)
        else:
            print("nothing")
"""
"""What programs for :func:`run` begin with."""

SOURCES = Path(__file__).parents[1] / "c" / "standin"


class StandIn:
    """``root`` is where its pools are. One process loads DAOS's libraries once, so there is one of these."""

    def __init__(self, folder: Path) -> None:
        self.libraries = folder / "libraries"
        self.root = folder / "pools"
        self.root.mkdir()
        subprocess.run([SOURCES / "build", self.libraries], check=True)
        self._lib: ctypes.CDLL | None = None

    @property
    def variables(self) -> dict[str, str]:
        return {"DATAPIPES_LIBDFS_DIR": str(self.libraries), "STANDIN_ROOT": str(self.root)}

    @property
    def lib(self) -> ctypes.CDLL:
        if self._lib is None:
            self._lib = ctypes.CDLL(str(self.libraries / "libdaos.so.2"), mode=os.RTLD_NOLOAD)
            self._lib.standin_count.restype = ctypes.c_long
        return self._lib

    def set(self, name: str, value: str) -> None:
        assert self.lib.standin_set(name.encode(), value.encode()) == 0

    def count(self, what: str) -> int:
        return int(self.lib.standin_count(what.encode()))

    def reset(self) -> None:
        self.lib.standin_reset()

    def forget(self) -> None:
        """Let go of the back ends that URLs have been resolved to in this process."""
        register_backend("daos", from_url)
        gc.collect()

    def left(self) -> dict[str, int]:
        """Live objects of the library, once threads that still end have ended."""
        kinds = ("inits", "mounts", "objects", "queues", "events", "reads", "handles")
        for _ in range(200):
            left = {kind: self.count(kind) for kind in kinds if self.count(kind)}
            if not left:
                break
            time.sleep(0.05)
        return left


def run(standin: StandIn, program: str, *, before: Sequence[str] = (), **variables: str) -> list[str]:
    """The lines it prints, in an interpreter of its own (libraries stay loaded); ``before`` starts it."""
    done = subprocess.run(
        [*before, sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(program)],
        env={
            **{name: value for name, value in os.environ.items() if name != "DATAPIPES_DAOS_ROOT"},
            **standin.variables,
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
