"""Datasets over AIStore that take the place of ``aistore.pytorch``'s: change the import, keep the code.

Same constructors, samples and order; objects are read many at once, and iteration resumes exactly under
StatefulDataLoader. What differs, and why, stands in ``docs/migrating-from-aistore.md``. Needs the ``ais``
extra.
"""

from __future__ import annotations

from typing import NoReturn

from datapipes.datasets.ais_batches import AISBatchIterDataset
from datapipes.datasets.ais_iter import AISBaseIterDataset, AISIterDataset
from datapipes.datasets.ais_map import AISBaseMapDataset, AISMapDataset
from datapipes.datasets.ais_parallel import AISParallelMapDataset
from datapipes.datasets.ais_sampler import DynamicBatchSampler
from datapipes.datasets.ais_shards import AISShardReader
from datapipes.datasets.ais_streams import AISMultiShardStream

__all__ = [
    "AISBaseIterDataset",
    "AISBaseMapDataset",
    "AISBatchIterDataset",
    "AISIterDataset",
    "AISMapDataset",
    "AISMultiShardStream",
    "AISParallelMapDataset",
    "AISShardReader",
    "DynamicBatchSampler",
]


def __getattr__(name: str) -> NoReturn:
    if name == "WorkerRequestClient":
        raise ImportError(
            "WorkerRequestClient of aistore.pytorch 1.x is not needed: give the sources their usual client, "
            "which opens its connections in each process"
        )
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
