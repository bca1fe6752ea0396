"""Checkpoints on DAOS: their chunks are written at the same time, and one that fails leaves nothing."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from datapipes.datasets.daos import Checkpoint
from datapipes.errors import BackendIOError, OptionError

from .standin import StandIn, available

pytestmark = available

CHUNK = 1 << 16

_containers = itertools.count()


class Container:
    """A container of its own, and the folder that holds what is in it."""

    def __init__(self, standin: StandIn) -> None:
        self.standin = standin
        self.name = f"checkpoints{next(_containers)}"
        self.folder: Path = standin.root / "tank" / self.name
        self.folder.mkdir(parents=True)
        Checkpoint("tank", self.name).writer("first").close()  # loads the libraries
        standin.reset()

    def checkpoint(self, **options: Any) -> Checkpoint:
        return Checkpoint("tank", self.name, **{"transfer_chunk_size": CHUNK, **options})

    def files(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def container(standin: StandIn) -> Iterator[Container]:
    yield Container(standin)
    standin.reset()
    standin.forget()
    assert not standin.left()


def until(condition: Callable[[], bool]) -> None:
    for _ in range(2000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come to pass within 20 s")


@pytest.mark.parametrize(
    ("options", "at_once"), [({"workers": 4}, 4), ({"workers": 4, "chunks_limit": 2}, 2), ({"workers": 1}, 1)]
)
@pytest.mark.parametrize("piece", [CHUNK // 4, 40 * CHUNK], ids=["small pieces", "one large piece"])
def test_as_many_chunks_are_written_at_once_as_there_are_workers(
    container: Container, options: dict[str, Any], at_once: int, piece: int
) -> None:
    standin = container.standin
    data = bytes(range(256)) * (40 * CHUNK // 256)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            with container.checkpoint(**options).writer("model") as file:
                for start in range(0, len(data), piece):
                    file.write(memoryview(data)[start : start + piece])
        except BaseException as error:  # noqa: BLE001 - looked at below
            failures.append(error)

    standin.set("STANDIN_FAIL", "dfs_write:*=never")
    tracemalloc.start()
    thread = threading.Thread(target=write)
    thread.start()
    until(lambda: standin.count("dfs_write") == at_once)
    time.sleep(0.1)  # for one more to come, if one did
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    hanging, files = standin.count("dfs_write"), container.files()
    standin.set("STANDIN_FAIL", "")
    standin.lib.standin_release()
    thread.join()
    assert not failures
    assert hanging == at_once
    assert "model" not in files  # while it is written
    assert held < (at_once + 3) * CHUNK  # of 40
    assert (container.folder / "model").read_bytes() == data
    assert container.files() == ["first", "model"]


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("fault", ["dfs_write:1=28", "dfs_write:3=5", "dfs_sync:1=5", "dfs_move:1=5"])
@pytest.mark.parametrize("piece", [CHUNK // 4, 20 * CHUNK], ids=["small pieces", "one large piece"])
def test_a_chunk_that_fails_leaves_no_file_and_the_old_one(
    container: Container, fault: str, workers: int, piece: int
) -> None:
    checkpoint = container.checkpoint(workers=workers)
    with checkpoint.writer("old") as file:
        file.write(b"as it was")
    for name in ("old", "new"):
        container.standin.reset()
        container.standin.set("STANDIN_FAIL", fault)
        with (  # noqa: PT012 - whichever call
            pytest.raises(BackendIOError, match=f"daos://tank/.*{name}"),
            checkpoint.writer(name) as file,
        ):
            for _ in range(max(3, 20 * CHUNK // piece)):
                file.write(bytes(piece))
    container.standin.reset()
    assert checkpoint.reader("old").read() == b"as it was"
    assert container.files() == ["first", "old"]


def test_an_error_is_told_once_more_by_close(container: Container) -> None:
    container.standin.set("STANDIN_FAIL", "dfs_write:2=5")
    file = container.checkpoint(workers=2).writer("model")
    with pytest.raises(BackendIOError):  # noqa: PT012 - whichever call hears of it first
        for _ in range(50):
            file.write(bytes(CHUNK // 2))
        file.close()
    if not file.closed:
        with pytest.raises(BackendIOError):
            file.close()
    assert container.files() == ["first"]


def test_torch_saves_and_loads(container: Container) -> None:
    torch = pytest.importorskip("torch")
    state = {"weights": torch.arange(200_000, dtype=torch.float32), "small": [torch.ones(3), "text"]}
    checkpoint = container.checkpoint()
    with checkpoint.writer("model.pt") as file:
        torch.save(state, file)
    loaded = torch.load(checkpoint.reader("model.pt"), weights_only=True)
    assert torch.equal(loaded["weights"], state["weights"])
    assert loaded["small"][1] == "text"


TOLD = """
import torch
from datapipes.datasets.daos import Checkpoint
try:
    with Checkpoint("tank", CONTAINER, transfer_chunk_size=1 << 16).writer("model.pt") as file:
        torch.save({"weights": torch.arange(200_000)}, file)
except (OSError, RuntimeError):  # ours, or torch's own in its place
    print("told")
"""


def test_torch_is_told_of_a_failure(container: Container) -> None:
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, "-c", TOLD.replace("CONTAINER", repr(container.name))],
        env={**os.environ, "STANDIN_FAIL": "dfs_write:5=28"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.stdout == "told\n", done.stderr
    assert container.files() == ["first"]


@pytest.mark.parametrize(("name", "number"), [("SX", 211), ("OC_SX", 211), ("S1", 201), ("OC_UNKNOWN", 0)])
@pytest.mark.parametrize("chunk", [1 << 21, (1 << 63) - 1])
def test_files_are_laid_out_as_asked(container: Container, name: str, number: int, chunk: int) -> None:
    checkpoint = container.checkpoint(class_name=name, file_chunk_size=chunk, mode=0o100640)
    with checkpoint.writer("model") as file:
        file.write(b"x")
    assert (container.standin.count("class"), container.standin.count("chunk")) == (number, chunk)
    assert (container.folder / "model").stat().st_mode == 0o100640


@pytest.mark.parametrize("name", ["OC_NONE", "nope", "sx"])
@pytest.mark.parametrize("options", [{}, {"transfer_chunk_size": 0}], ids=str)
def test_an_object_class_that_is_none_is_refused_by_its_name(
    container: Container, name: str, options: dict[str, int]
) -> None:
    with pytest.raises(OptionError, match=f"class_name='{name}'.*EINVAL") as raised:
        container.checkpoint(class_name=name, **options).writer("model")
    assert (raised.value.url, raised.value.errno) == (f"daos://tank/{container.name}/model", errno.EINVAL)
    assert container.files() == ["first"]
