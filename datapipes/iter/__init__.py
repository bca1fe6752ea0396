"""Pipes (IterDataPipe): torch's own, re-exported, and ours, which all have functional forms too.

from datapipes.iter import IterableWrapper

dp = (IterableWrapper(["daos://tank/train/imagenet/"]).list_files_by_daos()
      .shuffle_files(seed=0).shard_files().load_files_by_daos(max_in_flight=64))
"""

from torch.utils.data import IterDataPipe
from torch.utils.data.datapipes.iter import (
    Batcher,
    Collator,
    Concater,
    Demultiplexer,
    FileLister,
    FileOpener,
    Filter,
    Forker,
    Grouper,
    IterableWrapper,
    Mapper,
    Multiplexer,
    RoutedDecoder,
    Sampler,
    ShardingFilter,
    Shuffler,
    StreamReader,
    UnBatcher,
    Zipper,
)

from datapipes.iter.ais import AISFileLister, AISFileLoader
from datapipes.iter.graph import set_epoch
from datapipes.iter.list_files import DaosFileLister, LocalFileLister
from datapipes.iter.list_sources import AISSourceLister
from datapipes.iter.load_files import DaosFileLoader, LocalFileLoader
from datapipes.iter.read_shards import ShardReader
from datapipes.iter.registry import register_functional_forms
from datapipes.iter.resumable import Resumable
from datapipes.iter.shard_files import FileSharder
from datapipes.iter.shuffle_files import FileShuffler
from datapipes.stages.base import SKIP

__all__ = [
    "SKIP",
    "AISFileLister",
    "AISFileListerIterDataPipe",
    "AISFileLoader",
    "AISFileLoaderIterDataPipe",
    "AISSourceLister",
    "Batcher",
    "Collator",
    "Concater",
    "DaosFileLister",
    "DaosFileLoader",
    "Demultiplexer",
    "FileLister",
    "FileOpener",
    "FileSharder",
    "FileShuffler",
    "Filter",
    "Forker",
    "Grouper",
    "IterDataPipe",
    "IterableWrapper",
    "LocalFileLister",
    "LocalFileLoader",
    "Mapper",
    "Multiplexer",
    "Resumable",
    "RoutedDecoder",
    "Sampler",
    "ShardReader",
    "ShardingFilter",
    "Shuffler",
    "StreamReader",
    "UnBatcher",
    "Zipper",
    "set_epoch",
]

# As torchdata 0.9 calls them.
AISFileListerIterDataPipe = AISFileLister
AISFileLoaderIterDataPipe = AISFileLoader

register_functional_forms(
    {
        "ais_list_files": AISFileLister,
        "ais_list_sources": AISSourceLister,
        "ais_load_files": AISFileLoader,
        "list_files_by_ais": AISFileLister,
        "list_files_by_daos": DaosFileLister,
        "list_files_by_local": LocalFileLister,
        "load_files_by_ais": AISFileLoader,
        "load_files_by_daos": DaosFileLoader,
        "load_files_by_local": LocalFileLoader,
        "read_shards": ShardReader,
        "resumable": Resumable,
        "shard_files": FileSharder,
        "shuffle_files": FileShuffler,
    }
)
