"""The part of ``BackendContract`` about reading: what comes back, and what an error stands for."""

from __future__ import annotations

import contextlib
import io
import itertools

import pytest

from datapipes.errors import (
    FileMissingError,
    OptionError,
    SizeMismatchError,
)
from datapipes.records import WHOLE, ReadRequest, ReadResult
from datapipes.testing.backend_hooks import BackendHooks, check_good, raises_exactly, requests_of

__all__ = ["ReadingContract"]


class ReadingContract(BackendHooks):
    @pytest.mark.parametrize("max_in_flight", [1, 3, 64])
    def test_read_many_ordered_gives_every_file_in_the_order_of_the_requests(
        self, max_in_flight: int
    ) -> None:
        _, contents = self.seeded(200)
        requests = requests_of(contents)[::-1]
        results = list(self.make().read_many(requests, max_in_flight=max_in_flight))
        assert [result.position for result in results] == list(range(200))
        assert [result.request for result in results] == requests
        check_good(results, contents)

    def test_read_many_unordered_gives_every_file_once_and_says_which(self) -> None:
        _, contents = self.seeded(200)
        requests = requests_of(contents)
        results = list(self.make().read_many(requests, ordered=False, max_in_flight=8))
        assert sorted(result.position for result in results) == list(range(200))
        assert all(result.request == requests[result.position] for result in results)
        check_good(results, contents)

    def test_read_many_of_nothing_gives_nothing(self) -> None:
        assert list(self.make().read_many([])) == []

    def test_read_many_the_same_file_again_gives_it_again(self) -> None:
        _, contents = self.seeded(2)
        requests = requests_of(contents) * 20
        results = list(self.make().read_many(requests, max_in_flight=4))
        assert [result.request.url for result in results] == [request.url for request in requests]
        check_good(results, contents)

    def test_read_many_results_are_records_with_bytes_or_views(self) -> None:
        _, contents = self.seeded(3)
        for result in self.make().read_many(requests_of(contents)):
            assert type(result) is ReadResult
            assert isinstance(result.data, (bytes, memoryview))
            assert result.unwrap() is result.data

    @pytest.mark.parametrize("ordered", [False, True], ids=["as completed", "in order"])
    @pytest.mark.parametrize("known", [False, True], ids=["size unknown", "size known"])
    @pytest.mark.parametrize("size", [0, 20, 300_000])
    def test_read_many_writable_gives_each_a_bytearray_of_its_own(
        self, size: int, *, known: bool, ordered: bool
    ) -> None:
        data = bytes(i % 251 for i in range(size))
        url = self.url(self.seed({"f": data}), "f")
        requests = [ReadRequest(url, size=size if known else -1)] * 9 + [ReadRequest(url, size // 2, 0)]
        backend = self.make()
        for results in (
            list(backend.read_many(requests, writable=True, ordered=ordered)),
            backend.read_batch(requests, writable=True),
        ):
            for result in sorted(results):
                content = result.unwrap()
                assert type(content) is bytearray
                assert content == (data if result.position < 9 else b"")
                content[:] = b"mine"
        out = memoryview(bytearray(9 * size)) if known else None
        if out is not None and size:
            placed = backend.read_batch(requests[:9], out=out, writable=True)
            assert all(isinstance(result.data, memoryview) for result in placed)
            assert out == data * 9

    @pytest.mark.parametrize("known", [False, True], ids=["size unknown", "size known"])
    @pytest.mark.parametrize("size", [0, 1, 4095, 4096, 4097, 300_000, 3_000_001])
    def test_read_many_whole_files_of_any_size(self, size: int, *, known: bool) -> None:
        data = bytes(i % 251 for i in range(min(size, 5021))) * (size // 5021 + 1)
        contents = {f"{i}": data[i : i + size] for i in range(3)}
        prefix = self.seed(contents)
        urls = {self.url(prefix, name): data for name, data in contents.items()}
        requests = [ReadRequest(url, size=len(data) if known else -1) for url, data in urls.items()]
        check_good(list(self.make().read_many(requests, max_buffer_bytes=1 << 20)), urls)
        check_good(self.make().read_batch(requests), urls)

    @pytest.mark.parametrize("size", [-1, 1000], ids=["size unknown", "size known"])
    def test_read_many_ranges_give_exactly_their_bytes(self, size: int) -> None:
        data = bytes(range(250)) * 4
        url = self.url(self.seed({"f": data}), "f")
        ranges = [(0, 10), (990, 10), (0, 1000), (500, 0), (1000, 0), (0, WHOLE), (1, WHOLE), (1000, WHOLE)]
        requests = [ReadRequest(url, offset, length, size) for offset, length in ranges]
        expected = [data[o:] if length == WHOLE else data[o : o + length] for o, length in ranges]
        backend = self.make()
        for results in (list(backend.read_many(requests)), backend.read_batch(requests)):
            assert [bytes(result.unwrap()) for result in results] == expected

    def test_read_many_dots_and_slashes_in_a_path_are_resolved(self) -> None:
        prefix = self.seed({"d/e/f": b"found"})
        backend = self.make()
        if not backend.prefix_is_directory:  # whether another spelling is another object, the store decides
            with contextlib.suppress(FileMissingError):
                assert backend.read(f"{prefix}/d//e/f") == b"found"
            return
        for path in ("d//e/f", "d/./e/f", "d/x/../e/f", "./d/e/f", "/d/e/f"):
            assert backend.read(f"{prefix}/{path}") == b"found"

    def test_read_sees_what_a_file_holds_now(self) -> None:
        url = self.url(self.seed({"f": b"before"}), "f")
        backend = self.make()
        assert backend.read(url) == b"before"
        self.alter(url, b"and after")
        assert backend.read(url) == b"and after"
        assert backend.stat(url).size == 9

    def test_read_gives_bytes_or_raises(self) -> None:
        prefix = self.seed({"f": b"abc", "empty": b""})
        backend = self.make()
        for name, data in (("f", b"abc"), ("empty", b"")):
            read = backend.read(self.url(prefix, name))
            assert type(read) is bytes
            assert read == data
        with raises_exactly(FileMissingError):
            backend.read(self.url(prefix, "g"))

    @pytest.mark.parametrize("known", [False, True], ids=["sizes unknown", "sizes known"])
    @pytest.mark.parametrize("into", [False, True], ids=["bytes", "buffer"])
    def test_read_files_gives_contents_in_the_order_of_the_urls(self, *, into: bool, known: bool) -> None:
        names = {"a": b"1", "d/b c%": b"", "d/\u00e9": b"22", "e#": b"3" * 5000, "f..g": b"4"}
        prefix = self.seed(names)
        urls = [self.url(prefix, name) for name in names] * 2
        expected = [*names.values()] * 2
        sizes = [len(data) if known else -1 for data in expected]
        out = memoryview(bytearray(sum(map(len, expected)))) if into else None
        if into and not known:
            with pytest.raises(OptionError):
                self.make().read_files(urls, sizes, out=out)
            return
        contents = self.make().read_files(urls, sizes, out=out)
        assert [bytes(content) for content in contents] == expected
        assert out is None or bytes(out) == b"".join(expected)
        written = self.make().read_files(urls, sizes, writable=True)
        assert {type(content) for content in written} == {bytearray}
        assert written == expected
        assert self.make().read_files([], []) == []

    def test_read_files_raises_the_error_of_the_first_that_failed(self) -> None:
        prefix, contents = self.seeded(6)
        urls, backend = [*contents], self.make()
        self.alter(urls[3], b"short")
        self.alter(urls[4], None)
        with raises_exactly(SizeMismatchError) as caught:
            backend.read_files(urls, [20] * 6)
        assert caught.value.url == urls[3]
        with raises_exactly(FileMissingError) as missing:
            backend.read_files([urls[0], self.url(prefix, "nothing"), urls[4]], [-1] * 3)
        assert missing.value.url == self.url(prefix, "nothing")

    def test_read_batch_into_a_buffer_lays_files_back_to_back(self) -> None:
        _, contents = self.seeded(30)
        requests = [ReadRequest(url, size=20) for url in contents]
        requests[7] = ReadRequest(requests[7].url, 5, 3)
        requests[8] = ReadRequest(requests[8].url, 5, WHOLE, 20)
        expected = [contents[r.url][r.offset :][: r.length if r.length >= 0 else 20] for r in requests]
        buffer = bytearray(b"-" * 1000)
        results = self.make().read_batch(requests, out=memoryview(buffer))
        assert [bytes(result.unwrap()) for result in results] == expected
        used = sum(map(len, expected))
        assert bytes(buffer) == b"".join(expected) + b"-" * (1000 - used)
        first = results[0].unwrap()
        assert isinstance(first, memoryview)
        buffer[0] = ord("!")
        assert first[0] == ord("!")  # a view of the buffer, not a copy

    def test_read_batch_into_a_buffer_that_cannot_take_it_raises_option_error(self) -> None:
        _, contents = self.seeded(3)
        known = [ReadRequest(url, size=20) for url in contents]
        backend = self.make()
        for requests, out in [
            (requests_of(contents), memoryview(bytearray(100))),
            (known, memoryview(bytearray(59))),
            (known, memoryview(bytes(100))),
            (known, memoryview(bytearray(200))[::2]),
            ([ReadRequest(known[0].url, 30, WHOLE, 20)], memoryview(bytearray(100))),
        ]:
            with pytest.raises(OptionError):
                backend.read_batch(requests, out=out)

    def test_stat_gives_url_and_size(self) -> None:
        prefix = self.seed({"a?b": b"12345", "d/empty": b""})
        backend = self.make()
        url = self.url(prefix, "a?b")
        assert backend.stat(url) == (url, 5)
        assert backend.stat(self.url(prefix, "d/empty")).size == 0

    def test_open_reads_and_seeks_like_a_file(self) -> None:
        data = bytes(range(256)) * 20_000  # larger than any buffer in between
        oracle = io.BytesIO(data)
        with self.make().open(self.url(self.seed({"f": data}), "f")) as file:
            assert file.readable()
            assert file.seekable()
            for seek in [
                (0, 0),
                (3_000_000, 0),
                (-5, 2),
                (100, 0),
                (50, 1),
                (10, 2),
                (-10, 1),
                (4_000_000, 0),
            ]:
                assert file.seek(*seek) == oracle.seek(*seek)
                for size in (10, 0, 70_000):
                    assert file.read(size) == oracle.read(size)
                    assert file.tell() == oracle.tell()
            file.seek(1)
            assert file.read() == data[1:]
            assert file.read(1) == b""

    def test_stats_of_a_reader_count_items_bytes_and_errors(self) -> None:
        prefix, contents = self.seeded(10)
        requests = [*requests_of(contents), ReadRequest(self.url(prefix, "nothing"))]
        reads = self.make().read_many(itertools.chain(requests))
        list(reads)
        stats = reads.stats()
        assert (stats["bytes"], stats["errors"]) == (200, 1)
        assert stats["items"] in (10, 11)
        assert stats["wait_s"] >= 0
        assert stats["depth"] >= 0
