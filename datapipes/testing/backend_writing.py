"""The part of ``BackendContract`` about writing and removing."""

from __future__ import annotations

import gc
import itertools
import threading
import warnings

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datapipes.backends.base import Backend
from datapipes.errors import DatapipesError, FileMissingError, IsDirectoryError, UrlError
from datapipes.testing.backend_hooks import (
    NO_URLS,
    BackendHooks,
    entries_of,
    in_thread,
    quick,
    raises_exactly,
)

__all__ = ["WritingContract"]


def _write_and_raise(backend: Backend, url: str, size: int) -> None:
    with backend.open_write(url) as file:
        file.write(b"x" * size)
        raise ZeroDivisionError


_NAMES = ["a", "b", "b.c", "d/e", "d/f", "d/g/h", "d-i"]
_STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "stream", "remove", "read"]), st.sampled_from(_NAMES), st.binary()),
    max_size=12,
)


class WritingContract(BackendHooks):
    @quick
    @given(steps=_STEPS)
    def test_any_sequence_of_calls_agrees_with_a_dict(self, steps: list[tuple[str, str, bytes]]) -> None:
        prefix, backend = self.seed({}), self.make()
        model: dict[str, bytes] = {}
        for call, name, data in steps:
            url = self.url(prefix, name)
            if call == "write":
                backend.write(url, data)
                model[name] = data
            elif call == "stream":
                with backend.open_write(url) as file:
                    file.write(data)
                model[name] = data
            elif name not in model:
                with raises_exactly(FileMissingError):
                    backend.remove(url) if call == "remove" else backend.read(url)
            elif call == "remove":
                backend.remove(url)
                del model[name]
            else:
                assert backend.read(url) == model[name]
            assert self.peek(url) == model.get(name)
        assert list(backend.list(prefix)) == entries_of(model, lambda name: self.url(prefix, name))

    @pytest.mark.parametrize("name", ["a", "new/deep/a", "50%?#.png", "ä/ö", "n" * 250])
    def test_write_makes_the_file_and_its_directories(self, name: str) -> None:
        prefix, backend = self.seed({"other": b""}), self.make()
        url = self.url(prefix, name)
        for data in (b"first", b"second, longer", b"", bytearray(b"third"), memoryview(b"-fourth-")[1:-1]):
            backend.write(url, data)
            assert self.peek(url) == bytes(data)
            assert backend.read(url) == bytes(data)
        assert {entry.url for entry in backend.list(prefix)} == {url, self.url(prefix, "other")}

    def test_write_keeps_what_was_given_when_the_buffer_changes_afterwards(self) -> None:
        url, backend, data = self.url(self.seed({}), "f"), self.make(), bytearray(b"given")
        backend.write(url, data)
        with backend.open_write(url + "2") as file:
            file.write(data)
            data[:] = b"later"
        assert (self.peek(url), self.peek(url + "2")) == (b"given", b"given")

    def test_write_is_seen_whole_or_not_at_all(self) -> None:
        url = self.url(self.seed({"f": b"a" * 400_000}), "f")
        backend, writer, stop = self.make(), self.make(), threading.Event()

        def write() -> None:
            for letter in itertools.cycle(b"ab"):
                if stop.is_set():
                    return
                writer.write(url, bytes([letter]) * 400_000)

        writing = in_thread(write)
        try:
            seen = {backend.read(url) for _ in range(60)}
        finally:
            stop.set()
            writing.join(10)
        assert seen <= {b"a" * 400_000, b"b" * 400_000}

    def test_write_where_no_file_can_be_raises(self) -> None:
        prefix, backend = self.seed({"d/a": b"data"}), self.make()
        if not backend.prefix_is_directory:
            return
        for name, kind in [("d", IsDirectoryError), ("new/", IsDirectoryError), ("d/a/b", FileMissingError)]:
            with raises_exactly(kind):
                backend.write(self.url(prefix, name), b"x")
            with raises_exactly(kind), backend.open_write(self.url(prefix, name)) as file:
                file.write(b"x")
        assert list(backend.list(prefix)) == [(self.url(prefix, "d/a"), 4)]

    @pytest.mark.parametrize("kind", NO_URLS, ids=ascii)
    def test_write_and_remove_what_is_no_url_raise(self, kind: str) -> None:
        backend, url = self.make(), self.no_url(kind)
        for call in (
            lambda: backend.write(url, b""),
            lambda: backend.open_write(url),
            lambda: backend.remove(url),
        ):
            with raises_exactly(UrlError):
                call()

    def test_open_write_file_appears_when_closed(self) -> None:
        prefix, backend = self.seed({"old": b"1"}), self.make()
        url = self.url(prefix, "new/a")
        before = list(backend.list(prefix))
        sizes = (1, 0, 10, 3_000_000, 5, 1_048_576, 2)
        chunks = [bytes([letter]) * size for letter, size in zip(b"abcdefg", sizes, strict=True)]
        file = backend.open_write(url)
        for chunk in chunks:
            assert file.write(chunk) == len(chunk)
        file.flush()
        assert self.peek(url) is None
        assert list(backend.list(prefix)) == before
        assert file.writable()
        assert file.tell() == sum(map(len, chunks))
        file.close()
        file.close()
        assert self.peek(url) == b"".join(chunks)
        assert list(backend.list(prefix)) == [(url, sum(map(len, chunks))), *before]
        with pytest.raises(ValueError, match="closed"):
            file.write(b"more")

    def test_open_write_of_several_files_at_once_keeps_them_apart(self) -> None:
        prefix, backend = self.seed({}), self.make()
        urls = [self.url(prefix, name) for name in ("d/a", "d/b", "d/a")]
        files = [backend.open_write(url) for url in urls]
        for letter in (b"1", b"2"):
            for number, file in enumerate(files):
                file.write(letter * (1_500_000 + number))
        for file in files:
            file.close()
        contents = [b"1" * size + b"2" * size for size in range(1_500_000, 1_500_003)]
        assert [self.peek(url) for url in urls] == [
            contents[2],
            contents[1],
            contents[2],
        ]  # the last one stays

    def test_open_write_replaces_when_closed(self) -> None:
        url, backend = self.url(self.seed({"f": b"old"}), "f"), self.make()
        with backend.open_write(url) as file:
            file.write(b"new")
            assert self.peek(url) == b"old"
        assert self.peek(url) == b"new"

    @pytest.mark.parametrize("old", [None, b"old"], ids=["nothing before", "replacing"])
    @pytest.mark.parametrize("end", ["raise", "drop"])
    @pytest.mark.parametrize("size", [0, 10, 3_000_000])
    def test_open_write_that_fails_or_is_dropped_leaves_all_as_it_was(
        self, size: int, end: str, old: bytes | None
    ) -> None:
        prefix, backend = self.seed({"z": b""} if old is None else {"z": b"", "f": old}), self.make()
        url = self.url(prefix, "f")
        before = list(backend.list(prefix))
        if end == "raise":
            with pytest.raises(ZeroDivisionError):
                _write_and_raise(backend, url, size)
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # ours say that nothing was written
                backend.open_write(url).write(b"x" * size)  # and nobody closes it
                gc.collect()
        assert self.peek(url) == old
        assert list(backend.list(prefix)) == before

    def test_remove_removes_one_file(self) -> None:
        prefix, backend = self.seed({"d/a": b"1", "d/b": b"2", "f?": b"3"}), self.make()
        for name in ("d/a", "f?"):
            backend.remove(self.url(prefix, name))
            assert self.peek(self.url(prefix, name)) is None
        assert list(backend.list(prefix)) == [(self.url(prefix, "d/b"), 1)]

    def test_remove_what_is_no_file_raises_and_removes_nothing(self) -> None:
        prefix, backend = self.seed({"d/a": b"1", "empty/": b""}), self.make()
        expected: list[tuple[str, type[DatapipesError]]] = [
            ("nothing", FileMissingError),
            ("d/a/below", FileMissingError),
            ("d/a/", FileMissingError),
        ]
        if backend.prefix_is_directory:
            expected += [("d", IsDirectoryError), ("empty", IsDirectoryError), ("empty/", IsDirectoryError)]
        for name, kind in expected:
            with raises_exactly(kind):
                backend.remove(self.url(prefix, name))
        assert list(backend.list(prefix)) == [(self.url(prefix, "d/a"), 1)]
        assert list(backend.list(self.url(prefix, "empty/"))) == []
