"""The contracts on a real DAOS: pool ``DAOS_POOL``, container ``DAOS_CONT``. Not reaching it is a failure.

All of it happens in one new folder there, which is removed at the end.
"""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

from datapipes.backends.base import Backend
from datapipes.backends.daos import DaosBackend
from datapipes.stages import ListFiles, LoadFiles, ReadShards, ShuffleFiles, Stage
from datapipes.testing.backend_contract import BackendContract
from datapipes.urls import parse_url, quote_name

from . import test_all_stages as stages
from .dfs_hands import Hands

POOL, CONTAINER = os.environ.get("DAOS_POOL", ""), os.environ.get("DAOS_CONT", "")

pytestmark = pytest.mark.daos

if not (POOL or CONTAINER):
    pytest.skip("DAOS_POOL and DAOS_CONT name no container", allow_module_level=True)

_places = itertools.count()


class Folder:
    """The folder of this run. Names are raw, below it."""

    def __init__(self) -> None:
        named = f"DAOS_POOL={POOL!r} and DAOS_CONT={CONTAINER!r}"
        if not (POOL and CONTAINER):
            pytest.fail(f"both are needed, and not only one of {named}", pytrace=False)
        self.name = f"datapipes-contract-{uuid.uuid4().hex[:12]}"
        self.url = f"daos://{POOL}/{CONTAINER}/{self.name}"
        try:
            self.hands = Hands(POOL, CONTAINER)
        except OSError as error:
            pytest.fail(f"{named} are set, and cannot be reached: {error}", pytrace=False)
        self.hands.write_all({f"{self.name}/": b""})

    def fill(self, files: Mapping[str, bytes]) -> str:
        """A new directory with these files: its name."""
        place = f"place{next(_places)}"
        self.hands.write_all(
            {f"{self.name}/{place}/{name}": data for name, data in {"": b"", **files}.items()}
        )
        return place

    def close(self) -> None:
        self.hands.remove(self.name, everything=True)
        self.hands.close()


@pytest.fixture(scope="module")
def folder() -> Iterator[Folder]:
    made = Folder()
    yield made
    made.close()


class OnPool:
    folder: Folder

    @pytest.fixture(autouse=True)
    def daos(self, folder: Folder, fresh_forkserver: None) -> None:
        self.folder = folder


class TestDaosPoolBackend(OnPool, BackendContract):
    def make(self) -> Backend:
        return DaosBackend(POOL, CONTAINER)

    def seed(self, files: Mapping[str, bytes]) -> str:
        return f"{self.folder.url}/{quote_name(self.folder.fill(files))}"

    def alter(self, url: str, data: bytes | None) -> None:
        path = parse_url(url).path
        if data is None:
            self.folder.hands.remove(path)
        else:
            self.folder.hands.write(path, data)

    def peek(self, url: str) -> bytes | None:
        return self.folder.hands.read(parse_url(url).path)

    def missing_container(self) -> tuple[Backend, str]:
        name = f"never-made-{uuid.uuid4().hex[:8]}"
        return DaosBackend(POOL, name), f"daos://{POOL}/{name}/a"


class FilesOnPool(OnPool, stages.OverMemory):
    """Thirteen files on the pool."""

    @pytest.fixture(autouse=True)
    def files(self, daos: None) -> None:
        contents = {f"file{i:02}": f"content {i}".encode() for i in range(stages.COUNT)}
        self.url = f"{self.folder.url}/{self.folder.fill(contents)}"

    @property
    def urls(self) -> list[str]:
        return [f"{self.url}/file{i:02}" for i in range(stages.COUNT)]

    def listed(self, suffix: str = "", **options: Any) -> ListFiles:
        return ListFiles(self.url, **options)


class TestListFilesOnPool(FilesOnPool):
    stage_type = ListFiles

    def make(self) -> Stage[Any]:
        return self.listed()

    def expected(self, epoch: int) -> list[Any]:
        return self.urls


class TestLoadFilesOnPool(FilesOnPool, stages.LoadingOverMemory):
    def load(self, resolve: Callable[[str], Backend], **options: Any) -> Stage[Any]:
        return LoadFiles(ShuffleFiles(self.listed()), resolve=resolve, **{"max_in_flight": 4, **options})


class TestLoadFilesOnPoolByEngine(FilesOnPool):
    """Without a probe between, and so with handles that are kept."""

    stage_type = LoadFiles

    def make(self) -> Stage[Any]:
        return LoadFiles(ShuffleFiles(self.listed()), max_in_flight=4, ordered=self.ordered)

    def expected(self, epoch: int) -> list[Any]:
        return [(url, f"content {int(url[-2:])}".encode()) for url in self.shuffled(epoch)]


class TestLoadFilesOnPoolByEngineUnordered(TestLoadFilesOnPoolByEngine):
    ordered = False
    state_growth = 200

    def check_items(self, items: list[Any], expected: list[Any]) -> None:
        assert sorted(items) == sorted(expected)


class TestReadShardsOnPool(OnPool, stages.ShardsOverMemory):
    stage_type = ReadShards
    counts = (5, 8, 2)

    @pytest.fixture(autouse=True)
    def files(self, daos: None, shards: None) -> None:
        packed = {name: self.packed(i) for i, name in enumerate(self.names)}
        self.url = f"{self.folder.url}/{self.folder.fill(packed)}"

    @property
    def shard_urls(self) -> list[str]:
        return [f"{self.url}/{name}" for name in self.names]

    def make(self) -> Stage[Any]:
        return ReadShards(ShuffleFiles(ListFiles(self.url)), chunk_bytes=2000, max_in_flight=4)
