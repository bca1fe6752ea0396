"""SIGKILL at random items, resume in a new process with other seeds: nothing lost, repeated or read again."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FILES = 150
IN_FLIGHT = 4
BATCH = 3
PREFETCH = 2

JOB = """
import json, os, random, signal, sys
from operator import itemgetter
import numpy, torch
from datapipes.backends import daos
from datapipes.backends.registry import register_backend
from datapipes.backends.wrappers import CountingBackend
from datapipes.iter import IterableWrapper

url, shuffle, executor, workers, saved, counted, *kills = sys.argv[1:]


def counting(address):
    return CountingBackend(daos.from_url(address), counted)


def run(seed, kill_after):
    register_backend("daos", counting)
    random.seed(seed), numpy.random.seed(seed), torch.manual_seed(seed)
    names = IterableWrapper([url]).list_files_by_daos()
    ours = shuffle == "ours"
    names = names.shuffle_files(seed=5).shard_files() if ours else names.shuffle().sharding_filter()
    data = names.load_files_by_daos(max_in_flight=4, output="bytes").map(itemgetter(0)).batch(3).resumable()
    if executor == "direct":
        loader = iter(data)
    else:
        from torchdata.stateful_dataloader import StatefulDataLoader
        loader = StatefulDataLoader(data, batch_size=None, num_workers=int(workers))

    delivered = []
    if os.path.exists(saved):
        with open(saved) as file:
            job = json.load(file)
        delivered = job["delivered"]
        loader.load_state_dict(job["state"])
    for taken, batch in enumerate(loader):
        delivered += batch
        if taken == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)  # before this batch is in the checkpoint: it never happened
        with open(saved + ".new", "w") as file:
            json.dump({"delivered": delivered, "state": loader.state_dict()}, file)
        os.replace(saved + ".new", saved)


# Every run is a process of its own; they are forked only to import torch once.
endings = []
for seed, kill_after in enumerate([int(place) for place in kills] + [-1]):
    child = os.fork()
    if child == 0:
        run(seed, kill_after)
        sys.exit(0)
    endings.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(endings))
"""


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("shuffle", ["ours", "torch's"])
@pytest.mark.parametrize(("executor", "workers"), [("direct", 0), ("stateful", 0), ("stateful", 2)])
def test_killed_anywhere_and_resumed_delivers_all_once_and_rereads_no_more_than_stated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: str, workers: int, shuffle: str
) -> None:
    if executor == "stateful":
        pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata")
    monkeypatch.setenv("DATAPIPES_DAOS_ROOT", str(tmp_path))
    directory = tmp_path / "tank/train/set"
    directory.mkdir(parents=True)
    expected = [f"daos://tank/train/set/{i:04}" for i in range(FILES)]
    for i in range(FILES):
        (directory / f"{i:04}").write_bytes(b"%d" % i)
    saved, counted = tmp_path / "checkpoint", tmp_path / "reads"
    kills = random.SystemRandom().choices(range(8, 16), k=3)
    print(f"killed after {kills} batches")  # shown when the test fails

    done = subprocess.run(
        [sys.executable, "-c", JOB, "daos://tank/train/set/", shuffle, executor]
        + [str(option) for option in (workers, saved, counted, *kills)],
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [-signal.SIGKILL] * 3 + [0], done.stderr

    delivered = json.loads(saved.read_text())["delivered"]
    assert sorted(delivered) == expected
    # What a run may have read beyond the batches in its checkpoint: each worker's read-ahead, the batch at
    # hand and those waiting for the main process, and the batch that was delivered and not yet saved.
    ahead = max(workers, 1) * (IN_FLIGHT + BATCH * (1 + (PREFETCH if workers else 0))) + BATCH
    reads = counted.read_text().splitlines()
    assert FILES <= len(reads) <= FILES + len(kills) * ahead
