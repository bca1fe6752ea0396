"""The drop-ins for pydaos.torch under the loaders: old lines, every start method, exact resume."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from datapipes.datasets import ResumableSampler
from datapipes.datasets.daos import Dataset, IterableDataset
from datapipes.errors import FileMissingError, StateError

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata's call
]

FILES = 50
BATCH = 4
CONTEXTS = [(0, None), (2, "fork"), (2, "forkserver"), (2, "spawn")]


@pytest.fixture
def samples(daos_root: Path, fresh_forkserver: None) -> Path:
    directory = daos_root / "tank/train/samples"
    for i in range(FILES):
        file = directory / f"{i % 3}" / f"{i:03}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d" % i)
    return directory


def to_number(sample: bytearray) -> int:
    assert type(sample) is bytearray
    return int(sample)


def as_it_is(batch: Any) -> Any:
    return batch


IN_PATH_ORDER = sorted(range(FILES), key=lambda i: (i % 3, i))


def numbers(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in batch]


@pytest.mark.parametrize(("workers", "context"), CONTEXTS, ids=str)
@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
@pytest.mark.parametrize("old_line", [False, True], ids=["without worker_init_fn", "with worker_init_fn"])
def test_every_sample_comes_once(
    samples: Path, kind: Any, workers: int, context: Any, old_line: bool
) -> None:
    if context in ("spawn", "forkserver") and not old_line:
        pytest.skip("one of the two does for start methods that start afresh")
    dataset = kind("tank", "train", "/samples", transform_fn=to_number)
    options = {"worker_init_fn": dataset.worker_init} if old_line else {}
    loader = DataLoader(
        dataset, batch_size=BATCH, num_workers=workers, multiprocessing_context=context, **options
    )
    delivered = numbers(loader)
    assert sorted(delivered) == list(range(FILES))
    if kind is Dataset or not workers:
        assert delivered == IN_PATH_ORDER


def test_workers_have_contiguous_parts(samples: Path) -> None:
    dataset = IterableDataset("tank", "train", "/samples", batch_size=2)
    loader = DataLoader(dataset, batch_size=25, num_workers=2, collate_fn=as_it_is)
    assert [list(map(int, batch)) for batch in loader] == [
        IN_PATH_ORDER[:25],
        IN_PATH_ORDER[25:],
    ]


def test_a_worker_may_choose_its_own_workset(samples: Path) -> None:
    dataset = IterableDataset("tank", "train", "/samples", transform_fn=to_number)

    def choose(worker: int) -> None:
        told = torch.utils.data.get_worker_info()
        assert told is not None
        mine: Any = told.dataset
        mine.worker_init(worker)
        mine.workset = mine.workset[::2]

    loader = DataLoader(dataset, batch_size=None, num_workers=2, worker_init_fn=choose)
    assert sorted(loader) == sorted([*IN_PATH_ORDER[:25:2], *IN_PATH_ORDER[25::2]])


@pytest.mark.parametrize("workers", [0, 2])
def test_epochs_are_shuffled_by_themselves_and_alike_in_all_workers(samples: Path, workers: int) -> None:
    dataset = IterableDataset("tank", "train", "/samples", transform_fn=to_number, seed=3)
    loader = DataLoader(dataset, batch_size=None, num_workers=workers, persistent_workers=workers > 0)
    epochs = [list(loader) for _ in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(sorted(epoch) == list(range(FILES)) for epoch in epochs)
    dataset.set_epoch(1)
    assert list(loader) == epochs[1]


def test_shuffling_and_sharding_with_a_sampler(samples: Path) -> None:
    dataset = Dataset("tank", "train", "/samples", transform_fn=to_number)
    shares = []
    for rank in range(2):
        sampler = ResumableSampler(dataset, seed=1, rank=rank, world_size=2)
        shares += numbers(DataLoader(dataset, batch_size=BATCH, sampler=sampler, num_workers=2))
    assert sorted(shares) == list(range(FILES))
    assert shares != IN_PATH_ORDER


def test_an_error_in_a_worker_keeps_its_type(samples: Path) -> None:
    dataset = Dataset("tank", "train", "/samples")
    (samples / "0/000").unlink()
    with pytest.raises(FileMissingError, match="daos://tank/train/samples/0/000"):
        list(DataLoader(dataset, batch_size=BATCH, num_workers=1, collate_fn=as_it_is))


def stateful(**options: Any) -> Any:
    loader = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader
    return loader(batch_size=options.pop("batch_size", BATCH), **options)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("seed", [None, 4])
@pytest.mark.parametrize("taken", [0, 1, 5, 12, 13])
def test_an_iterable_goes_on_where_it_was(samples: Path, workers: int, seed: int | None, taken: int) -> None:
    def make() -> Any:
        dataset = IterableDataset("tank", "train", "/samples", transform_fn=to_number, seed=seed)
        return stateful(dataset=dataset, num_workers=workers)

    whole = make()
    first, second = numbers(whole), numbers(whole)
    assert sorted(first) == sorted(second) == list(range(FILES))

    loader = make()
    iterator = iter(loader)
    before = numbers(next(iterator) for _ in range(taken))
    state = loader.state_dict()
    resumed = make()
    resumed.load_state_dict(state)
    assert before + numbers(resumed) == first
    assert numbers(resumed) == second


@pytest.mark.parametrize("workers", [0, 2])
def test_a_map_goes_on_where_it_was(samples: Path, workers: int) -> None:
    def make() -> Any:
        dataset = Dataset("tank", "train", "/samples", transform_fn=to_number)
        return stateful(dataset=dataset, num_workers=workers, sampler=ResumableSampler(dataset, seed=2))

    whole = make()
    first, second = numbers(whole), numbers(whole)
    loader = make()
    iterator = iter(loader)
    before = numbers(next(iterator) for _ in range(5))
    resumed = make()
    resumed.load_state_dict(loader.state_dict())
    assert before + numbers(resumed) == first
    assert numbers(resumed) == second
    assert sorted(first) == list(range(FILES))


def test_a_state_of_other_data_is_refused_by_the_loader(samples: Path) -> None:
    loader = stateful(dataset=IterableDataset("tank", "train", "/samples", transform_fn=to_number))
    next(iter(loader))
    (samples / "0/new").write_bytes(b"99")
    again = stateful(dataset=IterableDataset("tank", "train", "/samples", transform_fn=to_number))
    again.load_state_dict(loader.state_dict())
    with pytest.raises(StateError, match="other data"):
        next(iter(again))


@pytest.mark.slow
def test_ranks_of_a_job_list_once(samples: Path, tmp_path: Path) -> None:
    """Two processes of one launcher make the same datasets; the second finds what the first has listed."""
    script = (
        "import sys; from datapipes.datasets.daos import Dataset, IterableDataset\n"
        "print(len(Dataset('tank', 'train', '/samples')), len(IterableDataset('tank', 'train').objects))\n"
        "sys.stdout.flush(); sys.stdin.read()"
    )
    environment = {**os.environ, "DATAPIPES_JOB_DIR": str(tmp_path), "TORCHELASTIC_RUN_ID": "once"}
    ranks = []
    try:
        for rank in range(2):
            process = subprocess.Popen(
                [sys.executable, "-c", script],
                env={**environment, "RANK": str(rank), "WORLD_SIZE": "2"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            ranks.append(process)
            assert process.stdout is not None
            assert process.stdout.readline().split() == [str(FILES), str(FILES)]
            (samples / f"late {rank}").write_bytes(b"1")
    finally:
        for process in ranks:
            process.communicate(timeout=60)
