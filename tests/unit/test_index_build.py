"""FileIndex.build: which sources are listed how, and what comes of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pytest

from datapipes.backends.base import Backend, ReadIterator
from datapipes.backends.handle_spool import HandleSpool
from datapipes.errors import ContainerMissingError, OptionError, UrlError
from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.records import UNKNOWN_SIZE, FileEntry, ReadRequest

TREE = {
    "store://c/a/1.png": 1,
    "store://c/a/2.txt": 2,
    "store://c/a/deep/3.png": 3,
    "store://c/b/4%25.png": 4,
    "store://c/b/5.jpg": 5,
}


class Tree(Backend):
    """Lists what is above; keeps account of what it was asked."""

    scheme = "store"

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool, bool]] = []
        self.more: list[tuple[bool, HandleSpool | None]] = []
        self.given = 0

    def list(
        self,
        prefix: str,
        *,
        recursive: bool = True,
        start_after: str | None = None,
        sizes: bool = True,
        types: bool = True,
        handles: HandleSpool | None = None,
    ) -> Iterator[FileEntry]:
        self.asked.append((prefix, recursive, sizes))
        self.more.append((types, handles))
        found = False
        for url, size in TREE.items():
            below = url == prefix or url.startswith(prefix.rstrip("/") + "/")
            if below and (recursive or "/" not in url[len(prefix.rstrip("/")) + 1 :]):
                found = True
                self.given += 1
                yield FileEntry(url, size if sizes else UNKNOWN_SIZE)
        if not found:
            raise ContainerMissingError(f"nothing at {prefix}", url=prefix, operation="list")

    def read_many(self, requests: Iterable[ReadRequest], **options: Any) -> ReadIterator:
        return self.refuse()

    def stat(self, url: str) -> FileEntry:
        return self.refuse()

    def write(self, url: str, data: bytes | bytearray | memoryview) -> None:
        self.refuse()

    def open_write(self, url: str, **options: int) -> BinaryIO:
        return self.refuse()

    def remove(self, url: str) -> None:
        self.refuse()

    def refuse(self) -> NoReturn:
        raise AssertionError("a listing reads and writes nothing")


@pytest.fixture
def tree() -> Tree:
    return Tree()


@pytest.fixture
def build(tmp_path: Path, tree: Tree) -> Callable[..., FileIndex]:
    def build(urls: Any, **options: Any) -> FileIndex:
        return FileIndex.build(urls, tmp_path / "index", resolve=lambda url: tree, **options)

    return build


def names(index: FileIndex) -> list[str]:
    return [url.removeprefix("store://c/") for url in index.urls(slice(None))]


def test_directory_is_listed_with_sizes(build: Callable[..., FileIndex]) -> None:
    assert list(build("store://c/")) == list(TREE.items())


def test_sources_come_in_the_order_given_and_as_often_as_they_are_listed(
    build: Callable[..., FileIndex],
) -> None:
    index = build(["store://c/b", "store://c/a/deep/", "store://c/b/5.jpg", "store://c/b/5.jpg"])
    assert names(index) == ["b/4%25.png", "b/5.jpg", "a/deep/3.png", "b/5.jpg", "b/5.jpg"]


def test_sources_may_stream_and_be_paths(build: Callable[..., FileIndex], tree: Tree) -> None:
    class Place:
        def __fspath__(self) -> str:
            return "store://c/b"

    assert names(build(Place())) == names(build(place for place in [Place()])) == ["b/4%25.png", "b/5.jpg"]


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        (None, 5),
        ("*.png", 3),
        (["*.txt", "5*"], 2),
        ("4%.png", 1),
        ("*.gif", 0),
    ],
)
def test_masks_choose(
    build: Callable[..., FileIndex], masks: str | Sequence[str] | None, expected: int
) -> None:
    assert len(build("store://c", masks=masks)) == expected


def test_options_reach_the_store_and_the_description(build: Callable[..., FileIndex], tree: Tree) -> None:
    index = build(["store://c/a"], recursive=False, sizes=False, types=False, masks="*", handle_cache_bytes=0)
    assert tree.asked == [("store://c/a", False, False)]
    assert tree.more == [(False, None)]
    assert list(index) == [("store://c/a/1.png", -1), ("store://c/a/2.txt", -1)]
    assert index.options == {"recursive": False, "sizes": False, "types": False, "masks": ["*"]}
    build("store://c/b", masks="*.png", handle_cache_bytes=5)
    types, spool = tree.more[-1]
    assert types
    assert spool is not None
    assert (spool.max_bytes, spool.masks) == (5, ("*.png",))
    assert index.source == "store://c/a"


def test_many_sources_are_described_by_the_first_few(build: Callable[..., FileIndex]) -> None:
    index = build("store://c/b" for _ in range(1000))
    assert len(index) == 2000
    assert index.source == ", ".join(["store://c/b"] * 8) + " and 992 more"


def test_missing_source_is_the_stores_error(build: Callable[..., FileIndex], tmp_path: Path) -> None:
    with pytest.raises(ContainerMissingError, match="nothing at"):
        build(["store://c/a", "store://c/zzz"])
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("urls", [[b"store://c"], [None], [3]])
def test_source_that_is_no_url_is_refused(build: Callable[..., FileIndex], urls: Any) -> None:
    with pytest.raises(UrlError, match="a URL is a str"):
        build(urls)


@pytest.mark.parametrize("urls", [None, 3, True])
def test_sources_that_cannot_be_walked_are_refused(build: Callable[..., FileIndex], urls: Any) -> None:
    with pytest.raises(UrlError, match="iterable of URLs"):
        build(urls)


def test_masks_are_checked_before_anything_is_listed(build: Callable[..., FileIndex], tree: Tree) -> None:
    with pytest.raises(OptionError, match="masks"):
        build("store://c", masks=[1])
    assert tree.asked == []


def test_unknown_scheme_is_refused_by_the_registry(tmp_path: Path) -> None:
    with pytest.raises(UrlError, match="nosuch"):
        FileIndex.build("nosuch://c/a", tmp_path / "index")


def test_index_without_a_place_goes_with_the_job(tree: Tree) -> None:
    one = FileIndex.build("store://c/a", resolve=lambda url: tree)
    other = FileIndex.from_entries(["x"])
    assert one.path.parent == other.path.parent == Job.current().path
    assert (len(one), len(other)) == (3, 1)
