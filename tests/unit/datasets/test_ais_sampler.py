"""DynamicBatchSampler: the incumbent's batches, and a state after each."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datapipes.errors import StateError

pytest.importorskip("aistore.sdk")

from datapipes.datasets.ais import DynamicBatchSampler


class Sized:
    def __init__(self, sizes: list[int]) -> None:
        self.things = [
            SimpleNamespace(name=str(at), props_cached=SimpleNamespace(size=size))
            for at, size in enumerate(sizes)
        ]

    def get_obj_list(self) -> list[Any]:
        return self.things


SIZES = [3, 4, 3, 10, 11, 0, 1, 1, 9, 10, 2, 20, 5, 5, 5, 1]


def test_batches_fill_up_in_order() -> None:
    sampler = DynamicBatchSampler(Sized(SIZES), 10)
    assert list(sampler) == [[0, 1, 2], [3], [6, 7], [8], [9], [10, 12], [13, 14], [15]]
    assert len(sampler) == 8
    assert len(DynamicBatchSampler(Sized(SIZES), 10, len_of_samples=True)) == len(SIZES)


def test_oversized_samples_come_alone_where_they_are_met() -> None:
    sampler = DynamicBatchSampler(Sized([3, 11, 4]), 10, allow_oversized_samples=True)
    assert list(sampler) == [[1], [0, 2]]
    assert len(sampler) == 2


def test_a_last_batch_that_is_not_full_enough_is_dropped() -> None:
    assert list(DynamicBatchSampler(Sized([9, 8]), 10, drop_last=True)) == [[0]]
    assert list(DynamicBatchSampler(Sized([9, 9]), 10, drop_last=True)) == [[0], [1]]


def test_the_length_of_a_shuffled_epoch_is_not_known() -> None:
    with pytest.raises(TypeError, match="len_of_samples"):
        len(DynamicBatchSampler(Sized(SIZES), 10, shuffle=True))


def test_a_saturation_beyond_one_is_refused_as_before() -> None:
    with pytest.raises(ValueError, match="`saturation_factor` must be between 0 and 1"):
        DynamicBatchSampler(Sized([]), 10, saturation_factor=1.1)


@given(
    st.lists(st.integers(0, 25), max_size=30),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 0.8, 1.0]),
)
def test_batches_are_the_incumbents(
    sizes: list[int], drop_last: bool, oversized: bool, shuffle: bool, saturation: float
) -> None:
    pytest.importorskip("alive_progress", reason="aistore.pytorch needs it")
    pytest.importorskip("webdataset", reason="aistore.pytorch needs it")
    from aistore.pytorch import DynamicBatchSampler as Incumbent

    options = {
        "drop_last": drop_last,
        "allow_oversized_samples": oversized,
        "shuffle": shuffle,
        "saturation_factor": saturation,
    }
    torch.manual_seed(7)
    expected = list(Incumbent(Sized(sizes), 10, **options))
    torch.manual_seed(7)
    assert list(DynamicBatchSampler(Sized(sizes), 10, **options)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("oversized", [False, True])
def test_a_state_after_any_batch_goes_on_with_the_next(shuffle: bool, oversized: bool) -> None:
    def make() -> DynamicBatchSampler:
        return DynamicBatchSampler(Sized(SIZES), 10, shuffle=shuffle, allow_oversized_samples=oversized)

    torch.manual_seed(1)
    first = make()
    walk: Any = iter(first)
    batches, states = [], [first.state_dict()]
    for batch in walk:
        batches.append(batch)
        states.append(json.loads(json.dumps(first.state_dict())))
    for taken in range(0 if not shuffle else 1, len(states)):
        torch.manual_seed(99)
        fresh = make()
        fresh.load_state_dict(states[taken])
        assert fresh.state_dict() == states[taken]
        assert list(fresh) == batches[taken:]


def test_a_state_of_another_dataset_is_refused() -> None:
    state = DynamicBatchSampler(Sized(SIZES), 10).state_dict()
    with pytest.raises(StateError, match="other data"):
        DynamicBatchSampler(Sized([*SIZES[:-1], 2]), 10).load_state_dict(state)
    with pytest.raises(StateError, match="max_batch_size"):
        DynamicBatchSampler(Sized(SIZES), 11).load_state_dict(state)


def test_a_sampler_that_has_iterated_shows_the_state_that_it_has_loaded() -> None:
    sampler = DynamicBatchSampler(Sized(SIZES), 10)
    walk = iter(sampler)
    batches = [next(walk), next(walk)]
    state = sampler.state_dict()
    batches.extend(walk)
    sampler.load_state_dict(state)
    assert sampler.state_dict() == state
    again = iter(sampler)
    assert sampler.state_dict() == state
    assert list(again) == batches[2:]
    assert sampler.state_dict() != state
    assert list(sampler) == batches


def test_a_loaded_state_is_the_samplers_own() -> None:
    sampler = DynamicBatchSampler(Sized([3, 11, 4]), 10, allow_oversized_samples=True)
    assert next(iter(sampler)) == [1]
    state = sampler.state_dict()
    assert state["pending"] == [0]
    sampler.load_state_dict(state)
    state["pending"].append(0)
    sampler.state_dict()["pending"].append(0)
    assert list(sampler) == [[0, 2]]


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        {"pending": "x"},
        {"pending": [10**9]},
        {"pending": [-1]},
        {"pending": [True]},
        {"pending": None},
        {"position": 10**9},
        {"position": len(SIZES) + 1},
        {"position": -1},
        {"position": None},
        {"order": "zz"},
        {"order": "AAAA"},
        {"order": 5},
    ],
)
def test_a_damaged_state_is_refused(damage: dict[str, Any], shuffle: bool) -> None:
    sampler = DynamicBatchSampler(Sized(SIZES), 10, shuffle=shuffle)
    walk: Any = iter(sampler)
    next(walk)
    state = {**sampler.state_dict(), **damage}
    with pytest.raises(StateError, match="damaged"):
        sampler.load_state_dict(state)
    with pytest.raises(StateError, match="damaged"):
        walk.load_state_dict(state)


def test_a_shuffled_state_without_its_order_is_refused() -> None:
    sampler = DynamicBatchSampler(Sized(SIZES), 10, shuffle=True)
    next(iter(sampler))
    with pytest.raises(StateError, match="'order' is missing"):
        sampler.load_state_dict({**sampler.state_dict(), "order": None})
