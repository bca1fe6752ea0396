"""What every pipe of ours must bear: copying, pickling, graph functions, torch's rules, bad input."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import IterDataPipe
from torch.utils.data.datapipes.utils.common import StreamWrapper
from torch.utils.data.graph import traverse_dps
from torch.utils.data.graph_settings import apply_random_seed, get_all_graph_pipes

from datapipes.errors import FileMissingError, OptionError, UrlError
from datapipes.index import FileIndex
from datapipes.iter import (
    SKIP,
    DaosFileLister,
    DaosFileLoader,
    FileSharder,
    FileShuffler,
    IterableWrapper,
    LocalFileLister,
    LocalFileLoader,
    set_epoch,
)
from datapipes.records import FileEntry


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """URLs of nine files under ``tmp_path/set``, in path order."""
    for i in range(9):
        path = tmp_path / f"set/class{i % 2}/{i}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % i)
    return sorted(f"file://{path}" for path in tmp_path.glob("set/*/*.bin"))


@pytest.fixture
def chain(files: list[str], tmp_path: Path) -> IterDataPipe[Any]:
    names = IterableWrapper([str(tmp_path / "set")]).list_files_by_local().shuffle_files(seed=3).shard_files()
    return names.load_files_by_local(output="bytes")


def content(item: tuple[str, bytes]) -> tuple[str, bytes]:
    return item


def test_lister_yields_urls_in_path_order_from_one_url_a_list_or_a_pipe(
    files: list[str], tmp_path: Path
) -> None:
    root = str(tmp_path / "set")
    assert list(LocalFileLister(root)) == files
    assert list(LocalFileLister([root])) == files
    assert list(LocalFileLister(IterableWrapper([f"file://{root}"]))) == files
    assert (
        list(LocalFileLister([f"{root}/class1", f"{root}/class0"])) == sorted(files)[5:] + sorted(files)[:5]
    )
    assert list(LocalFileLister(root, masks=["3.*", "4.*"])) == [files[2], files[6]]
    assert list(LocalFileLister(root, recursive=False)) == []
    assert next(iter(LocalFileLister(root, entries=True))) == FileEntry(files[0], 1)
    assert next(iter(LocalFileLister(root, entries=True, sizes=False))) == FileEntry(files[0], -1)
    contents = LocalFileLister(root, sizes=False, types=False).load_files_by_local(output="bytes")
    assert [url for url, _ in contents] == files
    with pytest.raises(OptionError, match="handle_cache_bytes"):
        LocalFileLister(root, handle_cache_bytes=-1)


def test_loader_yields_streams_or_bytes(files: list[str]) -> None:
    assert list(LocalFileLoader(files, output="bytes"))[1] == (files[1], b"2")
    url, stream = next(iter(LocalFileLoader(files)))
    assert (url, stream.read()) == (files[0], b"0")
    assert isinstance(stream, StreamWrapper)
    assert list(LocalFileLoader(files[2], output="bytes")) == [(files[2], b"4")]
    assert list(LocalFileLoader([FileEntry(files[2], 1)], output="bytes")) == [(files[2], b"4")]


@pytest.mark.parametrize("wrap", [iter, IterableWrapper], ids=["bare", "wrapped"])
def test_a_source_that_can_be_walked_only_once_is_refused(files: list[str], wrap: Any) -> None:
    def names() -> Iterator[str]:
        yield from files

    for make in (LocalFileLister, FileShuffler, FileSharder, LocalFileLoader):
        with pytest.raises(OptionError, match=r"\(generator\), which can be walked only once; give a list"):
            make(wrap(names()))
    with pytest.raises(OptionError, match="walked only once"):
        LocalFileLoader(map(str, files))


def test_sources_may_be_an_index(files: list[str], tmp_path: Path) -> None:
    index = FileIndex.build(str(tmp_path / "set"))
    assert next(iter(LocalFileLoader(index, output="bytes"))) == (files[0], b"0")
    assert sorted(FileShuffler(index)) == files


def test_on_error_raises_skips_and_counts_or_replaces(files: list[str], tmp_path: Path) -> None:
    gone = f"file://{tmp_path}/set/gone"
    urls = [files[0], gone, files[1]]
    with pytest.raises(FileMissingError, match="gone"):
        list(LocalFileLoader(urls))
    skipping = LocalFileLoader(urls, on_error="skip")
    assert [url for url, _ in skipping] == files[:2]
    assert skipping.stats()["skipped"] == 1
    for output in ("stream", "bytes"):
        told = LocalFileLoader(urls, on_error=lambda url, error: ("told", url), output=output)
        assert list(told)[1] == ("told", gone)
        silent = LocalFileLoader(urls, on_error=lambda url, error: SKIP, output=output)
        assert [url for url, _ in silent] == files[:2]


@pytest.mark.parametrize(
    ("make", "url"),
    [
        (DaosFileLister, "/data"),
        (DaosFileLoader, "file:///data"),
        (LocalFileLister, "daos://pool/cont"),
        (LocalFileLoader, "daos://pool/cont/a"),
        (LocalFileLister, "ais://bucket"),
    ],
)
def test_another_stores_url_is_refused_when_it_is_seen(
    make: Callable[[Any], IterDataPipe[Any]], url: str
) -> None:
    with pytest.raises(UrlError, match="this pipe is for"):
        make(url)
    with pytest.raises(UrlError, match="this pipe is for"):
        list(make(IterableWrapper([url])))


# As a caller without a type checker would call them.
lister: Any = LocalFileLister
loader: Any = LocalFileLoader
shuffler: Any = FileShuffler
sharder: Any = FileSharder
BAD_OPTIONS: dict[str, Any] = {
    "source": lambda: lister(7),
    "relist": lambda: lister("/data", relist="always"),
    "masks": lambda: lister("/data", masks=7),
    "output": lambda: loader([], output="tensor"),
    "max_in_flight": lambda: loader([], max_in_flight=0),
    "max_buffer_bytes": lambda: loader([], max_buffer_bytes=-1),
    "timeout_s": lambda: loader([], timeout_s=-1.0),
    "on_error": lambda: loader([], on_error="ignore"),
    "verify": lambda: loader([], verify="checksum"),
    "fraction of order": lambda: loader([], ordered=0.5),
    "ordered by a word": lambda: loader([], ordered="no"),
    "recursive by a word": lambda: lister("x", recursive="no"),
    "entries by a word": lambda: lister("x", entries="no"),
    "negative length": lambda: lister("x", length=-5),
    "length of a loader": lambda: loader([], length="many"),
    "letters": lambda: loader(IterableWrapper("/data/train")),
    "letters for a lister": lambda: lister(IterableWrapper("/data/train")),
    "negative seed": lambda: shuffler([], seed=-1),
    "fractional seed": lambda: shuffler([], seed=1.5),
    "rank alone": lambda: sharder([], rank=1),
    "rank beyond": lambda: sharder([], rank=2, world_size=2),
    "uneven": lambda: sharder([], uneven="fair"),
    "handle_cache_bytes of a lister": lambda: lister("x", handle_cache_bytes=10**20),
    "handle_cache_bytes of a loader": lambda: loader([], handle_cache_bytes=10**20),
    "epoch": lambda: shuffler([]).set_epoch(-1),
}


@pytest.mark.parametrize("name", BAD_OPTIONS)
def test_bad_options_are_refused_when_the_graph_is_built(name: str) -> None:
    with pytest.raises(OptionError):
        BAD_OPTIONS[name]()


def test_len_is_known_where_it_is_given_or_the_source_has_one(files: list[str], tmp_path: Path) -> None:
    for unknown in (LocalFileLister(files), LocalFileLister(files).shuffle_files().shard_files()):
        with pytest.raises(TypeError):
            len(unknown)
    assert len(LocalFileLister(str(tmp_path), length=5).shuffle_files().load_files_by_local()) == 5
    assert len(LocalFileLoader(files)) == 9
    assert len(LocalFileLoader(files, length=4)) == 4
    assert len(FileSharder(files, rank=1, world_size=2)) == 4
    assert len(FileSharder(files, rank=1, world_size=2, uneven="pad")) == 5


def test_copies_and_pickles_give_the_same_in_every_state(chain: Any, files: list[str]) -> None:
    iterator = iter(chain)
    next(iterator)
    for clone in (copy.deepcopy(chain), pickle.loads(pickle.dumps(chain)), copy.copy(chain)):
        assert sorted(url for url, _ in clone) == files
    assert len(pickle.dumps(chain)) < 10_000


def test_a_pickle_of_an_iterated_graph_holds_nothing_live(chain: Any) -> None:
    fresh = len(pickle.dumps(chain))
    list(chain)
    iterator = iter(chain)
    next(iterator)
    assert len(pickle.dumps(chain)) < fresh + 200


def test_torch_finds_all_pipes_and_seeds_what_it_must(chain: Any) -> None:
    dp = chain.map(content).batch(2)
    names = [type(pipe).__name__ for pipe in get_all_graph_pipes(traverse_dps(dp))]
    assert names == [
        "BatcherIterDataPipe",
        "MapperIterDataPipe",
        "LocalFileLoader",
        "FileSharder",
        "ShardingFilterIterDataPipe",
        "FileShuffler",
        "LocalFileLister",
        "IterableWrapperIterDataPipe",
    ]
    first = [item for batch in dp for item in batch]
    rng = torch.Generator()
    rng.manual_seed(1)
    apply_random_seed(dp, rng)
    chain.source_datapipe.source_datapipe.source_datapipe.set_epoch(0)
    assert [item for batch in dp for item in batch] == first


def test_only_the_youngest_iterator_of_a_pipe_is_valid(chain: Any) -> None:
    old = iter(chain)
    next(old)
    young = iter(chain)
    next(young)
    with pytest.raises(RuntimeError, match="invalidated"):
        next(old)
    assert len(list(young)) == 8


def test_each_iteration_is_the_next_epoch_until_set_epoch(files: list[str]) -> None:
    def orders(count: int, **options: Any) -> list[list[str]]:
        shuffled = FileShuffler(files, **options)
        return [list(shuffled) for _ in range(count)]

    first = orders(4, seed=1)
    assert all(sorted(order) == files for order in first)
    assert len({tuple(order) for order in first}) == 4
    assert orders(4, seed=1) == first
    assert orders(1, seed=2)[0] != first[0]
    shuffled = FileShuffler(files, seed=1)
    shuffled.set_epoch(2)
    assert [list(shuffled), list(shuffled)] == first[2:]


def test_set_epoch_reaches_the_shuffle_from_the_end_of_the_graph(chain: Any) -> None:
    first = list(chain)
    second = list(chain)
    chain.set_epoch(0)
    assert list(chain) == first
    batches = chain.batch(100)
    set_epoch(batches, 1)
    assert list(batches) == [second]


def test_copies_in_one_process_share_the_count_of_epochs(files: list[str]) -> None:
    shuffled = FileShuffler(files, seed=1)
    clone = pickle.loads(pickle.dumps(shuffled))
    assert list(shuffled) != list(clone)
    clone.set_epoch(0)
    first = list(shuffled)
    shuffled.set_epoch(0)
    assert list(clone) == first


def test_relist_each_epoch_sees_new_files_and_once_a_job_does_not(files: list[str], tmp_path: Path) -> None:
    once, again = (
        LocalFileLister(str(tmp_path / "set")),
        LocalFileLister(str(tmp_path / "set"), relist="epoch"),
    )
    assert list(once) == list(again) == files
    (tmp_path / "set/zz").write_bytes(b"")
    assert list(once) == files
    assert list(again) == [*files, f"file://{tmp_path}/set/zz"]


def is_not_3(url: str) -> bool:
    return not url.endswith("3.bin")


def test_shuffling_after_a_filter_of_torch_is_full(files: list[str]) -> None:
    dp = IterableWrapper(files).filter(is_not_3).shuffle_files(seed=1)
    first, second = list(dp), list(dp)
    assert first != second
    assert sorted(first) == sorted(second) == [url for url in files if not url.endswith("3.bin")]


def test_a_stream_can_be_read_by_torchs_reader(files: list[str]) -> None:
    assert next(iter(LocalFileLoader(files).read_from_stream())) == (files[0], b"0")
    assert isinstance(next(iter(LocalFileLoader(files)))[1].file_obj, io.BytesIO)


def test_a_process_may_end_in_the_middle_of_an_iteration_without_a_word(files: list[str]) -> None:
    script = f"""
import os
from datapipes.iter import LocalFileLoader
left = iter(LocalFileLoader({files!r}, output="bytes"))
next(left)
if os.fork() == 0:
    del left
    raise SystemExit
assert os.wait()[1] == 0
next(left)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


FULL = """
import errno, os, resource, sys
from datapipes.errors import BackendIOError
from datapipes.iter import IterableWrapper

pipe = IterableWrapper(["a"]).shuffle_files()
pipe.set_epoch(1)
before = sorted(os.listdir(pipe.job.path))
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    pipe.set_epoch(2)
except BackendIOError as error:
    print(errno.errorcode[error.errno], error.operation, sorted(os.listdir(pipe.job.path)) == before, error)
"""


def test_epoch_that_cannot_be_noted_is_an_error_of_ours_and_leaves_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL], capture_output=True, text=True, timeout=50, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("EFBIG write epoch True ")
    assert "DATAPIPES_JOB_DIR" in done.stdout
