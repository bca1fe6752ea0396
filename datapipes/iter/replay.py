"""Which pipes ``.resumable()`` can work with, and in which place: one table, by class.

A pipe *after* the pipe whose position is saved must keep nothing between two of its outputs, neither a
sample nor a counter: then a fresh copy of it goes on as if nothing had happened. A pipe *before* it is
replayed from the start (names, no payload), so it must give the same again for the same seed. Subclasses
are judged by their own name: torch says nothing about what a subclass keeps.
"""

from __future__ import annotations

from torch.utils.data import IterDataPipe
from torch.utils.data.graph import DataPipe

__all__ = ["keeps_nothing", "refusal", "replays"]

_TORCH = "torch.utils.data.datapipes.iter."
_TORCHDATA = "torchdata.datapipes.iter."

_KEEPS_NOTHING = {
    _TORCH + "callable.CollatorIterDataPipe",
    _TORCH + "callable.MapperIterDataPipe",
    _TORCH + "fileopener.FileOpenerIterDataPipe",
    _TORCH + "grouping.BatcherIterDataPipe",
    _TORCH + "routeddecoder.RoutedDecoderIterDataPipe",
    _TORCH + "selecting.FilterIterDataPipe",
    _TORCH + "streamreader.StreamReaderIterDataPipe",  # unless it reads in chunks: see keeps_nothing
    _TORCHDATA + "transform.callable.DropperIterDataPipe",
    _TORCHDATA + "transform.callable.FlattenIterDataPipe",
    _TORCHDATA + "transform.callable.SliceIterDataPipe",
    _TORCHDATA + "util.decompressor.DecompressorIterDataPipe",
    _TORCHDATA + "util.header.LengthSetterIterDataPipe",
    _TORCHDATA + "util.jsonparser.JsonParserIterDataPipe",
    _TORCHDATA + "util.rows2columnar.Rows2ColumnarIterDataPipe",
}

_REPLAYS = _KEEPS_NOTHING | {
    "datapipes.iter.shard_files.FileSharder",  # over a pipe that is not ours; else its stage has a state
    _TORCH + "combinatorics.ShufflerIterDataPipe",  # with the seed that the state records
    _TORCH + "combining.ConcaterIterDataPipe",
    _TORCH + "combining.MultiplexerIterDataPipe",
    _TORCH + "combining.ZipperIterDataPipe",
    _TORCH + "filelister.FileListerIterDataPipe",
    _TORCH + "grouping.GrouperIterDataPipe",
    _TORCH + "grouping.UnBatcherIterDataPipe",
    _TORCH + "sharding.ShardingFilterIterDataPipe",
    _TORCH + "utils.IterableWrapperIterDataPipe",
    _TORCHDATA + "transform.callable.FlatMapperIterDataPipe",
    _TORCHDATA + "util.cycler.RepeaterIterDataPipe",
    _TORCHDATA + "util.header.HeaderIterDataPipe",
    _TORCHDATA + "util.indexadder.EnumeratorIterDataPipe",
    _TORCHDATA + "util.indexadder.IndexAdderIterDataPipe",
    _TORCHDATA + "util.mux_longest.MultiplexerLongestIterDataPipe",
    _TORCHDATA + "util.shardexpander.ShardExpanderIterDataPipe",
    _TORCHDATA + "util.zip_longest.ZipperLongestIterDataPipe",
}

_INSTEAD = {
    "BatchMapper": "give the function a whole batch: .batch(n).map(fn)",
    "Demultiplexer": "make one pipeline for each branch, each with its own .resumable()",
    "Enumerator": "take positions from the names, before the loader",
    "FlatMapper": "yield a list from .map(fn) and flatten it in the training loop or in collate",
    "Forker": "make one pipeline for each branch, each with its own .resumable()",
    "Header": "stop the loop with itertools.islice, or shorten the list of names before the loader",
    "IndexAdder": "take positions from the names, before the loader",
    "Prefetcher": "leave it out: the loader reads max_in_flight ahead and DataLoader's workers prefetch",
    "Shuffler": "shuffle names, not data: .shuffle_files(seed=...) (or .shuffle()) before the loader",
    "ThreadPoolMapper": "use .map(fn): DataLoader's workers run it in parallel",
    "UnBatcher": "leave batches whole after the loader, or batch in the DataLoader (batch_size=...)",
    "Zipper": "pair the names, before the loader",
}


def _class_name(pipe: DataPipe) -> str:
    return f"{type(pipe).__module__}.{type(pipe).__qualname__}"


def keeps_nothing(pipe: DataPipe, stateless: tuple[type, ...]) -> bool:
    """Whether a fresh copy of ``pipe`` can go on where another one stopped between two outputs."""
    if type(pipe) in stateless:
        return True
    if _class_name(pipe) not in _KEEPS_NOTHING:
        return False
    return getattr(pipe, "chunk", None) is None


def replays(pipe: DataPipe, stateless: tuple[type, ...]) -> bool:
    """Whether ``pipe``, started again with the same seed, gives the same again."""
    if type(pipe) in stateless:
        return True
    return _class_name(pipe) in _REPLAYS and not getattr(pipe, "non_deterministic", False)


def refusal(pipe: DataPipe) -> str:
    """Why ``pipe`` is refused and what to use instead, for the exception."""
    branch = type(pipe).__name__ == "_ChildDataPipe"  # what .fork() and .demux() give
    pipe = getattr(pipe, "main_datapipe", pipe) if branch else pipe
    name = type(pipe).__name__.removesuffix("IterDataPipe").removesuffix("DataPipe") or type(pipe).__name__
    name = name.lstrip("_")
    shown = name if branch else type(pipe).__qualname__
    kind = "" if isinstance(pipe, IterDataPipe) or branch else " (a map-style pipe)"
    instead = _INSTEAD.get(name, "do its work in .map(fn), which keeps nothing")
    declared = f". If it keeps nothing at all, say so: .resumable(stateless=[{type(pipe).__name__}])"
    return (
        f".resumable() cannot restore {shown}{kind}: it may keep samples or a count between two outputs. "
        f"Instead, {instead}{'' if branch else declared}"
    )
