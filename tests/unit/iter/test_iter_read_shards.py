"""``.read_shards()``: what it gives to whom, and that ``.resumable()`` restores it at every member."""

from __future__ import annotations

import copy
import io
import pickle
import tarfile
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data.datapipes.utils.common import StreamWrapper

from datapipes.errors import FileMissingError, OptionError, ShardError
from datapipes.iter import SKIP, IterableWrapper, ShardReader
from datapipes.testing.state_contract import through_json


@pytest.fixture
def root(tmp_path: Path) -> str:
    """Five shards of three files each."""
    for number in range(5):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as archive:
            for i in range(3):
                info = tarfile.TarInfo(f"{i}.txt")
                info.size = 2
                archive.addfile(info, io.BytesIO(b"%d%d" % (number, i)))
    return str(tmp_path)


def shards(root: str) -> Any:
    return IterableWrapper([root]).list_files_by_local()


CONTENT = [b"%d%d" % (number, i) for number in range(5) for i in range(3)]


def test_members_come_as_streams_or_as_bytes(root: str) -> None:
    streams = list(shards(root).read_shards())
    assert all(isinstance(stream, StreamWrapper) for _, stream in streams)
    assert [stream.read() for _, stream in streams] == CONTENT
    items = list(ShardReader([f"{root}/{number}.tar" for number in range(5)], output="bytes"))
    assert items == list(zip(map(itemgetter(0), streams), CONTENT, strict=True))
    assert items[4][0] == f"file://{root}/1.tar?archpath=1.txt"


def test_pipe_is_copied_pickled_and_iterated_again(root: str) -> None:
    pipe = shards(root).read_shards(output="bytes")
    for twin in (pipe, pickle.loads(pickle.dumps(pipe)), copy.deepcopy(pipe), pipe):
        assert [data for _, data in twin] == CONTENT


def test_shards_are_split_among_ranks(root: str) -> None:
    parts = [
        list(shards(root).shard_files(rank=rank, world_size=2).read_shards(output="bytes")) for rank in (0, 1)
    ]
    assert sorted(data for part in parts for _, data in part) == CONTENT
    assert [len(part) for part in parts] == [9, 6]


def test_faults_are_raised_skipped_or_replaced_and_counted(root: str) -> None:
    Path(root, "1.tar").write_bytes(Path(root, "1.tar").read_bytes()[:1500])
    with pytest.raises(ShardError, match=r"1\.tar' failed at byte 1500"):
        list(shards(root).read_shards())
    skipping = shards(root).read_shards(on_error="skip", output="bytes")
    assert [data for _, data in skipping] == [*CONTENT[:4], *CONTENT[6:]]
    stats = skipping.stats()
    assert (stats["items"], stats["errors"], stats["skipped"]) == (13, 1, 1)

    def instead(url: str, error: Exception) -> Any:
        return (url, str(error)) if isinstance(error, ShardError) else SKIP

    urls = [f"file://{root}/{name}.tar" for name in ("0", "1", "none")]
    output: Any
    for output in ("stream", "bytes"):
        items: list[Any] = list(ShardReader(urls, on_error=instead, output=output))
        assert len(items) == 5
        assert "failed at byte 1500" in items[-1][1]
    with pytest.raises(FileMissingError):
        list(ShardReader(urls[2:]))


def test_length_is_what_one_says(root: str) -> None:
    with pytest.raises(TypeError):
        len(shards(root).read_shards())
    assert len(shards(root).read_shards(length=15)) == 15


@pytest.mark.parametrize("options", [{"output": "text"}, {"chunk_bytes": 0}, {"on_error": "ignore"}])
def test_options_out_of_range_are_refused_at_once(options: Any) -> None:
    with pytest.raises(OptionError):
        ShardReader(["a.tar"], **options)


GRAPHS: dict[str, Any] = {
    "members": lambda names: names.shuffle_files().read_shards(output="bytes", chunk_bytes=700),
    "batches": lambda names: names.shuffle_files().read_shards(output="bytes").map(itemgetter(1)).batch(4),
    "torch's shuffle": lambda names: names.shuffle().read_shards(output="bytes", chunk_bytes=1024),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_a_state_taken_anywhere_delivers_exactly_the_rest_in_every_epoch(root: str, name: str) -> None:
    data = GRAPHS[name](shards(root)).resumable()
    for _ in range(2):
        iterator = iter(data)
        states, items = [iterator.state_dict()], []
        for item in iterator:
            items.append(item)
            states.append(iterator.state_dict())
        for place, state in enumerate(states):
            resumed = iter(GRAPHS[name](shards(root)).resumable())
            resumed.load_state_dict(through_json(state))
            assert list(resumed) == items[place:]


@pytest.mark.parametrize(
    ("name", "after"),
    [
        ("Shuffler", lambda pipe: pipe.shuffle()),
        ("UnBatcher", lambda pipe: pipe.batch(2).unbatch()),
        ("ShardReader", lambda pipe: pipe.map(itemgetter(0)).load_files_by_local()),
        ("ShardReader", lambda pipe: pipe.map(itemgetter(0)).read_shards()),
    ],
    ids=["shuffle", "unbatch", "load", "read"],
)
def test_what_would_read_members_again_is_refused(root: str, name: str, after: Any) -> None:
    with pytest.raises(OptionError, match=name):
        after(shards(root).read_shards()).resumable()
