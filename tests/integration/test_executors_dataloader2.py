"""Plain pipes under DataLoader2 of torchdata 0.9, in process and with its worker processes."""

from __future__ import annotations

import pickle
import warnings
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import IterDataPipe

from datapipes.iter import FileSharder, FileShuffler, IterableWrapper, ShardingFilter

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torchdata 0.9 announces its own end when it is imported
    dataloader2 = pytest.importorskip("torchdata.dataloader2", reason="needs torchdata <= 0.9")
    graph_functions = pytest.importorskip("torchdata.dataloader2.graph", reason="needs torchdata <= 0.9")


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    monkeypatch.setenv("DATAPIPES_DAOS_ROOT", str(tmp_path))
    directory = tmp_path / "tank/train/set"
    directory.mkdir(parents=True)
    for i in range(23):
        (directory / f"{i:03}.bin").write_bytes(b"%d" % i)
    return "daos://tank/train/set/", [f"daos://tank/train/set/{i:03}.bin" for i in range(23)]


def graph(url: str) -> IterDataPipe[Any]:
    names = IterableWrapper([url]).list_files_by_daos().shuffle_files(seed=5).shard_files()
    return names.load_files_by_daos(max_in_flight=4, output="bytes").map(itemgetter(0)).batch(2)


def services() -> dict[str, Any]:
    return {
        "no service": None,
        "in process": dataloader2.InProcessReadingService(),
        "fork": dataloader2.MultiProcessingReadingService(num_workers=2, multiprocessing_context="fork"),
        "spawn": dataloader2.MultiProcessingReadingService(num_workers=2, multiprocessing_context="spawn"),
    }


def epoch(loader: Any) -> list[str]:
    return [url for batch in loader for url in batch]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", ["no service", "in process", "fork", "spawn"])
def test_epochs_deliver_all_once_and_differ(train: tuple[str, list[str]], name: str) -> None:
    url, expected = train
    loader = dataloader2.DataLoader2(graph(url), reading_service=services()[name])
    try:
        loader.seed(1)  # which DataLoader2 repeats every epoch: it must not reach our order
        epochs = [epoch(loader) for _ in range(3)]
    finally:
        loader.shutdown()
    assert all(sorted(urls) == expected for urls in epochs)
    assert len({tuple(urls) for urls in epochs}) == 3


@pytest.mark.parametrize("name", ["in process", "fork"])
def test_orders_are_the_same_again_and_set_epoch_chooses_them(
    train: tuple[str, list[str]], name: str
) -> None:
    url, expected = train

    def run(*, choose: int | None = None, executor_seed: int) -> list[list[str]]:
        shuffled = IterableWrapper([url]).list_files_by_daos().shuffle_files(seed=5)
        dp = shuffled.shard_files().load_files_by_daos(output="bytes").map(itemgetter(0)).batch(2)
        loader = dataloader2.DataLoader2(dp, reading_service=services()[name])
        loader.seed(executor_seed)
        try:
            first = epoch(loader)
            if choose is not None:
                shuffled.set_epoch(choose)
            return [first, epoch(loader), epoch(loader)]
        finally:
            loader.shutdown()

    plain = run(executor_seed=1)
    assert run(executor_seed=2) == plain
    chosen = run(choose=2, executor_seed=3)
    assert chosen[0] == plain[0]
    assert chosen[1] == plain[2]
    assert sorted(chosen[2]) == expected
    assert chosen[2] not in plain


def test_loops_that_break_early_leave_all_workers_in_the_same_epoch(train: tuple[str, list[str]]) -> None:
    url, expected = train
    loader = dataloader2.DataLoader2(graph(url), reading_service=services()["fork"])
    try:
        for attempt in range(4):
            for _, _ in zip(range(attempt), loader, strict=False):
                pass
            assert sorted(epoch(loader)) == expected
    finally:
        loader.shutdown()


def test_torchs_shuffle_and_sharding_filter_work_as_well(train: tuple[str, list[str]]) -> None:
    url, expected = train
    names = IterableWrapper([url]).list_files_by_daos().shuffle().sharding_filter()
    dp = names.load_files_by_daos(output="bytes").map(itemgetter(0)).batch(2)
    loader = dataloader2.DataLoader2(dp, reading_service=services()["fork"])
    try:
        assert sorted(epoch(loader)) == sorted(epoch(loader)) == expected
    finally:
        loader.shutdown()


def test_shuffling_torchs_way_before_shard_files_is_seeded_alike_in_all_workers(
    train: tuple[str, list[str]],
) -> None:
    url, expected = train
    dp = IterableWrapper([url]).list_files_by_daos().shuffle().shard_files().batch(2)
    loader = dataloader2.DataLoader2(dp, reading_service=services()["fork"])
    try:
        for _ in range(3):
            assert sorted(epoch(loader)) == expected
    finally:
        loader.shutdown()


def test_sharding_twice_is_refused(train: tuple[str, list[str]]) -> None:
    url, _ = train
    dp = IterableWrapper([url]).list_files_by_daos().shard_files().sharding_filter()
    loader = dataloader2.DataLoader2(dp, reading_service=services()["in process"])
    with pytest.raises(RuntimeError, match="Sharding twice"):
        list(loader)


def test_graph_functions_find_replace_and_remove_our_pipes(train: tuple[str, list[str]]) -> None:
    url, expected = train
    dp = graph(url)
    traversed = graph_functions.traverse_dps(dp)
    (shuffler,) = graph_functions.find_dps(traversed, FileShuffler)
    (sharder,) = graph_functions.find_dps(traversed, FileSharder)
    assert len(graph_functions.find_dps(traversed, ShardingFilter)) == 1

    graph_functions.remove_dp(traversed, shuffler)
    assert sorted(epoch(dp)) == expected
    assert epoch(dp) == epoch(dp) == expected  # path order: nothing shuffles any more

    traversed = graph_functions.traverse_dps(dp)
    graph_functions.replace_dp(traversed, sharder, IterableWrapper(expected[:3]))
    assert epoch(dp) == expected[:3]


def test_a_graph_is_cloned_and_seeded_as_any_other(train: tuple[str, list[str]]) -> None:
    url, expected = train
    clone = pickle.loads(pickle.dumps(graph(url)))
    seeds = __import__("torchdata.dataloader2.random", fromlist=["SeedGenerator"]).SeedGenerator(3)
    graph_functions.set_graph_random_seed(clone, seeds)
    assert sorted(epoch(clone)) == expected
