"""Checksums of contents, and who owns an object: both are xxHash."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence
from typing import Protocol

import xxhash

__all__ = ["CHECKSUMS", "Hasher", "digest_of", "hasher", "highest_score", "name_digest"]

SEED = 1103515245
"""What AIStore hashes the names of nodes and objects with."""

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15

CHECKSUMS = ("xxhash2", "xxhash", "md5", "sha256", "sha512", "crc32c", "none")
"""Types that a bucket or a request may name; crc32c is known by name only."""


class Hasher(Protocol):
    """What hashlib and xxhash have in common."""

    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


class _Nothing:
    """The checksum of buckets that keep none."""

    def update(self, data: bytes, /) -> None:
        zlib.adler32(data)

    def hexdigest(self) -> str:
        return ""


def hasher(kind: str) -> Hasher:
    """An empty checksum of an AIStore type; ``xxhash`` is computed as ``xxhash2``, as a cluster does."""
    if kind in ("xxhash2", "xxhash"):
        return xxhash.xxh64(seed=0)
    if kind in ("md5", "sha256", "sha512"):
        return hashlib.new(kind, usedforsecurity=False)
    return _Nothing()


def digest_of(data: bytes, kind: str = "xxhash2") -> str:
    """The checksum of whole contents as AIStore writes it: 16 hex digits for xxhash2."""
    whole = hasher(kind)
    whole.update(data)
    return whole.hexdigest()


def name_digest(text: str) -> int:
    """The digest of a node's id or of an object's unique name."""
    return xxhash.xxh64_intdigest(text.encode("utf-8", "surrogateescape"), seed=SEED)


def _mix(z: int) -> int:
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & WORD
    return z ^ (z >> 31)


def score(seed: int) -> int:
    """One step of xoshiro256** from a state that splitmix64 fills from ``seed``."""
    second = _mix((_mix((seed + GOLDEN) & WORD) + GOLDEN) & WORD)
    product = (second * 5) & WORD
    rotated = ((product << 7) | (product >> 57)) & WORD
    return (rotated * 9) & WORD


def highest_score(digests: Sequence[int], name: int) -> int:
    """The position of the node that owns a name; both given by digest."""
    return max(range(len(digests)), key=lambda i: score(digests[i] ^ name))
