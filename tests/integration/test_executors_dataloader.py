"""Plain pipes, and ``.resumable()`` without resume, under torch's DataLoader."""

from __future__ import annotations

from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, IterDataPipe

from datapipes.iter import FileSharder, IterableWrapper

START_METHODS = ["fork", "forkserver", "spawn"]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_forkserver: None) -> tuple[str, list[str]]:
    """(the URL of a directory, the URLs of the 23 files below it) in an embedded container."""
    monkeypatch.setenv("DATAPIPES_DAOS_ROOT", str(tmp_path))
    return make_files(tmp_path, 23)


def make_files(root: Path, count: int) -> tuple[str, list[str]]:
    names = [f"class{i % 3}/{i:03}.bin" for i in range(count)]
    (root / "tank/train/set").mkdir(parents=True, exist_ok=True)
    for name in names:
        path = root / "tank/train/set" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    return "daos://tank/train/set/", sorted(f"daos://tank/train/set/{name}" for name in names)


def names_of(url: str, **shuffle: Any) -> FileSharder[str]:
    return IterableWrapper([url]).list_files_by_daos().shuffle_files(**shuffle).shard_files()


def graph(url: str, **shuffle: Any) -> IterDataPipe[Any]:
    """The graph of the README, whose batches are lists of the URLs that were read."""
    loader = names_of(url, **shuffle).load_files_by_daos(max_in_flight=4, output="bytes")
    return loader.map(itemgetter(0)).batch(2)


def epoch(loader: DataLoader[Any]) -> list[str]:
    return [url for batch in loader for url in batch]


def workers(count: int, method: str | None = None, *, persistent: bool = False) -> dict[str, Any]:
    if count == 0:
        return {"num_workers": 0}
    return {"num_workers": count, "multiprocessing_context": method, "persistent_workers": persistent}


@pytest.mark.parametrize("resumable", [False, True], ids=["pipe", "resumable"])
@pytest.mark.parametrize(
    "options",
    [
        workers(0),
        workers(2, "fork"),
        workers(2, "fork", persistent=True),
        workers(2, "forkserver", persistent=True),
    ],
    ids=["in process", "fork", "fork persistent", "forkserver persistent"],
)
@pytest.mark.timeout(120)
def test_epochs_deliver_all_once_in_orders_that_differ_and_repeat(
    train: tuple[str, list[str]], options: dict[str, Any], resumable: bool
) -> None:
    url, expected = train

    def run() -> list[list[str]]:
        dp = graph(url, seed=5)
        loader = DataLoader(dp.resumable() if resumable else dp, batch_size=None, **options)
        return [epoch(loader) for _ in range(3)]

    torch.manual_seed(1)
    first = run()
    torch.manual_seed(2)
    second = run()

    assert all(sorted(urls) == expected for urls in first)
    assert len({tuple(urls) for urls in first}) == 3
    assert first == second


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_spawned_workers_deliver_all_once_and_epochs_differ(train: tuple[str, list[str]]) -> None:
    url, expected = train
    loader = DataLoader(graph(url), batch_size=None, **workers(2, "spawn", persistent=True))
    first, second = epoch(loader), epoch(loader)
    assert sorted(first) == sorted(second) == expected
    assert first != second


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_spawned_workers_of_each_epoch_go_on_counting(train: tuple[str, list[str]]) -> None:
    url, expected = train
    loader = DataLoader(graph(url).resumable(), batch_size=None, **workers(2, "spawn"))
    first, second = epoch(loader), epoch(loader)
    assert sorted(first) == sorted(second) == expected
    assert first != second


@pytest.mark.parametrize("options", [workers(0), workers(2, "fork"), workers(2, "fork", persistent=True)])
@pytest.mark.parametrize("resumable", [False, True], ids=["pipe", "resumable"])
def test_set_epoch_chooses_the_next_epoch_and_counting_goes_on(
    train: tuple[str, list[str]], options: dict[str, Any], resumable: bool
) -> None:
    url, _ = train

    def orders(*, choose: int | None) -> list[list[str]]:
        shuffled = IterableWrapper([url]).list_files_by_daos().shuffle_files(seed=5)
        dp = shuffled.shard_files().load_files_by_daos(output="bytes").map(itemgetter(0)).batch(2)
        data = dp.resumable() if resumable else dp
        loader = DataLoader(data, batch_size=None, **options)
        first = epoch(loader)
        if choose is not None:
            (data if resumable else shuffled).set_epoch(choose)
        return [first, epoch(loader), epoch(loader)]

    plain, chosen = orders(choose=None), orders(choose=2)
    assert chosen[0] == plain[0]
    assert chosen[1] == plain[2]
    assert chosen[2] not in plain


@pytest.mark.parametrize("options", [workers(2, "fork"), workers(2, "fork", persistent=True)])
@pytest.mark.parametrize("resumable", [False, True], ids=["pipe", "resumable"])
def test_loops_that_break_early_leave_all_workers_in_the_same_epoch(
    train: tuple[str, list[str]], options: dict[str, Any], resumable: bool
) -> None:
    url, expected = train
    dp = graph(url)
    loader = DataLoader(dp.resumable() if resumable else dp, batch_size=None, **options)
    seen = set()
    for attempt in range(4):
        for _, _ in zip(range(attempt), loader, strict=False):
            pass
        urls = epoch(loader)
        assert sorted(urls) == expected
        seen.add(tuple(urls))
    assert len(seen) == 4


@pytest.mark.filterwarnings("ignore:this pipe cannot tell its iterations apart")
@pytest.mark.parametrize("resumable", [False, True], ids=["pipe", "resumable"])
def test_the_same_seed_set_before_each_epoch_does_not_stop_the_count(
    train: tuple[str, list[str]], resumable: bool
) -> None:
    url, expected = train
    dp = graph(url)
    loader = DataLoader(dp.resumable() if resumable else dp, batch_size=None, **workers(2, "fork"))
    epochs = []
    for _ in range(3):
        torch.manual_seed(0)
        epochs.append(epoch(loader))
    assert all(sorted(urls) == expected for urls in epochs)
    assert len({tuple(urls) for urls in epochs}) == 3


def test_the_same_seed_set_before_each_epoch_is_warned_of_unless_set_epoch_is_called(
    train: tuple[str, list[str]],
) -> None:
    url, expected = train
    for called in (True, False):
        shuffled = IterableWrapper([url]).list_files_by_daos().shuffle_files(seed=5)
        loader = DataLoader(shuffled.shard_files().batch(2), batch_size=None, **workers(1, "fork"))
        for number in range(2):
            torch.manual_seed(0)
            if called:
                shuffled.set_epoch(number)
            if called or number == 0:
                assert sorted(epoch(loader)) == expected
            else:
                with pytest.raises(RuntimeWarning, match="Call set_epoch"):  # warnings are errors in tests
                    epoch(loader)


def test_two_loaders_over_one_pipe_at_the_same_time_deliver_all_once_each(
    train: tuple[str, list[str]],
) -> None:
    url, expected = train
    dp = graph(url)
    loaders = [DataLoader(dp, batch_size=None, **workers(2, "fork")) for _ in range(2)]
    left, right = [], []
    for a, b in zip(*loaders, strict=True):
        left += a
        right += b
    assert sorted(left) == sorted(right) == expected


@pytest.mark.filterwarnings("ignore:This DataLoader will create 4 worker")
def test_more_workers_than_files_deliver_each_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATAPIPES_DAOS_ROOT", str(tmp_path))
    url, expected = make_files(tmp_path, 2)
    for data in (graph(url), graph(url).resumable()):
        loader = DataLoader(data, batch_size=None, **workers(4, "fork"))
        assert sorted(epoch(loader)) == sorted(epoch(loader)) == expected


@pytest.mark.parametrize("count", [0, 2])
def test_an_empty_directory_is_an_empty_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setenv("DATAPIPES_DAOS_ROOT", str(tmp_path))
    url, _ = make_files(tmp_path, 0)
    for data in (graph(url), graph(url).resumable()):
        assert epoch(DataLoader(data, batch_size=None, **workers(count, "fork"))) == []


@pytest.mark.parametrize("count", [0, 2])
def test_torchs_shuffle_and_sharding_filter_work_as_well(train: tuple[str, list[str]], count: int) -> None:
    url, expected = train
    names = IterableWrapper([url]).list_files_by_daos().shuffle().sharding_filter()
    dp = names.load_files_by_daos(output="bytes").map(itemgetter(0)).batch(2)
    for data in (dp, dp.resumable()):
        loader = DataLoader(data, batch_size=None, **workers(count, "fork"))
        first, second = epoch(loader), epoch(loader)
        assert sorted(first) == sorted(second) == expected
        assert first != second


@pytest.mark.parametrize("count", [0, 1])  # torch takes five seconds to stop each worker after an exception
def test_a_missing_directory_is_our_exception_in_the_main_process(
    train: tuple[str, list[str]], count: int
) -> None:
    dp = IterableWrapper(["daos://tank/train/nowhere/"]).list_files_by_daos()
    with pytest.raises(FileNotFoundError, match="nowhere"):
        list(DataLoader(dp, batch_size=None, **workers(count, "fork")))


@pytest.mark.parametrize("count", [0, 2])
def test_streams_reach_the_main_process(train: tuple[str, list[str]], count: int) -> None:
    url, expected = train
    dp = names_of(url).load_files_by_daos()
    loader = DataLoader(dp, batch_size=None, **workers(count, "fork"))
    content = {name: stream.read() for name, stream in loader}
    assert content == {name: name.split("/set/")[1].encode() for name in expected}


def test_stats_count_what_all_workers_read(train: tuple[str, list[str]]) -> None:
    url, expected = train
    loader_pipe = names_of(url).load_files_by_daos(output="bytes")
    list(DataLoader(loader_pipe, batch_size=None, **workers(2, "fork")))
    assert loader_pipe.stats()["items"] == len(expected)
