"""One pipeline, four faces: stage, pipe, node and dataset give the same items in the same order."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pytest

from datapipes.datasets import FileDataset, ResumableSampler
from datapipes.iter import IterableWrapper
from datapipes.stages import ListFiles, LoadFiles, ReadShards, ShardFiles, ShuffleFiles

FILES = 37
EPOCHS = 3
SHARES = [(0, 1, "keep"), (0, 3, "keep"), (2, 3, "keep"), (2, 3, "pad"), (1, 3, "drop"), (40, 50, "pad")]


@pytest.fixture
def root(tmp_path: Path) -> str:
    for i in range(FILES):
        folder = tmp_path / "data" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02}.bin").write_bytes(bytes([i]) * i)
    return str(tmp_path / "data")


def of_stage(root: str, seed: int, rank: int, world_size: int, uneven: Any) -> list[list[tuple[str, bytes]]]:
    names = ShardFiles(
        ShuffleFiles(ListFiles(root), seed=seed), rank=rank, world_size=world_size, uneven=uneven
    )
    stage = LoadFiles(names)
    epochs = []
    for _ in range(EPOCHS):
        stage.reset()
        epochs.append(list(stage))
    return epochs


@pytest.mark.parametrize(("rank", "world_size", "uneven"), SHARES)
def test_pipe_gives_what_the_stage_gives(root: str, rank: int, world_size: int, uneven: Any) -> None:
    pipe = (
        IterableWrapper([root])
        .list_files_by_local()
        .shuffle_files(seed=5)
        .shard_files(rank=rank, world_size=world_size, uneven=uneven)
        .load_files_by_local(output="bytes")
    )
    assert [list(pipe) for _ in range(EPOCHS)] == of_stage(root, 5, rank, world_size, uneven)


@pytest.mark.parametrize(("rank", "world_size", "uneven"), SHARES)
def test_node_gives_what_the_stage_gives(root: str, rank: int, world_size: int, uneven: Any) -> None:
    torchdata_nodes = pytest.importorskip("torchdata.nodes")
    from datapipes import nodes

    names = nodes.FileShuffler(nodes.FileLister(root), seed=5)
    node = nodes.FileLoader(nodes.FileSharder(names, rank=rank, world_size=world_size, uneven=uneven))
    wanted = of_stage(root, 5, rank, world_size, uneven)
    loader = torchdata_nodes.Loader(node)
    if wanted[0]:
        assert [list(loader) for _ in range(EPOCHS)] == wanted
    else:
        assert list(loader) == []


@pytest.mark.parametrize(("rank", "world_size", "uneven"), SHARES)
def test_dataset_and_sampler_give_what_the_stage_gives(
    root: str, rank: int, world_size: int, uneven: Any
) -> None:
    dataset = FileDataset(root, with_url=True)
    sampler = ResumableSampler(dataset, seed=5, rank=rank, world_size=world_size, uneven=uneven)
    epochs = [dataset.__getitems__(list(sampler)) for _ in range(EPOCHS)]
    assert epochs == of_stage(root, 5, rank, world_size, uneven)


@pytest.fixture
def shards(root: str, tmp_path: Path) -> str:
    """The same files in five shards."""
    (tmp_path / "shards").mkdir()
    for number in range(5):
        with tarfile.open(tmp_path / f"shards/{number}.tar", "w") as archive:
            for file in sorted(Path(root).rglob("*.bin"))[number::5]:
                archive.add(file, file.name)
    return str(tmp_path / "shards")


def test_members_of_shards_are_the_same_whichever_face_reads(shards: str) -> None:
    stage = ReadShards(ShuffleFiles(ListFiles(shards), seed=5), chunk_bytes=1000)
    wanted = []
    for _ in range(EPOCHS):
        stage.reset()
        wanted.append(list(stage))
    assert {len(items) for items in wanted} == {FILES}
    names = IterableWrapper([shards]).list_files_by_local().shuffle_files(seed=5)
    pipe = names.read_shards(output="bytes")
    assert [list(pipe) for _ in range(EPOCHS)] == wanted
    torchdata_nodes = pytest.importorskip("torchdata.nodes")
    from datapipes import nodes

    node = nodes.ShardReader(nodes.FileShuffler(nodes.FileLister(shards), seed=5), chunk_bytes=3000)
    loader = torchdata_nodes.Loader(node)
    assert [list(loader) for _ in range(EPOCHS)] == wanted


def test_listings_are_the_same_whichever_face_lists(root: str) -> None:
    names = list(ListFiles(root))
    assert len(names) == FILES
    assert list(IterableWrapper([root]).list_files_by_local()) == names
    assert FileDataset(root).index().urls(slice(None)) == names


def test_node_lists_what_the_stage_lists(root: str) -> None:
    pytest.importorskip("torchdata.nodes")
    from datapipes import nodes

    assert list(nodes.FileLister(root)) == list(ListFiles(root))


def test_state_of_a_node_resumes_the_stage(root: str) -> None:
    pytest.importorskip("torchdata.nodes")
    from datapipes import nodes

    node = nodes.FileLoader(nodes.FileShuffler(nodes.FileLister(root), seed=5))
    head = [next(node) for _ in range(10)]
    stage = LoadFiles(ShuffleFiles(ListFiles(root), seed=5))
    stage.reset(node.get_state())
    assert head + list(stage) == list(LoadFiles(ShuffleFiles(ListFiles(root), seed=5)))
