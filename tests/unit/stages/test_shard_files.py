"""``ShardFiles``: every name on one rank and worker, whatever their numbers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapipes.errors import OptionError
from datapipes.index import FileIndex
from datapipes.stages import IndexRows, ShardFiles, ShuffleFiles

NAMES = [f"memory://x/{i:03}" for i in range(41)]


@pytest.fixture(scope="module")
def indexes(tmp_path_factory: pytest.TempPathFactory) -> dict[int, FileIndex]:
    """An index of n names for every n that is tried."""
    folder = tmp_path_factory.mktemp("shards")
    return {n: FileIndex.from_entries(NAMES[:n], folder / str(n)) for n in range(len(NAMES))}


def parts(index: FileIndex, world_size: int, num_workers: int, uneven: Any) -> list[list[list[str]]]:
    """The names of each worker of each rank."""
    return [
        [
            list(
                ShardFiles(
                    index,
                    rank=rank,
                    world_size=world_size,
                    worker=worker,
                    num_workers=num_workers,
                    uneven=uneven,
                )
            )
            for worker in range(num_workers)
        ]
        for rank in range(world_size)
    ]


SHAPES = given(n=st.integers(0, 40), world_size=st.integers(1, 9), num_workers=st.integers(1, 5))


def interleaved(lists: list[list[str]]) -> list[str]:
    """One of each in turn, as a DataLoader takes from its workers."""
    longest = max(map(len, lists))
    return [names[k] for k in range(longest) for names in lists if k < len(names)]


@SHAPES
def test_keep_gives_every_name_once(
    indexes: dict[int, FileIndex], n: int, world_size: int, num_workers: int
) -> None:
    ranks = [interleaved(workers) for workers in parts(indexes[n], world_size, num_workers, "keep")]
    assert interleaved(ranks) == NAMES[:n]  # in the source's order, taken in turn from ranks and workers
    assert max(map(len, ranks)) - min(map(len, ranks)) <= 1


@SHAPES
def test_pad_repeats_from_the_start_until_ranks_are_equal(
    indexes: dict[int, FileIndex], n: int, world_size: int, num_workers: int
) -> None:
    ranks = [interleaved(workers) for workers in parts(indexes[n], world_size, num_workers, "pad")]
    length = -(-n // world_size)
    assert [len(rank) for rank in ranks] == [length] * world_size
    assert interleaved(ranks) == (NAMES[:n] * (world_size + 1))[: length * world_size]


@SHAPES
def test_contiguous_parts_of_workers_follow_each_other(
    indexes: dict[int, FileIndex], n: int, world_size: int, num_workers: int
) -> None:
    for rank in range(world_size):
        parts = [
            list(
                ShardFiles(
                    indexes[n],
                    rank=rank,
                    world_size=world_size,
                    worker=worker,
                    num_workers=num_workers,
                    contiguous=True,
                )
            )
            for worker in range(num_workers)
        ]
        wanted = NAMES[:n][rank::world_size]
        assert [name for part in parts for name in part] == wanted
        longest = -(-len(wanted) // num_workers)
        full = len(wanted) // longest if longest else 0
        assert [len(part) for part in parts[:full]] == [longest] * full


@SHAPES
def test_drop_leaves_out_the_last_until_ranks_are_equal(
    indexes: dict[int, FileIndex], n: int, world_size: int, num_workers: int
) -> None:
    ranks = [interleaved(workers) for workers in parts(indexes[n], world_size, num_workers, "drop")]
    assert interleaved(ranks) == NAMES[: n // world_size * world_size]


def test_workers_of_a_rank_differ_by_one_at_most() -> None:
    for worker_parts in parts_of_forty():
        assert max(map(len, worker_parts)) - min(map(len, worker_parts)) <= 1


def parts_of_forty() -> list[list[list[str]]]:
    return [
        [list(ShardFiles(NAMES, rank=r, world_size=2, worker=w, num_workers=3)) for w in range(3)]
        for r in range(2)
    ]


def test_more_workers_than_files_leaves_some_empty(indexes: dict[int, FileIndex]) -> None:
    lists = parts(indexes[2], 1, 5, "keep")[0]
    assert [len(names) for names in lists] == [1, 1, 0, 0, 0]


def test_length_and_ids_agree_with_items(indexes: dict[int, FileIndex]) -> None:
    stage = ShardFiles(indexes[13], rank=1, world_size=3, worker=1, num_workers=2)
    assert [NAMES[i] for i in stage.ids(0, len(stage))] == list(stage) == [NAMES[4], NAMES[10]]
    with pytest.raises(OptionError):
        stage.ids(0, 3)


def test_shards_of_a_shuffle_are_cut_from_one_order() -> None:
    whole = list(ShuffleFiles(NAMES, seed=5))
    halves = [list(ShardFiles(ShuffleFiles(NAMES, seed=5), rank=r, world_size=2)) for r in range(2)]
    assert interleaved(halves) == whole


def test_shuffle_of_a_shard_stays_in_the_shard() -> None:
    stage = ShuffleFiles(ShardFiles(NAMES, rank=1, world_size=2))
    first = list(stage)
    stage.reset()
    second = list(stage)
    assert sorted(first) == sorted(second) == NAMES[1::2]
    assert first != second


@pytest.mark.parametrize(
    "options",
    [
        {"rank": 2, "world_size": 2},
        {"rank": -1, "world_size": 2},
        {"rank": True, "world_size": 2},
        {"rank": 0, "world_size": 0},
        {"rank": 0.0, "world_size": 1},
        {"worker": 1},
        {"worker": -1, "num_workers": 3},
        {"num_workers": 0},
        {"num_workers": "2"},
        {"rank": 0, "world_size": 1 << 63},
        {"num_workers": 1 << 63},
        {"uneven": "even"},
        {"uneven": None},
    ],
)
def test_absurd_options_are_refused_when_made(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        ShardFiles(NAMES, **options)


def test_source_that_is_none_is_refused() -> None:
    with pytest.raises(OptionError):
        ShardFiles(5)  # type: ignore[arg-type]


def test_entries_pass_through() -> None:
    stage = ShardFiles(IndexRows(NAMES, entries=True), rank=1, world_size=2)
    assert [entry.url for entry in stage] == NAMES[1::2]
