"""Every stage of ``datapipes.stages.__all__`` goes through the contract; a new one cannot opt out."""

from __future__ import annotations

import inspect
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
from datapipes.stages import IndexRows, ListFiles, LoadFiles, ShardFiles, ShuffleFiles, Stage
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
            "data": ShardFiles(
                ShuffleFiles(self.listed("-other")), rank=1, world_size=2, worker=0, num_workers=2
            ),
        }


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
