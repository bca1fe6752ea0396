"""The part of ``BackendContract`` about listing."""

from __future__ import annotations

import contextlib
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapipes.backends.handle_spool import HandleSpool
from datapipes.errors import ContainerMissingError, FileMissingError, IsDirectoryError, UrlError
from datapipes.records import UNKNOWN_SIZE, HandleFile, ReadRequest
from datapipes.testing.backend_hooks import NO_URLS, BackendHooks, entries_of, quick, raises_exactly
from datapipes.urls import parse_url

__all__ = ["ListingContract"]

MIXED = {
    "a-b": b"1",
    "a.txt": b"22",
    "a/x": b"333",
    "a/x.y/deep/er": b"4444",
    "a0": b"",
    "A": b"5",
    ".hidden": b"6",
    "b/.dot/.file": b"7",
    "sp ace/na me": b"8",
    "50%?#+&=.png": b"9",
    "%25": b"10",
    "ä/ö": b"11",
    "z\U0001f600": b"12",
    "z\uffee": b"13",
    "new\nline": b"14",
    "back\\slash": b"15",
}
BYTES = {"z\udcff": b"16", "\udc80/\udcfe": b"17"}
"""Names that are not UTF-8: their bytes sort otherwise than their letters do."""

_LETTERS = string.ascii_letters + string.digits + "-._ %?#+&=~@:é漢\U0001f600\ue000"
ALWAYS = "!"  # a file that is there in every tree, so that none is empty; no path below begins so
_NAME = st.text(st.sampled_from(_LETTERS + "\udc80\udcff"), min_size=1, max_size=12)
_PATH = st.lists(_NAME.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4).map("/".join)


def _tree(paths: list[str]) -> dict[str, bytes]:
    """Those paths that can stand side by side: none is a directory of another."""
    parents = {path[:i] for path in paths for i, letter in enumerate(path) if letter == "/"}
    return {path: b"x" * i for i, path in enumerate(paths) if path not in parents}


class ListingContract(BackendHooks):
    def _mixed(self) -> dict[str, bytes]:
        return MIXED | BYTES if self.names_are_bytes else MIXED

    def test_list_mixed_names_come_in_byte_order_of_the_whole_path(self) -> None:
        prefix = self.seed(self._mixed())
        listed = list(self.make().list(prefix))
        assert listed == entries_of(self._mixed(), lambda name: self.url(prefix, name))
        first = [parse_url(entry.url).path.removeprefix(parse_url(prefix).path + "/") for entry in listed]
        assert first[first.index("a-b") :][:5] == ["a-b", "a.txt", "a/x", "a/x.y/deep/er", "a0"]

    @quick
    @given(paths=st.lists(_PATH, max_size=12, unique=True))
    def test_list_any_names_gives_each_once_with_its_size_and_the_same_again(self, paths: list[str]) -> None:
        files = _tree(paths)
        if not self.names_are_bytes:
            files = {name: data for name, data in files.items() if name.isprintable()}
        prefix, backend = self.seed({**files, ALWAYS: b""}), self.make()
        expected = entries_of({**files, ALWAYS: b""}, lambda name: self.url(prefix, name))
        assert list(backend.list(prefix)) == expected
        assert list(backend.list(prefix)) == expected

    @quick
    @given(paths=st.lists(_PATH, min_size=1, max_size=8, unique=True))
    def test_list_start_after_each_entry_gives_the_rest(self, paths: list[str]) -> None:
        files = {
            name: data for name, data in _tree(paths).items() if self.names_are_bytes or name.isprintable()
        }
        prefix, backend = self.seed({**files, ALWAYS: b""}), self.make()
        whole = list(backend.list(prefix))
        for i, entry in enumerate(whole):
            assert list(backend.list(prefix, start_after=entry.url)) == whole[i + 1 :]

    def test_list_start_after_a_name_that_is_gone_gives_what_comes_after_it(self) -> None:
        prefix, backend = self.seed({"a": b"", "b/x": b"", "b/z": b"", "c": b""}), self.make()
        for gone, rest in [("0", ["a", "b/x", "b/z", "c"]), ("b/y", ["b/z", "c"]), ("bb", ["c"]), ("d", [])]:
            listed = backend.list(prefix, start_after=self.url(prefix, gone))
            assert [entry.url for entry in listed] == [self.url(prefix, name) for name in rest]

    def test_list_not_recursive_gives_the_files_of_the_directory_itself(self) -> None:
        prefix, backend = self.seed(self._mixed()), self.make()
        flat = {name: data for name, data in self._mixed().items() if "/" not in name}
        expected = entries_of(flat, lambda name: self.url(prefix, name))
        assert list(backend.list(prefix, recursive=False)) == expected
        assert list(backend.list(prefix, recursive=False, start_after=expected[3].url)) == expected[4:]

    def test_list_without_sizes_gives_the_same_names_and_no_wrong_size(self) -> None:
        prefix, backend = self.seed(self._mixed()), self.make()
        with_sizes = list(backend.list(prefix))
        without = list(backend.list(prefix, sizes=False))
        assert [entry.url for entry in without] == [entry.url for entry in with_sizes]
        assert all(b.size in (UNKNOWN_SIZE, a.size) for a, b in zip(with_sizes, without, strict=True))

    def test_list_without_sizes_gives_what_reading_finds_out(self) -> None:
        prefix, backend = self.seed(self._mixed()), self.make()
        listed = list(backend.list(prefix, sizes=False))
        requests = [ReadRequest(url, size=size) for url, size in listed]
        contents = {result.request.url: result.unwrap() for result in backend.read_many(requests)}
        assert contents == {self.url(prefix, name): data for name, data in self._mixed().items()}

    def test_list_of_files_alone_needs_no_types(self) -> None:
        files = {name: data for name, data in self._mixed().items() if "/" not in name}
        prefix, backend = self.seed(files), self.make()
        expected = [url for url, _ in entries_of(files, lambda name: self.url(prefix, name))]
        for recursive in (True, False):
            listed = list(backend.list(prefix, recursive=recursive, sizes=False, types=False))
            assert [url for url, _ in listed] == expected
        listed = list(backend.list(prefix, sizes=False, types=False, start_after=expected[2]))
        assert [url for url, _ in listed] == expected[3:]

    def test_list_without_types_takes_at_most_directories_for_files(self) -> None:
        """The caller was wrong: there are directories. Whoever reads one is told."""
        prefix, backend = self.seed({"a": b"1", "d/x": b"2", "e": b"3"}), self.make()
        listed = {url for url, _ in backend.list(prefix, recursive=False, sizes=False, types=False)}
        files = {self.url(prefix, "a"), self.url(prefix, "e")}
        assert files <= listed <= {*files, self.url(prefix, "d")}
        for url in listed - files:
            with raises_exactly(IsDirectoryError):
                backend.read(url)

    def test_list_that_keeps_handles_is_the_same(self, tmp_path: Path) -> None:
        prefix, backend = self.seed(self._mixed()), self.make()
        folder = tmp_path / "beside the index"
        folder.mkdir()
        spool = HandleSpool(folder, 1 << 20)
        assert list(backend.list(prefix, handles=spool)) == list(backend.list(prefix))
        spool.settle(HandleFile(str(folder / "table"), "of these", 100, 1 << 20))
        assert {path.name for path in folder.iterdir()} <= {"table"}

    def test_list_names_as_given_can_be_read(self) -> None:
        prefix, backend = self.seed(self._mixed()), self.make()
        contents = {entry.url: backend.read(entry.url) for entry in backend.list(prefix)}
        assert contents == {self.url(prefix, name): data for name, data in self._mixed().items()}

    def test_list_prefix_that_is_one_file_gives_that_file(self) -> None:
        prefix, backend = self.seed({"d/one": b"abc", "d/one.more": b"", "d/two": b""}), self.make()
        url = self.url(prefix, "d/one")
        if backend.prefix_is_directory:
            assert list(backend.list(url)) == [(url, 3)]
            assert list(backend.list(url, start_after=url)) == []
        else:
            assert list(backend.list(url)) == [(url, 3), (url + ".more", 0)]

    def test_list_prefix_with_and_without_a_slash_at_the_end_gives_the_same_directory(self) -> None:
        prefix, backend = self.seed({"d/a": b"", "d/b": b""}), self.make()
        expected = [(self.url(prefix, "d/a"), 0), (self.url(prefix, "d/b"), 0)]
        assert list(backend.list(self.url(prefix, "d/"))) == expected
        assert list(backend.list(self.url(prefix, "d"))) == expected

    def test_list_prefix_does_not_reach_into_its_neighbour(self) -> None:
        prefix, backend = self.seed({"d/a": b"", "dd/b": b"", "d.c": b""}), self.make()
        assert list(backend.list(self.url(prefix, "d/"))) == [(self.url(prefix, "d/a"), 0)]

    def test_list_empty_directory_gives_nothing(self) -> None:
        prefix, backend = self.seed({"empty/": b"", "full/a": b""}), self.make()
        assert list(backend.list(self.url(prefix, "empty/"))) == []
        assert list(backend.list(prefix)) == [(self.url(prefix, "full/a"), 0)]

    def test_list_missing_prefix_is_never_an_empty_listing_of_a_file_store(self) -> None:
        prefix, backend = self.seed({"a": b""}), self.make()
        for missing in ("nothing", "nothing/", "nothing/below", "a/below", "a/"):
            entries = backend.list(self.url(prefix, missing))  # the question is asked with the first entry
            if backend.prefix_is_directory:
                with raises_exactly(FileMissingError):
                    list(entries)
            else:
                assert list(entries) == []

    def test_list_missing_container_raises_that(self) -> None:
        missing = self.missing_container()
        if missing is None:
            assert parse_url(self.seed({})).container == "", "this scheme has containers: one can be missing"
            return
        backend, url = missing
        for prefix in (url, url + "/"):
            with raises_exactly(ContainerMissingError):
                list(backend.list(prefix))

    @pytest.mark.parametrize("bad", NO_URLS, ids=ascii)
    def test_list_url_that_is_none_raises_url_error(self, bad: str) -> None:
        with raises_exactly(UrlError):
            list(self.make().list(self.no_url(bad)))

    def test_list_start_after_of_another_store_raises_url_error(self) -> None:
        with raises_exactly(UrlError):
            list(self.make().list(self.seed({"a": b""}), start_after="nostore://a/b"))

    def test_list_closed_early_ends_and_the_back_end_goes_on(self) -> None:
        prefix, contents = self.seeded(300)
        backend = self.make()
        for taken in (0, 1, 200):
            entries = backend.list(prefix)
            urls = [entry.url for entry, _ in zip(entries, range(taken), strict=False)]
            assert urls == list(contents)[:taken]
            with contextlib.closing(entries):  # type: ignore[type-var]
                pass
            assert list(entries) == []
        assert len(list(backend.list(prefix))) == 300

    def test_list_again_shows_what_has_come_and_gone_meanwhile(self) -> None:
        prefix, backend = self.seed({"a": b"1", "b": b"2"}), self.make()
        assert [entry.size for entry in backend.list(prefix)] == [1, 1]
        self.alter(self.url(prefix, "a"), None)
        self.alter(self.url(prefix, "b"), b"longer")
        assert list(backend.list(prefix)) == [(self.url(prefix, "b"), 6)]
