# What a type checker and an editor see of datapipes.iter: torch's IterDataPipe with every functional form,
# torch's and ours, so that a chain keeps its completions and the type of its items. At run time the name
# IterDataPipe is torch's own class, which finds functional forms in a table.
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack, overload

from torch.utils.data import DataChunk, IterableDataset
from torch.utils.data import IterDataPipe as _TorchIterDataPipe
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
from torch.utils.data.datapipes.utils.common import StreamWrapper

from datapipes.backends.base import Backend
from datapipes.errors import DatapipesError
from datapipes.index import FileIndex
from datapipes.records import FileEntry
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

_T = TypeVar("_T")
_T_co = TypeVar("_T_co", covariant=True)
_OnError = Literal["raise", "skip"] | Callable[[str, DatapipesError], Any]
_Uneven = Literal["keep", "pad", "drop"]
_Source = str | Iterable[Any]

class _Cluster(TypedDict, total=False):
    token: str | None
    ca_cert: str | None
    client_cert: str | tuple[str, str] | None
    skip_verify: bool

def set_epoch(datapipe: _TorchIterDataPipe[Any], epoch: int) -> None: ...

class IterDataPipe(_TorchIterDataPipe[_T_co]):
    def __iter__(self) -> Iterator[_T_co]: ...
    # Ours.
    @overload
    def list_files_by_ais(
        self,
        url: str | None = None,
        length: int = -1,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[False] = False,
        sizes: bool = True,
        **cluster: Unpack[_Cluster],
    ) -> AISFileLister[str]: ...
    @overload
    def list_files_by_ais(
        self,
        url: str | None = None,
        length: int = -1,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[True],
        sizes: bool = True,
        **cluster: Unpack[_Cluster],
    ) -> AISFileLister[FileEntry]: ...
    @overload
    def load_files_by_ais(
        self,
        url: str | None = None,
        length: int = -1,
        etl_name: str | None = None,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["stream"] = "stream",
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        batch_reads: bool | int = False,
        http2: bool = True,
        **cluster: Unpack[_Cluster],
    ) -> AISFileLoader[tuple[str, StreamWrapper]]: ...
    @overload
    def load_files_by_ais(
        self,
        url: str | None = None,
        length: int = -1,
        etl_name: str | None = None,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["bytes"],
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        batch_reads: bool | int = False,
        http2: bool = True,
        **cluster: Unpack[_Cluster],
    ) -> AISFileLoader[tuple[str, bytes]]: ...
    ais_list_files = list_files_by_ais
    ais_load_files = load_files_by_ais
    def ais_list_sources(self, prefix: str = "", etl_name: str | None = None) -> AISSourceLister: ...
    @overload
    def list_files_by_daos(
        self,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[False] = False,
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> DaosFileLister[str]: ...
    @overload
    def list_files_by_daos(
        self,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[True],
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> DaosFileLister[FileEntry]: ...
    @overload
    def list_files_by_local(
        self,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[False] = False,
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> LocalFileLister[str]: ...
    @overload
    def list_files_by_local(
        self,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[True],
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> LocalFileLister[FileEntry]: ...
    @overload
    def load_files_by_daos(
        self,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["stream"] = "stream",
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> DaosFileLoader[tuple[str, StreamWrapper]]: ...
    @overload
    def load_files_by_daos(
        self,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["bytes"],
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> DaosFileLoader[tuple[str, bytes]]: ...
    @overload
    def load_files_by_local(
        self,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["stream"] = "stream",
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> LocalFileLoader[tuple[str, StreamWrapper]]: ...
    @overload
    def load_files_by_local(
        self,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["bytes"],
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> LocalFileLoader[tuple[str, bytes]]: ...
    @overload
    def read_shards(
        self,
        *,
        chunk_bytes: int = 4194304,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        on_error: _OnError = "raise",
        output: Literal["stream"] = "stream",
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        max_member_bytes: int = 2147483648,
        resolve: Callable[[str], Backend] = ...,
        length: int | None = None,
    ) -> ShardReader[tuple[str, StreamWrapper]]: ...
    @overload
    def read_shards(
        self,
        *,
        chunk_bytes: int = 4194304,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        on_error: _OnError = "raise",
        output: Literal["bytes"],
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        max_member_bytes: int = 2147483648,
        resolve: Callable[[str], Backend] = ...,
        length: int | None = None,
    ) -> ShardReader[tuple[str, bytes]]: ...
    def resumable(
        self, *, seed: int = 0, stateless: Sequence[type[_TorchIterDataPipe[Any]]] = ()
    ) -> Resumable[_T_co]: ...
    def shard_files(
        self, *, rank: int | None = None, world_size: int | None = None, uneven: _Uneven = "keep"
    ) -> FileSharder[_T_co]: ...
    def shuffle_files(self, *, seed: int = 0) -> FileShuffler[_T_co]: ...
    # Torch's, with what they return kept in the chain.
    def batch(
        self, batch_size: int, drop_last: bool = False, wrapper_class: type[DataChunk[Any]] = ...
    ) -> IterDataPipe[list[_T_co]]: ...
    def collate(
        self,
        conversion: Callable[..., Any] | dict[str | Any, Callable[..., Any] | Any] | None = ...,
        collate_fn: Callable[..., Any] | None = None,
    ) -> IterDataPipe[Any]: ...
    def concat(self, *datapipes: _TorchIterDataPipe[Any]) -> IterDataPipe[Any]: ...
    def filter(self, filter_fn: Callable[..., bool], input_col: Any = None) -> IterDataPipe[_T_co]: ...
    def groupby(
        self,
        group_key_fn: Callable[[Any], Any],
        *,
        keep_key: bool = False,
        buffer_size: int = 10000,
        group_size: int | None = None,
        guaranteed_group_size: int | None = None,
        drop_remaining: bool = False,
    ) -> IterDataPipe[Any]: ...
    def map(
        self, fn: Callable[..., _T], input_col: Any = None, output_col: Any = None
    ) -> IterDataPipe[_T]: ...
    def mux(self, *datapipes: Any) -> IterDataPipe[Any]: ...
    def open_files(
        self, mode: str = "r", encoding: str | None = None, length: int = -1
    ) -> IterDataPipe[tuple[str, Any]]: ...
    def read_from_stream(self, chunk: int | None = None) -> IterDataPipe[tuple[str, bytes]]: ...
    def sharding_filter(self, sharding_group_filter: Any = None) -> IterDataPipe[_T_co]: ...
    def shuffle(self, *, buffer_size: int = 10000, unbatch_level: int = 0) -> IterDataPipe[_T_co]: ...
    def unbatch(self, unbatch_level: int = 1) -> IterDataPipe[Any]: ...
    def zip(self, *datapipes: _TorchIterDataPipe[Any]) -> IterDataPipe[tuple[Any, ...]]: ...

class IterableWrapper(IterDataPipe[_T_co]):
    def __init__(self, iterable: Iterable[_T_co], deepcopy: bool = True) -> None: ...
    def __len__(self) -> int: ...

class _StagePipe(IterDataPipe[_T_co]):
    source_datapipe: _TorchIterDataPipe[Any]
    def set_epoch(self, epoch: int) -> None: ...
    def stats(self) -> dict[str, float]: ...
    def __len__(self) -> int: ...

# Each constructor stands in its own class: mypy binds `self: X[str]` in X alone, not in what derives from it.
class AISFileLister(_StagePipe[_T_co]):
    @overload
    def __init__(
        self: AISFileLister[str],
        source_datapipe: _Source,
        url: str | None = None,
        length: int = -1,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[False] = False,
        sizes: bool = True,
        **cluster: Unpack[_Cluster],
    ) -> None: ...
    @overload
    def __init__(
        self: AISFileLister[FileEntry],
        source_datapipe: _Source,
        url: str | None = None,
        length: int = -1,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[True],
        sizes: bool = True,
        **cluster: Unpack[_Cluster],
    ) -> None: ...

class AISFileLoader(_StagePipe[_T_co]):
    @overload
    def __init__(
        self: AISFileLoader[tuple[str, StreamWrapper]],
        source_datapipe: _Source,
        url: str | None = None,
        length: int = -1,
        etl_name: str | None = None,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["stream"] = "stream",
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        batch_reads: bool | int = False,
        http2: bool = True,
        **cluster: Unpack[_Cluster],
    ) -> None: ...
    @overload
    def __init__(
        self: AISFileLoader[tuple[str, bytes]],
        source_datapipe: _Source,
        url: str | None = None,
        length: int = -1,
        etl_name: str | None = None,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["bytes"],
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        batch_reads: bool | int = False,
        http2: bool = True,
        **cluster: Unpack[_Cluster],
    ) -> None: ...

AISFileListerIterDataPipe = AISFileLister
AISFileLoaderIterDataPipe = AISFileLoader

class AISSourceLister(_StagePipe[str]):
    def __init__(self, ais_sources: Iterable[Any], prefix: str = "", etl_name: str | None = None) -> None: ...

class DaosFileLister(_StagePipe[_T_co]):
    @overload
    def __init__(
        self: DaosFileLister[str],
        source_datapipe: _Source,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[False] = False,
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: DaosFileLister[FileEntry],
        source_datapipe: _Source,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[True],
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> None: ...

class LocalFileLister(_StagePipe[_T_co]):
    @overload
    def __init__(
        self: LocalFileLister[str],
        source_datapipe: _Source,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[False] = False,
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: LocalFileLister[FileEntry],
        source_datapipe: _Source,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: Literal[True],
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> None: ...

class DaosFileLoader(_StagePipe[_T_co]):
    @overload
    def __init__(
        self: DaosFileLoader[tuple[str, StreamWrapper]],
        source_datapipe: _Source,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["stream"] = "stream",
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: DaosFileLoader[tuple[str, bytes]],
        source_datapipe: _Source,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["bytes"],
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> None: ...

class LocalFileLoader(_StagePipe[_T_co]):
    @overload
    def __init__(
        self: LocalFileLoader[tuple[str, StreamWrapper]],
        source_datapipe: _Source,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["stream"] = "stream",
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: LocalFileLoader[tuple[str, bytes]],
        source_datapipe: _Source,
        *,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        ordered: bool = True,
        on_error: _OnError = "raise",
        output: Literal["bytes"],
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = 536870912,
        length: int | None = None,
    ) -> None: ...

class ShardReader(_StagePipe[_T_co]):
    @overload
    def __init__(
        self: ShardReader[tuple[str, StreamWrapper]],
        source_datapipe: _Source,
        *,
        chunk_bytes: int = 4194304,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        on_error: _OnError = "raise",
        output: Literal["stream"] = "stream",
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        max_member_bytes: int = 2147483648,
        resolve: Callable[[str], Backend] = ...,
        length: int | None = None,
    ) -> None: ...
    @overload
    def __init__(
        self: ShardReader[tuple[str, bytes]],
        source_datapipe: _Source,
        *,
        chunk_bytes: int = 4194304,
        max_in_flight: int = 64,
        max_buffer_bytes: int = 67108864,
        on_error: _OnError = "raise",
        output: Literal["bytes"],
        timeout_s: float | None = 60.0,
        verify: Literal["size"] | None = None,
        max_member_bytes: int = 2147483648,
        resolve: Callable[[str], Backend] = ...,
        length: int | None = None,
    ) -> None: ...

class FileShuffler(_StagePipe[_T_co]):
    @overload  # an index iterates as entries, and is drawn from as URLs
    def __init__(self: FileShuffler[str], source_datapipe: FileIndex, *, seed: int = 0) -> None: ...
    @overload
    def __init__(self, source_datapipe: Iterable[_T_co], *, seed: int = 0) -> None: ...

class FileSharder(_StagePipe[_T_co]):
    @overload
    def __init__(
        self: FileSharder[str],
        source_datapipe: FileIndex,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: _Uneven = "keep",
    ) -> None: ...
    @overload
    def __init__(
        self,
        source_datapipe: Iterable[_T_co],
        *,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: _Uneven = "keep",
    ) -> None: ...

class ResumableIterator(Generic[_T_co]):
    def __iter__(self) -> ResumableIterator[_T_co]: ...
    def __next__(self) -> _T_co: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any]) -> None: ...
    def close(self) -> None: ...

class Resumable(IterableDataset[_T_co]):
    def __init__(
        self,
        datapipe: _TorchIterDataPipe[_T_co],
        *,
        seed: int = 0,
        stateless: Sequence[type[_TorchIterDataPipe[Any]]] = (),
    ) -> None: ...
    def __iter__(self) -> ResumableIterator[_T_co]: ...
    def set_epoch(self, epoch: int) -> None: ...
    def stats(self) -> dict[str, float]: ...
