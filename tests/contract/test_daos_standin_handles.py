"""Handles that are kept beside an index, as users of datasets, nodes and back ends meet them."""

from __future__ import annotations

import errno
import gc
import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datapipes.backends.base import Backend
from datapipes.backends.daos import DaosBackend
from datapipes.backends.wrapping import WrapperBackend
from datapipes.errors import FileMissingError, OptionError, SizeMismatchError
from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.records import HandleFile, ReadRequest
from datapipes.stages.load_files import LoadFiles

from .directory_hooks import OverDirectory
from .standin import StandIn, available

pytestmark = available

FILES = 30
OPENS = ("dfs_lookup_rel", "dfs_lookup", "dfs_open")

_containers = itertools.count()


class Keeping(WrapperBackend):
    """A back end whose every read keeps handles."""

    place: HandleFile

    def __init__(self, inner: Backend, place: HandleFile) -> None:
        super().__init__(inner)
        object.__setattr__(self, "place", place)

    def read_many(self, requests: Any, **options: Any) -> Any:
        return self.inner.read_many(requests, **{**options, "handles": self.place})

    def read_batch(self, requests: Any, **options: Any) -> Any:
        self.inner.read_batch(requests[:8], handles=self.place)  # so that some have been read before
        return self.inner.read_batch(requests, **{**options, "handles": self.place})


class TestDaosStandInBackendWithHandles(OverDirectory):
    @pytest.fixture(autouse=True)
    def container(self, standin: StandIn, tmp_path: Path, fresh_forkserver: None) -> None:
        self.standin = standin
        self.name = f"kept{next(_containers)}"
        self.place = HandleFile(str(tmp_path / "table"), "of these files", 5000, 1 << 22)
        self.root, self.beginning = standin.root / "tank" / self.name, f"daos://tank/{self.name}/"
        self.root.mkdir(parents=True)

    def make(self) -> Backend:
        return Keeping(DaosBackend("tank", self.name), self.place)

    def test_read_sees_what_a_file_holds_now(self) -> None:
        """Growth in place, which the contract has here, is seen by who asks for it."""
        url = self.url(self.seed({"f": b"before"}), "f")
        backend = self.make()
        assert backend.read(url) == b"before"
        self.alter(url, b"and after")
        assert backend.read_batch([ReadRequest(url)], verify_size=True)[0].data == b"and after"
        assert backend.read(url) == b"and after"

    def missing_container(self) -> tuple[Backend, str]:
        return Keeping(DaosBackend("tank", "missing"), self.place), "daos://tank/missing/a"


class Container:
    """Files in a container, their index, and how often the store was asked to open something."""

    def __init__(self, standin: StandIn, folder: Path, *, sizes: bool) -> None:
        self.standin = standin
        name = f"set{next(_containers)}"
        self.backend = DaosBackend("tank", name)
        self.url, self.root = f"daos://tank/{name}/", standin.root / "tank" / name / "d"
        self.root.mkdir(parents=True)
        self.contents = [bytes([number]) * (1000 + 5000 * number) for number in range(FILES)]
        for number, content in enumerate(self.contents):
            (self.root / f"{number:03}").write_bytes(content)
        self.path, self.sizes = folder / "index", sizes
        self.index = self.listed()
        standin.reset()

    def listed(self) -> FileIndex:
        if self.sizes:
            return FileIndex.build(f"{self.url}d/", self.path, handle_cache_bytes=0, resolve=self.resolve)
        return FileIndex.from_entries(map(self.url_of, range(FILES)), self.path)

    def resolve(self, _: str) -> Backend:
        return self.backend

    def load(self, source: Any = None, **options: Any) -> list[bytes]:
        """The contents, in order."""
        stage = LoadFiles(self.index if source is None else source, resolve=self.resolve, **options)
        stage.reset()
        contents = [data for _, data in stage]
        stage.close()
        return contents

    def url_of(self, number: int) -> str:
        return f"{self.url}d/{number:03}"

    def opens(self) -> int:
        """Since the last time."""
        count = sum(self.standin.count(name) for name in OPENS)
        self.standin.reset()
        return count


@pytest.fixture(params=[True, False], ids=["sizes", "no sizes"])
def container(standin: StandIn, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Container]:
    made = Container(standin, tmp_path, sizes=request.param)
    yield made
    del made.backend  # pytest holds on to the rest


@pytest.fixture(autouse=True)
def nothing_is_left(standin: StandIn) -> Iterator[None]:
    yield
    gc.collect()
    assert not standin.left()


def test_a_later_epoch_opens_nothing(container: Container) -> None:
    assert container.load() == container.contents
    assert container.opens() >= FILES
    for _ in range(2):
        assert container.load() == container.contents
        assert container.opens() == 0
    assert container.backend.stats()["handle_hits"] == 2 * FILES


@pytest.mark.parametrize("code", [errno.EAGAIN, errno.ENOMEM, errno.EINVAL])
def test_a_handle_that_cannot_be_used_is_no_loss(container: Container, code: int) -> None:
    """Whatever is said of it: the file is opened by path."""
    assert container.load() == container.contents
    container.standin.set("STANDIN_FAIL", f"dfs_obj_global2local:*={code}")
    assert container.load() == container.contents
    assert container.opens() >= FILES


def test_a_dataset_shares_what_a_loader_has_learnt(container: Container) -> None:
    files = pytest.importorskip("datapipes.datasets.files")
    assert container.load() == container.contents
    container.opens()
    for output in ("bytes", "bytearray", "tensor"):
        dataset = files.FileDataset(FileIndex.open(container.path), output=output, resolve=container.resolve)
        order = np.random.default_rng(0).permutation(FILES)
        found = [bytes(np.asarray(content)) for content in dataset.__getitems__(order)]
        assert found == [container.contents[row] for row in order]
    assert container.opens() == 0


def test_a_later_run_opens_nothing(container: Container) -> None:
    """Processes of their own, one after the other; the second finds what the first has left."""
    program = f"""
import ctypes, os
from datapipes.index import FileIndex
from datapipes.stages.load_files import LoadFiles
stage = LoadFiles(FileIndex.open({str(container.path)!r}))
stage.reset()
total = 0
for _, data in stage:
    total += len(data)
library = ctypes.CDLL(os.path.join(os.environ["DATAPIPES_LIBDFS_DIR"], "libdaos.so.2"))
library.standin_count.restype = ctypes.c_long
print(total, library.standin_count(b"dfs_lookup_rel"))
"""
    seen = []
    for _ in range(2):
        command = [sys.executable, "-c", program]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 0, done.stderr
        seen.append([int(number) for number in done.stdout.split()])
    total = sum(map(len, container.contents))
    assert seen[0][0] == seen[1][0] == total
    assert seen[0][1] >= FILES
    assert seen[1][1] == 0


def test_a_list_of_a_job_goes_with_its_handles(container: Container, tmp_path: Path) -> None:
    job = Job.at(tmp_path / "job")

    def build(path: Path) -> FileIndex:
        return FileIndex.build(container.url, path, handle_cache_bytes=0, resolve=container.resolve)

    assert container.load(job.shared_index("names", build, epoch=0)) == container.contents
    assert list(job.path.glob("*.handles"))
    job.shared_index("names", build, epoch=2)
    assert not list(job.path.glob("*.handles"))
    job.close()


def test_0_bytes_keep_nothing(container: Container) -> None:
    for _ in range(2):
        assert container.load(handle_cache_bytes=0) == container.contents
        assert container.opens() >= FILES
    assert os.listdir(container.index.path.parent) == [container.index.path.name]
    with pytest.raises(OptionError, match="handle_cache_bytes"):
        LoadFiles(container.index, handle_cache_bytes=-1)


def test_the_bound_holds(container: Container) -> None:
    bound = 1 << 14
    assert container.load(handle_cache_bytes=bound) == container.contents
    (table,) = set(container.index.path.parent.iterdir()) - {container.index.path}
    assert table.stat().st_size <= bound
    container.opens()
    assert container.load() == container.contents
    assert 0 < container.opens() < FILES


@pytest.mark.parametrize("place", ["a directory", "a file of others", "a read-only directory"])
def test_where_no_table_can_be_made_files_are_opened_by_path(container: Container, place: str) -> None:
    index = container.index.path
    table = index.with_name(index.name + ".handles")
    if place == "a directory":
        table.mkdir()
    elif place == "a file of others":
        table.write_text("theirs")
    elif os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    else:
        index.parent.chmod(0o500)
    for _ in range(2):
        assert container.load() == container.contents
        assert container.opens() >= FILES
    if place == "a file of others":
        assert table.read_text() == "theirs"
    index.parent.chmod(0o700)


def test_an_index_that_is_built_anew_begins_anew(container: Container) -> None:
    """The same names and sizes: renaming may have put other files in their places, which no handle shows."""
    assert container.load() == container.contents
    os.rename(container.root / "003", container.root.parent / "aside")
    (container.root / "003").write_bytes(b"?" * len(container.contents[3]))
    again = container.listed()
    assert again.fingerprint == container.index.fingerprint
    container.opens()
    assert container.load(again)[3] == b"?" * len(container.contents[3])
    assert container.opens() >= FILES


def test_a_file_that_was_removed_is_missing(container: Container) -> None:
    assert container.load() == container.contents
    (container.root / "007").unlink()
    with pytest.raises(FileMissingError, match="007"):
        container.load()
    stage = LoadFiles(container.index, on_error="skip", resolve=container.resolve)
    stage.reset()
    assert [data for _, data in stage] == container.contents[:7] + container.contents[8:]


@pytest.mark.parametrize("anew", [True, False], ids=["made anew", "in place"])
@pytest.mark.parametrize("change", ["same size", "shorter", "longer"])
def test_a_file_that_has_changed_is_read_as_it_is(container: Container, change: str, anew: bool) -> None:
    size = len(container.contents[7]) + {"same size": 0, "shorter": -10, "longer": 10}[change]
    told = container.sizes
    assert container.load() == container.contents
    path = container.root / "007"
    if anew:
        path.unlink()
    with open(path, "wb" if anew else "r+b") as file:
        file.write(b"!" * size)
        file.truncate(size)
    if told and change == "shorter":
        with pytest.raises(SizeMismatchError, match="007"):
            container.load()
    elif change != "longer" or anew:
        assert container.load()[7] == (b"!" * size)[: len(container.contents[7]) if told else size]
    if told and change != "same size":
        with pytest.raises(SizeMismatchError, match="007"):
            container.load(verify="size")
    else:
        assert container.load(verify="size")[7] == b"!" * size


def test_reads_without_an_index_keep_nothing(container: Container) -> None:
    names = [container.url_of(number) for number in range(FILES)]
    for _ in range(2):
        assert container.load(names) == container.contents
        assert container.opens() >= FILES
    backend = container.backend
    for _ in range(2):
        assert backend.read(names[3]) == container.contents[3]
        assert next(iter(backend.read_many([ReadRequest(names[4])]))).unwrap() == container.contents[4]
        assert container.opens() >= 2
