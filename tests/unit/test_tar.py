"""The tar walker: what it says of shards that are odd, damaged or too large; formats are a property."""

from __future__ import annotations

import array
import io
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from datapipes import _dfs
from datapipes.errors import ShardError
from datapipes.tar import TarStream, tar_members

END = bytes(1024)


def header(name: bytes, size: bytes = b"0", kind: bytes = b"0", **fields: bytes) -> bytes:
    """One block; fields by their offset: at345=b"prefix"."""
    block = bytearray(512)
    for offset, value in {
        0: name,
        124: size,
        156: kind,
        **{int(k[2:]): v for k, v in fields.items()},
    }.items():
        block[offset : offset + len(value)] = value
    block[148:156] = b" " * 8
    block[148:155] = b"%06o\0" % sum(block)
    return bytes(block)


def filled(data: bytes) -> bytes:
    return data + bytes(-len(data) % 512)


def member(name: bytes, data: bytes) -> bytes:
    return header(name, b"%o" % len(data)) + filled(data)


def pax(kind: bytes, *pairs: tuple[bytes, bytes]) -> bytes:
    records = b""
    for key, value in pairs:
        length = len(key) + len(value) + 3
        length += len(str(length + len(str(length))))
        records += b"%d %s=%s\n" % (length, key, value)
    return header(b"pax", b"%o" % len(records), kind) + filled(records)


TWO = member(b"a", b"first") + member(b"b/c", b"x" * 600) + END


def names(data: bytes) -> list[str]:
    return [name for name, _, _ in tar_members(data, url="u")]


def stream(data: bytes, size: int, **options: Any) -> list[Any]:
    made = TarStream(url="u", **options)
    items = [item for at in range(0, len(data), size) for item in made.feed(data[at : at + size])]
    made.finish()
    return items


# -- what is read, and what is passed over -----------------------------------------------------------------


@pytest.mark.parametrize("layout", ["v7", "oldgnu", "gnu", "ustar", "pax"])
def test_archives_of_gnu_tar_are_read(tmp_path: Path, layout: str) -> None:
    tar = shutil.which("tar")
    assert tar, "every system has one"
    expected = {}
    for number in range(20):
        path = tmp_path / "in" / ("folder" * (number % 4)) / f"{number:03}{'n' * number}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes([number]) * number * 100)
        expected[str(path.relative_to(tmp_path))] = path.read_bytes()
    (tmp_path / "in/link").symlink_to("elsewhere")
    subprocess.run([tar, "-cf", "a.tar", f"--format={layout}", "in"], cwd=tmp_path, check=True)
    data = (tmp_path / "a.tar").read_bytes()
    assert {name: data[at : at + size] for name, at, size in tar_members(data, url="u")} == expected
    assert {name: body for name, body, _ in stream(data, 999)} == expected


def test_order_is_that_of_the_shard_and_names_may_repeat() -> None:
    data = member(b"b", b"1") + member(b"a", b"2") + member(b"b", b"3") + END
    assert names(data) == ["b", "a", "b"]


def test_links_devices_directories_and_unknown_types_are_passed_over() -> None:
    passed = b"".join(header(b"x%d" % kind, b"777", b"%d" % kind) for kind in range(1, 7))
    passed += header(b"folder/", b"0", b"\0") + header(b"?", b"10", b"Z") + bytes(512)
    assert names(passed + TWO) == ["a", "b/c"]


def test_name_that_is_not_utf8_is_surrogate_escaped() -> None:
    assert names(member(b"a\xff", b"") + pax(b"x", (b"path", b"\xfe")) + member(b"", b"") + END) == [
        "a\udcff",
        "\udcfe",
    ]


def test_prefix_counts_in_posix_headers_only() -> None:
    posix = header(b"name", at257=b"ustar\x0000", at345=b"p" * 155)
    gnu = header(b"name", at257=b"ustar  \0", at345=b"12345670123")  # there GNU has times
    assert names(posix + gnu + END) == ["p" * 155 + "/name", "name"]


def test_size_beyond_octal_digits_is_read() -> None:
    large = header(b"large", b"\x80" + struct.pack(">11s", (1 << 33).to_bytes(11, "big")))
    with pytest.raises(ShardError, match="at byte 512: it ends within a member"):
        tar_members(large, url="u")
    small = header(b"small", b"\x80" + (3).to_bytes(11, "big")) + filled(b"abc") + END
    assert tar_members(small, url="u") == [("small", 512, 3)]


def test_pax_headers_give_path_and_size_and_the_rest_is_passed_over() -> None:
    extended = pax(
        b"x", (b"mtime", b"1.5"), (b"path", "é/a=b\n".encode()), (b"size", b"3"), (b"comment", b"")
    )
    data = extended + header(b"short", b"0") + filled(b"abc") + member(b"next", b"1") + END
    assert stream(data, 100) == [("é/a=b\n", b"abc", 2048), ("next", b"1", 3072)]


def test_first_of_several_extended_headers_counts_as_in_tarfile() -> None:
    long_name = header(b"", b"2", b"L") + filled(b"L\0")
    before = pax(b"x", (b"path", b"X")) + long_name + member(b"a", b"") + END
    behind = long_name + pax(b"x", (b"path", b"X")) + member(b"a", b"") + END
    for data, name in ((before, "X"), (behind, "L")):
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            assert archive.getnames() == names(data) == [name]


def test_global_headers_are_passed_over_but_not_those_that_name_members() -> None:
    assert names(pax(b"g", (b"comment", b"git")) + TWO) == ["a", "b/c"]
    for key in (b"path", b"size"):
        with pytest.raises(ShardError, match="at byte 0: a global pax header"):
            names(pax(b"g", (key, b"1")) + TWO)


@pytest.mark.parametrize("sparse", ["old", "0.0", "0.1", "1.0"])
def test_sparse_files_are_refused(tmp_path: Path, sparse: str) -> None:
    with (tmp_path / "holes").open("wb") as file:
        file.seek(1 << 20)
        file.write(b"end")
    layout = ["--format=gnu"] if sparse == "old" else ["--format=pax", f"--sparse-version={sparse}"]
    subprocess.run(["tar", "-cSf", "a.tar", *layout, "holes"], cwd=tmp_path, check=True)
    with pytest.raises(ShardError, match="sparse"):
        names((tmp_path / "a.tar").read_bytes())


# -- faults ------------------------------------------------------------------------------------------------


def test_error_names_shard_and_byte_and_travels() -> None:
    damaged = bytearray(TWO)
    damaged[1024 + 3] ^= 1
    with pytest.raises(ShardError) as caught:
        tar_members(damaged, url="ais://b/shard-7.tar")
    error = pickle.loads(pickle.dumps(caught.value))
    assert str(error) == "read 'ais://b/shard-7.tar' failed at byte 1024: the checksum of a header is wrong"
    assert (error.url, error.operation) == ("ais://b/shard-7.tar", "read")
    assert isinstance(error, ValueError)


def test_members_before_the_fault_come_first_and_then_the_error_stays() -> None:
    made = TarStream(url="u")
    damaged = TWO[:-1024] + b"?" * 512
    assert [name for name, _, _ in made.feed(damaged)] == ["a", "b/c"]
    for _ in range(2):
        with pytest.raises(ShardError, match="at byte 2560"):
            made.feed(END)
    with pytest.raises(ShardError, match="at byte 2560"):
        made.finish()


def test_archive_without_end_marker_is_cut_short_and_one_block_of_it_will_do() -> None:
    with pytest.raises(ShardError, match="at byte 2560: it ends without an end marker"):
        names(TWO[:-1024])
    assert names(TWO[:-512]) == ["a", "b/c"]
    with pytest.raises(ShardError, match="at byte 0: it ends without"):
        names(b"")


def test_end_is_told_and_what_follows_is_ignored() -> None:
    made = TarStream(url="u")
    ended = []
    for piece in (TWO[:-513], TWO[-513:] + b"rubbish"):
        made.feed(piece)
        ended.append(made.ended)
    assert ended == [False, True]
    assert made.feed(b"more") == []
    made.finish()
    made.finish()


def test_member_beyond_the_bound_or_beyond_memory_is_an_error() -> None:
    assert [name for name, _, _ in stream(TWO, 100, max_member_bytes=600)] == ["a", "b/c"]
    with pytest.raises(ShardError, match="at byte 1024: a member is larger than max_member_bytes"):
        stream(TWO, 100, max_member_bytes=599)
    huge = header(b"huge", b"\x80" + (1 << 60).to_bytes(11, "big"))
    with pytest.raises(ShardError, match="larger than the memory"):
        stream(huge, 512, max_member_bytes=1 << 61)
    for size in ((1 << 62) + 1, 1 << 80):
        with pytest.raises(ShardError, match="no number"):
            names(header(b"huge", b"\x80" + size.to_bytes(11, "big")))


@pytest.mark.parametrize("start", [-1, 4000, 1 << 70])
def test_start_outside_the_buffer_is_refused(start: int) -> None:
    with pytest.raises((ValueError, OverflowError)):
        tar_members(TWO, url="u", start=start)


@pytest.mark.parametrize("options", [{"offset": -1}, {"max_member_bytes": 0}, {"offset": (1 << 62) + 1}])
def test_options_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(ValueError, match="up to"):
        TarStream(url="u", **options)


def test_stream_is_made_once_and_before_it_is_used() -> None:
    made = _dfs.TarStream()
    with pytest.raises(RuntimeError):
        made.__init__()
    with pytest.raises(RuntimeError):
        _dfs.TarStream.__new__(_dfs.TarStream).feed(b"")


@pytest.mark.parametrize("piece", [None, "text", 5])
def test_piece_that_is_no_buffer_is_refused(piece: Any) -> None:
    made = TarStream(url="u")
    with pytest.raises(TypeError):
        made.feed(piece)
    assert len(made.feed(TWO)) == 2


# -- memory ------------------------------------------------------------------------------------------------


def test_view_of_a_member_within_a_piece_is_of_the_piece() -> None:
    piece = bytes(bytearray(TWO))
    before = sys.getrefcount(piece)
    made = TarStream(url="u", views=True)
    items = made.feed(piece)
    views = [data for _, data, _ in items if isinstance(data, memoryview)]
    assert [view.obj is piece and view.readonly for view in views] == [True, True]
    assert bytes(views[1]) == b"x" * 600
    del items
    views.clear()
    assert sys.getrefcount(piece) == before


def test_view_of_a_member_that_spans_pieces_is_of_memory_of_its_own() -> None:
    views = [data for _, data, _ in stream(TWO, 700, views=True)]
    assert [type(view) for view in views] == [memoryview, memoryview]
    assert [bytes(view) for view in views] == [b"first", b"x" * 600]


def test_bytes_keep_no_piece() -> None:
    piece = bytes(bytearray(TWO))
    before = sys.getrefcount(piece)
    items = TarStream(url="u").feed(piece)
    assert [type(data) for _, data, _ in items] == [bytes, bytes]
    assert sys.getrefcount(piece) == before


def test_any_buffer_is_a_piece() -> None:
    words = array.array("I", TWO)
    made = TarStream(url="u", views=True)
    assert [bytes(data) for _, data, _ in made.feed(memoryview(words))] == [b"first", b"x" * 600]
    assert len(tar_members(memoryview(bytearray(TWO)), url="u")) == 2


def test_stream_dropped_within_a_member_frees_it() -> None:
    made = TarStream(url="u")
    assert made.feed(TWO[:1600]) == [("a", b"first", 1024)]
    del made
