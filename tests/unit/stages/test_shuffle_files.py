"""``ShuffleFiles``: a full permutation, the same everywhere, another one in each epoch."""

from __future__ import annotations

import random
from typing import Any

import pytest

from datapipes.errors import OptionError, UrlError
from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.records import FileEntry
from datapipes.stages import ListFiles, ShuffleFiles
from datapipes.stages.indexed import BLOCK

COUNT = 2 * BLOCK + BLOCK // 2
NAMES = [f"memory://x/{i:06}" for i in range(COUNT)]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> FileIndex:
    return FileIndex.from_entries(NAMES, tmp_path_factory.mktemp("shuffle") / "index")


def epochs(stage: ShuffleFiles, count: int) -> list[list[str]]:
    orders = []
    for _ in range(count):
        stage.reset()
        orders.append(list(stage))
    return orders


def test_every_epoch_is_another_whole_permutation(index: FileIndex) -> None:
    orders = epochs(ShuffleFiles(index), 4)
    assert all(sorted(order) == NAMES for order in orders)
    assert len({tuple(order) for order in orders}) == 4


def test_names_from_everywhere_come_early(index: FileIndex) -> None:
    # Torch's shuffle with its buffer draws the first items from the first names only.
    first = next(iter(epochs(ShuffleFiles(index), 1)))[: COUNT // 10]
    tenths = [sum(int(url[-6:]) * 10 // COUNT == tenth for url in first) for tenth in range(10)]
    assert min(tenths) > COUNT // 200


def test_order_follows_from_names_seed_and_epoch_alone(index: FileIndex) -> None:
    random.seed(1)
    first = epochs(ShuffleFiles(index, seed=7), 3)
    random.seed(2)
    again = ShuffleFiles(index, seed=7)
    again.set_epoch(2)
    assert list(again) == first[2]
    assert epochs(ShuffleFiles(NAMES, seed=7), 3) == first
    assert epochs(ShuffleFiles(index, seed=8), 1)[0] != first[0]


@pytest.mark.parametrize("position", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, COUNT - 1, COUNT])
def test_resume_at_block_borders(index: FileIndex, position: int) -> None:
    stage = ShuffleFiles(index)
    stage.reset()
    whole = [next(stage) for _ in range(position)]
    state = stage.get_state()
    assert state["position"] == position
    resumed = ShuffleFiles(index)
    resumed.reset(state)
    assert whole + list(resumed) == epochs(ShuffleFiles(index), 1)[0]


def test_list_of_names_is_indexed_once_for_the_job() -> None:
    job, passes = Job.current(), []

    class Names:
        def __iter__(self) -> Any:
            passes.append(1)
            return iter(NAMES[:20])

    ordinal = job.next_ordinal()
    stages = [ShuffleFiles(Names(), job=job, ordinal=ordinal) for _ in range(3)]
    assert len({tuple(stage) for stage in stages}) == 1
    assert len(passes) == 1
    assert sorted(ShuffleFiles(Names())) == NAMES[:20]  # another stage of the pipeline has its own
    assert len(passes) == 2


def test_different_lists_at_one_place_are_told_apart() -> None:
    # Two processes whose lists differ must not share an index, even by mistake.
    job = Job.current()
    ordinal = job.next_ordinal()
    for names in (NAMES[:5], NAMES[5:10]):
        assert sorted(ShuffleFiles(names, job=job, ordinal=ordinal)) == names


def test_one_url_is_one_name() -> None:
    assert list(ShuffleFiles("memory://x/one")) == ["memory://x/one"]


def test_no_names_no_items() -> None:
    stage = ShuffleFiles([])
    assert [list(stage), len(stage)] == [[], 0]
    stage.reset(stage.get_state())
    assert list(stage) == []


def test_entries_of_a_lister_pass_through(store: Any) -> None:
    urls = store.fill(5)
    entries = sorted(ShuffleFiles(ListFiles(f"{store.root}/d", entries=True)))
    assert entries == [FileEntry(url, 18) for url in urls]


@pytest.mark.parametrize("seed", [-1, True, 1.0, "0", None])
def test_absurd_seed_is_refused_when_made(seed: Any) -> None:
    with pytest.raises(OptionError):
        ShuffleFiles(NAMES, seed=seed)


def test_item_that_is_no_name_is_named() -> None:
    with pytest.raises(UrlError, match=r"7 \(int\) at position 1"):
        list(ShuffleFiles(iter(["memory://x/a", 7])))  # type: ignore[arg-type]


def test_length_is_that_of_the_source(index: FileIndex) -> None:
    stage = ShuffleFiles(index)
    assert len(stage) == COUNT
    assert stage.index() is index
    assert sorted(stage.ids(0, COUNT)) == list(range(COUNT))
