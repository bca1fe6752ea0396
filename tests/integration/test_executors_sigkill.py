"""SIGKILL at random items, resume in a new process with other seeds: nothing lost, repeated or read again."""

from __future__ import annotations

import json
import os
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

url, shuffle, executor, workers, saved, counted, seed, kill_after = sys.argv[1:]
workers, seed, kill_after = int(workers), int(seed), int(kill_after)


def counting(address):
    return CountingBackend(daos.from_url(address), counted)


register_backend("daos", counting)
random.seed(seed), numpy.random.seed(seed), torch.manual_seed(seed)

names = IterableWrapper([url]).list_files_by_daos()
names = names.shuffle_files(seed=5).shard_files() if shuffle == "ours" else names.shuffle().sharding_filter()
dp = names.load_files_by_daos(max_in_flight=4, output="bytes").map(itemgetter(0)).batch(3)
data = dp.resumable()

if executor == "direct":
    loader = iter(data)
else:
    from torchdata.stateful_dataloader import StatefulDataLoader
    loader = StatefulDataLoader(data, batch_size=None, num_workers=workers)

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
print("finished")
"""


@pytest.mark.timeout(240)
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
    rng_seed = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(rng_seed)
    print(f"killed at the places of seed {rng_seed}")  # shown when the test fails

    kills = 0
    for start in range(20):
        kill_after = rng.randrange(1, 20) if start < 3 else 1 << 30
        options = [workers, saved, counted, start, kill_after]
        done = subprocess.run(
            [sys.executable, "-c", JOB, "daos://tank/train/set/", shuffle, executor, *map(str, options)],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode == -signal.SIGKILL:
            kills += 1
            continue
        assert done.returncode == 0, done.stderr
        break
    assert kills == 3

    delivered = json.loads(saved.read_text())["delivered"]
    assert sorted(delivered) == expected
    # What a run may have read beyond the batches in its checkpoint: each worker's read-ahead, the batch at
    # hand and those waiting for the main process, and the batch that was delivered and not yet saved.
    ahead = max(workers, 1) * (IN_FLIGHT + BATCH * (1 + (PREFETCH if workers else 0))) + BATCH
    reads = counted.read_text().splitlines()
    assert FILES <= len(reads) <= FILES + kills * ahead
