"""What tells one dataset from another, for the states of samplers."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from torch.utils.data import ConcatDataset, Subset

__all__ = ["fingerprint_of"]


def fingerprint_of(source: Any) -> str | None:
    """The fingerprint that ``source`` has; else, of torch's ``Subset`` (which ``random_split`` makes) and
    ``ConcatDataset``, one of what they hold. None where nothing tells the data but their number.

    The indices of a Subset, and the lengths in a ConcatDataset, count where what is below has none.
    """
    own = getattr(source, "fingerprint", None)
    if isinstance(own, str):
        return own
    if isinstance(source, Subset):
        indices = np.asarray(source.indices, dtype="<i8")
        return _digest("subset", str(fingerprint_of(source.dataset)), indices.tobytes())
    if isinstance(source, ConcatDataset):
        return _digest(
            "concat", str(source.cumulative_sizes), *(str(fingerprint_of(part)) for part in source.datasets)
        )
    return None


def _digest(*parts: str | bytes) -> str:
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(b"%d:" % len(data))
        digest.update(data)
    return digest.hexdigest()
