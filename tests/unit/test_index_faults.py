"""FileIndex: damaged, cut off, foreign, of another version; a full disk; a builder that is killed."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datapipes.errors import (
    BackendIOError,
    FileMissingError,
    IndexFileError,
    IsDirectoryError,
    OptionError,
)
from datapipes.index import FileIndex
from datapipes.index_format import HEADER_BYTES, pack_header, parse_header
from datapipes.records import FileEntry

ENTRIES = [FileEntry(f"daos://tank/train/{i % 10}/{i:05d}.png", i * 3) for i in range(1000)]
HEADER = 64


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return FileIndex.from_entries(ENTRIES, tmp_path / "index").path


def change(path: Path, offset: int, byte: int) -> None:
    """In a new file, as an index is never changed in place."""
    content = bytearray(path.read_bytes())
    content[offset] ^= byte
    path.unlink()
    path.write_bytes(content)


def read_all(index: FileIndex) -> None:
    """Every way of reading."""
    list(index)
    index.urls(np.random.default_rng(0).permutation(len(index)))
    index.entries([0, 7, len(index) - 1])
    assert index.sizes.shape == (len(index),)


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(FileMissingError, match=r"open index .*none.*FileIndex\.build") as caught:
        FileIndex.open(tmp_path / "none")
    error = caught.value
    assert (error.url, error.operation, error.errno) == (str(tmp_path / "none"), "open index", errno.ENOENT)


def test_directory_is_named_as_such(tmp_path: Path) -> None:
    with pytest.raises(IsDirectoryError, match="open index"):
        FileIndex.open(tmp_path)


def test_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(IndexFileError, match="no regular file"):
        FileIndex.open(tmp_path / "fifo")


@pytest.mark.parametrize(
    "content", [b"PK\x03\x04" * 100, b"\0" * 5000, b"x", b"daos://tank/a\ndaos://tank/b\n" * 9]
)
def test_foreign_file_is_named_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "foreign").write_bytes(content)
    with pytest.raises(IndexFileError, match=r"is no index of datapipes.*Check the path") as caught:
        FileIndex.open(tmp_path / "foreign")
    assert caught.value.url == str(tmp_path / "foreign")
    assert caught.value.operation == "open index"


@pytest.mark.parametrize("kept", [0, 1, 8, 63, 64, 65, 1000, -1])
def test_truncated_file_is_named_as_such(path: Path, kept: int) -> None:
    content = path.read_bytes()[:kept]
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(
        IndexFileError, match=rf"is cut off: it has {len(content)} bytes.*build the index again"
    ):
        FileIndex.open(path)


def test_file_that_has_grown_is_refused(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(IndexFileError, match="has grown"):
        FileIndex.open(path)


def test_other_version_is_named_as_such(path: Path) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, 8, 7)
    struct.pack_into("<I", content, HEADER - 4, zlib.crc32(content[: HEADER - 4]))
    path.write_bytes(content)
    with pytest.raises(
        IndexFileError, match=r"of version 7, and this release reads version 1.*build the index again"
    ):
        FileIndex.open(path)


@pytest.mark.parametrize("bit", [1, 128])
def test_every_damaged_byte_of_the_header_is_noticed_on_opening(path: Path, bit: int) -> None:
    for offset in range(HEADER):
        change(path, offset, bit)
        with pytest.raises(IndexFileError, match=r"damaged|no index"):
            FileIndex.open(path)
        change(path, offset, bit)
    assert list(FileIndex.open(path)) == ENTRIES


def test_every_damaged_byte_of_the_description_is_noticed_on_opening(path: Path) -> None:
    start = struct.unpack_from("<Q", path.read_bytes(), 24)[0]
    for offset in range(start, path.stat().st_size):
        change(path, offset, 4)
        with pytest.raises(IndexFileError, match="damaged: its description"):
            FileIndex.open(path)
        change(path, offset, 4)
    assert list(FileIndex.open(path)) == ENTRIES


def test_damage_anywhere_is_found_by_verify_and_harms_no_reader(path: Path) -> None:
    size = path.stat().st_size
    for offset in {*range(HEADER, HEADER + 24), *range(HEADER, size, 97), size - 300}:
        for bit in (1, 16, 128):
            change(path, offset, bit)
            with pytest.raises(IndexFileError, match="damaged"):
                FileIndex.open(path, verify=True)
            try:
                read_all(FileIndex.open(path))
            except IndexFileError as error:
                assert "build the index again" in str(error)  # noqa: PT017 - it may as well go unnoticed here
            change(path, offset, bit)
    FileIndex.open(path, verify=True)


def test_noise_for_names_is_an_error_and_no_crash(path: Path) -> None:
    content = bytearray(path.read_bytes())
    end = struct.unpack_from("<Q", content, 24)[0]
    rng = np.random.default_rng(0)
    for trial in range(40):
        noise = content.copy()
        stop = end if trial % 2 else HEADER + 4004  # everything, or the places of the names alone
        noise[HEADER:stop] = rng.bytes(stop - HEADER)
        path.unlink()
        path.write_bytes(noise)
        index = FileIndex.open(path)
        for read in (index.urls, index.entries):
            with pytest.raises(IndexFileError, match="damaged"):
                read(slice(None))
            with pytest.raises(IndexFileError, match="damaged"):
                read(rng.permutation(1000))


def test_file_cut_off_under_its_reader_is_an_error_and_no_crash(path: Path) -> None:
    index = FileIndex.open(path)
    assert index[999] == ENTRIES[999]
    os.truncate(path, 4096)
    for read in (
        lambda: index[999],
        lambda: index.urls([5, 900]),
        lambda: index.sizes,
        index.verify,
        lambda: list(index),
    ):
        with pytest.raises(IndexFileError, match="cut off while it was in use"):
            read()


def test_error_in_the_listing_leaves_the_old_index(path: Path) -> None:
    def listing() -> Iterator[str]:
        yield from (f"n/{i}" for i in range(70_000))
        raise PermissionError(errno.EACCES, "of the store")

    with pytest.raises(PermissionError, match="of the store"):
        FileIndex.from_entries(listing(), path)
    assert list(FileIndex.open(path)) == ENTRIES
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("target", ["missing/index", "."])
def test_place_that_cannot_be_written_is_named(tmp_path: Path, target: str) -> None:
    with pytest.raises(BackendIOError, match="write index") as caught:
        FileIndex.from_entries(ENTRIES, tmp_path / target)
    assert caught.value.url == os.path.abspath(tmp_path / target)
    assert os.listdir(tmp_path) == []


def test_what_is_no_file_is_never_replaced(tmp_path: Path) -> None:
    target = tmp_path / "fifo"
    os.mkfifo(target)
    with pytest.raises(BackendIOError, match="left alone") as caught:
        FileIndex.from_entries(ENTRIES, target)
    assert caught.value.errno == errno.EEXIST
    assert target.is_fifo()
    assert os.listdir(tmp_path) == ["fifo"]


@pytest.mark.parametrize("target", [3, b"x", "a\0b", "\ud800", ["x"]])
def test_what_is_no_path_is_refused(target: Any) -> None:
    with pytest.raises(OptionError, match="path of an index"):
        FileIndex.from_entries(ENTRIES, target)
    with pytest.raises(OptionError, match="path of an index"):
        FileIndex.open(target)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("names", "x"),
        ("names", 1 << 70),
        ("blocks", [["a", 1, "", False, 1]]),
        ("blocks", [[1 << 70, 1, "", False, 1]]),
        ("options", 3),
        ("source", None),
    ],
)
def test_description_of_another_program_is_damage_though_its_checksum_is_right(
    path: Path, field: str, value: Any
) -> None:
    content = path.read_bytes()
    offset, length, _ = parse_header(content[:HEADER_BYTES], len(content), str(path))
    fields = json.loads(content[offset : offset + length])
    description = json.dumps(fields | {field: value}).encode()
    header = pack_header(offset + len(description), offset, description)
    path.write_bytes(header + content[HEADER_BYTES:offset] + description)
    with pytest.raises(IndexFileError, match="description cannot be read"):
        FileIndex.open(path)


BUILD = """
import errno, itertools, os, sys
from datapipes.errors import BackendIOError
from datapipes.index import FileIndex

names = (f"memory://store/{i:060d}" for i in itertools.count())
try:
    FileIndex.from_entries(itertools.islice(names, 300_000), sys.argv[1])
except BackendIOError as error:
    print(errno.errorcode[error.errno], error.operation, error.url, error)
"""


def build_in_child(path: Path, *, preexec: object = None, before: Sequence[str] = ()) -> str:
    command = [*before, sys.executable, "-c", BUILD, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, check=False, preexec_fn=preexec
    )  # type: ignore[call-overload]
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


def test_file_size_limit_is_an_error_and_leaves_nothing(path: Path) -> None:
    said = build_in_child(path, preexec=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (6 << 20, 6 << 20)))
    assert said.startswith(f"EFBIG write index {path} ")
    assert list(FileIndex.open(path)) == ENTRIES
    assert os.listdir(path.parent) == [path.name]


def test_full_disk_is_an_error_and_leaves_nothing(
    tmp_path: Path, on_small_disk: Callable[[Path, str], list[str]]
) -> None:
    said = build_in_child(tmp_path / "index", before=on_small_disk(tmp_path, "2m"))
    assert said.startswith(f"ENOSPC write index {tmp_path / 'index'} ")
    assert "Make room" in said
    assert said.count("\n") == 1  # nothing but the message: the listing of the directory is empty


ENDLESS = """
import sys
from datapipes.index import FileIndex

def names():
    for i in range(10**9):
        if i == 200_000:
            print("half-way", flush=True)
            sys.stdin.read()
        yield f"memory://store/{i}"

FileIndex.from_entries(names(), sys.argv[1])
"""


def test_killed_builder_leaves_nothing_that_is_taken_for_an_index(tmp_path: Path) -> None:
    target = tmp_path / "index"
    child = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(target)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "half-way\n"
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert not target.exists()
    (left,) = tmp_path.iterdir()
    assert left.stat().st_size > 1 << 20  # it had written a good part
    with pytest.raises(IndexFileError, match="no index of datapipes"):
        FileIndex.open(left)
    with pytest.raises(FileMissingError):
        FileIndex.open(target)
    assert list(FileIndex.from_entries(ENTRIES, target)) == ENTRIES


def test_readers_never_see_half_an_index(tmp_path: Path) -> None:
    target = tmp_path / "index"
    FileIndex.from_entries(ENTRIES, target)
    program = (
        "import sys\nfrom datapipes.index import FileIndex\n"
        "for n in range(1, 120): FileIndex.from_entries([f'd/{i}' for i in range(n * 100)], sys.argv[1])\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(target)])
    seen = set()
    while writer.poll() is None:
        index = FileIndex.open(target, verify=True)
        seen.add(len(index))
    assert writer.returncode == 0
    assert len(seen) > 2
