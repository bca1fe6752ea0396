"""Which target of an AIStore cluster owns an object: rendezvous hashing for a whole batch of names.

The owner of a name is the target whose ``H(target's digest XOR name's digest)`` is the highest; digests are
XXH64 with one seed, H is one step of xoshiro256** on a state that splitmix64 has filled
(https://prng.di.unimi.it/). This is the rule of AIStore and of its SDK, which asks it for one object at a
time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from datapipes.backends.ais_errors import client

__all__ = ["Placement", "digest_of"]

_SEED = 1103515245
_GOLDEN, _FIRST, _SECOND = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)
_5, _7, _9, _27, _30, _31, _57 = (np.uint64(number) for number in (5, 7, 9, 27, 30, 31, 57))
_BLOCK = 1 << 12
"""Scores worked out at once: two arrays of them fit the nearest cache."""


def digest_of(text: bytes) -> int:
    """The digest of a target's id or of an object's full name (``ais_names.unames``)."""
    return int(client("xxhash").xxh64_intdigest(text, _SEED))


class Placement:
    """The targets that may own objects, in the order of the cluster map; immutable."""

    def __init__(self, digests: Sequence[int]) -> None:
        self._targets = np.array(digests, np.uint64)

    def owners(self, unames: Sequence[bytes]) -> NDArray[np.intp]:
        """For each full name the position of its owner among the targets. There must be a target."""
        hashed, seed = client("xxhash").xxh64_intdigest, _SEED
        names = np.array([hashed(name, seed) for name in unames], np.uint64)
        found = np.empty(len(names), np.intp)
        rows = max(1, _BLOCK // len(self._targets))
        for start in range(0, len(names), rows):
            part = names[start : start + rows, None]
            score = np.bitwise_xor(part, self._targets)
            _mix(score)
            np.argmax(score, axis=1, out=found[start : start + rows])
        return found


def _mix(z: NDArray[np.uint64]) -> None:
    """H of every number, in place."""
    spare = np.empty_like(z)
    for _ in range(2):  # the second word that splitmix64 gives
        z += _GOLDEN
        np.right_shift(z, _30, out=spare)
        z ^= spare
        z *= _FIRST
        np.right_shift(z, _27, out=spare)
        z ^= spare
        z *= _SECOND
        np.right_shift(z, _31, out=spare)
        z ^= spare
    z *= _5
    np.left_shift(z, _7, out=spare)
    z >>= _57
    z |= spare
    z *= _9
