"""A shuffled order that is computed where it is needed instead of being stored.

``Permutation(n, seed, epoch)`` is a keyed bijection of ``[0, n)``: position in, index out, in constant
memory. It is the generalised Feistel network with cycle walking of J. Black and P. Rogaway ("Ciphers with
Arbitrary Finite Domains", CT-RSA 2002): a position is split into two digits of the bases *a* and *b*, with
*a b* just above *n*; each round adds to one digit a hash of the other; a result that is not below *n* goes
through once more. The hash is the 32-bit finaliser of MurmurHash3 (A. Appleby, public domain), brought below
the base by multiplication (D. Lemire, "Fast Random Integer Generation in an Interval", 2019); the round keys
are SHA-512 of (n, seed, epoch). Two or three rounds leave structure that shows in the first thousand outputs;
eight leave none that the tests of this package can find.

Up to 16,384 positions the digits would be too small to hide the network's structure. There a table sorted by
hash is exact, and small (splitmix64: G. Steele, D. Lea, C. Flood, "Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014).

The order is part of what saved states mean: it must stay the same in every version and on every platform.
"""

from __future__ import annotations

import functools
import hashlib
import math
import operator
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datapipes.errors import OptionError

__all__ = ["MAX_LENGTH", "Permutation"]

MAX_LENGTH = 1 << 62
"""The longest sequence that can be permuted."""

_ROUNDS = 8
_TABLE_LENGTH = 1 << 14
_UPPER = 1 if sys.byteorder == "little" else 0
_BLOCK = 1 << 13  # positions worked on at once: the temporaries stay in the processor's second-level cache


class Permutation:
    """A permutation of ``[0, n)`` that depends on nothing but ``n``, ``seed`` and ``epoch``.

    Args:
        n: length, 0 to ``MAX_LENGTH``.
        seed: any integer.
        epoch: an integer of at least 0; each epoch has an order of its own.
    """

    def __init__(self, n: int, seed: int, epoch: int) -> None:
        self._n = _integer("n", n)
        self._seed = _integer("seed", seed)
        self._epoch = _integer("epoch", epoch)
        if not 0 <= self._n <= MAX_LENGTH:
            raise OptionError(f"n must lie between 0 and 2**62, not {n!r}")
        if self._epoch < 0:
            raise OptionError(f"epoch must be at least 0, not {epoch!r}")
        text = f"datapipes permutation 1: n={self._n} seed={self._seed} epoch={self._epoch}"
        key = hashlib.sha512(text.encode()).digest()
        self._table: NDArray[np.int64] | None = None
        if self._n <= _TABLE_LENGTH:
            self._table = _sorted_hashes(self._n, key)
        self._high_base, self._low_base = _bases(max(self._n, 4))
        self._keys = np.frombuffer(key, "<u4").astype(np.uint32).reshape(_ROUNDS, 2)

    def __len__(self) -> int:
        return self._n

    def __repr__(self) -> str:
        return f"Permutation(n={self._n}, seed={self._seed}, epoch={self._epoch})"

    def __call__(self, positions: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The indices at ``positions`` (an array of integers of any shape, each in ``[0, n)``), as int64.

        Raises IndexError for a position outside the range, OptionError for what are no integers.
        """
        positions = np.asarray(positions)
        if positions.size == 0:
            return np.empty(positions.shape, np.int64)
        if positions.dtype.kind not in "iu":
            raise OptionError(f"positions must be integers, not {positions.dtype}")
        least, most = int(positions.min()), int(positions.max())
        if least < 0 or most >= self._n:
            raise IndexError(f"position {least if least < 0 else most} of a permutation of {self._n}")
        if self._table is not None:
            return np.asarray(self._table[positions], np.int64)
        result = np.ravel(positions).astype(np.uint64)
        self._encipher(result)
        outside = np.flatnonzero(result >= self._n)
        while outside.size:  # cycle walking: a bijection of the smaller range; at most one value in a hundred
            again = result[outside]
            self._encipher(again)
            result[outside] = again
            outside = outside[again >= self._n]
        return result.astype(np.int64).reshape(positions.shape)

    def _encipher(self, values: NDArray[np.uint64]) -> None:
        """Once through the network, in place."""
        scratch = _Scratch(min(len(values), _BLOCK))
        low_base = np.uint64(self._low_base)
        for start in range(0, len(values), _BLOCK):
            block = values[start : start + _BLOCK]
            quotient = block // low_base
            high = quotient.astype(np.uint32)
            quotient *= low_base
            low = np.subtract(block, quotient, out=quotient).astype(np.uint32)
            for number, keys in enumerate(self._keys):
                if number % 2:
                    scratch.add_hash(high, keys, low, self._low_base)
                else:
                    scratch.add_hash(low, keys, high, self._high_base)
            block[:] = high
            block *= low_base
            block += low


class _Scratch:
    """The temporaries of one call: numpy's allocations would cost as much as its arithmetic."""

    def __init__(self, length: int) -> None:
        self._hash = np.empty(length, np.uint32)
        self._shifted = np.empty(length, np.uint32)
        self._wide = np.empty(length, np.uint64)
        self._upper = self._wide.view(np.uint32)[_UPPER::2]  # the upper halves of the products

    def add_hash(
        self, source: NDArray[np.uint32], keys: NDArray[np.uint32], target: NDArray[np.uint32], base: int
    ) -> None:
        """``target = (target + hash of source) mod base``, in place; ``base`` is at most 2**31.

        The finaliser's last step is left out: it improves the lower bits, and the multiplication that brings
        the hash below the base takes the upper ones.
        """
        count = len(source)
        mixed, shifted, wide = self._hash[:count], self._shifted[:count], self._wide[:count]
        np.bitwise_xor(source, keys[0], out=mixed)
        np.right_shift(mixed, np.uint32(16), out=shifted)
        mixed ^= shifted
        mixed *= np.uint32(0x85EBCA6B)
        mixed += keys[1]
        np.right_shift(mixed, np.uint32(13), out=shifted)
        mixed ^= shifted
        mixed *= np.uint32(0xC2B2AE35)
        np.multiply(mixed, base, out=wide, dtype=np.uint64)  # NumPy 1 would go by the value of base
        target += self._upper[:count]
        # Below the base, the subtraction wraps round to something larger, and the minimum ignores it.
        np.subtract(target, np.uint32(base), out=shifted)
        np.minimum(target, shifted, out=target)


def _bases(n: int) -> tuple[int, int]:
    """Bases near the square root of n with a product of at least n, of 64 pairs the one closest to it."""
    root = math.isqrt(n - 1) + 1
    candidates = range(root, min(root + 64, (1 << 31) + 1))
    high = min(candidates, key=lambda base: -(-n // base) * base)
    return high, -(-n // high)


@functools.lru_cache(maxsize=8)  # walks make the permutation of an epoch anew for each of their blocks
def _sorted_hashes(n: int, key: bytes) -> NDArray[np.int64]:
    """The positions in the order of their hashes: every permutation as likely as any other."""
    start, step = np.frombuffer(key[:16], "<u8").astype(np.uint64)
    value = np.arange(1, n + 1, dtype=np.uint64)
    value *= step | np.uint64(1)
    value += start
    value ^= value >> np.uint64(30)
    value *= np.uint64(0xBF58476D1CE4E5B9)
    value ^= value >> np.uint64(27)
    value *= np.uint64(0x94D049BB133111EB)
    value ^= value >> np.uint64(31)
    order = np.argsort(value, kind="stable").astype(np.int64)
    order.flags.writeable = False
    return order


def _integer(name: str, value: int) -> int:
    if value is True or value is False or not hasattr(value, "__index__"):
        raise OptionError(f"{name} must be an integer, not {value!r}")
    return operator.index(value)
