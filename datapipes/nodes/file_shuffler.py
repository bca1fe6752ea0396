"""``FileShuffler``: all names in an order drawn anew for each epoch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from datapipes.index import FileIndex
from datapipes.nodes.base import StageNode, as_source
from datapipes.stages.shuffle_files import ShuffleFiles

__all__ = ["FileShuffler"]


class FileShuffler(StageNode[Any]):
    """Yields every name of the source once: a full permutation, without a buffer.

    Args:
        source: a ``FileLister`` or another of our nodes, a ``FileIndex``, a list, or any node or pipe of
            names (which must give the same names in every process).
        seed: see :class:`datapipes.stages.ShuffleFiles`.
    """

    def __init__(self, source: FileIndex | Iterable[Any], *, seed: int = 0) -> None:
        super().__init__(ShuffleFiles(as_source(source), seed=seed), source)
