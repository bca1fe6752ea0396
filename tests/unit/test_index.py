"""FileIndex: what goes in comes out, by row, in any order, in any process."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datapipes.errors import FileMissingError, IndexFileError, OptionError, UrlError
from datapipes.index import FileIndex
from datapipes.records import UNKNOWN_SIZE, FileEntry

FEW = [
    FileEntry("daos://tank/train/a/1.png", 10),
    FileEntry("daos://tank/train/a/2.png", 0),
    FileEntry("daos://tank/train/b.png"),
    FileEntry("file:///elsewhere/é.png", 7),
    FileEntry("file:///elsewhere/" + os.fsdecode(b"raw-\xff\xfe"), 8),
    FileEntry("x", 9),
]


def numbered(count: int, size: int = 5) -> Iterator[FileEntry]:
    return (FileEntry(f"memory://store/{i // 1000:05d}/{i:09d}.bin", i % 7 * size) for i in range(count))


@pytest.fixture
def few(tmp_path: Path) -> FileIndex:
    return FileIndex.from_entries(FEW, tmp_path / "few")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[FileIndex, list[FileEntry]]:
    """Three blocks, whose names begin differently."""
    entries = list(numbered(150_000))
    entries += [FileEntry(f"daos://pool/cont/{i:x}", UNKNOWN_SIZE) for i in range(1000)]
    return FileIndex.from_entries(iter(entries), tmp_path_factory.mktemp("index") / "many"), entries


def test_entries_come_back(few: FileIndex) -> None:
    assert list(few) == FEW
    assert len(few) == len(FEW)
    assert [few[i] for i in range(-len(FEW), len(FEW))] == FEW + FEW
    assert all(type(entry) is FileEntry and type(entry.size) is int for entry in few)
    assert few.urls(slice(None)) == [entry.url for entry in FEW]
    assert few.sizes.tolist() == [entry.size for entry in FEW]
    assert few.sizes.dtype == np.int64


@pytest.mark.parametrize("row", [6, -7, 10**12])
def test_row_that_is_not_there_is_an_index_error(few: FileIndex, row: int) -> None:
    with pytest.raises(IndexError, match="6 names"):
        few[row]


ROWS: list[Any] = [
    slice(None),
    slice(1, 4),
    slice(None, None, -1),
    slice(5, 1, -2),
    slice(4, 4),
    slice(-3, 100),
    range(2, 5),
    range(4, 0, -3),
    range(3, 3),
    [],
    [5, 0, 0, 3],
    np.array([4, 1], np.uint8),
    np.array([2], np.int32),
    np.arange(6)[::-1],
    np.array([0, 2, 1, 3]),  # as long as a run, and none
]


@pytest.mark.parametrize("rows", ROWS, ids=repr)
def test_rows_are_given_in_many_ways(few: FileIndex, rows: Any) -> None:
    positions = list(range(6)[rows]) if isinstance(rows, slice) else [int(row) for row in rows]
    assert few.urls(rows) == [FEW[i].url for i in positions]
    assert few.sizes_of(rows).tolist() == [FEW[i].size for i in positions]
    assert few.entries(rows) == [FEW[i] for i in positions]


@pytest.mark.parametrize(
    "rows", [[6], [-1], range(3, 8), range(-2, 2), np.array([0, 99]), range(-1, -9, -1)], ids=repr
)
def test_rows_outside_are_an_index_error(few: FileIndex, rows: Any) -> None:
    for read in (few.urls, few.sizes_of, few.entries):
        with pytest.raises(IndexError, match="6 names"):
            read(rows)


@pytest.mark.parametrize("rows", [np.array([1.0]), np.array([True]), np.array([[1]])], ids=repr)
def test_rows_that_are_no_integers_are_refused(few: FileIndex, rows: Any) -> None:
    with pytest.raises(OptionError, match="rows"):
        few.urls(rows)


def test_many_names_come_back_across_blocks(many: tuple[FileIndex, list[FileEntry]]) -> None:
    index, entries = many
    assert list(index) == entries
    for start, stop in ((0, 151_000), (65_530, 65_545), (131_071, 131_073), (149_990, 150_010)):
        assert index.entries(slice(start, stop)) == entries[start:stop]
    rng = np.random.default_rng(0)
    for count in (1, 2, 100, 20_000):
        rows = rng.integers(0, len(entries), count)
        assert index.entries(rows) == [entries[row] for row in rows]
    edges = [65_535, 65_536, 0, 150_999, 131_071, 131_072, 149_999, 150_000]
    assert index.entries(edges) == [entries[row] for row in edges]
    assert index[65_536] == entries[65_536]


@pytest.mark.parametrize(
    "sizes",
    [
        [0, UNKNOWN_SIZE, 2**32 - 2],
        [2**32 - 1, UNKNOWN_SIZE, 0],
        [2**32, 2**32 + 5, UNKNOWN_SIZE],
        [2**62, 3, 2**63 - 1],
    ],
)
def test_sizes_of_any_width_come_back(tmp_path: Path, sizes: list[int]) -> None:
    entries = [FileEntry(f"a/{i}", size) for i, size in enumerate(sizes)]
    index = FileIndex.from_entries(entries, tmp_path / "sizes")
    assert index.sizes.tolist() == sizes
    assert index.sizes_of([2, 0]).tolist() == [sizes[2], sizes[0]]
    assert list(index) == entries
    index.verify()


def test_wide_sizes_in_one_block_leave_the_others_narrow(tmp_path: Path) -> None:
    entries = list(numbered(70_000))
    entries[3] = FileEntry("memory://store/big", 2**40)
    entries[69_999] = FileEntry("memory://store/unknown")
    index = FileIndex.from_entries(entries, tmp_path / "mixed")
    assert index.sizes_of([69_999, 3, 4, 69_998]).tolist() == [
        -1,
        2**40,
        entries[4].size,
        entries[69_998].size,
    ]


def test_one_very_long_name_among_short_ones(tmp_path: Path) -> None:
    names = [f"d/{i}" for i in range(500)]
    names[250] = "d/" + "long/" * 13_000
    index = FileIndex.from_entries(names, tmp_path / "long")
    rows = np.random.default_rng(1).permutation(500)
    assert index.urls(rows) == [names[row] for row in rows]
    assert index.urls(slice(None)) == names


def test_names_without_a_common_beginning(tmp_path: Path) -> None:
    for names in (["", "a"], ["a", "ab"], ["a/", "a/", "a/b"], ["/"], ["//x", "/x"], ["é/a", "é/b"]):
        assert FileIndex.from_entries(names, tmp_path / "odd").urls(slice(None)) == names


def test_empty_index(tmp_path: Path) -> None:
    index = FileIndex.from_entries([], tmp_path / "empty")
    assert len(index) == 0
    assert list(index) == []
    assert index.urls(slice(None)) == index.urls([]) == []
    assert index.sizes.tolist() == []
    assert len(index.fingerprint) == 32
    index.verify()
    with pytest.raises(IndexError):
        index[0]


@pytest.mark.parametrize(
    ("entries", "error", "says"),
    [
        (["a", "b\0c"], UrlError, "NUL"),
        (["a", "\ud800"], UrlError, "surrogate"),
        (["x" * 70_000], UrlError, "70000 bytes"),
        ([3], OptionError, "FileEntry"),
        ([b"raw"], OptionError, "FileEntry"),
        ([FileEntry(b"raw", 1)], UrlError, "bytes"),  # type: ignore[arg-type]
        ([FileEntry("a", -2)], OptionError, "-2"),
        ([FileEntry("a", 1.5)], OptionError, "1.5"),  # type: ignore[arg-type]
        ([FileEntry("a", None)], OptionError, "None"),  # type: ignore[arg-type]
        ([FileEntry("a", 2**63)], OptionError, str(2**63)),
    ],
)
def test_what_is_no_entry_is_refused_and_nothing_left(
    tmp_path: Path, entries: list[Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        FileIndex.from_entries(entries, tmp_path / "none")
    assert os.listdir(tmp_path) == []


def test_entries_of_several_kinds_mix(tmp_path: Path) -> None:
    class Name(str):
        __slots__ = ()

    mixed: list[Any] = ["a", FileEntry("b", 2), ("c", 3), Name("d")]
    index = FileIndex.from_entries(mixed, tmp_path / "mixed")
    assert list(index) == [("a", -1), ("b", 2), ("c", 3), ("d", -1)]


def test_fingerprint_is_of_names_sizes_and_order_alone(tmp_path: Path) -> None:
    def fingerprint(entries: list[Any], **about: Any) -> str:
        return FileIndex.from_entries(entries, tmp_path / f"{len(os.listdir(tmp_path))}", **about).fingerprint

    base = fingerprint([("d/a", 1), ("d/b", 2)])
    assert fingerprint([("d/a", 1), ("d/b", 2)], source="elsewhere", options={"recursive": False}) == base
    others = [
        fingerprint(entries)
        for entries in (
            [("d/b", 2), ("d/a", 1)],
            [("d/a", 2), ("d/b", 1)],
            [("d/a", 1)],
            [("d/a", 1), ("d/b", -1)],
            [("d/ad", 1), ("/b", 2)],
            [("d/a", 1), ("d/b", 2), ("", 0)],
            [],
        )
    ]
    assert len({base, *others}) == 8


def test_fingerprint_does_not_change_between_versions(few: FileIndex) -> None:
    # It stands in saved states.
    assert few.fingerprint == "772e6a113fd76003f669a438ca296880"


def test_description_is_kept(tmp_path: Path) -> None:
    index = FileIndex.from_entries(["a"], tmp_path / "i", source="by hand", options={"masks": ["*.é"]})
    again = FileIndex.open(tmp_path / "i")
    assert (again.source, again.options) == (index.source, index.options) == ("by hand", {"masks": ["*.é"]})


def test_indexes_of_the_same_names_are_equal(few: FileIndex, tmp_path: Path) -> None:
    same, other = (
        FileIndex.from_entries(FEW, tmp_path / "same"),
        FileIndex.from_entries(FEW[1:], tmp_path / "other"),
    )
    assert few == same
    assert hash(few) == hash(same)
    assert few != other
    assert few != "few"
    assert repr(few) == f"FileIndex({str(tmp_path / 'few')!r})"


def test_index_travels_as_its_path(
    many: tuple[FileIndex, list[FileEntry]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, entries = many
    pickled = pickle.dumps(index)
    assert len(pickled) < 400
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(pickled)
    assert again == index
    assert again.path.is_absolute()
    assert again[70_000] == entries[70_000]


def test_path_given_relatively_is_kept_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    index = FileIndex.from_entries(FEW, "here")
    monkeypatch.chdir("/")
    assert index.path == tmp_path / "here"
    assert list(FileIndex(index.path)) == FEW


def test_index_that_was_replaced_is_noticed_where_it_arrives(few: FileIndex) -> None:
    pickled = pickle.dumps(few)
    FileIndex.from_entries(FEW[:2], few.path)
    with pytest.raises(IndexFileError, match="other names than when it was sent"):
        len(pickle.loads(pickled))
    FileIndex.from_entries(FEW, few.path)
    assert list(pickle.loads(pickled)) == FEW
    os.unlink(few.path)
    with pytest.raises(FileMissingError, match="Build it with"):
        len(pickle.loads(pickled))


def test_replacing_an_index_leaves_its_readers_alone(few: FileIndex) -> None:
    assert few[0] == FEW[0]
    FileIndex.from_entries(["other"], few.path)
    assert list(few) == FEW
    few.close()
    with pytest.raises(IndexFileError, match="built anew"):
        few[0]


def test_closed_index_opens_itself_again(few: FileIndex) -> None:
    few.close()
    few.close()
    assert list(few) == FEW


def test_arrays_outlive_the_index(few: FileIndex) -> None:
    sizes = few.sizes
    few.close()
    del few
    assert sizes.tolist() == [entry.size for entry in FEW]
    sizes[:] = 0  # a copy: the file is read-only


def read_in_child(index: FileIndex, answers: Any) -> None:
    answers.put((len(index), index.urls([149_999, 0]), index.fingerprint))


# Python 3.12 and newer warn of fork beside threads; pytest's own time-out thread is one.
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("opened", [True, False])
def test_forked_child_reads(many: tuple[FileIndex, list[FileEntry]], opened: bool) -> None:
    index, entries = many
    index.close()
    if opened:
        assert len(index) == len(entries)
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=read_in_child, args=(index, answers))
    child.start()
    assert answers.get(timeout=30) == (
        len(entries),
        [entries[149_999].url, entries[0].url],
        index.fingerprint,
    )
    child.join()
    assert child.exitcode == 0


def test_threads_read_while_one_closes(many: tuple[FileIndex, list[FileEntry]]) -> None:
    index, entries = many
    wrong: list[object] = []

    def read(seed: int) -> None:
        rng = np.random.default_rng(seed)
        for _ in range(60):
            rows = rng.integers(0, len(entries), 50)
            try:
                if index.entries(rows) != [entries[row] for row in rows]:
                    wrong.append(rows)
            except Exception as error:  # noqa: BLE001 - whatever it is, the test must see it
                wrong.append(error)
            index.close()

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_index_is_compact(tmp_path: Path) -> None:
    names = (f"memory://s/{'x' * 47}{i:013d}" for i in range(200_000))  # 60 bytes below the root
    index = FileIndex.from_entries((FileEntry(name, 8192) for name in names), tmp_path / "i")
    assert os.path.getsize(index.path) / len(index) <= 69.1  # 10**7 names stay below 700 MB


def test_building_takes_constant_memory(tmp_path: Path) -> None:
    peaks = []
    for count in (70_000, 350_000):
        tracemalloc.start()
        FileIndex.from_entries(numbered(count), tmp_path / "i")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
    assert peaks[1] < 64 << 20


def test_reading_keeps_no_object_for_a_name(many: tuple[FileIndex, list[FileEntry]]) -> None:
    index = FileIndex.open(many[0].path)
    tracemalloc.start()
    for start in range(0, len(index), 1000):
        index.entries(slice(start, start + 1000))
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert held < 1 << 20
