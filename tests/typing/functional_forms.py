"""What type checkers must infer; read by mypy and pyright, never run. See test_typing.py."""

from __future__ import annotations

from typing import assert_type

from torch.utils.data.datapipes.utils.common import StreamWrapper

from datapipes.backends.base import Backend
from datapipes.backends.local import LocalBackend
from datapipes.iter import (
    AISFileLister,
    AISFileLoader,
    AISSourceLister,
    DaosFileLister,
    DaosFileLoader,
    FileSharder,
    FileShuffler,
    IterableWrapper,
    IterDataPipe,
    LocalFileLister,
    LocalFileLoader,
    ShardReader,
)
from datapipes.records import FileEntry

source = IterableWrapper(["daos://tank/train/"])
assert_type(source, IterableWrapper[str])

names = source.list_files_by_daos(masks=["*.png", "*.jpg"], recursive=False)
assert_type(names, DaosFileLister[str])
assert_type(source.list_files_by_daos(entries=True, sizes=False, types=False), DaosFileLister[FileEntry])
assert_type(source.list_files_by_daos(handle_cache_bytes=1 << 20), DaosFileLister[str])
assert_type(source.list_files_by_local(), LocalFileLister[str])

streams = names.shuffle_files(seed=0).shard_files().load_files_by_daos(max_in_flight=8)
assert_type(streams, DaosFileLoader[tuple[str, StreamWrapper]])
contents = names.shuffle_files().shard_files(rank=0, world_size=2).load_files_by_daos(output="bytes")
assert_type(contents, DaosFileLoader[tuple[str, bytes]])

shards = names.shuffle_files().read_shards(chunk_bytes=1 << 20, on_error="skip")
assert_type(shards, ShardReader[tuple[str, StreamWrapper]])
assert_type(names.read_shards(output="bytes"), ShardReader[tuple[str, bytes]])

objects = source.list_files_by_ais("localhost:8080", masks="*.jpg")
assert_type(objects, AISFileLister[str])
assert_type(source.ais_list_files(url="http://proxy", entries=True, token="t"), AISFileLister[FileEntry])
assert_type(objects.load_files_by_ais("http://proxy", -1, "etl"), AISFileLoader[tuple[str, StreamWrapper]])
assert_type(objects.ais_load_files(output="bytes"), AISFileLoader[tuple[str, bytes]])
assert_type(source.list_files_by_ais(sizes=False), AISFileLister[str])
assert_type(source.ais_list_sources(prefix="train/"), AISSourceLister)

# The constructors infer the same.
assert_type(LocalFileLister("/data"), LocalFileLister[str])
assert_type(AISFileLister(["ais://b/"], "http://proxy"), AISFileLister[str])
assert_type(AISFileLoader(objects, output="bytes"), AISFileLoader[tuple[str, bytes]])
assert_type(DaosFileLister(source, entries=True, handle_cache_bytes=0), DaosFileLister[FileEntry])
assert_type(LocalFileLoader(["/data/a"]), LocalFileLoader[tuple[str, StreamWrapper]])
assert_type(DaosFileLoader(names, output="bytes"), DaosFileLoader[tuple[str, bytes]])
assert_type(ShardReader(["/data/a.tar"], output="bytes"), ShardReader[tuple[str, bytes]])
assert_type(FileSharder(FileShuffler(names), rank=0, world_size=2), FileSharder[str])


def label_of(item: tuple[str, bytes]) -> int:
    return len(item[1])


assert_type(contents.map(label_of), IterDataPipe[int])
assert_type(contents.map(label_of).batch(64), IterDataPipe[list[int]])

for batch in contents.map(label_of).batch(64).resumable(seed=1):
    assert_type(batch, list[int])

store: Backend = LocalBackend()
assert_type(store.read("file:///a"), bytes)

# Each of these must be an error, or the two "unused ignore" settings make it one.
names.load_files_by_daos(output="text")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
names.shuffle_files(0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
names.shard_files(uneven="maybe")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
print(store.scheme.nothing)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
