"""``.resumable()`` under StatefulDataLoader: stop anywhere, go on anywhere, in another process and epoch."""

from __future__ import annotations

import json
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import torch

from datapipes.errors import StateError
from datapipes.iter import IterableWrapper, Resumable
from datapipes.testing.state_contract import through_json

stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata")
StatefulDataLoader = stateful.StatefulDataLoader

# torchdata tells torch of its use in a way that torch has given up.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    monkeypatch.setenv("DATAPIPES_DAOS_ROOT", str(tmp_path))
    directory = tmp_path / "tank/train/set"
    directory.mkdir(parents=True)
    for i in range(17):
        (directory / f"{i:03}.bin").write_bytes(b"%d" % i)
    return "daos://tank/train/set/", [f"daos://tank/train/set/{i:03}.bin" for i in range(17)]


def ours(url: str) -> Resumable[Any]:
    names = IterableWrapper([url]).list_files_by_daos().shuffle_files(seed=5).shard_files()
    return names.load_files_by_daos(max_in_flight=4, output="bytes").map(itemgetter(0)).batch(2).resumable()


def torchs(url: str) -> Resumable[Any]:
    names = IterableWrapper([url]).list_files_by_daos().shuffle().sharding_filter()
    return names.load_files_by_daos(max_in_flight=4, output="bytes").map(itemgetter(0)).batch(2).resumable()


def unordered(url: str) -> Resumable[Any]:
    names = IterableWrapper([url]).list_files_by_daos().shuffle_files(seed=5).shard_files()
    loader = names.load_files_by_daos(max_in_flight=4, output="bytes", ordered=False)
    return loader.map(itemgetter(0)).batch(2).resumable()


def only_names(url: str) -> Resumable[Any]:
    return IterableWrapper([url]).list_files_by_daos().shuffle().sharding_filter().batch(2).resumable()


GRAPHS = {"ours": ours, "torch's": torchs, "unordered": unordered, "only names": only_names}


def loader_of(data: Any, workers: int, **options: Any) -> Any:
    return StatefulDataLoader(data, batch_size=None, num_workers=workers, **options)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("workers", [0, 2])
def test_every_state_of_an_epoch_delivers_exactly_the_rest(
    train: tuple[str, list[str]], workers: int, name: str
) -> None:
    url, expected = train
    # Every place in process; with workers, which have to be started for each, the ends and one in between.
    places = range(10) if workers == 0 else [0, 1, 5, 9]
    for place in places:
        torch.manual_seed(1)
        loader = loader_of(GRAPHS[name](url), workers)
        before = [batch for _, batch in zip(range(place), loader, strict=False)]
        state = through_json(loader.state_dict())
        del loader

        torch.manual_seed(2 + place)
        resumed = loader_of(GRAPHS[name](url), workers)
        resumed.load_state_dict(state)
        after = list(resumed)
        assert sorted(chain.from_iterable(before + after)) == expected, place


@pytest.mark.parametrize("name", ["ours", "torch's"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_epoch_goes_on_in_its_order_and_the_next_epochs_follow(
    train: tuple[str, list[str]], workers: int, name: str
) -> None:
    url, expected = train
    loader = loader_of(GRAPHS[name](url), workers)
    epochs = [list(loader) for _ in range(4)]
    assert all(sorted(chain.from_iterable(epoch)) == expected for epoch in epochs)
    assert len({str(epoch) for epoch in epochs}) == 4

    interrupted = loader_of(GRAPHS[name](url), workers)
    list(interrupted)
    for _ in zip(range(3), interrupted, strict=False):
        pass
    state = through_json(interrupted.state_dict())
    resumed = loader_of(GRAPHS[name](url), workers)
    resumed.load_state_dict(state)
    assert list(resumed) == epochs[1][3:]
    assert list(resumed) == epochs[2]
    assert list(resumed) == epochs[3]


@pytest.mark.parametrize("persistent", [False, True])
def test_resume_with_persistent_workers_and_a_second_interruption(
    train: tuple[str, list[str]], persistent: bool
) -> None:
    url, _ = train
    whole = list(loader_of(ours(url), 2))
    first = loader_of(ours(url), 2, persistent_workers=persistent)
    got = [batch for _, batch in zip(range(2), first, strict=False)]
    second = loader_of(ours(url), 2, persistent_workers=persistent)
    second.load_state_dict(through_json(first.state_dict()))
    got += [batch for _, batch in zip(range(3), second, strict=False)]
    third = loader_of(ours(url), 2, persistent_workers=persistent)
    third.load_state_dict(through_json(second.state_dict()))
    assert got + list(third) == whole


@pytest.mark.parametrize("persistent", [False, True])
def test_a_state_loaded_into_the_loader_that_gave_it_brings_back_that_epoch_and_the_next_ones(
    train: tuple[str, list[str]], persistent: bool
) -> None:
    url, _ = train
    loader = loader_of(ours(url), 2, persistent_workers=persistent)
    list(loader)
    list(loader)
    iterator = iter(loader)
    next(iterator)
    state = through_json(loader.state_dict())
    first_time = [list(iterator), list(loader), list(loader)]
    loader.load_state_dict(state)
    assert [list(loader) for _ in range(3)] == first_time


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_after_the_end_starts_the_next_epoch(train: tuple[str, list[str]], workers: int) -> None:
    url, _ = train
    loader = loader_of(ours(url), workers)
    list(loader)
    state = through_json(loader.state_dict())
    second = list(loader)
    resumed = loader_of(ours(url), workers)
    resumed.load_state_dict(state)
    assert list(resumed) == second


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_between_epochs_starts_the_next_epoch(train: tuple[str, list[str]], workers: int) -> None:
    url, _ = train
    loader = loader_of(ours(url), workers)
    list(loader)
    iter(loader)  # the second epoch is started, and nothing taken of it
    state = through_json(loader.state_dict())
    second = list(loader_of_epoch(url, workers, 1))
    resumed = loader_of(ours(url), workers)
    resumed.load_state_dict(state)
    assert list(resumed) == second


def loader_of_epoch(url: str, workers: int, epoch: int) -> Any:
    data = ours(url)
    data.set_epoch(epoch)
    return loader_of(data, workers)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_wins_over_set_epoch_for_the_epoch_it_resumes(
    train: tuple[str, list[str]], workers: int
) -> None:
    url, _ = train
    whole = list(loader_of(ours(url), workers))
    loader = loader_of(ours(url), workers)
    for _ in zip(range(2), loader, strict=False):
        pass
    data = ours(url)
    data.set_epoch(7)
    resumed = loader_of(data, workers)
    resumed.load_state_dict(through_json(loader.state_dict()))
    assert list(resumed) == whole[2:]
    data.set_epoch(7)
    assert list(resumed) == list(loader_of_epoch(url, workers, 7))


def test_one_worker_that_has_finished_stays_finished_while_the_other_goes_on(
    train: tuple[str, list[str]],
) -> None:
    url, expected = train
    # Worker 0 gets 9 files in 5 batches, worker 1 gets 8 in 4: after 8 batches one of them has its end seen.
    for taken in (8, 9):
        loader = loader_of(ours(url), 2)
        before = [batch for _, batch in zip(range(taken), loader, strict=False)]
        resumed = loader_of(ours(url), 2)
        resumed.load_state_dict(through_json(loader.state_dict()))
        assert sorted(chain.from_iterable(before + list(resumed))) == expected


def test_states_are_small_and_do_not_grow(train: tuple[str, list[str]]) -> None:
    url, _ = train
    loader = loader_of(ours(url), 0)
    sizes = [len(json.dumps(loader.state_dict())) for _ in loader]
    assert max(sizes) < 4096
    assert max(sizes) - min(sizes) < 16


@pytest.mark.parametrize("workers", [0, 1])  # torch takes five seconds to stop each worker after an exception
def test_states_of_something_else_are_refused_with_what_differs(
    train: tuple[str, list[str]], workers: int
) -> None:
    url, _ = train
    loader = loader_of(ours(url), workers)
    next(iter(loader))
    state = through_json(loader.state_dict())
    names = IterableWrapper([url]).list_files_by_daos()
    others = {
        "seed": names.shuffle_files(seed=6)
        .shard_files()
        .load_files_by_daos(output="bytes")
        .batch(2)
        .resumable(),
        "pipe": torchs(url),
    }
    for difference, other in others.items():
        resumed = loader_of(other, workers)
        resumed.load_state_dict(state)
        with pytest.raises(StateError, match=difference):
            list(resumed)


@pytest.mark.parametrize("name", ["ours", "torch's"])
def test_a_state_over_other_files_is_refused(train: tuple[str, list[str]], tmp_path: Path, name: str) -> None:
    url, _ = train
    loader = loader_of(GRAPHS[name](url), 0)
    next(iter(loader))
    state = through_json(loader.state_dict())
    (tmp_path / "tank/train/set/005.bin").rename(tmp_path / "tank/train/set/5.bin")
    resumed = loader_of(GRAPHS[name](url), 0)
    resumed.load_state_dict(state)
    with pytest.raises(StateError, match="names"):
        list(resumed)
