"""Two ranks, of torch.distributed with gloo and of a launcher's environment: each file exactly once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path

import pytest

RANK = """
import json, os, sys
from operator import itemgetter
import torch, torch.distributed as dist
from torch.utils.data import DataLoader
from datapipes.iter import IterableWrapper

rank, world_size, url, meeting = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]

def names(**options):
    return IterableWrapper([url]).list_files_by_daos().shuffle_files(seed=5).shard_files(**options)

def graph(**options):
    return names(**options).load_files_by_daos(output="bytes").map(itemgetter(0)).batch(2)

def load(data, workers, method=None):
    loader = DataLoader(data, batch_size=None, num_workers=workers, multiprocessing_context=method)
    return [name for batch in loader for name in batch]

def torchs():
    return IterableWrapper([url]).list_files_by_daos().shuffle().sharding_filter().map(lambda name: [name])

if __name__ == "__main__":  # spawned workers import this file
    if meeting:
        dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=world_size)
    torch.manual_seed(100 + rank)
    explicit = {"rank": 1 - rank, "world_size": 2}
    found = {
        "direct": list(names()),
        "0 workers": load(graph(), 0),
        "2 workers": load(graph(), 2),
        "resumable, direct": [name for batch in graph().resumable() for name in batch],
        "resumable, 0 workers": load(graph().resumable(), 0),
        "resumable, 2 workers": load(graph().resumable(), 2),
        "resumable, 2 spawned workers": load(graph().resumable(), 2, "spawn"),
        "torch's, resumable": load(torchs().resumable(), 2),
        "explicit, direct": list(names(**explicit)),
        "explicit, 2 workers": load(graph(**explicit), 2),
        "explicit, resumable": load(graph(**explicit).resumable(), 2),
        "pad": load(graph(uneven="pad"), 2),
        "drop": load(graph(uneven="drop"), 2),
    }
    if meeting:
        found["torch's"] = load(torchs(), 2)
        dist.destroy_process_group()
    print(json.dumps(found))
"""


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, list[str]]:
    monkeypatch.setenv("DATAPIPES_DAOS_ROOT", str(tmp_path))
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "PMI_RANK", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)
    directory = tmp_path / "tank/train/set"
    directory.mkdir(parents=True)
    for i in range(11):
        (directory / f"{i:03}.bin").write_bytes(b"%d" % i)
    return "daos://tank/train/set/", [f"daos://tank/train/set/{i:03}.bin" for i in range(11)]


def run_ranks(
    tmp_path: Path, url: str, *, meeting: str, environments: Sequence[Mapping[str, str]]
) -> list[dict[str, list[str]]]:
    script = tmp_path / "rank.py"
    script.write_text(RANK)
    ranks = [
        subprocess.Popen(
            [sys.executable, str(script), str(rank), str(len(environments)), url, meeting],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, environment in enumerate(environments)
    ]
    try:
        answers = [rank.communicate(timeout=170) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    for rank, (_, errors) in zip(ranks, answers, strict=True):
        assert rank.returncode == 0, errors
    return [json.loads(output.splitlines()[-1]) for output, _ in answers]


def check(answers: list[dict[str, list[str]]], expected: list[str]) -> None:
    for way in answers[0]:
        shares = [answer[way] for answer in answers]
        if way == "pad":
            assert [len(share) for share in shares] == [6, 6]
            assert set(chain.from_iterable(shares)) == set(expected)
        elif way == "drop":
            assert [len(share) for share in shares] == [5, 5]
            assert len(set(chain.from_iterable(shares))) == 10
        else:
            assert sorted(chain.from_iterable(shares)) == expected, way
    # Ranks given by hand stand, even where the executor has its own: here they are swapped.
    assert answers[0]["explicit, direct"] == answers[1]["direct"]
    assert set(answers[0]["explicit, 2 workers"]) == set(answers[1]["2 workers"])


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ranks_of_torch_distributed_share_the_files(train: tuple[str, list[str]], tmp_path: Path) -> None:
    url, expected = train
    check(run_ranks(tmp_path, url, meeting=str(tmp_path / "meeting"), environments=[{}, {}]), expected)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_ranks_of_a_launcher_share_the_files_without_torch_distributed(
    train: tuple[str, list[str]], tmp_path: Path
) -> None:
    url, expected = train
    environments = [{"SLURM_PROCID": str(rank), "SLURM_NTASKS": "2"} for rank in range(2)]
    check(run_ranks(tmp_path, url, meeting="", environments=environments), expected)
