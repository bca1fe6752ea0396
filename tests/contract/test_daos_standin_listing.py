"""What listing a container costs and leaves for reading, as users of indexes, pipes and nodes meet it."""

from __future__ import annotations

import errno
import gc
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datapipes.backends.base import Backend
from datapipes.backends.daos import DaosBackend
from datapipes.errors import BackendIOError, FileMissingError, IsDirectoryError, OptionError
from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.records import UNKNOWN_SIZE
from datapipes.stages.list_files import ListFiles
from datapipes.stages.load_files import LoadFiles
from datapipes.stages.shuffle_files import ShuffleFiles

from .standin import StandIn, available, run

pytestmark = available

FILES = 600
OPENS = ("dfs_lookup_rel", "dfs_lookup", "dfs_open")

_containers = itertools.count()


class Flat:
    """One directory of many files in a container of its own; nothing has looked into it yet."""

    def __init__(self, standin: StandIn, folder: Path) -> None:
        self.standin, self.folder = standin, folder
        name = f"flat{next(_containers)}"
        self.backend = DaosBackend("tank", name)
        self.root = standin.root / "tank" / name / "d"
        self.root.mkdir(parents=True)
        self.url = f"daos://tank/{name}/d/"
        self.contents = {f"{self.url}{i:04}.bin": bytes([i % 256]) * (1 + i) for i in range(FILES)}
        for url, content in self.contents.items():
            (self.root / url.rpartition("/")[2]).write_bytes(content)

    def resolve(self, _: str) -> Backend:
        return self.backend

    def built(self, **options: Any) -> FileIndex:
        return FileIndex.build(self.url, self.folder / "index", resolve=self.resolve, **options)

    def load(self, source: Any, **options: Any) -> dict[str, bytes]:
        stage = LoadFiles(source, resolve=self.resolve, **options)
        stage.reset()
        contents = dict(stage)
        stage.close()
        return contents

    def count(self, *names: str) -> int:
        return sum(self.standin.count(name) for name in names)


@pytest.fixture
def flat(standin: StandIn, tmp_path: Path) -> Iterator[Flat]:
    made = Flat(standin, tmp_path)
    list(made.backend.list(made.url, sizes=False, types=False))  # the libraries are loaded now
    standin.reset()
    yield made
    standin.reset()
    del made.backend
    gc.collect()
    assert not standin.left()


@pytest.mark.parametrize("parts", [1, 4])
def test_a_directory_in_parts_is_the_same_listing(flat: Flat, parts: int) -> None:
    flat.standin.set("STANDIN_PARTS", str(parts))
    expected = [(url, len(content)) for url, content in flat.contents.items()]
    assert list(flat.backend.list(flat.url)) == expected
    middle = expected[FILES // 2][0]
    assert list(flat.backend.list(flat.url, start_after=middle)) == expected[FILES // 2 + 1 :]
    assert (flat.count("dfs_obj_anchor_set") > 0) == (parts > 1)


def test_each_mode_asks_for_no_more_than_it_gives(flat: Flat) -> None:
    names = list(flat.contents)
    cost = {}
    for sizes, types in ((True, True), (False, True), (False, False)):
        flat.standin.reset()
        listed = list(flat.backend.list(flat.url, sizes=sizes, types=types))
        assert [url for url, _ in listed] == names
        assert all(size == (len(flat.contents[url]) if sizes else UNKNOWN_SIZE) for url, size in listed)
        cost[sizes, types] = flat.count("dfs_lookup_rel"), flat.count("dfs_lookup_rel+size")
    assert cost[True, True] >= (FILES, FILES)
    assert FILES <= cost[False, True][0] < FILES + 10
    assert cost[False, True][1] < 10
    assert cost[False, False][0] < 10


@pytest.mark.parametrize("sizes", [True, False])
def test_a_first_epoch_after_listing_opens_nothing(flat: Flat, sizes: bool) -> None:
    index = flat.built(sizes=sizes)
    asked = flat.count("dfs_lookup_rel")
    assert asked < FILES + 10
    flat.standin.reset()
    assert flat.load(index) == flat.contents
    assert flat.count(*OPENS) == 0
    assert flat.count("dfs_get_size") == 0
    assert flat.backend.stats()["handle_hits"] == FILES


def test_an_index_of_names_alone_is_read_by_path(flat: Flat) -> None:
    index = flat.built(sizes=False, types=False)
    assert flat.load(index) == flat.contents
    assert flat.count(*OPENS) >= FILES
    flat.standin.reset()
    assert flat.load(index) == flat.contents
    assert flat.count(*OPENS) == 0


def test_masks_keep_handles_of_their_files_only(flat: Flat) -> None:
    wanted = {url: content for url, content in flat.contents.items() if url.endswith("7.bin")}
    index = flat.built(masks="*7.bin")
    (table,) = set(flat.folder.iterdir()) - {index.path}
    assert table.stat().st_size < FILES * 384 // 2
    flat.standin.reset()
    assert flat.load(index) == wanted
    assert flat.count(*OPENS) == 0


def test_stages_list_and_load_without_opening_by_path(flat: Flat, tmp_path: Path) -> None:
    """The lister's list lies in the directory of the job, and its handles with it."""
    job = Job.at(tmp_path / "job")
    names = ListFiles([flat.url], resolve=flat.resolve, job=job, ordinal=0)
    shuffled = ShuffleFiles(names, seed=3)
    shuffled.reset()
    assert sorted(shuffled) == list(flat.contents)
    flat.standin.reset()
    assert flat.load(ShuffleFiles(names, seed=3)) == flat.contents
    assert flat.count(*OPENS) == 0
    shuffled.close()
    job.close()


@pytest.mark.parametrize("options", [{"sizes": False}, {"sizes": False, "types": False}], ids=str)
def test_a_lister_asks_for_no_more_than_it_is_told(flat: Flat, tmp_path: Path, options: Any) -> None:
    job = Job.at(tmp_path / "job")
    stage = ListFiles([flat.url], entries=True, resolve=flat.resolve, job=job, ordinal=0, **options)
    stage.reset()
    assert list(stage) == [(url, UNKNOWN_SIZE) for url in flat.contents]
    assert flat.count("dfs_lookup_rel+size") < 10
    assert (flat.count("dfs_lookup_rel") < 10) == ("types" in options)
    stage.close()
    job.close()


def test_a_dataset_reads_its_first_batch_without_opening(flat: Flat) -> None:
    files = pytest.importorskip("datapipes.datasets.files")
    for kept in (1 << 20, 0):
        dataset = files.FileDataset(flat.url, handle_cache_bytes=kept, resolve=flat.resolve)
        assert len(dataset) == FILES
        flat.standin.reset()
        order = np.random.default_rng(0).permutation(FILES)[:64]
        found = dataset.__getitems__(order)
        assert found == [list(flat.contents.values())[row] for row in order]
        assert (flat.count(*OPENS) == 0) == (kept > 0)


def test_0_bytes_keep_nothing(flat: Flat) -> None:
    index = flat.built(handle_cache_bytes=0)
    assert os.listdir(flat.folder) == [index.path.name]
    with pytest.raises(OptionError, match="handle_cache_bytes"):
        flat.built(handle_cache_bytes=-1)
    with pytest.raises(OptionError, match="handle_cache_bytes"):
        ListFiles([flat.url], handle_cache_bytes=-1)


def test_the_bound_holds_and_what_is_over_it_is_opened_by_path(flat: Flat) -> None:
    bound = 1 << 16
    index = flat.built(handle_cache_bytes=bound)
    (table,) = set(flat.folder.iterdir()) - {index.path}
    assert table.stat().st_size <= bound
    flat.standin.reset()
    assert flat.load(index, handle_cache_bytes=bound) == flat.contents
    assert FILES - bound // 384 <= flat.count(*OPENS) < FILES


def test_where_no_table_can_be_made_the_index_is_built_all_the_same(flat: Flat) -> None:
    (flat.folder / "index.handles").write_text("theirs")
    index = flat.built()
    assert flat.load(index) == flat.contents
    assert flat.count(*OPENS) >= 2 * FILES
    assert (flat.folder / "index.handles").read_text() == "theirs"


def test_what_was_listed_and_then_changed_is_looked_at_by_path(flat: Flat) -> None:
    index = flat.built()
    (flat.root / "0003.bin").unlink()
    (flat.root / "0003.bin").write_bytes(b"anew")
    (flat.root / "0005.bin").unlink()
    with pytest.raises(FileMissingError, match="0005"):
        flat.load(index)
    expected = {**flat.contents, f"{flat.url}0003.bin": b"anew"}
    del expected[f"{flat.url}0005.bin"]
    assert flat.load(index, on_error="skip") == expected


def test_a_directory_taken_for_a_file_is_told_by_who_reads_it(flat: Flat) -> None:
    (flat.root / "sub").mkdir()
    index = flat.built(sizes=False, types=False)
    assert len(index) == FILES + 1
    with pytest.raises(IsDirectoryError, match="sub"):
        flat.load(index)


@pytest.mark.parametrize(
    "call", ["dfs_obj_anchor_split:1", "dfs_obj_anchor_set:3", "dfs_readdir:3", "dfs_lookup_rel:300"]
)
@pytest.mark.parametrize("code", [errno.EIO, errno.EAGAIN, errno.ESTALE])
def test_a_fault_while_listing_leaves_neither_index_nor_handles(flat: Flat, call: str, code: int) -> None:
    flat.standin.set("STANDIN_PARTS", "4")
    flat.standin.set("STANDIN_FAIL", f"{call}={code}")
    with pytest.raises(BackendIOError, match="EIO"):
        flat.built()
    flat.standin.reset()
    assert os.listdir(flat.folder) == []
    assert flat.load(flat.built()) == flat.contents


def test_a_disk_with_room_for_the_index_alone_gets_the_index(
    flat: Flat, on_small_disk: Callable[[Path, str], list[str]]
) -> None:
    said = run(
        flat.standin,
        f"""
        from datapipes.index import FileIndex
        path = {os.fspath(flat.folder / "index")!r}
        index = FileIndex.build({flat.url!r}, path, handle_cache_bytes=1 << 20)
        print(len(index), index[0].url)
        """,
        before=on_small_disk(flat.folder, "160k"),
    )
    assert said == [f"{FILES} {flat.url}0000.bin", "index"]
