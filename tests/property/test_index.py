"""FileIndex against a list: whatever goes in comes out, by any rows."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

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
