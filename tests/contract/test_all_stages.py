"""Every stage of ``datapipes.stages.__all__`` goes through the contract; a new one cannot opt out."""

from __future__ import annotations

import inspect
import io
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datapipes.stages
from datapipes.backends.base import Backend
from datapipes.backends.memory import MemoryBackend
from datapipes.backends.registry import backend_for
from datapipes.permutation import Permutation
from datapipes.records import FileEntry
from datapipes.stages import (
    IndexRows,
    ListFiles,
    ListSources,
    LoadFiles,
    ReadShards,
    ShardFiles,
    ShuffleFiles,
    Stage,
)
from datapipes.stages.state import State
from datapipes.testing.loading_contract import LoadingContract
from datapipes.testing.stage_contract import StageContract

COUNT = 13
PUBLIC = [getattr(datapipes.stages, name) for name in datapipes.stages.__all__]
STAGES = [c for c in PUBLIC if inspect.isclass(c) and issubclass(c, Stage) and not inspect.isabstract(c)]


class OverMemory(StageContract):
    """Thirteen files of known names and contents in a memory store; another store has one name changed."""

    @pytest.fixture(autouse=True)
    def stores(self, request: pytest.FixtureRequest) -> None:
        self.name = "stages-" + request.node.name.replace("[", "-").replace("]", "")
        for name, last in ((self.name, "file"), (f"{self.name}-other", "film")):
            backend = MemoryBackend(name)
            for i in range(COUNT):
                stem = last if i == COUNT - 1 else "file"
                backend.write(f"memory://{name}/d/{stem}{i:02}", f"content {i}".encode())

    @property
    def urls(self) -> list[str]:
        return [f"memory://{self.name}/d/file{i:02}" for i in range(COUNT)]

    @property
    def other_urls(self) -> list[str]:
        """One name has another last letter."""
        return [*self.urls[:-1], self.urls[-1] + "x"]

    def listed(self, suffix: str = "", **options: Any) -> ListFiles:
        return ListFiles(f"memory://{self.name}{suffix}/d", **options)

    def shuffled(self, epoch: int, seed: int = 0) -> list[str]:
        # The permutation has tests of its own; what counts here is who applies it to what.
        return [self.urls[i] for i in Permutation(COUNT, seed, epoch)(np.arange(COUNT))]


class TestListFiles(OverMemory):
    stage_type = ListFiles

    def make(self) -> Stage[Any]:
        return self.listed()

    def expected(self, epoch: int) -> list[Any]:
        return self.urls

    def others(self) -> Mapping[str, Stage[Any]]:
        return {"data": self.listed("-other")}


class TestListFilesEachEpochEntries(TestListFiles):
    def make(self) -> Stage[Any]:
        return self.listed(relist="epoch", entries=True)

    def expected(self, epoch: int) -> list[Any]:
        return [FileEntry(url, len(f"content {i}")) for i, url in enumerate(self.urls)]


class TestIndexRows(OverMemory):
    stage_type = IndexRows

    def make(self) -> Stage[Any]:
        return IndexRows(self.urls)

    def expected(self, epoch: int) -> list[Any]:
        return self.urls

    def others(self) -> Mapping[str, Stage[Any]]:
        return {"data": IndexRows(self.other_urls), "fewer": IndexRows(self.urls[:-1])}


class Folders:
    """Sources that know their own names: every other file of a store."""

    def __init__(self, urls: list[str]) -> None:
        self.halves = [tuple(urls[::2]), tuple(urls[1::2])]

    def __iter__(self) -> Iterator[tuple[str, ...]]:
        return iter(self.halves)


class TestListSources(OverMemory):
    stage_type = ListSources

    def make(self) -> Stage[Any]:
        return ListSources(Folders(self.urls), expand=iter)

    def expected(self, epoch: int) -> list[Any]:
        return [*self.urls[::2], *self.urls[1::2]]

    def others(self) -> Mapping[str, Stage[Any]]:
        return {"data": ListSources(Folders(self.other_urls), expand=iter), "pipeline": IndexRows(self.urls)}


class TestShuffleFiles(OverMemory):
    stage_type = ShuffleFiles

    def make(self) -> Stage[Any]:
        return ShuffleFiles(self.listed(), seed=3)

    def expected(self, epoch: int) -> list[Any]:
        return self.shuffled(epoch, seed=3)

    def others(self) -> Mapping[str, Stage[Any]]:
        return {
            "data": ShuffleFiles(self.listed("-other"), seed=3),
            "seed": ShuffleFiles(self.listed(), seed=4),
            "pipeline": self.listed(),
            "source": ShuffleFiles(IndexRows(self.urls), seed=3),
        }


class TestShardFiles(OverMemory):
    stage_type = ShardFiles

    def make(self) -> Stage[Any]:
        return self.sharded()

    def sharded(self, **changes: Any) -> ShardFiles:
        options = {"rank": 1, "world_size": 2, "worker": 0, "num_workers": 2, "uneven": "keep", **changes}
        return ShardFiles(ShuffleFiles(self.listed()), **options)

    def expected(self, epoch: int) -> list[Any]:
        return self.shuffled(epoch)[1::2][0::2]

    def others(self) -> Mapping[str, Stage[Any]]:
        return {
            "rank": self.sharded(rank=0),
            "world size": self.sharded(world_size=3),
            "worker": self.sharded(worker=1),
            "number of workers": self.sharded(num_workers=1),
            "uneven": self.sharded(uneven="pad"),
            "contiguous": self.sharded(contiguous=True),
            "data": ShardFiles(
                ShuffleFiles(self.listed("-other")), rank=1, world_size=2, worker=0, num_workers=2
            ),
        }


class TestShardFilesContiguous(OverMemory):
    stage_type = ShardFiles

    def make(self) -> Stage[Any]:
        # 13 names are 6 for rank 1; its four workers have 2, 2, 2 and none of them.
        return ShardFiles(
            ShuffleFiles(self.listed()), rank=1, world_size=2, worker=1, num_workers=4, contiguous=True
        )

    def expected(self, epoch: int) -> list[Any]:
        return self.shuffled(epoch)[1::2][2:4]


class TestShardFilesPaddedBeyondTheirNumber(OverMemory):
    stage_type = ShardFiles

    def make(self) -> Stage[Any]:
        # 13 names padded to 2 ranks are 7 each; the two workers of rank 1 have 4 and 3 of them.
        return ShardFiles(self.urls, rank=1, world_size=2, worker=0, num_workers=2, uneven="pad")

    def expected(self, epoch: int) -> list[Any]:
        return [*self.urls, self.urls[0]][1::2][0::2]


class LoadingOverMemory(OverMemory, LoadingContract):
    stage_type = LoadFiles

    def store(self, url: str) -> Backend:
        return backend_for(url)

    def with_content(self, urls: list[str]) -> list[Any]:
        return [(url, f"content {self.urls.index(url)}".encode()) for url in urls]

    def expected(self, epoch: int) -> list[Any]:
        return self.with_content(self.shuffled(epoch))


class TestLoadFiles(LoadingOverMemory):
    def load(self, resolve: Callable[[str], Backend], **options: Any) -> Stage[Any]:
        return LoadFiles(ShuffleFiles(self.listed()), resolve=resolve, **{"max_in_flight": 4, **options})

    def others(self) -> Mapping[str, Stage[Any]]:
        return {
            "data": LoadFiles(ShuffleFiles(self.listed("-other"))),
            "seed": LoadFiles(ShuffleFiles(self.listed(), seed=1)),
            "source": LoadFiles(self.shuffled(0)),
        }


class TestLoadFilesUnordered(LoadingOverMemory):
    ordered = False
    state_growth = 200

    def load(self, resolve: Callable[[str], Backend], **options: Any) -> Stage[Any]:
        options = {"max_in_flight": 4, **options, "ordered": False}
        return LoadFiles(ShuffleFiles(self.listed()), resolve=resolve, **options)

    def check_items(self, items: list[Any], expected: list[Any]) -> None:
        assert sorted(items) == sorted(expected)


class LocalFiles(OverMemory):
    """The same files in a directory, read by the native engine."""

    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path) -> None:
        self.folder = tmp_path
        for i in range(COUNT):
            (tmp_path / f"file{i:02}").write_bytes(f"content {i}".encode())

    @property
    def urls(self) -> list[str]:
        return [f"file://{self.folder}/file{i:02}" for i in range(COUNT)]

    def listed(self, suffix: str = "", **options: Any) -> ListFiles:
        return ListFiles(str(self.folder), **options)


class TestLoadFilesLocal(LocalFiles, LoadingOverMemory):
    def load(self, resolve: Callable[[str], Backend], **options: Any) -> Stage[Any]:
        return LoadFiles(ShuffleFiles(self.listed()), resolve=resolve, **{"max_in_flight": 4, **options})


class TestLoadFilesByEngine(LocalFiles):
    """Without a probe between: the engine's own readers are closed, dropped, and shared by threads."""

    stage_type = LoadFiles

    def make(self) -> Stage[Any]:
        return LoadFiles(ShuffleFiles(self.listed()), max_in_flight=4, ordered=self.ordered)

    def expected(self, epoch: int) -> list[Any]:
        return [(url, f"content {int(url[-2:])}".encode()) for url in self.shuffled(epoch)]


class TestLoadFilesByEngineUnordered(TestLoadFilesByEngine):
    ordered = False
    state_growth = 200

    def check_items(self, items: list[Any], expected: list[Any]) -> None:
        assert sorted(items) == sorted(expected)


class TestLoadFilesOverList(LoadingOverMemory):
    def load(self, resolve: Callable[[str], Backend], **options: Any) -> Stage[Any]:
        return LoadFiles(self.urls, resolve=resolve, **{"max_in_flight": 4, **options})

    def expected(self, epoch: int) -> list[Any]:
        return self.with_content(self.urls)

    def others(self) -> Mapping[str, Stage[Any]]:
        return {"source": LoadFiles(self.listed())}


class TestLoadFilesOverNode(LoadingOverMemory):
    """A source with a state of its own, in the protocol of torchdata's nodes."""

    def load(self, resolve: Callable[[str], Backend], **options: Any) -> Stage[Any]:
        return LoadFiles(Node(self.urls), resolve=resolve, **{"max_in_flight": 4, **options})

    def expected(self, epoch: int) -> list[Any]:
        return self.with_content(Node.order(self.urls, epoch))

    def others(self) -> Mapping[str, Stage[Any]]:
        return {"source": LoadFiles(self.urls)}


class TestLoadFilesOverNodeUnordered(TestLoadFilesUnordered):
    def load(self, resolve: Callable[[str], Backend], **options: Any) -> Stage[Any]:
        options = {"max_in_flight": 4, **options, "ordered": False}
        return LoadFiles(Node(self.urls), resolve=resolve, **options)

    def expected(self, epoch: int) -> list[Any]:
        return self.with_content(self.urls)


class ShardsOverMemory(OverMemory):
    """Shards in a memory store; another store has one name changed."""

    counts: tuple[int, ...] = (2, 2, 2, 2, 2, 2, 1)
    """Members of each shard: blocks of 512 bytes, one for the header and one for the data."""

    @pytest.fixture(autouse=True)
    def shards(self, stores: None) -> None:
        self.names = [f"shard{i}.tar" for i in range(len(self.counts))]
        for name, last in ((self.name, self.names[-1]), (f"{self.name}-other", "shardx.tar")):
            for i, shard in enumerate([*self.names[:-1], last]):
                MemoryBackend(name).write(f"memory://{name}/shards/{shard}", self.packed(i))

    def members(self, shard: int) -> list[tuple[str, bytes]]:
        return [(f"{shard}/{i}.txt", f"content {i} of {shard}".encode()) for i in range(self.counts[shard])]

    def packed(self, shard: int) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for name, data in self.members(shard):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
            end = archive.offset + 512  # an end marker as short as there can be
        return buffer.getvalue()[:end]

    def shard_list(self, suffix: str = "") -> ListFiles:
        return ListFiles(f"memory://{self.name}{suffix}/shards")

    @property
    def shard_urls(self) -> list[str]:
        return [f"memory://{self.name}/shards/{name}" for name in self.names]

    def with_members(self, urls: list[str]) -> list[Any]:
        return [
            (f"{url}?archpath={name}", data)
            for url in urls
            for name, data in self.members(self.shard_urls.index(url))
        ]

    def shuffled_shards(self, epoch: int) -> list[str]:
        count = len(self.counts)
        return [self.shard_urls[i] for i in Permutation(count, 0, epoch)(np.arange(count))]

    def expected(self, epoch: int) -> list[Any]:
        return self.with_members(self.shuffled_shards(epoch))


class TestReadShards(ShardsOverMemory, LoadingContract):
    """Three blocks a read: every read brings one member, a shard's last read with the end marker too."""

    stage_type = ReadShards

    def store(self, url: str) -> Backend:
        return backend_for(url)

    def load(
        self, resolve: Callable[[str], Backend], *, max_in_flight: int = 4, ordered: bool = True
    ) -> Stage[Any]:
        # There is one order only, which is one of those that ordered=False may give.
        source = ShuffleFiles(self.shard_list())
        return ReadShards(source, resolve=resolve, max_in_flight=max_in_flight, chunk_bytes=1536)

    def others(self) -> Mapping[str, Stage[Any]]:
        return {
            "data": ReadShards(ShuffleFiles(self.shard_list("-other"))),
            "seed": ReadShards(ShuffleFiles(self.shard_list(), seed=1)),
            "source": ReadShards(self.shuffled_shards(0)),
            "pipeline": LoadFiles(ShuffleFiles(self.shard_list())),
        }


class TestReadShardsOverList(ShardsOverMemory):
    """Names without sizes; a read is smaller than a header, and then larger than a shard."""

    stage_type = ReadShards
    counts: tuple[int, ...] = (1, 4, 0, 3)
    chunk_bytes = 100

    def make(self) -> Stage[Any]:
        return ReadShards(self.shard_urls, chunk_bytes=self.chunk_bytes, max_in_flight=3)

    def expected(self, epoch: int) -> list[Any]:
        return self.with_members(self.shard_urls)

    def others(self) -> Mapping[str, Stage[Any]]:
        return {"source": ReadShards(self.shard_list())}


class TestReadShardsOverListAtOnce(TestReadShardsOverList):
    chunk_bytes = 1 << 20


class TestReadShardsOverNode(TestReadShardsOverList):
    counts = (3, 0, 5)
    chunk_bytes = 1000

    def make(self) -> Stage[Any]:
        return ReadShards(Node(self.shard_urls), chunk_bytes=self.chunk_bytes)

    def expected(self, epoch: int) -> list[Any]:
        return self.with_members(Node.order(self.shard_urls, epoch))

    def others(self) -> Mapping[str, Stage[Any]]:
        return {"source": ReadShards(self.shard_urls)}


class TestReadShardsByEngine(ShardsOverMemory):
    """The same shards in a directory, read by the native engine."""

    stage_type = ReadShards
    counts = (5, 8, 2)

    @pytest.fixture(autouse=True)
    def files(self, tmp_path: Path, shards: None) -> None:
        self.folder = tmp_path
        for i, name in enumerate(self.names):
            (tmp_path / name).write_bytes(self.packed(i))

    @property
    def shard_urls(self) -> list[str]:
        return [f"file://{self.folder}/{name}" for name in self.names]

    def make(self) -> Stage[Any]:
        return ReadShards(ShuffleFiles(ListFiles(str(self.folder))), chunk_bytes=2000, max_in_flight=4)


class Node:
    """As torchdata's nodes do it, a state from after the end has an empty rest; its order turns by epochs."""

    def __init__(self, names: list[str]) -> None:
        self.names, self.epoch, self.at, self.begun = names, 0, 0, False
        self.pending: int | None = None

    def __reduce__(self) -> Any:
        return Node, (self.names,)

    @staticmethod
    def order(names: list[str], epoch: int) -> list[str]:
        turn = 3 * epoch % len(names)
        return names[turn:] + names[:turn]

    def __iter__(self) -> Iterator[str]:
        return self

    def set_epoch(self, epoch: int) -> None:
        self.pending = epoch

    def reset(self, state: State | None = None) -> None:
        if state is not None:
            self.epoch, self.at, self.begun, self.pending = state["epoch"], state["at"], True, None
            return
        self.epoch = self.epoch + self.begun if self.pending is None else self.pending
        self.at, self.begun, self.pending = 0, True, None

    def __next__(self) -> str:
        if self.at >= len(self.names):
            raise StopIteration
        self.at += 1
        return self.order(self.names, self.epoch)[self.at - 1]

    def get_state(self) -> State:
        return {"epoch": self.epoch if self.pending is None or self.begun else self.pending, "at": self.at}


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.__name__)
def test_stage_is_under_contract(stage: type[Stage[Any]]) -> None:
    suites = [v for v in globals().values() if inspect.isclass(v) and v.__name__.startswith("Test")]
    assert any(getattr(suite, "stage_type", None) is stage for suite in suites)


def test_every_module_with_a_stage_is_public() -> None:
    assert set(_all_concrete(Stage)) == set(STAGES)


def _all_concrete(cls: type[Any]) -> Iterator[type[Any]]:
    for sub in cls.__subclasses__():
        if sub.__module__.startswith("datapipes.stages") and not inspect.isabstract(sub):
            yield sub
        yield from _all_concrete(sub)
