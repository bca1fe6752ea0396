"""The permutation of any length is a bijection, whichever part of it is asked for."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from datapipes.permutation import MAX_LENGTH, Permutation

SEEDS = st.integers(-(2**70), 2**70)
EPOCHS = st.integers(0, 2**40)


@given(st.integers(0, 40_000), SEEDS, EPOCHS)
def test_permutation_of_any_length_is_a_bijection(n: int, seed: int, epoch: int) -> None:
    assert np.array_equal(np.sort(Permutation(n, seed, epoch)(np.arange(n))), np.arange(n))


@given(st.data(), st.integers(1, MAX_LENGTH), SEEDS, EPOCHS)
def test_any_positions_give_as_many_indices(data: st.DataObject, n: int, seed: int, epoch: int) -> None:
    positions = data.draw(st.lists(st.integers(0, n - 1), unique=True, max_size=50))
    permutation = Permutation(n, seed, epoch)
    indices = permutation(np.array(positions, np.int64)).tolist()
    assert len(set(indices)) == len(positions)
    assert all(0 <= index < n for index in indices)
    assert [permutation(np.array([position])).item() for position in positions] == indices
