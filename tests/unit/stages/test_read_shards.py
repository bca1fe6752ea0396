"""``ReadShards``: members, what is read again, damage, bounds; resume and threads are the contract's."""

from __future__ import annotations

import io
import json
import tarfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from datapipes.backends.memory import MemoryBackend
from datapipes.backends.reads import PassedReads
from datapipes.errors import (
    DatapipesError,
    FileMissingError,
    OptionError,
    ShardError,
    SizeMismatchError,
    StateError,
    UrlError,
)
from datapipes.index import FileIndex
from datapipes.records import FileEntry, ReadResult
from datapipes.stages import SKIP, ListFiles, ReadShards
from datapipes.urls import parse_url, unquote_name

Members = list[tuple[str, bytes]]


def pack(members: Members, *, layout: int = tarfile.PAX_FORMAT, end: int = 1024) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout, errors="surrogateescape") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        length = archive.offset + end
    return buffer.getvalue()[:length]


def members_of(number: int, count: int) -> Members:
    names = [f"{number}/{i}{'n' * 40 * i}.bin" for i in range(count)]  # the longest have extended headers
    return [(name, bytes([number]) * (700 * i)) for i, name in enumerate(names)]


@pytest.fixture
def shards(store: Any) -> list[str]:
    """Three shards of four members."""
    urls = [f"{store.root}/s/{number}.tar" for number in range(3)]
    for number, url in enumerate(urls):
        store.backend.write(url, pack(members_of(number, 4)))
    return urls


def items_of(urls: list[str], count: int = 4) -> list[Any]:
    return [
        (f"{url}?archpath={name}", data) for url in urls for name, data in members_of(int(url[-5]), count)
    ]


def take(stage: Any) -> tuple[list[Any], DatapipesError | None]:
    """What comes before the end, or before an error."""
    items: list[Any] = []
    try:
        items.extend(iter(stage.__next__, None))
    except StopIteration:
        pass
    except DatapipesError as error:
        return items, error
    return items, None


# -- what comes out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk_bytes", [1, 511, 512, 513, 5000, 1 << 22])
@pytest.mark.parametrize("max_in_flight", [1, 7])
def test_members_come_in_order_whatever_the_reads(
    shards: list[str], chunk_bytes: int, max_in_flight: int
) -> None:
    assert list(ReadShards(shards, chunk_bytes=chunk_bytes, max_in_flight=max_in_flight)) == items_of(shards)


@pytest.mark.parametrize("kind", ["list", "entries", "index", "lister", "generator"])
def test_any_source_of_names_will_do(shards: list[str], store: Any, tmp_path: Path, kind: str) -> None:
    sources: dict[str, Any] = {
        "list": shards,
        "entries": [FileEntry(url) for url in shards],
        "index": FileIndex.from_entries(shards, tmp_path / "index"),
        "lister": ListFiles(f"{store.root}/s"),
        "generator": (url for url in shards),
    }
    assert list(ReadShards(sources[kind], chunk_bytes=1000)) == items_of(shards)


def test_one_shard_may_come_twice(shards: list[str]) -> None:
    assert list(ReadShards([shards[0], shards[0]])) == items_of([shards[0], shards[0]])


def test_shards_of_several_stores_may_be_mixed(shards: list[str], tmp_path: Path) -> None:
    (tmp_path / "9.tar").write_bytes(pack(members_of(9, 4)))
    local = f"file://{tmp_path}/9.tar"
    mixed = [shards[0], local, shards[1]]
    assert list(ReadShards(mixed, chunk_bytes=1000)) == items_of(mixed)


@pytest.mark.parametrize("name", ["a b", "50%", "what?", "#1", "x/y=z&archpath=", "é", "\udcff"])
def test_name_of_a_member_comes_back_from_its_url(store: Any, name: str) -> None:
    shard = f"{store.root}/odd%25.tar"
    store.backend.write(shard, pack([(name, b"data")]))
    ((url, data),) = ReadShards(shard)
    parsed = parse_url(url)
    assert (parsed.path, data) == ("odd%.tar", b"data")
    assert parsed.options is not None
    assert unquote_name(parsed.options.removeprefix("archpath=")) == name


def test_plain_path_stands_as_a_file_url_in_that_of_a_member(tmp_path: Path) -> None:
    path = tmp_path / "50%?.tar"
    path.write_bytes(pack([("a", b"1")]))
    assert list(ReadShards(str(path))) == [(f"file://{tmp_path}/50%25%3F.tar?archpath=a", b"1")]


def test_shard_without_members_gives_none(store: Any, shards: list[str]) -> None:
    store.backend.write(shards[1], pack([]))
    assert list(ReadShards(shards)) == items_of([shards[0], shards[2]])


def test_length_is_not_known(shards: list[str]) -> None:
    with pytest.raises(TypeError, match="no length"):
        len(ReadShards(shards))


# -- what is read ------------------------------------------------------------------------------------------


def test_several_shards_are_read_at_once(shards: list[str], probe: Any) -> None:
    stage = ReadShards(shards, resolve=probe.resolve, max_in_flight=3)
    next(stage)
    assert [request.url for request in probe.reads] == shards


@pytest.mark.parametrize("layout", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("chunk_bytes", [300, 1 << 22])
def test_resume_reads_from_the_next_member_on(
    store: Any, shards: list[str], probe: Any, layout: int, chunk_bytes: int
) -> None:
    lengths = []
    for number, url in enumerate(shards):
        data = pack(members_of(number, 4), layout=layout)
        store.backend.write(url, data)
        lengths.append(len(data))
    expected = items_of(shards)
    stage = ReadShards(shards)
    for step in range(len(expected)):
        state = json.loads(json.dumps(stage.get_state()))
        probe.reads.clear()
        resumed = ReadShards(shards, resolve=probe.resolve, chunk_bytes=chunk_bytes)
        resumed.reset(state)
        assert list(resumed) == expected[step:]
        shard, before = state["shard"], len(pack(members_of(state["shard"], step % 4), layout=layout, end=0))
        # The end of a shard is noticed with the member after it.
        offset = before if step % 4 or step == 0 else lengths[shard] - 1024
        assert state["offset"] == offset
        assert sum(request.length for request in probe.reads) == sum(lengths[shard:]) - offset
        assert next(stage) == expected[step]


def test_nothing_is_read_behind_the_end_marker_but_what_was_under_way(store: Any, probe: Any) -> None:
    url = f"{store.root}/padded.tar"
    store.backend.write(url, pack([("a", b"1")], layout=tarfile.USTAR_FORMAT) + bytes(100_000))
    assert len(list(ReadShards(url, resolve=probe.resolve, chunk_bytes=1024, max_in_flight=2))) == 1
    assert len(probe.reads) <= 4


def test_memory_is_bounded(tmp_path: Path) -> None:
    for number in range(4):
        (tmp_path / f"{number}.tar").write_bytes(pack([(f"{i}", bytes(65536)) for i in range(64)]))
    stage = ReadShards(ListFiles(str(tmp_path)), chunk_bytes=256 * 1024, max_buffer_bytes=1 << 20)
    next(stage)
    tracemalloc.start()
    try:
        assert sum(1 for _ in stage) == 255
        assert tracemalloc.get_traced_memory()[1] < 3 << 20  # of 16 MiB
    finally:
        tracemalloc.stop()


def test_stage_closed_while_a_read_comes_back_delivers_nothing_of_it(shards: list[str], store: Any) -> None:
    class Closing(MemoryBackend):
        def read_many(self, requests: Any, **options: Any) -> Any:
            return PassedReads(super().read_many(requests, **options), close_and_pass)

    def close_and_pass(result: ReadResult) -> ReadResult:
        stage.close()
        return result

    stage = ReadShards(shards, resolve=lambda _: Closing(store.name))
    assert list(stage) == []
    assert list(stage) == []


# -- shards at fault ---------------------------------------------------------------------------------------


def test_missing_shard_is_an_error_in_its_place(shards: list[str], store: Any) -> None:
    store.backend.remove(shards[1])
    items, error = take(ReadShards(shards))
    assert items == items_of(shards[:1])
    assert isinstance(error, FileMissingError)
    skipping = ReadShards(shards, on_error="skip")
    assert list(skipping) == items_of([shards[0], shards[2]])
    stats = skipping.stats()
    assert (stats["items"], stats["errors"], stats["skipped"]) == (8, 1, 1)


@pytest.mark.parametrize("chunk_bytes", [700, 1 << 22])
def test_shard_cut_anywhere_gives_what_came_whole_and_an_error(
    shards: list[str], store: Any, chunk_bytes: int
) -> None:
    data = pack(members_of(1, 4))
    for length in [*range(0, len(data) - 512, 397), *range(0, len(data) - 512, 512)]:
        store.backend.write(shards[1], data[:length])
        stage = ReadShards(shards, chunk_bytes=chunk_bytes)
        items, error = take(stage)
        whole = sum(len(pack(members_of(1, n), end=0)) - _padding(1, n) <= length for n in range(1, 5))
        assert items == items_of(shards[:1]) + items_of(shards[1:2])[:whole]
        assert isinstance(error, ShardError)
        assert f"{shards[1]!r} failed at byte {length}" in str(error)
        assert stage.get_state()["position"] == 4 + whole


def _padding(number: int, count: int) -> int:
    return -len(members_of(number, count)[-1][1]) % 512


def test_members_before_the_damage_are_delivered_and_a_state_tries_the_rest_again(
    shards: list[str], store: Any
) -> None:
    data = bytearray(pack(members_of(1, 4)))
    place = len(pack(members_of(1, 2), end=0))
    data[place + 5] ^= 1
    store.backend.write(shards[1], data)
    stage = ReadShards(shards)
    items, error = take(stage)
    assert items == items_of(shards[:1]) + items_of(shards[1:2])[:2]
    assert f"failed at byte {place}: " in str(error)
    for _ in range(2):
        with pytest.raises(ShardError):
            next(stage)
    state = stage.get_state()
    store.backend.write(shards[1], pack(members_of(1, 4)))
    resumed = ReadShards(shards)
    resumed.reset(state)
    assert items + list(resumed) == items_of(shards)


@pytest.mark.parametrize("fault", ["damage", "a read that fails"])
def test_rest_of_a_shard_that_failed_is_left_out_with_all_that_was_read_ahead(
    shards: list[str], store: Any, probe: Any, fault: str
) -> None:
    place = len(pack(members_of(1, 2), end=0))
    if fault == "damage":
        data = bytearray(pack(members_of(1, 4)))
        data[place + 5] ^= 1
        store.backend.write(shards[1], data)
    else:
        first = -(-store.backend.stat(shards[0]).size // 300)
        probe.fail_reads = {first + place // 300}
    expected = items_of(shards[:1]) + items_of(shards[1:2])[:2] + items_of(shards[2:])
    stage = ReadShards(shards, on_error="skip", chunk_bytes=300, max_in_flight=5, resolve=probe.resolve)
    states, items = [stage.get_state()], []
    for item in stage:
        items.append(item)
        states.append(stage.get_state())
    assert items == expected
    assert stage.stats()["errors"] == stage.stats()["skipped"] == 1
    assert stage.get_state()["shard"] == 3
    if fault == "damage":
        for step, state in enumerate(states):
            stage.reset(state)
            assert list(stage) == expected[step:]


def test_substitute_stands_for_the_rest_of_a_shard_and_is_an_item(shards: list[str], store: Any) -> None:
    store.backend.write(shards[0], pack(members_of(0, 4))[:-1024])
    store.backend.remove(shards[2])
    told: list[Any] = []

    def on_error(url: str, error: DatapipesError) -> Any:
        told.append((url, type(error)))
        return SKIP if url == shards[0] else "instead"

    expected = [*items_of(shards[:2]), "instead"]
    stage = ReadShards(shards, on_error=on_error, chunk_bytes=1000)
    for step in range(len(expected) + 1):
        resumed = ReadShards(shards, on_error=on_error, chunk_bytes=1000)
        resumed.reset(stage.get_state())
        assert list(resumed) == expected[step:]
        assert next(stage, None) == (expected[step] if step < len(expected) else None)
    assert set(told) == {(shards[0], ShardError), (shards[2], FileMissingError)}
    stats = stage.stats()
    assert (stats["items"], stats["errors"], stats["skipped"]) == (9, 2, 1)


@pytest.mark.parametrize("name", ["a.tar.gz", "a.TGZ", "a.tar.lz4", "a.zip", "a.tar.zst"])
def test_compressed_shard_is_refused_unread(store: Any, probe: Any, shards: list[str], name: str) -> None:
    url = f"{store.root}/s/{name}"
    store.backend.write(url, b"x" * 5000)
    items, error = take(ReadShards([shards[0], url], resolve=probe.resolve))
    assert items == items_of(shards[:1])
    assert isinstance(error, ShardError)
    assert ".tar only" in str(error)
    assert [request.length for request in probe.reads if request.url == url] == [0]


def test_file_that_is_no_shard_is_an_error(store: Any) -> None:
    for data in (b"", b"text", b"\x1f\x8b" + b"x" * 2000):
        store.backend.write(f"{store.root}/x.tar", data)
        _, error = take(ReadShards(f"{store.root}/x.tar"))
        assert isinstance(error, ShardError)


def test_member_beyond_the_bound_is_an_error(shards: list[str]) -> None:
    items, error = take(ReadShards(shards, max_member_bytes=1400))
    assert items == items_of(shards)[:3]
    assert isinstance(error, ShardError)


def test_shard_that_shrank_or_grew_since_it_was_listed_is_noticed(shards: list[str], store: Any) -> None:
    size = store.backend.stat(shards[0]).size
    _, error = take(ReadShards([FileEntry(shards[0], size + 1)]))
    assert isinstance(error, SizeMismatchError)
    _, error = take(ReadShards([FileEntry(shards[0], size - 1)], verify="size"))
    assert isinstance(error, SizeMismatchError)


def test_what_is_no_name_is_no_fault_of_a_shard(shards: list[str]) -> None:
    items, error = take(ReadShards([shards[0], 5], on_error="skip"))
    assert items == items_of(shards[:1])
    assert isinstance(error, UrlError)


def test_name_that_no_store_takes_is_skipped_like_a_missing_shard(shards: list[str]) -> None:
    stage = ReadShards(["nowhere://x/y.tar", *shards], on_error="skip")
    assert list(stage) == items_of(shards)
    assert stage.stats()["skipped"] == 1


# -- states and options ------------------------------------------------------------------------------------


def test_state_over_a_shard_that_was_replaced_is_no_wrong_data(shards: list[str], store: Any) -> None:
    stage = ReadShards(shards)
    for _ in range(3):
        next(stage)
    store.backend.write(shards[0], pack([("other", b"x" * 20_000)]))
    resumed = ReadShards(shards)
    resumed.reset(stage.get_state())
    items, error = take(resumed)
    assert items == []
    assert isinstance(error, ShardError)


@pytest.mark.parametrize(
    "change",
    [{"offset": 100}, {"offset": -1}, {"offset": None}, {"shard": 9}, {"shard": "0"}, {"position": 99}],
)
def test_state_that_cannot_be_is_refused(store: Any, shards: list[str], change: Any) -> None:
    stage = ReadShards(ListFiles(f"{store.root}/s"))
    next(stage)
    with pytest.raises(StateError):
        stage.reset({**stage.get_state(), **change})


@pytest.mark.parametrize(
    "options", [{"chunk_bytes": 0}, {"chunk_bytes": 1.5}, {"max_member_bytes": 0}, {"max_in_flight": 0}]
)
def test_options_out_of_range_are_refused(options: Any) -> None:
    with pytest.raises(OptionError):
        ReadShards([], **options)


def test_counters_are_of_members_and_bytes_read(shards: list[str]) -> None:
    stage = ReadShards(shards)
    for _ in range(5):
        next(stage)
    assert stage.stats()["items"] == 5
    list(stage)
    stage.close()
    sizes = [MemoryBackend(parse_url(url).container).stat(url).size for url in shards]
    stats = stage.stats()
    assert (stats["items"], stats["bytes"], stats["errors"]) == (12, sum(sizes), 0)
