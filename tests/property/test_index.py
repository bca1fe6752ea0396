"""FileIndex against a list: whatever goes in comes out, by any rows."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapipes import _dfs
from datapipes.errors import IndexFileError
from datapipes.index import FileIndex
from datapipes.records import FileEntry

RAW = st.binary(max_size=30).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)
NAMES = RAW | st.text(st.sampled_from("ab/é\udcff"), max_size=12) | st.sampled_from(["daos://p/c/a", "", "/"])
SIZES = st.integers(-1, 2**63 - 1) | st.integers(-1, 5) | st.sampled_from([2**32 - 2, 2**32 - 1, 2**32])
# Bytes that are UTF-8 after all come back as what they spell, as they do from the operating system.
ENTRIES = st.lists(st.builds(FileEntry, NAMES.map(lambda n: os.fsdecode(os.fsencode(n))), SIZES), max_size=40)


@given(ENTRIES, st.data())
def test_index_is_a_list_on_disk(entries: list[FileEntry], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        index = FileIndex.from_entries(entries, Path(directory) / "index")
        assert list(index) == entries
        index.verify()
        cut = data.draw(st.slices(len(entries)))
        assert index.entries(cut) == entries[cut]
        if entries:
            rows = data.draw(st.lists(st.integers(0, len(entries) - 1), max_size=60))
            assert index.entries(np.array(rows, np.int64)) == [entries[row] for row in rows]
            assert index.entries(rows) == [entries[row] for row in rows]
        again = FileIndex.from_entries((entry for entry in entries), Path(directory) / "again")
        assert again == index


@given(ENTRIES, st.data())
def test_damage_is_an_error_of_ours_and_never_more(entries: list[FileEntry], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = FileIndex.from_entries(entries, Path(directory) / "index").path
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            offset = data.draw(st.integers(0, len(content) - 1))
            content[offset] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[offset]))  # noqa: B023
        damaged = Path(directory) / "damaged"
        damaged.write_bytes(content)
        if bytes(content) == path.read_bytes():
            return
        try:
            FileIndex.open(damaged, verify=True)
        except IndexFileError:
            pass
        else:
            raise AssertionError("damage went unnoticed")
        try:
            index = FileIndex.open(damaged)
            list(index)
            index.urls(np.arange(len(index))[::-1])
            assert len(index.sizes) == len(index)
        except IndexFileError:
            pass


PLACES = st.integers(-3, 20) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([2**61, 2**62, 2**31])


@given(st.binary(max_size=80), st.lists(st.tuples(*[PLACES] * 5), max_size=3), st.lists(PLACES, max_size=3))
def test_blocks_that_lie_anywhere_are_an_error_and_no_crash(
    content: bytes, blocks: list[tuple[int, ...]], rows: list[int]
) -> None:
    places = np.array(blocks, np.int64).tobytes()
    try:
        urls, sizes = _dfs.index_rows(content, places, ("x",) * len(blocks), rows)
    except (IndexError, ValueError):
        return
    assert len(urls) == len(sizes) == len(rows)
    assert all(size >= -1 for size in sizes)


def test_rows_that_are_no_rows_are_named_as_such() -> None:
    one = np.array([[0, 2, -1, 12, 2]], np.int64).tobytes()
    words = np.array([0, 2, 7], "<u4").tobytes() + b"a\0"
    assert _dfs.index_rows(words, one, ("x/",), [0, 0]) == (["x/a", "x/a"], [7, 7])
    for rows in ([1], [-1], [2**70], [-(2**70)], [65536]):
        with pytest.raises(IndexError, match=str(rows[0])):
            _dfs.index_rows(words, one, ("x/",), rows)
    for wrong in ([0.0], ["0"], [True], [None]):
        with pytest.raises(TypeError, match="no plain int"):
            _dfs.index_rows(words, one, ("x/",), wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not as many"):
        _dfs.index_rows(words, one, (), [0])
