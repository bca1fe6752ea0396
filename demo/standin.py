"""DAOS's client libraries on a machine without DAOS: the stand-in of the tests, built by its own script."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from datapipes.backends.daos import LIBRARIES_VARIABLE, ROOT_VARIABLE

__all__ = ["calls", "libdfs"]

BUILD = Path(__file__).parents[1] / "tests/c/standin/build"
OPENS = ("dfs_lookup_rel", "dfs_lookup", "dfs_open")


@contextmanager
def libdfs(libraries: Path, pools: Path) -> Iterator[None]:
    """Meanwhile ``libdfs.so`` serves ``daos://``, in this process and in those that it starts.

    Args:
        libraries: a folder, made here, that the two are built into.
        pools: the stand-in's pools are the folders in this one.
    """
    subprocess.run([BUILD, libraries], check=True)
    meanwhile = {LIBRARIES_VARIABLE: str(libraries), "STANDIN_ROOT": str(pools), ROOT_VARIABLE: None}
    before = {name: os.environ.get(name) for name in meanwhile}
    set_variables(meanwhile)  # without ROOT_VARIABLE there is nothing but libdfs
    try:
        yield
    finally:
        set_variables(before)


def set_variables(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def calls() -> tuple[int, int]:
    """How many objects this process has opened through libdfs by now, and how many reads it has asked for."""
    library = Path(os.environ[LIBRARIES_VARIABLE], "libdaos.so.2")
    count = ctypes.CDLL(str(library), mode=os.RTLD_NOLOAD).standin_count
    count.restype = ctypes.c_long
    return sum(count(name.encode()) for name in OPENS), count(b"dfs_read")
