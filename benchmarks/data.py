"""The one data generator of the benchmarks."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).parent


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory on tmpfs where there is one, removed at the end."""
    shm = Path("/dev/shm")
    root = Path(tempfile.mkdtemp(prefix="datapipes-bench-", dir=shm if os.access(shm, os.W_OK) else None))
    try:
        yield root
    finally:
        shutil.rmtree(root)


def make_files(root: Path, *, count: int, size: int, directories: int = 20) -> list[str]:
    """``count`` files of ``size`` bytes spread over ``directories``; their paths in path order."""
    payload, paths = os.urandom(size), []
    width = count // directories
    for directory in range(directories):
        folder = root / f"class_{directory:04d}"
        folder.mkdir(parents=True)
        for i in range(width):
            path = str(folder / f"sample_{i:06d}.bin")
            with open(path, "wb") as file:
                file.write(payload)
            paths.append(path)
    return paths


def make_empty_files(root: Path, *, directories: int, per_directory: int) -> int:
    """Many files of a few bytes, made as fast as Python can."""
    for directory in range(directories):
        folder = os.path.join(root, f"d{directory:04d}")
        os.makedirs(folder)
        descriptor = os.open(folder, os.O_RDONLY)
        for i in range(per_directory):
            os.close(os.open(f"f{i:06d}", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        os.close(descriptor)
    return directories * per_directory


def build_c_loop(root: Path) -> str:
    """Compile the C reading loop, the limit the engine is held against."""
    program = str(root / "cloop")
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-O3", "-pthread", "-o", program, str(HERE / "cloop.c")], check=True)
    return program
