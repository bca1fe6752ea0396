"""Objects as files: names, versions, what two processes see, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapipes.testing.ais_server import Bck, Store
from datapipes.testing.ais_server.names import PRIVATE, file_path, name_fault, object_name

PARTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(
    [".", "..", "", "%", "%2F", "a%o", "n" * 420]
)


@given(st.lists(PARTS, min_size=1, max_size=5).map("/".join))
def test_names_become_paths_and_come_back(name: str) -> None:
    path = file_path(name)
    assert object_name(path) == name
    for piece in path.split("/"):
        assert 0 < len(piece.encode()) <= 255
        assert piece not in (".", "..")
        assert "\0" not in piece


@given(st.lists(st.lists(PARTS, min_size=1, max_size=3).map("/".join), unique=True, min_size=2, max_size=2))
def test_no_two_names_share_a_path(names: list[str]) -> None:
    assert file_path(names[0]) != file_path(names[1])


def test_plain_files_are_objects_and_objects_are_plain_files(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "b/dir").mkdir(parents=True)
    (tmp_path / "b/dir/x.txt").write_bytes(b"by hand")
    assert store.get("b", "dir/x.txt") == b"by hand"
    store.put("b", "dir/y.txt", b"put")
    assert (tmp_path / "b/dir/y.txt").read_bytes() == b"put"
    assert store.names("b") == ["dir/x.txt", "dir/y.txt"]
    assert store.buckets() == [Bck("b")]


@pytest.mark.parametrize("order", [["a", "a/b", "a/b/c"], ["a/b/c", "a/b", "a"], ["a/b", "a/b/c", "a"]])
def test_an_object_may_be_named_like_a_directory(tmp_path: Path, order: list[str]) -> None:
    store = Store(tmp_path)
    for name in order:
        store.put("b", name, name.encode())
        store.put("b", name, name.upper().encode())
    assert store.names("b") == sorted(order)
    for name in order:
        assert store.get("b", name) == name.upper().encode()
    for name in order:
        assert store.delete("b", name)
        assert not store.delete("b", name)
    assert store.names("b") == []
    assert list((tmp_path / "b").iterdir()) == []


@pytest.mark.parametrize(
    ("prefix", "found"),
    [
        ("", ["-", "a//b", "a/b", "a/bc", "a0", "n" * 300, "é"]),
        ("a", ["a//b", "a/b", "a/bc", "a0"]),
        ("a/", ["a//b", "a/b", "a/bc"]),
        ("a/b", ["a/b", "a/bc"]),
        ("a//", ["a//b"]),
        ("n" * 250, ["n" * 300]),
        ("a/b/", []),
        ("no/such", []),
    ],
)
def test_names_are_found_by_prefix_in_the_order_of_their_bytes(
    tmp_path: Path, prefix: str, found: list[str]
) -> None:
    store = Store(tmp_path)
    for name in ["é", "a0", "a/bc", "a/b", "a//b", "-", "n" * 300]:
        store.put("b", name, b"")
    assert store.names("b", prefix) == found


def test_versions_properties_and_buckets_are_seen_by_another_store(tmp_path: Path) -> None:
    one, other = Store(tmp_path), Store(tmp_path)
    one.put("b", "x", b"1", custom={"k": "v"})
    assert other.facts("b", "x").version == 1
    one.put("b", "x", b"2")
    assert (other.facts("b", "x").version, other.facts("b", "x").custom) == (2, {"k": "v"})
    remote, spaced = Bck("b", "aws"), Bck("b", namespace="@uuid#ns")
    other.put(remote, "x", b"remote")
    other.put(spaced, "x", b"spaced")
    assert one.buckets() == [Bck("b"), spaced, remote]
    assert [one.get(bck, "x") for bck in one.buckets()] == [b"2", b"spaced", b"remote"]
    one.destroy_bucket(remote)
    assert not other.has_bucket(remote)
    assert (tmp_path / PRIVATE).is_dir()
    with pytest.raises(FileNotFoundError, match="ais://b/nope"):
        one.get("b", "nope")


@pytest.mark.parametrize("name", [".", "..", "a/../b", "a/./b", "~/x", "a/", "", "/"])
def test_names_that_a_cluster_refuses(name: str) -> None:
    assert name_fault(name)


@pytest.mark.parametrize("name", ["...", ".hidden", "/a", "//x", "a//b", "~", "a~/b", "a/.b"])
def test_names_that_a_cluster_takes(name: str) -> None:
    assert name_fault(name) is None
