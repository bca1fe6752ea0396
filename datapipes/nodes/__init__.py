"""Our stages as nodes of ``torchdata.nodes`` (torchdata 0.11 or newer: the ``nodes`` extra).

They resume exactly below torchdata's ``Batcher``, ``Unbatcher``, ``Prefetcher``, ``MultiNodeWeightedSampler``
and the ``ParallelMapper`` that keeps its order. ``ParallelMapper(in_order=False)`` does not, over any source:
its state forgets the items that had been overtaken when it was taken.
"""

from datapipes.nodes.ais import AISFileLister, AISFileLoader, AISSourceLister
from datapipes.nodes.base import StageNode
from datapipes.nodes.file_lister import FileLister
from datapipes.nodes.file_loader import FileLoader
from datapipes.nodes.file_sharder import FileSharder
from datapipes.nodes.file_shuffler import FileShuffler
from datapipes.nodes.shard_reader import ShardReader

__all__ = [
    "AISFileLister",
    "AISFileLoader",
    "AISSourceLister",
    "FileLister",
    "FileLoader",
    "FileSharder",
    "FileShuffler",
    "ShardReader",
    "StageNode",
]
