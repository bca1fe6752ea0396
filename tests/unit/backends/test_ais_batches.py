"""Get-Batch: whatever an answer brings or lacks, every object comes once, in its place, or its error."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aistore", reason="needs the ais extra")
pytest.importorskip("pycurl", reason="needs the ais extra")
pytest.importorskip("aiohttp", reason="needs the ais-server extra")

from hypothesis import given, settings
from hypothesis import strategies as st

from datapipes.backends.ais import AisBackend, from_options
from datapipes.backends.ais_batches import GetBatch
from datapipes.backends.ais_cluster import AisCluster
from datapipes.errors import FileMissingError, OptionError, SizeMismatchError, StoreTimeoutError
from datapipes.iter import IterableWrapper
from datapipes.records import UNKNOWN_SIZE, WHOLE, ReadRequest, ReadResult
from datapipes.testing.ais_server import AisServer
from datapipes.testing.ais_server.archives import tar_end, tar_entry

NAMES = [f"d/{number:03}.bin" for number in range(60)]


def content(name: str) -> bytes:
    return random.Random(name).randbytes(1 + hash_of(name) % 3000)


def hash_of(name: str) -> int:
    return sum(name.encode())


@pytest.fixture(scope="module")
def embedded() -> Iterator[AisServer]:
    with AisServer(targets=2) as server:
        for bucket in ("b", "c"):
            server.store.create_bucket(bucket)
            for name in NAMES:
                server.store.put(bucket, name, content(name))
        yield server


@pytest.fixture
def server(embedded: AisServer) -> Iterator[AisServer]:
    embedded.clear()
    yield embedded
    embedded.clear()
    embedded.choose_batch_target(None)


def backend(server: AisServer, size: int = 0, **cluster: Any) -> AisBackend:
    return AisBackend(AisCluster(server.url, **cluster), get_batch=GetBatch(size))


def url_of(name: str, bucket: str = "b") -> str:
    return f"ais://{bucket}/{name}"


def whole(names: list[str], *, known: bool = False) -> list[ReadRequest]:
    return [
        ReadRequest(url_of(name), 0, WHOLE, len(content(name)) if known else UNKNOWN_SIZE) for name in names
    ]


def data_of(results: list[ReadResult]) -> list[bytes]:
    return [bytes(result.unwrap()) for result in results]


def batches(server: AisServer) -> int:
    return sum(asked.kind == "proxy" and "/ml/moss" in asked.path for asked in server.requests())


def singles(server: AisServer) -> set[str]:
    return {asked.name for asked in server.requests() if asked.name and asked.method == "GET"}


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_objects_come_by_get_batch_and_nothing_else_is_asked(
    server: AisServer, *, known: bool, ordered: bool
) -> None:
    reads = backend(server).read_many(whole(NAMES, known=known), max_in_flight=80, ordered=ordered)
    results = sorted(reads)
    assert data_of(results) == [content(name) for name in NAMES]
    assert (batches(server), singles(server)) == (3, set())
    assert reads.stats()["batched"] == 60


def test_requests_of_a_batch_are_as_many_as_was_said(server: AisServer) -> None:
    list(backend(server, size=25).read_many(whole(NAMES), max_in_flight=60))
    assert batches(server) == 3  # 25, 25, 10


def test_a_range_is_read_by_itself_and_what_no_batch_can_hold(server: AisServer) -> None:
    requests = whole(NAMES[:20])
    requests[3] = ReadRequest(url_of(NAMES[3]), 1, 4)
    requests[5] = ReadRequest("ais://b/never")
    requests[7] = ReadRequest("ais://b/not%u\udcff")
    results = list(backend(server).read_many(requests, max_in_flight=80))
    assert [result.position for result in results] == list(range(20))
    assert bytes(results[3].unwrap()) == content(NAMES[3])[1:5]
    assert isinstance(results[5].error, FileMissingError)
    assert results[7].error is not None
    assert data_of(results[8:]) == [content(name) for name in NAMES[8:20]]
    assert NAMES[3] in singles(server)
    assert not singles(server) & set(NAMES[8:20])


def test_missing_objects_are_errors_in_their_place_however_many(server: AisServer) -> None:
    names = [f"gone/{at}" if at % 3 else NAMES[at] for at in range(60)]
    for target in (0, 1):  # placeholders come for what the other one holds
        server.choose_batch_target(target)
        results = list(backend(server, size=60).read_many(whole_of(names), max_in_flight=60))
        for name, result in zip(names, results, strict=True):
            if name in NAMES:
                assert bytes(result.unwrap()) == content(name)
            else:
                assert isinstance(result.error, FileMissingError)
                assert name in str(result.error)


def whole_of(names: list[str]) -> list[ReadRequest]:
    return [ReadRequest(url_of(name)) for name in names]


def test_objects_of_several_buckets_are_never_mixed_up(server: AisServer) -> None:
    server.store.put("c", NAMES[0], b"of the other bucket")
    try:
        requests = [ReadRequest(url_of(name, "bc"[at % 2])) for at, name in enumerate([NAMES[0]] * 40)]
        results = list(backend(server).read_many(requests, max_in_flight=80))
        expected = [content(NAMES[0]), b"of the other bucket"] * 20
        assert data_of(results) == expected
        assert singles(server) == set()
    finally:
        server.store.put("c", NAMES[0], content(NAMES[0]))


def test_an_empty_object_is_never_taken_from_a_batch(server: AisServer) -> None:
    server.store.put("b", "empty", b"")
    requests = [*whole(NAMES[:5]), ReadRequest("ais://b/empty"), *whole(NAMES[5:10])]
    results = list(backend(server).read_many(requests, max_in_flight=80))
    assert data_of(results)[5] == b""
    assert singles(server) == {"empty"}


def test_another_size_than_was_said_is_asked_for_again_and_judged_as_always(server: AisServer) -> None:
    requests = whole(NAMES[:10], known=True)
    requests[4] = requests[4]._replace(size=requests[4].size + 1)
    results = list(backend(server).read_many(requests, max_in_flight=40))
    assert isinstance(results[4].error, SizeMismatchError)
    assert [result.error is None for result in results] == [True] * 4 + [False] + [True] * 5
    assert singles(server) == {NAMES[4]}


@pytest.mark.parametrize("after", [0, 100, 600, 5000, 20_000])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_broken_answer_costs_single_reads_and_no_object(
    server: AisServer, after: int, *, ordered: bool
) -> None:
    server.truncate(after, times=2)
    results = sorted(backend(server).read_many(whole(NAMES), max_in_flight=80, ordered=ordered))
    assert data_of(results) == [content(name) for name in NAMES]
    assert singles(server)


@pytest.mark.parametrize("status", [400, 404, 429, 500, 501, 503])
def test_a_cluster_without_get_batch_is_read_by_gets(server: AisServer, status: int) -> None:
    server.fail(status, name="*", node="proxy", method="GET", times=4)
    cluster = backend(server, direct=True)
    results = list(cluster.read_many(whole(NAMES), max_in_flight=80))
    assert data_of(results) == [content(name) for name in NAMES]


def test_an_answer_that_never_comes_times_out_and_the_rest_is_read_singly(server: AisServer) -> None:
    server.stall(node="target", times=1)
    results = list(backend(server).read_many(whole(NAMES[:12]), max_in_flight=48, timeout_s=1.0))
    assert isinstance(results[0].error, StoreTimeoutError)
    assert data_of(results[1:]) == [content(name) for name in NAMES[1:12]]


def test_members_of_shards_come_by_get_batch(server: AisServer) -> None:
    members = {f"m/{at}.txt": f"member {at}".encode() * at for at in range(1, 30)}
    server.store.put(
        "b", "s.tar", b"".join(tar_entry(name, data, 0) for name, data in members.items()) + tar_end()
    )
    requests = [ReadRequest(f"ais://b/s.tar?archpath={name}") for name in members]
    reads = backend(server).read_many(requests, max_in_flight=80)
    assert data_of(list(reads)) == list(members.values())
    assert reads.stats()["batched"] == len(members)


@given(
    names=st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40).filter(
            lambda name: not name.startswith((".", "/", "~")) and "/" not in name and "\\" not in name
        ),
        min_size=2,
        max_size=8,
    )
)
@settings(max_examples=25)
def test_names_of_every_kind_find_their_objects(embedded: AisServer, names: list[str]) -> None:
    from datapipes.urls import quote_name

    for name in names:
        embedded.store.put("c", f"odd/{name}", name.encode())
    requests = [ReadRequest(f"ais://c/odd/{quote_name(name)}") for name in names]
    reads = backend(embedded).read_many(requests, max_in_flight=64)
    assert data_of(list(reads)) == [name.encode() for name in names]
    assert reads.stats()["batched"] == len(names)


def test_one_object_asked_for_many_times_is_given_as_often(server: AisServer) -> None:
    requests = whole([NAMES[0], NAMES[0], "gone", NAMES[0], NAMES[1], NAMES[0]])
    results = list(backend(server).read_many(requests, max_in_flight=64))
    assert [result.error is None for result in results] == [True, True, False, True, True, True]
    assert bytes(results[5].unwrap()) == content(NAMES[0])


def test_a_tight_bound_on_bytes_is_kept_and_everything_comes(server: AisServer) -> None:
    for known in (False, True):
        results = list(
            backend(server).read_many(whole(NAMES, known=known), max_in_flight=80, max_buffer_bytes=5000)
        )
        assert data_of(results) == [content(name) for name in NAMES]


def test_a_token_reaches_proxy_and_target(embedded: AisServer) -> None:
    with AisServer(token="secret") as server:
        server.store.create_bucket("b")
        for name in NAMES[:20]:
            server.store.put("b", name, content(name))
        reads = backend(server, token="secret").read_many(whole(NAMES[:20]), max_in_flight=80)
        assert data_of(list(reads)) == [content(name) for name in NAMES[:20]]
        assert reads.stats()["batched"] == 20


def test_the_pipe_reads_by_get_batch_when_asked_to(server: AisServer) -> None:
    urls = [url_of(name) for name in NAMES]
    pipe = IterableWrapper(urls).load_files_by_ais(url=server.url, output="bytes", batch_reads=30)
    assert list(pipe) == [(url, content(name)) for url, name in zip(urls, NAMES, strict=True)]
    assert batches(server) > 0
    assert singles(server) == set()


@pytest.mark.parametrize("wrong", [-1, 2.5, "yes", None])
def test_an_impossible_size_is_refused(wrong: Any) -> None:
    with pytest.raises(OptionError, match="batch_reads"):
        from_options(endpoint="http://nowhere", batch_reads=wrong)
