"""Resumable steps of a pipeline that need neither torch nor any one store; see ``base.py``."""

from datapipes.stages.base import SKIP, Stage, State
from datapipes.stages.indexed import IndexedStage, IndexRows, indexed
from datapipes.stages.list_files import ListFiles
from datapipes.stages.list_sources import ListSources
from datapipes.stages.load_files import LoadFiles
from datapipes.stages.read_shards import ReadShards
from datapipes.stages.shard_files import ShardFiles
from datapipes.stages.shuffle_files import ShuffleFiles

__all__ = [
    "SKIP",
    "IndexRows",
    "IndexedStage",
    "ListFiles",
    "ListSources",
    "LoadFiles",
    "ReadShards",
    "ShardFiles",
    "ShuffleFiles",
    "Stage",
    "State",
    "indexed",
]
