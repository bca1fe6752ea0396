"""FileDataset and ResumableSampler under the loaders: every start method, several epochs, SIGKILL and on."""

from __future__ import annotations

import collections
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, DistributedSampler

from datapipes.datasets import FileDataset, ResumableSampler

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata's call

FILES = 150
BATCH = 8


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    for i in range(FILES):
        folder = directory / f"class{i % 3}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:04}.txt").write_bytes(b"%d" % i)
    return directory


def to_number(data: bytes) -> int:
    return int(data)


def numbers(loader: Any) -> list[int]:
    return [int(number) for batch in loader for number in (batch[0] if isinstance(batch, list) else batch)]


@pytest.mark.parametrize("labels", [None, "folder"])
@pytest.mark.parametrize(
    ("workers", "context"), [(0, None), (2, "fork"), (2, "forkserver"), (2, "spawn")], ids=str
)
@pytest.mark.timeout(180)
def test_dataloader_delivers_every_file_once(root: Path, workers: int, context: Any, labels: Any) -> None:
    if labels and context == "spawn":
        pytest.skip("one of the two start methods that start afresh does for labels")
    dataset = FileDataset(str(root), transform=to_number, labels=labels)
    reference = ResumableSampler(dataset, seed=1)
    order = FileDataset(str(root), transform=to_number)
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        sampler=ResumableSampler(dataset, seed=1),
        num_workers=workers,
        multiprocessing_context=context,
        persistent_workers=context == "forkserver",
    )
    epochs = 1 if context == "spawn" else 2
    for _ in range(epochs):
        delivered = []
        for batch in loader:
            found = batch[0] if labels else batch
            if labels:
                assert batch[1].tolist() == [int(number) % 3 for number in found]
            delivered += found.tolist()
        assert delivered == order.__getitems__(list(reference))
        assert sorted(delivered) == list(range(FILES))
    assert dataset.stats()["samples"] == epochs * FILES  # those of the workers too


def test_tensors_and_default_collate_pass_through_workers(root: Path) -> None:
    dataset = FileDataset(str(root), output="tensor", masks="00[1-9]?.txt")
    loader = DataLoader(dataset, batch_size=10, num_workers=2)
    delivered = [int(bytes(row.tolist())) for batch in loader for row in batch]
    assert sorted(delivered) == list(range(10, 100))


def test_read_into_fills_a_batch_in_the_callers_tensor(root: Path) -> None:
    dataset = FileDataset(str(root))
    out = torch.zeros(64, dtype=torch.uint8)
    positions = [5, 100, 49]
    spans = dataset.read_into(positions, out)
    assert [bytes(out[start:end].tolist()) for start, end in spans] == dataset.__getitems__(positions)
    if torch.cuda.is_available():
        pinned = torch.zeros(64, dtype=torch.uint8, pin_memory=True)
        assert dataset.read_into(positions, pinned) == spans
        assert pinned.is_pinned()
        assert torch.equal(pinned, out)


def test_torchs_distributed_sampler_works_as_well(root: Path) -> None:
    dataset = FileDataset(str(root), transform=to_number)
    shares = []
    for rank in range(2):
        sampler: DistributedSampler[Any] = DistributedSampler(dataset, num_replicas=2, rank=rank, seed=3)
        sampler.set_epoch(1)
        shares += numbers(DataLoader(dataset, batch_size=BATCH, sampler=sampler))
    assert sorted(shares) == list(range(FILES))


def test_workers_map_the_index_that_the_parent_listed(root: Path) -> None:
    dataset = FileDataset(str(root), transform=to_number)
    assert len(dataset) == FILES
    (root / "class0" / "9999.txt").write_bytes(b"9999")
    assert sorted(numbers(DataLoader(dataset, batch_size=BATCH, num_workers=2))) == list(range(FILES))


def test_samplers_of_ranks_resume_together(root: Path) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")

    def make(rank: int) -> Any:
        dataset = FileDataset(str(root), transform=to_number)
        sampler = ResumableSampler(dataset, seed=4, rank=rank, world_size=3, batch_size=BATCH)
        return stateful.StatefulDataLoader(dataset, batch_sampler=sampler)

    delivered: list[int] = []
    for rank in range(3):
        loader = make(rank)
        iterator = iter(loader)
        delivered += numbers(next(iterator) for _ in range(3))
        resumed = make(rank)
        resumed.load_state_dict(loader.state_dict())
        delivered += numbers(resumed)
    assert sorted(delivered) == list(range(FILES))


JOB = """
import json, os, random, signal, sys
import numpy, torch
from datapipes.backends.local import LocalBackend
from datapipes.backends.wrappers import CountingBackend
from datapipes.datasets import FileDataset, ResumableSampler
from torchdata.stateful_dataloader import StatefulDataLoader

root, how, workers, saved, counted, seed, kill_after = sys.argv[1:]
workers, seed, kill_after = int(workers), int(seed), int(kill_after)
random.seed(seed), numpy.random.seed(seed), torch.manual_seed(seed)

dataset = FileDataset(root, transform=int, resolve=lambda url: CountingBackend(LocalBackend(), counted))
if how == "sampler":
    options = {"sampler": ResumableSampler(dataset, seed=6), "batch_size": 8}
else:
    options = {"batch_sampler": ResumableSampler(dataset, seed=6, batch_size=8)}
loader = StatefulDataLoader(dataset, num_workers=workers, **options)

job = {"delivered": [], "state": None, "epoch": 0}
if os.path.exists(saved):
    with open(saved) as file:
        job = json.load(file)
    loader.load_state_dict(job["state"])

taken = 0
while job["epoch"] < 2:
    for batch in loader:
        taken += 1
        if taken == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)  # before this batch is in the checkpoint: it never happened
        job["delivered"] += batch.tolist()
        job["state"] = loader.state_dict()
        with open(saved + ".new", "w") as file:
            json.dump(job, file)
        os.replace(saved + ".new", saved)
    job["epoch"] += 1
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize("how", ["sampler", "batch_sampler"])
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_anywhere_and_resumed_delivers_the_very_same_batches(
    root: Path, tmp_path: Path, workers: int, how: str
) -> None:
    pytest.importorskip("torchdata.stateful_dataloader")
    saved, counted = tmp_path / "checkpoint", tmp_path / "reads"
    place = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(place)
    print(f"killed at the places of seed {place}")  # shown when the test fails
    kills = 0
    for start in range(8):
        kill_after = rng.randrange(2, 14) if start < 3 else 1 << 30
        arguments = [root, how, workers, saved, counted, start, kill_after]
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", JOB, *map(str, arguments)],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != -signal.SIGKILL:
            assert done.returncode == 0, done.stderr
            break
        kills += 1
    assert kills == 3

    dataset = FileDataset(str(root), transform=to_number)
    reference = ResumableSampler(dataset, seed=6)
    wanted = [*dataset.__getitems__(list(reference)), *dataset.__getitems__(list(reference))]
    assert json.loads(saved.read_text())["delivered"] == wanted
    # Each kill wastes the batch at hand and what the workers had prefetched: 2 batches each.
    reads = counted.read_text().splitlines()
    assert 2 * FILES <= len(reads) <= 2 * FILES + kills * BATCH * (1 + 2 * workers)
    assert len(collections.Counter(json.loads(line)["url"] for line in reads)) == FILES
