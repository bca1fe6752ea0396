"""``shard_files`` under each way in which an executor tells a ShardingFilter its part."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any, Literal

import pytest
from torch.utils.data import DataLoader, IterableDataset, IterDataPipe
from torch.utils.data.datapipes.iter.sharding import SHARDING_PRIORITIES
from torch.utils.data.graph_settings import apply_sharding

from datapipes.errors import OptionError
from datapipes.index import FileIndex
from datapipes.iter import FileSharder, IterableWrapper
from datapipes.iter.shard_files import Share, deal
from datapipes.stages.shard_files import ShardFiles

NAMES = [f"/data/{i:02}" for i in range(11)]


class Names(IterDataPipe[str]):
    """A pipe that is not ours, of which no index may be made."""

    def __init__(self, names: list[str]) -> None:
        self.names = names

    def __iter__(self) -> Iterator[str]:
        yield from self.names


SOURCES: dict[str, Callable[[], Any]] = {
    "a list": lambda: IterableWrapper(NAMES),
    "a pipe": lambda: Names(NAMES),
}


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "PMI_RANK", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("source", SOURCES)
def test_the_default_group_deals_as_torchs_filter_does(source: str) -> None:
    for instance in range(4):
        ours, torchs = SOURCES[source]().shard_files(), SOURCES[source]().sharding_filter()
        for pipe in (ours, torchs):
            apply_sharding(pipe, 4, instance)
        assert list(ours) == list(torchs)


@pytest.mark.parametrize("source", SOURCES)
def test_dataloader2s_groups_deal_each_name_once(source: str) -> None:
    delivered = []
    for rank in range(2):
        for worker in range(3):
            dp = SOURCES[source]().shard_files()
            apply_sharding(dp, 2, rank, SHARDING_PRIORITIES.DISTRIBUTED)
            apply_sharding(dp, 3, worker, SHARDING_PRIORITIES.MULTIPROCESSING)
            delivered += list(dp)
    assert sorted(delivered) == NAMES


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("uneven", "length"), [("pad", 4), ("drop", 3)])
def test_ranks_are_equal_and_workers_split_their_rank(
    source: str, uneven: Literal["keep", "pad", "drop"], length: int
) -> None:
    for rank in range(3):
        whole = list(SOURCES[source]().shard_files(rank=rank, world_size=3, uneven=uneven))
        assert len(whole) == length
        parts = []
        for worker in range(2):
            dp = SOURCES[source]().shard_files(rank=rank, world_size=3, uneven=uneven)
            apply_sharding(dp, 2, worker, SHARDING_PRIORITIES.MULTIPROCESSING)
            parts += list(dp)
        assert sorted(parts) == sorted(whole)


def test_ranks_given_by_hand_stand_against_the_executors() -> None:
    dp = IterableWrapper(NAMES).shard_files(rank=0, world_size=2)
    apply_sharding(dp, 4, 3, SHARDING_PRIORITIES.DISTRIBUTED)
    assert list(dp) == NAMES[::2]


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "2"},
        {"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"},
        {"PMI_RANK": "1", "PMI_SIZE": "2"},
    ],
)
def test_ranks_of_the_launcher_count_unless_the_executor_knows_them(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert list(IterableWrapper(NAMES).shard_files()) == NAMES[1::2]
    alone = IterableWrapper(NAMES).shard_files()
    apply_sharding(alone, 1, 0)  # DataLoader, where torch.distributed is not initialised
    assert list(alone) == NAMES[1::2]
    told = IterableWrapper(NAMES).shard_files()
    apply_sharding(told, 3, 0)  # DataLoader, where it is
    assert list(told) == NAMES[::3]


def test_sharding_twice_is_refused() -> None:
    with pytest.raises(RuntimeError, match="Sharding twice"):
        apply_sharding(IterableWrapper(NAMES).shard_files().shard_files(), 2, 0)


@pytest.mark.parametrize("uneven", ["keep", "pad", "drop"])
@pytest.mark.parametrize("count", [0, 1, 2, 5, 6, 8])
def test_dealing_as_names_come_is_dealing_by_index(
    count: int, uneven: Literal["keep", "pad", "drop"]
) -> None:
    index = FileIndex.from_entries(NAMES[:count])
    for world_size, num_workers in product((1, 2, 3, 5), (1, 2, 3)):
        for rank, worker in product(range(world_size), range(num_workers)):
            share = Share(rank, world_size, worker, num_workers)
            stage = ShardFiles(index, **share._asdict(), uneven=uneven)
            assert list(deal(NAMES[:count], share, uneven)) == list(stage), share


def test_a_sharder_keeps_the_order_of_each_epoch_of_a_pipe_that_is_not_ours() -> None:
    dp = FileSharder(IterableWrapper(NAMES).shuffle())
    first, second = list(dp), list(dp)
    assert sorted(first) == sorted(second) == NAMES
    assert first != second


class Hidden(IterableDataset[str]):
    """A dataset of the user's, in which no executor sees the pipe."""

    def __init__(self, pipe: IterDataPipe[str]) -> None:
        self.pipe = pipe

    def __iter__(self) -> Iterator[str]:
        yield from self.pipe


@pytest.mark.parametrize("source", SOURCES)
def test_a_pipe_inside_another_dataset_is_split_over_workers_all_the_same(source: str) -> None:
    loader = DataLoader(
        Hidden(SOURCES[source]().shard_files()),
        batch_size=None,
        num_workers=2,
        multiprocessing_context="fork",
    )
    assert sorted(loader) == NAMES


def test_names_split_before_shuffle_files_are_refused_unless_the_shuffle_can_tell() -> None:
    with pytest.raises(OptionError, match="first"):
        IterableWrapper(NAMES).sharding_filter().shuffle_files()
    with pytest.raises(OptionError, match="first"):
        IterableWrapper(NAMES).shard_files().map(str).shuffle_files()
    halves = [list(FileSharder(NAMES, rank=rank, world_size=2).shuffle_files()) for rank in range(2)]
    assert sorted(halves[0] + halves[1]) == NAMES
