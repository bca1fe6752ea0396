"""The permutation: a bijection, stable for ever, without structure that fewer rounds would leave."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

from datapipes.errors import OptionError
from datapipes.permutation import MAX_LENGTH, Permutation

# (n, seed, epoch): the first six outputs and the last one. Saved states mean these orders: a change here
# makes every state of a shuffled pipeline resume with other samples.
GOLDEN: dict[tuple[int, int, int], tuple[list[int], int]] = {
    (10, 0, 0): ([8, 3, 9, 1, 7, 0], 5),
    (10, 0, 1): ([8, 2, 7, 9, 6, 3], 0),
    (16384, 7, 2): ([13051, 9205, 732, 202, 9577, 14241], 12265),
    (16385, 7, 2): ([16323, 11800, 11551, 13439, 6536, 2719], 13494),
    (1_000_003, 0, 0): ([610160, 984103, 762147, 121484, 296247, 999489], 188859),
    (10_000_000, 3, 5): ([1961081, 8639654, 206454, 3413000, 5753120, 9314390], 6656125),
    (1 << 62, 1, 0): (
        [
            1722442879913089124,
            612815807402221719,
            805979430905796520,
            705867505271606177,
            2426076914570624952,
            2771894465529431681,
        ],
        1117374135116608063,
    ),
}


def everything(n: int, seed: int = 0, epoch: int = 0) -> np.ndarray[Any, np.dtype[np.int64]]:
    return Permutation(n, seed, epoch)(np.arange(n))


@pytest.mark.parametrize("key", GOLDEN)
def test_order_is_that_of_every_earlier_version(key: tuple[int, int, int]) -> None:
    first, last = GOLDEN[key]
    permutation = Permutation(*key)
    assert permutation(np.arange(len(first))).tolist() == first
    assert permutation(np.array([key[0] - 1])).tolist() == [last]


# Around the lengths where the construction changes, primes, squares, and the edges of the digits.
@pytest.mark.parametrize(
    "n",
    [
        0,
        1,
        2,
        3,
        4,
        5,
        7,
        16,
        100,
        16383,
        16384,
        16385,
        16411,
        65535,
        65536,
        65537,
        99_991,
        262_144,
        1_000_003,
    ],
)
def test_every_index_comes_once(n: int) -> None:
    for seed in (0, 1, -5, 10**30):
        assert np.array_equal(np.sort(everything(n, seed)), np.arange(n))


@pytest.mark.parametrize("n", [(1 << 62) - 1, 1 << 62, (1 << 61) + 12345, 10**12 + 39, (1 << 32) + 1])
def test_huge_lengths_stay_in_range_without_repeats(n: int) -> None:
    positions = np.unique(np.linspace(0, n - 1, 20_000).astype(np.int64).clip(0, n - 1))
    indices = Permutation(n, 3, 1)(positions)
    assert indices.min() >= 0
    assert indices.max() < n
    assert len(np.unique(indices)) == len(positions)


def test_blocks_of_any_size_and_shape_give_the_same_order() -> None:
    n = 50_021
    whole = everything(n, 5, 2)
    permutation = Permutation(n, 5, 2)
    for size in (1, 7, 8191, 8192, 8193, n):
        some = range(0, n, size) if size > 1 else range(0, n, 997)
        for start in some:
            assert np.array_equal(
                permutation(np.arange(start, min(n, start + size))), whole[start : start + size]
            )
    backwards = np.arange(n)[::-1].reshape(-1, 1)
    assert np.array_equal(permutation(backwards), whole[::-1].reshape(-1, 1))
    assert permutation(np.arange(10, dtype=np.uint8)).tolist() == whole[:10].tolist()
    assert permutation(np.array(3)).shape == ()


def test_positions_are_left_as_they_were() -> None:
    for n in (100, 100_000):
        positions = np.arange(50)
        result = Permutation(n, 0, 0)(positions)
        result[:] = -1
        assert np.array_equal(positions, np.arange(50))
        assert (Permutation(n, 0, 0)(positions) >= 0).all()


@pytest.mark.parametrize("n", [1000, 100_003])
def test_order_depends_on_seed_epoch_and_length(n: int) -> None:
    base = everything(n, 1, 1)
    for other in (everything(n, 2, 1), everything(n, 1, 2), everything(n, 2, 0), everything(n + 1, 1, 1)[:n]):
        assert (base == other).mean() < 0.02
    assert np.array_equal(base, everything(n, 1, 1))


def test_tiny_permutations_are_all_reached_alike() -> None:
    seen = [tuple(everything(4, seed).tolist()) for seed in range(4800)]
    counts = np.unique(seen, axis=0, return_counts=True)[1]
    assert len(counts) == 24
    assert chi_square(counts) < 6


def chi_square(counts: np.ndarray[Any, Any]) -> float:
    """Distance from a uniform distribution, in standard deviations of what chance gives."""
    expected = counts.sum() / len(counts)
    value = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    return float((value - freedom) / np.sqrt(2 * freedom))


def binned(values: np.ndarray[Any, Any], n: int, bins: int) -> np.ndarray[Any, Any]:
    return np.bincount(values * bins // n, minlength=bins)


N = 1 << 20  # the digits of the network are the upper and lower ten bits
SEEDS = range(6)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [20_000, 100_000, N, 10**7])
def test_first_thousand_come_from_everywhere(n: int, seed: int) -> None:
    # torch's shuffle of 100,000 takes its first thousand from the first eleven thousand.
    first = Permutation(n, seed, 0)(np.arange(1000))
    assert chi_square(binned(first, n, 20)) < 5
    assert first.max() > 0.98 * n
    assert abs(np.corrcoef(np.arange(1000), first)[0, 1]) < 0.15


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("n", [N, 1_000_003])
def test_neighbours_are_unrelated(n: int, seed: int) -> None:
    """Two rounds leave differences a thousand standard deviations from uniform."""
    order = everything(n, seed)
    for lag in (1, 2, 3, 1024):
        assert abs(chi_square(binned((order[lag:] - order[:-lag]) % n, n, 1000))) < 5
        assert abs(np.corrcoef(order[lag:], order[:-lag])[0, 1]) < 0.005


@pytest.mark.parametrize("seed", SEEDS)
def test_neighbours_in_a_digit_are_unrelated(seed: int) -> None:
    """Three rounds leave 28 standard deviations here, four 14."""
    order = Permutation(N, seed, 0)(np.arange(100_000))
    assert abs(chi_square(binned((order[1024:] - order[:-1024]) % N, N, 1000))) < 5


@pytest.mark.parametrize("seed", SEEDS)
def test_digits_do_not_survive(seed: int) -> None:
    """After three rounds, of positions alike in the lower digit, those that come out alike in it keep the
    difference of their upper digits: always, and not once in a thousand pairs."""
    order = Permutation(N, seed, 0)(np.arange(0, N, 1024))
    upper, lower = order >> 10, order & 1023
    one, other = np.triu_indices(len(order), 1)
    alike = lower[one] == lower[other]
    kept = (upper[one] - upper[other] - (one - other)) % 1024 == 0
    assert alike.sum() > 300
    assert kept[alike].mean() < 0.02


@pytest.mark.parametrize("seed", SEEDS)
def test_epochs_are_unrelated(seed: int) -> None:
    n = 100_003
    one, other = everything(n, seed, 0), everything(n, seed, 1)
    assert abs(np.corrcoef(one, other)[0, 1]) < 0.015
    assert chi_square(binned((one - other) % n, n, 500)) < 5


def test_memory_does_not_grow_with_the_length() -> None:
    positions = np.arange(4096)
    peaks = []
    for n in (20_000, 10**7, 1 << 60):
        tracemalloc.start()
        Permutation(n, 0, 0)(positions)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 1 << 20


def test_length_and_repr() -> None:
    assert len(Permutation(12, 0, 0)) == 12
    assert repr(Permutation(12, 3, 4)) == "Permutation(n=12, seed=3, epoch=4)"


@pytest.mark.parametrize("n", [10, 20_000])
@pytest.mark.parametrize("positions", [[-1], [0, 1 << 40], [3, -(1 << 63)]])
def test_position_outside_is_an_index_error(n: int, positions: list[int]) -> None:
    with pytest.raises(IndexError, match="position"):
        Permutation(n, 0, 0)(np.array(positions))


def test_position_just_behind_the_end_is_an_index_error() -> None:
    for n in (0, 10, 20_000):
        with pytest.raises(IndexError):
            Permutation(n, 0, 0)(np.array([n]))
        assert Permutation(n, 0, 0)(np.array([], np.int64)).tolist() == []


@pytest.mark.parametrize(
    ("n", "seed", "epoch", "says"),
    [
        (-1, 0, 0, "n must"),
        (MAX_LENGTH + 1, 0, 0, "n must"),
        (3.0, 0, 0, "n must"),
        (True, 0, 0, "n must"),
        (3, "0", 0, "seed"),
        (3, None, 0, "seed"),
        (3, 0, -1, "epoch"),
        (3, 0, 0.5, "epoch"),
    ],
)
def test_absurd_arguments_are_refused(n: Any, seed: Any, epoch: Any, says: str) -> None:
    with pytest.raises(OptionError, match=says):
        Permutation(n, seed, epoch)


def test_positions_that_are_no_integers_are_refused() -> None:
    with pytest.raises(OptionError, match="float64"):
        Permutation(10, 0, 0)(np.array([1.0]))


def test_numpy_integers_are_integers() -> None:
    ours = Permutation(np.int64(100), np.uint8(3), np.int32(2))  # type: ignore[arg-type]
    assert ours(np.arange(100)).tolist() == everything(100, 3, 2).tolist()
