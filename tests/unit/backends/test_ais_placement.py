"""Rendezvous hashing, held against the owners that a real cluster gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datapipes.backends.ais_names import AisName, unames
from datapipes.backends.ais_placement import Placement, digest_of

pytest.importorskip("xxhash", reason="comes with aistore")

DATA = Path(__file__).parents[2] / "data/ais_hrw.json"
BUCKET = AisName("ais", "", "b", "")
GOLDEN, MASK = 0x9E3779B97F4A7C15, (1 << 64) - 1


def mixed(z: int) -> int:
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def score(seed: int) -> int:
    word = mixed((mixed((seed + GOLDEN) & MASK) + GOLDEN) & MASK) * 5 & MASK
    return ((word << 7 | word >> 57) & MASK) * 9 & MASK


def owner(digests: list[int], name: bytes) -> int:
    """By plain integers, one object and one target after another."""
    digest = digest_of(name)
    scores = [score(target ^ digest) for target in digests]
    return scores.index(max(scores))


def test_reference_gives_the_recorded_values() -> None:
    assert score(0) == 1905207664160064169
    assert score(4573842) == 5026071747115404967


def test_owners_are_those_of_a_real_cluster() -> None:
    recorded: dict[str, Any] = json.loads(DATA.read_text("utf-8"))
    targets = dict(recorded["targets"])
    found = Placement([*targets.values()]).owners(unames(BUCKET, recorded["names"]))
    assert len(found) == 200
    assert "".join([*targets][position] for position in found) == recorded["owners"]


@pytest.mark.parametrize("targets", [1, 2, 7, 100, 5000])
def test_owners_of_a_batch_are_those_of_each_name(targets: int) -> None:
    digests = [digest_of(b"target-%d" % i) for i in range(targets)]
    names = unames(BUCKET, [f"dir/é {i}" for i in range(70 if targets < 5000 else 3)])
    found = Placement(digests).owners(names)
    assert found.tolist() == [owner(digests, name) for name in names]


def test_owners_of_nothing_are_none() -> None:
    assert Placement([1, 2]).owners([]).tolist() == []


def test_names_spread_evenly_and_few_move_when_a_target_leaves() -> None:
    digests = [digest_of(b"t%d" % i) for i in range(10)]
    names = unames(BUCKET, [f"{i}" for i in range(5000)])
    before, after = Placement(digests).owners(names), Placement(digests[:9]).owners(names)
    counts = np.bincount(before, minlength=10)
    assert 400 < counts.min() <= counts.max() < 600
    assert (before[before != 9] == after[before != 9]).all()
