"""The tar walker against Python's tarfile: any archive, cut anywhere, damaged anywhere."""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
from itertools import pairwise
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datapipes.errors import ShardError
from datapipes.tar import TarStream, tar_members

FORMATS = st.sampled_from([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
TYPES = st.sampled_from(
    [tarfile.REGTYPE] * 6
    + [
        tarfile.AREGTYPE,
        tarfile.CONTTYPE,
        tarfile.DIRTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
    ]
)
NAMES = (
    st.binary(min_size=1, max_size=30).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)
    | st.text(st.sampled_from("abé/.%?# \udcff"), min_size=1, max_size=20)
    | st.integers(1, 400).map(lambda n: ("deep/" * 80)[:n] + "x")
    | st.integers(95, 110).map("n".__mul__)
)
SIZES = st.sampled_from([0, 1, 100, 511, 512, 513, 1024, 1500, 2000])


class Entry(NamedTuple):
    name: str
    kind: bytes
    size: int


ENTRIES = st.lists(st.builds(Entry, NAMES, TYPES, SIZES), max_size=8)


def pack(entries: list[Entry], layout: int) -> bytes:
    """An archive of those entries that the format can hold."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=layout, encoding="utf-8", errors="surrogateescape"
    ) as archive:
        for number, entry in enumerate(entries):
            info = tarfile.TarInfo(entry.name)
            info.type, info.mtime = entry.kind, number + 0.5
            if entry.kind == tarfile.AREGTYPE and len(entry.name) >= 100:
                info.type = tarfile.REGTYPE  # tarfile takes a long name cut behind a slash for a directory's
            info.linkname = entry.name if info.islnk() or info.issym() else ""
            old_folder = entry.kind == tarfile.AREGTYPE and entry.name.endswith("/")
            info.size = entry.size if info.isreg() and not old_folder else 0
            data = bytes([65 + number]) * info.size
            with contextlib.suppress(ValueError):  # "is too long": ustar has room for 255 bytes
                archive.addfile(info, io.BytesIO(data))
        end = archive.offset + 1024
    return buffer.getvalue()[:end]


ARCHIVES = st.builds(pack, ENTRIES, FORMATS)


def by_tarfile(data: bytes) -> list[Any]:
    """(name, offset, size) of regular files."""
    with tarfile.open(
        fileobj=io.BytesIO(data), mode="r:", encoding="utf-8", errors="surrogateescape"
    ) as archive:
        return [(info.name, info.offset_data, info.size) for info in archive if info.isreg()]


def in_pieces(data: bytes, cuts: list[int], start: int = 0, *, views: bool = False) -> list[Any]:
    """(name, bytes, offset to go on at), with a piece between each two cuts."""
    stream = TarStream(url="u", offset=start, views=views)
    items: list[Any] = []
    places = sorted({min(cut, len(data)) for cut in cuts if cut > start})
    for begin, end in pairwise([start, *places, len(data)]):
        items += stream.feed(data[begin:end])
    stream.finish()
    return [(name, bytes(body), after) for name, body, after in items]


def with_bodies(data: bytes, members: list[Any]) -> list[Any]:
    return [(name, data[at : at + size], at + -(-size // 512) * 512) for name, at, size in members]


@given(ARCHIVES)
def test_members_are_those_of_tarfile(data: bytes) -> None:
    assert tar_members(data, url="u") == by_tarfile(data)


@given(ARCHIVES, st.lists(st.integers(1, 20_000), max_size=12), st.booleans())
def test_pieces_change_nothing(data: bytes, cuts: list[int], views: bool) -> None:
    expected = with_bodies(data, by_tarfile(data))
    assert in_pieces(data, cuts, views=views) == expected


@given(ENTRIES.filter(lambda entries: len(entries) <= 3), FORMATS, st.integers(1, 700))
def test_pieces_of_one_size_change_nothing(entries: list[Entry], layout: int, size: int) -> None:
    data = pack(entries, layout)
    expected = with_bodies(data, by_tarfile(data))
    assert in_pieces(data, list(range(size, len(data), size))) == expected


@given(ARCHIVES, st.lists(st.integers(1, 20_000), max_size=5))
def test_going_on_after_any_member_gives_the_rest(data: bytes, cuts: list[int]) -> None:
    items = in_pieces(data, cuts)
    for number, (_, _, after) in enumerate(items):
        assert in_pieces(data, cuts, after) == items[number + 1 :]
        rest = tar_members(data, url="u", start=after)
        assert with_bodies(data, rest) == items[number + 1 :]


@given(ARCHIVES, st.data())
def test_archive_cut_anywhere_is_an_error_or_whole(data: bytes, draw: st.DataObject) -> None:
    length = draw.draw(st.integers(0, len(data)) | st.integers(0, len(data) // 512).map((512).__mul__))
    check_like_tarfile(data[:length])


@given(ARCHIVES, st.integers(0, 30_000), st.integers(1, 255))
def test_changed_byte_is_an_error_or_no_news_to_tarfile(data: bytes, at: int, change: int) -> None:
    at %= len(data)
    check_like_tarfile(data[:at] + bytes([data[at] ^ change]) + data[at + 1 :])


@given(ARCHIVES, st.integers(0, 30_000), st.binary(min_size=1, max_size=600))
@example(pack([Entry("a", tarfile.REGTYPE, 0)], tarfile.PAX_FORMAT), 0, bytes(512))
def test_damage_is_the_same_by_piece_and_as_a_whole(data: bytes, at: int, damage: bytes) -> None:
    at %= len(data)
    check_pieces(data[:at] + damage + data[at + len(damage) :])


def check_like_tarfile(data: bytes) -> None:
    """An error, the same by piece and as a whole; else what tarfile has."""
    members = check_pieces(data)
    assert members is None or members == by_tarfile(data)


def check_pieces(data: bytes) -> list[Any] | None:
    """The members; None if they end in an error."""
    members, error = outcome(data)
    if members is not None:
        assert in_pieces(data, [700, 1500]) == with_bodies(data, members)
        return members
    with pytest.raises(ShardError) as caught:
        in_pieces(data, [700, 1500])
    assert str(caught.value) == error
    return None


def outcome(data: bytes | bytearray | memoryview, start: int = 0) -> tuple[list[Any] | None, str]:
    """The members, or what the error says."""
    try:
        return tar_members(data, url="u", start=start), ""
    except ShardError as error:
        return None, str(error)


@given(st.binary(max_size=3000), st.integers(0, 3000))
def test_any_bytes_are_an_archive_or_an_error(data: bytes, start: int) -> None:
    for view in (data, bytearray(data), memoryview(data)):
        members, error = outcome(view, min(start, len(data)))
        assert members is not None or "'u' failed at byte" in error
