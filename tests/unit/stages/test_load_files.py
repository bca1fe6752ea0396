"""``LoadFiles``: sources, errors, stores, options; resume and threads are the contract's."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

from datapipes.backends.base import Backend
from datapipes.backends.memory import MemoryBackend
from datapipes.backends.reads import SerialReads
from datapipes.backends.registry import backend_for
from datapipes.backends.wrappers import Fault, FaultBackend, LatencyBackend
from datapipes.errors import (
    BackendIOError,
    DatapipesError,
    FileMissingError,
    OptionError,
    SizeMismatchError,
    StateError,
    StoreTimeoutError,
    UrlError,
)
from datapipes.index import FileIndex
from datapipes.records import FileEntry, ReadResult
from datapipes.stages import SKIP, IndexRows, ListFiles, LoadFiles, ShuffleFiles


@pytest.fixture(params=["list", "index", "entries", "generator", "tuple"])
def source(request: pytest.FixtureRequest, tmp_path: Any) -> Any:
    """Makes a source of any kind from URLs."""
    return {
        "list": list,
        "index": lambda urls: FileIndex.from_entries(urls, tmp_path / "index"),
        "entries": lambda urls: [FileEntry(url, -1) for url in urls],
        "generator": lambda urls: (url for url in urls),
        "tuple": tuple,
    }[request.param]


# -- sources ---------------------------------------------------------------------------------------------


def test_any_source_gives_url_and_bytes(store: Any, source: Any) -> None:
    urls = store.fill(30)
    assert list(LoadFiles(source(urls))) == store.items(urls)


def test_no_names_no_items(source: Any) -> None:
    stage = LoadFiles(source([]))
    assert list(stage) == []
    assert stage.get_state()["finished"]


def test_one_url_is_one_item(store: Any) -> None:
    assert list(LoadFiles(f"{store.root}/empty")) == [(f"{store.root}/empty", b"")]


def test_data_is_bytes_whatever_the_store_gives(store: Any) -> None:
    urls = store.fill(2)
    (item,) = set(
        map(type, (data for _, data in LoadFiles(urls, resolve=lambda url: Views(backend_for(url)))))
    )
    assert item is bytes


@pytest.mark.parametrize("views", [False, True])
def test_data_is_a_bytearray_of_its_own_where_asked(store: Any, *, views: bool) -> None:
    urls = store.fill(20) * 2
    resolve = (lambda url: Views(backend_for(url))) if views else backend_for
    items = list(LoadFiles(urls, writable=True, resolve=resolve))
    assert items == store.items(urls)
    assert {type(data) for _, data in items} == {bytearray}
    for _, data in items:
        data[:] = b"changed"
    assert list(LoadFiles(urls)) == store.items(urls)


class Views(FaultBackend):
    """Gives its data as views."""

    def read_many(self, requests: Any, **options: Any) -> Any:
        inner = super().read_many(requests, **options)

        class Reader:
            close, stats = inner.close, inner.stats

            def __next__(self) -> Any:
                result = next(inner)
                return result._replace(data=memoryview(result.unwrap()))

        return Reader()


def test_sizes_of_the_index_reach_the_store(store: Any, probe: Any) -> None:
    store.fill(3)
    list(LoadFiles(ListFiles(f"{store.root}/d"), resolve=probe.resolve))
    assert [request.size for request in probe.reads] == [18, 18, 18]


@pytest.mark.parametrize("bad", [5, None, b"memory://x/y", ["memory://x/y"], ("memory://x/y", 3)])
def test_item_that_is_no_name_stops_after_what_came_before(store: Any, bad: Any) -> None:
    urls = store.fill(3)
    stage = LoadFiles([*urls, bad, urls[0]], on_error="skip")  # no fault of a file: not to be skipped
    items: list[Any] = []
    with pytest.raises(UrlError, match="position 3"):
        items.extend(iter(stage.__next__, None))
    assert items == store.items(urls)
    with pytest.raises(UrlError):
        next(stage)


def test_error_of_the_source_comes_after_what_came_before_and_stays(store: Any) -> None:
    urls = store.fill(5)

    def names() -> Iterator[str]:
        yield from urls
        raise RuntimeError("the source broke")

    stage = LoadFiles(names(), max_in_flight=2)
    items: list[Any] = []
    with pytest.raises(RuntimeError, match="the source broke"):
        items.extend(iter(stage.__next__, None))
    assert items == store.items(urls)
    state = stage.get_state()
    with pytest.raises(RuntimeError):
        next(stage)
    more = store.fill(7)
    resumed = LoadFiles(more)
    resumed.reset(state)
    assert list(resumed) == store.items(more[5:])


def test_interrupt_within_the_source_loses_nothing(store: Any) -> None:
    urls = store.fill(6)

    class Names:
        interrupted = False

        def __iter__(self) -> Iterator[str]:
            for i, url in enumerate(urls):
                if i == 4 and not self.interrupted:
                    self.interrupted = True
                    raise KeyboardInterrupt
                yield url

    stage = LoadFiles(Names(), max_in_flight=1)
    items: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        items.extend(iter(stage.__next__, None))
    assert items + list(stage) == store.items(urls)


def test_state_refused_after_an_interrupt_changes_nothing(store: Any, probe: Any) -> None:
    urls = store.fill(6)
    probe.interrupt_results = {3}
    stage = LoadFiles(urls, resolve=probe.resolve)
    items: list[Any] = []
    with pytest.raises(KeyboardInterrupt):
        items.extend(iter(stage.__next__, None))
    state = stage.get_state()
    with pytest.raises(StateError):
        stage.reset({})
    assert stage.get_state() == state
    assert items + list(stage) == store.items(urls)


def test_iterator_walked_twice_is_an_error(store: Any) -> None:
    urls = store.fill(3)
    stage = LoadFiles(iter(urls))
    stage.reset()
    stage.reset()  # nothing was asked of it yet
    assert len(list(stage)) == 3
    with pytest.raises(OptionError, match="only once"):
        stage.reset()


def test_epoch_of_the_loader_is_that_of_its_source(store: Any) -> None:
    shuffle = ShuffleFiles(store.fill(20), seed=1)
    stage = LoadFiles(shuffle)
    stage.set_epoch(3)
    order = [url for url, _ in stage]
    other = ShuffleFiles(store.fill(20), seed=1)
    other.set_epoch(3)
    assert order == list(other)


def test_length_is_that_of_the_source(store: Any) -> None:
    urls = store.fill(4)
    assert len(LoadFiles(urls)) == len(LoadFiles(ShuffleFiles(urls))) == 4
    with pytest.raises(TypeError):
        len(LoadFiles(iter(urls)))


# -- resume over names -----------------------------------------------------------------------------------


def test_state_refuses_other_names_before_its_position(store: Any) -> None:
    urls = store.fill(8)
    stage = LoadFiles(urls)
    for _ in range(5):
        next(stage)
    state = stage.get_state()
    resumed = LoadFiles([*urls[:5], urls[7], urls[6]])  # what lies ahead is not known to a state over a list
    resumed.reset(state)
    assert list(resumed) == store.items([urls[7], urls[6]])
    for other in ([urls[1], urls[0], *urls[2:]], urls[:4], urls[1:]):
        with pytest.raises(StateError, match="other data"):
            LoadFiles(other).reset(state)


@pytest.mark.parametrize("ahead", [None, 3, [3], [2, "9"], [9, 8.0], [10**9], ["x"]])
def test_damaged_positions_are_refused(store: Any, ahead: Any) -> None:
    stage = LoadFiles(ShuffleFiles(store.fill(20)), ordered=False)
    for _ in range(5):
        next(stage)
    with pytest.raises(StateError, match="damaged"):
        LoadFiles(ShuffleFiles(store.fill(20)), ordered=False).reset({**stage.get_state(), "ahead": ahead})


def test_state_with_gaps_needs_unordered(store: Any) -> None:
    source = ShuffleFiles(store.fill(20))
    state = {**LoadFiles(source, ordered=False).get_state(), "position": 2, "ahead": [4, 7]}
    with pytest.raises(StateError, match="ordered=False"):
        LoadFiles(source).reset(state)
    stage = LoadFiles(source, ordered=False)
    stage.reset(state)
    assert len(list(stage)) == 16


def test_node_is_asked_for_few_names_again(store: Any) -> None:
    urls = store.fill(400)
    pulled: list[str] = []

    class Node:
        def __iter__(self) -> Node:
            return self

        def reset(self, state: Any = None) -> None:
            self.at = 0 if state is None else state["at"]

        def __next__(self) -> str:
            if self.at == len(urls):
                raise StopIteration
            self.at += 1
            pulled.append(urls[self.at - 1])
            return pulled[-1]

        def get_state(self) -> dict[str, int]:
            return {"at": self.at}

    stage = LoadFiles(Node(), max_in_flight=8)
    for _ in range(300):
        next(stage)
    state = stage.get_state()
    pulled.clear()
    resumed = LoadFiles(Node(), max_in_flight=8)
    resumed.reset(state)
    assert next(resumed) == store.items(urls)[300]
    assert len(pulled) <= 64 + 8 + 1


@pytest.mark.parametrize("stateful", [True, False])
def test_names_that_are_done_are_forgotten(stateful: bool) -> None:
    class Names:
        def __iter__(self) -> Any:
            self.at = 0
            return self

        def __next__(self) -> str:
            self.at += 1
            if self.at > 20_000:
                raise StopIteration
            return f"memory://no-such-store/{self.at:0200}"

    class Node(Names):
        def reset(self, state: Any = None) -> None:
            self.at = 0 if state is None else state["at"]

        def get_state(self) -> dict[str, int]:
            return {"at": self.at}

    class Zeros(MemoryBackend):
        def read_many(self, requests: Any, **options: Any) -> Any:
            return SerialReads(requests, lambda at, request: ReadResult(at, request, b"", None))

    stage = LoadFiles(Node() if stateful else Names(), resolve=lambda url: Zeros("zeros"))
    tracemalloc.start()
    try:
        assert sum(1 for _ in stage) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 2_000_000  # all names are 5 MB
    finally:
        tracemalloc.stop()


# -- unordered -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("indexed", [True, False])
def test_state_is_bounded_however_late_one_item_is(store: Any, probe: Any, indexed: bool) -> None:
    urls = store.fill(600)
    probe.held = {urls[0]}
    source: Any = IndexRows(urls) if indexed else urls
    stage = LoadFiles(source, max_in_flight=4, ordered=False, resolve=probe.resolve)
    items, most = [], 0
    for item in stage:
        items.append(item)
        most = max(most, len(stage.get_state()["ahead"]))
    assert sorted(items) == store.items(urls)
    assert 4 < most <= 64


# -- errors ----------------------------------------------------------------------------------------------


def faulty(*numbers: int, **fault: Any) -> Any:
    faults = tuple(Fault(url=f"*{number:06}", **fault) for number in numbers)
    return lambda url: FaultBackend(backend_for(url), faults)


def test_missing_file_raises_with_its_url(store: Any) -> None:
    urls = store.fill(3)
    stage = LoadFiles([urls[0], f"{store.root}/d/gone", urls[2]])
    next(stage)
    with pytest.raises(FileMissingError) as caught:
        next(stage)
    assert caught.value.url == f"{store.root}/d/gone"


def test_skip_leaves_out_and_counts(store: Any, source: Any) -> None:
    urls = store.fill(8)
    stage = LoadFiles(source(urls), on_error="skip", resolve=faulty(0, 3, 4, 7))
    assert list(stage) == store.items([urls[i] for i in (1, 2, 5, 6)])
    stats = stage.stats()
    assert (stats["items"], stats["errors"], stats["skipped"]) == (4, 4, 4)


def test_callable_gives_an_item_or_skip(store: Any) -> None:
    urls = store.fill(4)
    seen: list[tuple[str, type[DatapipesError]]] = []

    def instead(url: str, error: DatapipesError) -> Any:
        seen.append((url, type(error)))
        return SKIP if url == urls[2] else (url, None)

    stage = LoadFiles(urls, on_error=instead, resolve=faulty(1, 2))
    assert list(stage) == [*store.items(urls[:1]), (urls[1], None), *store.items(urls[3:])]
    assert seen == [(urls[1], BackendIOError), (urls[2], BackendIOError)]
    assert (stage.stats()["items"], stage.stats()["skipped"]) == (3, 1)


def test_callable_that_raises_stops_in_place(store: Any) -> None:
    urls = store.fill(4)

    def never(url: str, error: DatapipesError) -> Any:
        raise LookupError(url)

    stage = LoadFiles(urls, on_error=never, resolve=faulty(1))
    next(stage)
    state = stage.get_state()
    for _ in range(2):
        with pytest.raises(LookupError):
            next(stage)
    assert stage.get_state() == state
    resumed = LoadFiles(urls)
    resumed.reset(state)
    assert list(resumed) == store.items(urls[1:])


def test_a_function_that_raises_stop_iteration_does_not_end_the_epoch(store: Any) -> None:
    urls = store.fill(4)

    def exhausted(*_: Any) -> Any:
        return next(iter(()))

    stage = LoadFiles(urls, on_error=exhausted, resolve=faulty(1))
    next(stage)
    for broken in (stage, stage, LoadFiles(urls, resolve=exhausted)):
        with pytest.raises(RuntimeError, match="exhausted raised StopIteration"):
            next(broken)


@pytest.mark.parametrize("ordered", [True, False])
def test_skipped_items_are_not_tried_again_after_resume(store: Any, ordered: bool) -> None:
    urls = store.fill(6)
    make = partial(LoadFiles, urls, on_error="skip", ordered=ordered, resolve=faulty(1, 2))
    stage = make()
    assert [next(stage), next(stage)] == store.items([urls[0], urls[3]])
    assert stage.get_state()["position"] == 4
    resumed = make()
    resumed.reset(stage.get_state())
    assert list(resumed) == store.items(urls[4:])
    assert resumed.stats()["errors"] == 0


def test_file_that_shrank_is_an_error_and_one_that_grew_only_when_asked(store: Any) -> None:
    urls = store.fill(2)
    make = partial(LoadFiles, ListFiles(f"{store.root}/d"))
    list(make())
    store.backend.write(urls[1], b"now it is longer than it was")
    assert [data for _, data in make()][1] == b"now it is longer than it was"[:18]
    with pytest.raises(SizeMismatchError):
        list(make(verify="size"))
    store.backend.write(urls[1], b"short")
    with pytest.raises(SizeMismatchError):
        list(make())


def test_slow_file_times_out(store: Any) -> None:
    urls = store.fill(2)
    stage = LoadFiles(
        urls, timeout_s=0.01, on_error="skip", resolve=lambda url: LatencyBackend(backend_for(url), open_s=1)
    )
    assert list(stage) == []
    with pytest.raises(StoreTimeoutError):
        next(LoadFiles(urls, timeout_s=0.01, resolve=lambda url: LatencyBackend(backend_for(url), open_s=1)))


def test_reads_wait_side_by_side(store: Any) -> None:
    urls = store.fill(40)
    stage = LoadFiles(
        urls, max_in_flight=40, resolve=lambda url: LatencyBackend(backend_for(url), open_s=0.2)
    )
    assert list(stage) == store.items(urls)
    assert stage.stats()["wait_s"] < 40 * 0.2 / 4


# -- stores ----------------------------------------------------------------------------------------------


def test_names_of_several_stores_keep_their_order(store: Any, source: Any) -> None:
    here = store.fill(6)
    other = MemoryBackend(f"{store.name}-two")
    there = [f"{store.root}-two/d/file{i:06}" for i in range(6)]
    for url in there:
        other.write(url, store.content(url))
    urls = [here[0], *there[:3], *here[1:3], there[3], *here[3:], *there[4:]]
    assert list(LoadFiles(source(urls))) == store.items(urls)
    other.delete()


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("ordered", [True, False])
def test_state_among_several_stores_resumes(store: Any, probe: Any, indexed: bool, ordered: bool) -> None:
    here = store.fill(9)
    other = MemoryBackend(f"{store.name}-two")
    there = [url.replace(store.name, f"{store.name}-two") for url in here]
    for url in there:
        other.write(url, store.content(url))
    urls = [here[0], *there[:5], *here[1:6], "gopher://a/b", *there[5:], "pear://c", *here[6:]]
    source: Any = IndexRows(urls) if indexed else urls
    make = partial(
        LoadFiles, source, on_error="skip", max_in_flight=3, ordered=ordered, resolve=probe.resolve
    )
    for count in range(19):
        stage = make()
        first = [next(stage) for _ in range(count)]
        resumed = make()
        resumed.reset(stage.get_state())
        assert sorted(first + list(resumed)) == sorted(store.items(here + there))
    other.delete()


def test_plain_paths_of_one_directory_are_read_together(
    tmp_path: Any, probe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "d").mkdir()
    for name in ("d/a", "d/b", "c", "file:x"):
        (tmp_path / name).write_bytes(name.encode())
    for folder in ("d/", "./d/", f"{tmp_path}/d/", f"file://{tmp_path}/d/"):
        stage = LoadFiles([f"{folder}a", f"{folder}b"] * 4, max_in_flight=8, resolve=probe.resolve)
        probe.reads.clear()
        next(stage)
        assert len(probe.reads) == 8  # as many as may be in flight: none of them stands alone
        stage.close()
    names = ["c", "d/a", "file:x", f"{tmp_path}/c", "c", "c"]
    assert [data for _, data in LoadFiles(names)] == [b"c", b"d/a", b"file:x", b"c", b"c", b"c"]


@pytest.mark.parametrize("bad", ["gopher://x/y", "memory://", "daos://pool"])
def test_name_no_store_takes_is_an_error_of_that_item(store: Any, source: Any, bad: str) -> None:
    urls = store.fill(4)
    names = [*urls[:2], bad, *urls[2:]]
    stage = LoadFiles(source(names), on_error="skip")
    assert list(stage) == store.items(urls)
    assert stage.stats()["skipped"] == 1
    stage = LoadFiles(source(names))
    assert [next(stage), next(stage)] == store.items(urls[:2])
    with pytest.raises(UrlError):
        next(stage)


def test_a_store_whose_name_begins_another_is_another(store: Any) -> None:
    # memory://unit-1 and memory://unit-12 share their beginning and nothing else.
    longer = MemoryBackend(f"{store.name}2")
    longer.write(f"{store.root}2/d/a", b"longer")
    store.backend.write(f"{store.root}/d/a", b"shorter")
    urls = [f"{store.root}/d/a", f"{store.root}2/d/a", f"{store.root}/d/a"]
    assert [data for _, data in LoadFiles(urls)] == [b"shorter", b"longer", b"shorter"]
    # A container's bare name is no file, and no beginning of its files' names either.
    assert [data for _, data in LoadFiles([store.root, *urls[1:]], on_error="skip")] == [
        b"longer",
        b"shorter",
    ]
    longer.delete()


def test_back_end_is_asked_for_once_a_store(store: Any) -> None:
    asked: list[str] = []

    def resolve(url: str) -> Backend:
        asked.append(url)
        return backend_for(url)

    urls = store.fill(2000)
    assert len(list(LoadFiles(IndexRows(urls), resolve=resolve))) == 2000
    assert asked == [urls[0]]


# -- options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"max_in_flight": 0},
        {"max_in_flight": -1},
        {"max_in_flight": True},
        {"max_in_flight": 2.5},
        {"max_in_flight": 10**9},
        {"max_in_flight": None},
        {"max_buffer_bytes": 0},
        {"max_buffer_bytes": "64MiB"},
        {"timeout_s": 0},
        {"timeout_s": -1.0},
        {"timeout_s": float("nan")},
        {"timeout_s": "1"},
        {"on_error": "ignore"},
        {"on_error": None},
        {"verify": "checksum"},
        {"verify": True},
        {"handle_cache_bytes": 1.5},
        {"handle_cache_bytes": True},
        {"timeout_s": 1e7},
        {"handle_cache_bytes": 10**20},
        {"max_buffer_bytes": 1 << 63},
    ],
)
def test_absurd_options_are_refused_when_made(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(options))):
        LoadFiles([], **options)


@pytest.mark.parametrize("source", [5, None])
def test_source_that_is_none_is_refused_when_made(source: Any) -> None:
    with pytest.raises(OptionError):
        LoadFiles(source)


def test_stats_add_up_over_epochs_and_resets(store: Any) -> None:
    urls = store.fill(10)
    stage = LoadFiles(urls)
    assert stage.stats()["items"] == 0
    list(stage)
    stage.reset()
    for _ in range(4):
        next(stage)
    assert stage.stats()["items"] == 14
    stage.close()
    assert (stage.stats()["items"], stage.stats()["bytes"]) == (14, 14 * 18)


@pytest.mark.filterwarnings("error")
def test_counts_may_be_numpys_integers() -> None:
    store = MemoryBackend("t")
    for number in range(600):
        with store.open_write(f"memory://t/{number:03}", chunk_bytes=np.int64(1 << 20)) as out:  # type: ignore[arg-type]
            out.write(b"x")
    urls = [f"memory://t/{number:03}" for number in range(600)]
    options: Any = {"max_in_flight": np.uint8(200), "max_buffer_bytes": np.int32(1 << 30), "ordered": False}
    stage = LoadFiles(ShuffleFiles(urls, seed=np.int64(1)), **options, resolve=lambda _: store)  # type: ignore[arg-type]
    stage.reset(None)
    next(stage)
    assert json.loads(json.dumps(stage.get_state())) == stage.get_state()
    assert sum(1 for _ in stage) == 599
    stage.close()
