"""The part of ``BackendContract`` about what goes wrong: each fault one type of error, in its place."""

from __future__ import annotations

import pytest

from datapipes.errors import (
    ContainerMissingError,
    DatapipesError,
    FileMissingError,
    IsDirectoryError,
    OptionError,
    SizeMismatchError,
    UrlError,
)
from datapipes.records import WHOLE, ReadRequest, ReadResult
from datapipes.testing.backend_hooks import (
    NO_URLS,
    BackendHooks,
    check_error,
    check_good,
    fault_of,
    raises_exactly,
    requests_of,
)
from datapipes.urls import parse_url

__all__ = ["FaultsContract"]


def _error_at(results: list[ReadResult], position: int, kind: type[DatapipesError]) -> None:
    result = results[position]
    assert result.position == position
    assert result.data is None
    assert result.error is not None
    assert fault_of(result.error) is kind
    assert result.error.url == result.request.url
    check_error(result.error)


class FaultsContract(BackendHooks):
    def test_read_many_beyond_the_end_is_an_error_and_never_short_data(self) -> None:
        _, contents = self.seeded(3)
        (url, *_) = contents
        bad = [
            (15, 10, -1),
            (20, 1, -1),
            (21, WHOLE, -1),
            (15, 10, 20),
            (0, WHOLE, 21),
            (0, WHOLE, 1 << 50),
        ]
        requests = [ReadRequest(url, *numbers) for numbers in bad]
        backend = self.make()
        for results in (list(backend.read_many(requests)), backend.read_batch(requests)):
            for position in range(len(bad)):
                _error_at(results, position, SizeMismatchError)

    def test_read_many_file_of_another_size_is_an_error_with_verify_size_only(self) -> None:
        _, contents = self.seeded(2)
        one, other = contents
        wrong = [ReadRequest(one, size=10), ReadRequest(one, 0, 5, 10), ReadRequest(one, 0, 5, 25)]
        right = [ReadRequest(other, size=20), ReadRequest(other, 15, 5, 20), ReadRequest(other)]
        backend = self.make()
        trusting = [bytes(result.unwrap()) for result in backend.read_many(wrong)]
        assert trusting == [contents[one][:10], contents[one][:5], contents[one][:5]]
        for results in (
            list(backend.read_many(wrong + right, verify_size=True)),
            backend.read_batch(wrong + right, verify_size=True),
        ):
            for position in range(3):
                _error_at(results, position, SizeMismatchError)
            expected = [contents[other], contents[other][15:], contents[other]]
            assert [bytes(result.unwrap()) for result in results[3:]] == expected

    @pytest.mark.parametrize("ordered", [True, False])
    def test_read_many_each_fault_is_an_error_in_its_place_and_spares_the_rest(
        self, *, ordered: bool
    ) -> None:
        prefix, contents = self.seeded(40)
        directory = next(iter(contents)).rpartition("/")[0]
        requests = requests_of(contents)
        faults: dict[int, tuple[str, type[DatapipesError]]] = {
            3: (self.url(prefix, "nothing"), FileMissingError),
            4: (self.url(prefix, "nothing/below"), FileMissingError),
            9: (requests[0].url + "/below", FileMissingError),
            10: (requests[0].url + "/", FileMissingError),
            17: (self.url(prefix, "no%?#"), FileMissingError),
        }
        if self.make().prefix_is_directory:
            faults[20] = (directory, IsDirectoryError)
            faults[21] = (directory + "/", IsDirectoryError)
        for position, (url, _) in faults.items():
            requests[position] = ReadRequest(url)
        backend = self.make()
        many = sorted(backend.read_many(requests, ordered=ordered, max_in_flight=5))
        for results in (many, backend.read_batch(requests)):
            assert [result.request for result in results] == requests
            for position, (_, kind) in faults.items():
                _error_at(results, position, kind)
            check_good([r for r in results if r.position not in faults], contents)

    @pytest.mark.parametrize("kind", NO_URLS, ids=ascii)
    def test_read_many_what_is_no_url_is_an_error_in_its_place(self, kind: str) -> None:
        _, contents = self.seeded(9)
        requests = requests_of(contents)
        requests[4] = ReadRequest(self.no_url(kind))
        backend = self.make()
        for results in (list(backend.read_many(requests, max_in_flight=2)), backend.read_batch(requests)):
            assert [result.request for result in results] == requests
            _error_at(results, 4, UrlError)
            check_good(results[:4] + results[5:], contents)

    @pytest.mark.parametrize(
        "numbers",
        [
            (-1, WHOLE),
            (0, -2),
            (-5, 5),
            (1 << 70, 1),
            (0, 1 << 70),
            (0, 5, -2),
            (0, WHOLE, -2),
            (0, WHOLE, 1 << 70),
        ],
        ids=str,
    )
    def test_read_many_impossible_range_is_an_error_in_its_place(self, numbers: tuple[int, ...]) -> None:
        _, contents = self.seeded(5)
        requests = requests_of(contents)
        requests[2] = ReadRequest(requests[2].url, *numbers)
        backend = self.make()
        for results in (list(backend.read_many(requests)), backend.read_batch(requests)):
            _error_at(results, 2, OptionError)
            check_good(results[:2] + results[3:], contents)

    def test_read_many_missing_container_is_the_error_of_every_item(self) -> None:
        missing = self.missing_container()
        if missing is None:
            assert parse_url(self.seed({})).container == "", "this scheme has containers: one can be missing"
            return
        backend, url = missing
        requests = [ReadRequest(url), ReadRequest(url + "/below")]
        for results in (list(backend.read_many(requests)), backend.read_batch(requests)):
            _error_at(results, 0, ContainerMissingError)
            _error_at(results, 1, ContainerMissingError)
        for call in (backend.stat, backend.read, backend.remove):
            with raises_exactly(ContainerMissingError):
                call(url)

    def test_read_file_that_shrank_or_vanished_since_it_was_listed_is_an_error(self) -> None:
        prefix, contents = self.seeded(6)
        backend = self.make()
        requests = [ReadRequest(entry.url, size=entry.size) for entry in backend.list(prefix)]
        assert [len(contents[request.url]) for request in requests] == [20] * 6
        self.alter(requests[1].url, b"short")
        self.alter(requests[2].url, b"")
        self.alter(requests[4].url, None)
        results = list(backend.read_many(requests))
        _error_at(results, 1, SizeMismatchError)
        _error_at(results, 2, SizeMismatchError)
        _error_at(results, 4, FileMissingError)
        check_good([results[0], results[3], results[5]], contents)

    def test_read_batch_into_a_buffer_keeps_errors_in_place(self) -> None:
        prefix, contents = self.seeded(10)
        requests = [ReadRequest(url, size=20) for url in contents]
        requests[4] = ReadRequest(self.url(prefix, "nothing"), size=20)
        requests[6] = ReadRequest(requests[6].url, size=25)
        results = self.make().read_batch(requests, out=memoryview(bytearray(205)))
        _error_at(results, 4, FileMissingError)
        _error_at(results, 6, SizeMismatchError)
        check_good([r for r in results if r.position not in (4, 6)], contents)

    def test_stat_of_what_is_no_file_raises(self) -> None:
        prefix, backend = self.seed({"d/a": b""}), self.make()
        for name in ("nothing", "d/nothing", "d/a/below", "d/a/"):
            with raises_exactly(FileMissingError):
                backend.stat(self.url(prefix, name))
        if backend.prefix_is_directory:
            for name in ("d", "d/"):
                with raises_exactly(IsDirectoryError):
                    backend.stat(self.url(prefix, name))

    def test_open_missing_file_raises_at_the_call(self) -> None:
        with raises_exactly(FileMissingError):
            self.make().open(self.url(self.seed({}), "nothing"))

    @pytest.mark.parametrize(
        "options",
        [
            {"max_in_flight": 0},
            {"max_in_flight": -1},
            {"max_in_flight": 10**9},
            {"max_in_flight": 2.5},
            {"max_in_flight": True},
            {"max_in_flight": None},
            {"max_buffer_bytes": 0},
            {"max_buffer_bytes": -5},
            {"max_buffer_bytes": "many"},
            {"timeout_s": 0},
            {"timeout_s": -1.0},
            {"timeout_s": float("nan")},
            {"timeout_s": "soon"},
        ],
        ids=str,
    )
    def test_read_many_absurd_option_raises_at_the_call(self, options: dict[str, object]) -> None:
        _, contents = self.seeded(1)
        requests = iter(requests_of(contents))
        with pytest.raises(OptionError):
            self.make().read_many(requests, **options)  # type: ignore[arg-type]
        assert len(list(requests)) == 1  # none was pulled
        if "max_buffer_bytes" not in options:
            with pytest.raises(OptionError):
                self.make().read_batch(requests_of(contents), **options)  # type: ignore[arg-type]
