"""States: what is compared, what the refusal says, and what a copy is."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapipes.errors import StateError
from datapipes.stages import SKIP
from datapipes.stages.base import EpochClock
from datapipes.stages.state import copy_identity, fresh_copy, match_identity, stored_count

OWN = {
    "kind": "outer",
    "version": 1,
    "seed": 0,
    "source": {"kind": "inner", "version": 1, "fingerprint": "aa", "rank": 1, "world_size": 2},
}

NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("kind", "other", "another pipeline"),
        ("version", 2, "version 2"),
        ("version", True, "version True"),
        ("seed", 5, "same seed"),
        ("seed", False, "same seed"),
        ("source", None, "inner"),
        ("source", {}, "inner"),
        ("source.kind", "x", "another pipeline"),
        ("source.fingerprint", "bb", "other data"),
        ("source.rank", 0, "another rank"),
        ("source.world_size", 3, "number of ranks"),
    ],
)
def test_difference_is_named(path: str, value: Any, words: str) -> None:
    saved = fresh_copy(OWN)
    match_identity(saved, OWN)
    *parents, key = path.split(".")
    (saved[parents[0]] if parents else saved)[key] = value
    with pytest.raises(StateError, match=words):
        match_identity(saved, OWN)


@pytest.mark.parametrize("saved", [None, 3, True, "seed", ["seed"]])
def test_what_is_no_state_is_refused(saved: Any) -> None:
    for own in (OWN, {"seed": 3}):
        with pytest.raises(StateError):
            match_identity(saved, own)


def test_missing_key_is_named() -> None:
    saved = {key: value for key, value in OWN.items() if key != "seed"}
    with pytest.raises(StateError, match="'seed' is missing"):
        match_identity(saved, OWN)


@given(value=NESTED)
def test_fresh_copy_is_equal_and_shares_nothing_mutable(value: Any) -> None:
    copied = fresh_copy(value)
    assert copied == value
    assert not _mutable(copied) & _mutable(value)


def test_copy_of_identity_shares_no_dict() -> None:
    copied = copy_identity(OWN)
    assert copied == OWN
    assert not _mutable(copied) & _mutable(OWN)


def _mutable(value: Any) -> set[int]:
    if isinstance(value, dict):
        return {id(value)}.union(*map(_mutable, value.values()))
    if isinstance(value, list):
        return {id(value)}.union(*map(_mutable, value))
    return set()


@pytest.mark.parametrize("value", [None, -1, True, 1.0, "1", 11])
def test_stored_count_refuses_what_is_none(value: Any) -> None:
    assert stored_count({"position": 10}, "position", most=10) == 10
    with pytest.raises(StateError, match="damaged"):
        stored_count({"position": value}, "position", most=10)


def test_clock_counts_from_what_was_set() -> None:
    clock = EpochClock()
    assert (clock.upcoming(), clock.current()) == (0, 0)
    clock.started(0)
    assert (clock.upcoming(), clock.current()) == (1, 0)
    clock.set(5)
    assert (clock.upcoming(), clock.current()) == (5, 0)
    copied = pickle.loads(pickle.dumps(clock))
    assert (copied.upcoming(), copied.current()) == (5, 5)
    clock.started(5)
    assert pickle.loads(pickle.dumps(clock)).upcoming() == 0


def test_skip_is_one_object_in_every_process() -> None:
    assert pickle.loads(pickle.dumps(SKIP)) is SKIP
    assert repr(SKIP) == "SKIP"
