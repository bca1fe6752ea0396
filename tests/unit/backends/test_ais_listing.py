"""Listings of AIStore, page by page and ahead of their use; members of shards."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import signal
import tarfile
import threading
import time
import warnings
from collections.abc import Iterator

import pytest

pytest.importorskip("aistore")
pytest.importorskip("aiohttp")

from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_listing import list_objects
from datapipes.errors import (
    AccessDeniedError,
    ContainerMissingError,
    FileMissingError,
    ShardError,
    StoreConnectionError,
    UrlError,
)
from datapipes.records import UNKNOWN_SIZE
from datapipes.testing.ais_server import AisServer
from datapipes.testing.ais_server.names import Bck
from datapipes.testing.backend_hooks import wait_until
from datapipes.urls import quote_name

MIXED = [
    "-", ".x", "/lead", "A", "a", "a b", "a!", "a-b", "a.txt", "a//b", "a/x", "a/x.y/deep", "a0", "dir/a",
    "dir/b", "dir/sub/c", "dir2/d", "dirx", "50%?#+&=", "new\nline", "z\uffee", "z\U0001f600", "é", "漢/字",
]  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AisServer]:
    with AisServer(tmp_path_factory.mktemp("ais"), name_conflicts=False) as running:
        for bucket, names in {
            "mixed": MIXED,
            "many": [f"{i:04d}" for i in range(1000)],
            "empty": [],
        }.items():
            running.store.create_bucket(Bck(bucket))
            for name in names:
                running.store.put(Bck(bucket), name, b"x" * len(name))
        running.store.create_bucket(Bck("spaced", "ais", "@#ns"))
        running.store.put(Bck("spaced", "ais", "@#ns"), "o", b"in a namespace")
        yield running


@pytest.fixture
def cluster(server: AisServer) -> AisCluster:
    server.clear()
    return AisCluster(server.url, retry_budget_s=3)


def names(cluster: AisCluster, url: str, **options: object) -> list[str]:
    return [entry.url for entry in list_objects(cluster, url, **options)]  # type: ignore[arg-type]


def urls_of(some: list[str], head: str = "ais://mixed/") -> list[str]:
    return [head + quote_name(name) for name in sorted(some, key=str.encode)]


def tar_of(members: list[tuple[str, bytes]]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.GNU_FORMAT) as shard:
        for path, data in members:
            info = tarfile.TarInfo(path)
            info.size = len(data)
            shard.addfile(info, io.BytesIO(data))
    return file.getvalue()


@pytest.mark.parametrize("page_size", [0, 1, 5])
def test_names_come_in_byte_order_with_their_sizes(cluster: AisCluster, page_size: int) -> None:
    listed = list(list_objects(cluster, "ais://mixed", page_size=page_size))
    assert [entry.url for entry in listed] == urls_of(MIXED)
    assert [entry.size for entry in listed] == [len(n) for n in sorted(MIXED, key=str.encode)]
    without = list(list_objects(cluster, "ais://mixed/", sizes=False, page_size=page_size))
    assert [(e.url, e.size) for e in without] == [(e.url, UNKNOWN_SIZE) for e in listed]


@pytest.mark.parametrize("prefix", ["a", "a/", "dir", "dir/", "dir/s", "dir/b", "50%?", "é", "nothing", "/l"])
def test_prefix_is_a_leading_part_of_names(cluster: AisCluster, prefix: str) -> None:
    url = f"ais://mixed/{quote_name(prefix)}"
    assert names(cluster, url) == urls_of([name for name in MIXED if name.startswith(prefix)])


@pytest.mark.parametrize("page_size", [0, 1, 3])
@pytest.mark.parametrize("prefix", ["", "dir"])
def test_start_after_gives_the_rest(cluster: AisCluster, prefix: str, page_size: int) -> None:
    whole = names(cluster, f"ais://mixed/{prefix}")
    for i, url in enumerate(whole):
        rest = names(cluster, f"ais://mixed/{prefix}", start_after=url, page_size=page_size)
        assert rest == whole[i + 1 :]
    assert names(cluster, "ais://mixed/dir", start_after="ais://mixed/a") == urls_of(
        [name for name in MIXED if name.startswith("dir")]
    )
    assert names(cluster, "ais://mixed/dir", start_after="ais://mixed/zz") == []


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [
        ("", [name for name in MIXED if "/" not in name]),
        ("dir", ["dir/a", "dir/b", "dirx"]),
        ("dir/", ["dir/a", "dir/b"]),
        ("dir/sub", ["dir/sub/c"]),
        ("dir/b", ["dir/b"]),
        ("dir/s", []),
        ("dir2", ["dir2/d"]),
    ],
)
def test_listing_that_is_not_recursive_gives_the_objects_of_the_directory(
    cluster: AisCluster, prefix: str, expected: list[str]
) -> None:
    for page_size in (0, 2):
        found = names(cluster, f"ais://mixed/{prefix}", recursive=False, page_size=page_size)
        assert found == urls_of(expected)


def test_urls_are_spelt_as_the_prefix_was(cluster: AisCluster) -> None:
    for head in ("ais://@#ns/spaced/", "ais://#ns/spaced/"):
        assert list(list_objects(cluster, head)) == [(head + "o", 14)]
    assert names(cluster, "AIS://mixed/dirx") == ["ais://mixed/dirx"]
    asked = f"{cluster.endpoint}/v1/objects/mixed/dir%78?provider=ais"
    assert names(cluster, asked) == ["ais://mixed/dirx"]


def test_bucket_without_objects_is_an_empty_listing(cluster: AisCluster) -> None:
    assert names(cluster, "ais://empty") == []
    assert names(cluster, "ais://empty/x", start_after="ais://empty/a") == []


@pytest.mark.parametrize("url", ["ais://nothere", "ais://nothere/a", "ais://@#nospace/mixed/"])
def test_missing_bucket_is_an_error_when_the_first_entry_is_asked_for(cluster: AisCluster, url: str) -> None:
    entries = list_objects(cluster, url)
    with pytest.raises(ContainerMissingError) as caught:
        next(entries)
    assert (caught.value.url, caught.value.operation) == (url, "list")


@pytest.mark.parametrize(
    ("url", "after"),
    [
        ("ais://mixed/../x", None),
        ("ais://mixed/a?b=c", None),
        ("nostore://a/b", None),
        ("ais://mixed/", "ais://other/a"),
        ("ais://mixed/", "s3://mixed/a"),
        ("ais://mixed/", "nostore://a/b"),
    ],
)
def test_what_cannot_be_listed_is_a_url_error(cluster: AisCluster, url: str, after: str | None) -> None:
    with pytest.raises(UrlError):
        list(list_objects(cluster, url, start_after=after))


def test_next_page_is_fetched_while_one_is_used(server: AisServer, cluster: AisCluster) -> None:
    server.delay(150, node="proxy")
    idle, entries = threading.active_count(), list_objects(cluster, "ais://many", page_size=250)
    assert next(entries).url == "ais://many/0000"
    for page in range(2, 5):
        [next(entries) for _ in range(248)]
        come_ahead(server, page, idle)
        next(entries), next(entries)
    assert len(list(entries)) == 1000 - 1 - 3 * 250
    server.clear()


def come_ahead(server: AisServer, pages: int, idle: int) -> None:
    """So many pages have come while nobody asks for one: the thread that fetched the last has ended."""
    assert wait_until(lambda: server.counts() == {"proxy GET": pages})
    assert wait_until(lambda: threading.active_count() <= idle)


def test_pages_are_fetched_one_ahead_and_no_further(server: AisServer, cluster: AisCluster) -> None:
    idle, entries = threading.active_count(), list_objects(cluster, "ais://many", page_size=100)
    next(entries)
    come_ahead(server, 2, idle)
    time.sleep(0.2)
    assert server.counts() == {"proxy GET": 2}
    with contextlib.closing(entries):  # type: ignore[type-var]
        pass
    assert list(entries) == []
    time.sleep(0.2)
    assert server.counts() == {"proxy GET": 2}


def test_small_listing_needs_one_request_and_no_thread(server: AisServer, cluster: AisCluster) -> None:
    before = threading.active_count()
    entries = list_objects(cluster, "ais://mixed")
    next(entries)
    assert threading.active_count() == before
    list(entries)
    assert server.counts() == {"proxy GET": 1}


def test_error_of_a_later_page_comes_after_the_entries_before_it(
    server: AisServer, cluster: AisCluster
) -> None:
    idle, entries = threading.active_count(), list_objects(cluster, "ais://many", page_size=100)
    first = next(entries)
    come_ahead(server, 2, idle)
    server.fail(403, node="proxy")
    found = [first]
    with pytest.raises(AccessDeniedError) as caught:
        found.extend(entries)
    assert len(found) == 200
    assert caught.value.url == "ais://many"
    server.clear()


def test_fault_that_passes_is_not_noticed(server: AisServer, cluster: AisCluster) -> None:
    server.fail(503, node="proxy", times=2)
    assert len(names(cluster, "ais://many", page_size=100)) == 1000
    server.drop(node="proxy", times=2)
    assert len(names(cluster, "ais://many", page_size=300)) == 1000


def test_proxy_that_is_gone_is_a_connection_error() -> None:
    with pytest.raises(StoreConnectionError):
        list(list_objects(AisCluster("127.0.0.1:1", retry_budget_s=0.1), "ais://b"))


def test_interrupt_is_heard_while_a_page_is_awaited(server: AisServer, cluster: AisCluster) -> None:
    idle, entries = threading.active_count(), list_objects(cluster, "ais://many", page_size=100)
    next(entries)
    come_ahead(server, 2, idle)
    server.delay(5000, node="proxy")
    for _ in range(99):
        next(entries)
    ringer = threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    began = time.monotonic()
    ringer.start()
    with pytest.raises(KeyboardInterrupt):
        list(entries)
    ringer.join()
    assert time.monotonic() - began < 2
    server.clear()


def test_forked_child_goes_on_with_its_own_listing_and_so_does_the_parent(cluster: AisCluster) -> None:
    entries = list_objects(cluster, "ais://many", page_size=100)
    expected = [f"ais://many/{i:04d}" for i in range(1000)]
    assert next(entries).url == expected[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        good = [entry.url for entry in entries] == expected[1:]
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert [entry.url for entry in entries] == expected[1:]


MEMBERS = [
    ("s/002.jpg", b"22"),
    ("s/001.jpg", b"1"),
    ("plain%?.txt", b"plain"),
    ("a/b/c.txt", b""),
    ("é", b"e"),
]


@pytest.fixture
def shard(server: AisServer) -> str:
    store, bucket = server.store, Bck("shards")
    if not store.has_bucket(bucket):
        store.create_bucket(bucket)
    store.put(bucket, "a b.tar", tar_of(MEMBERS))
    store.put(bucket, "a b.tar.idx", b"no archive")
    store.put(bucket, "fake.tar", b"x" * 1200)
    return "ais://shards/a b.tar?archpath="


def test_members_of_a_shard_are_urls_of_members_in_order(cluster: AisCluster, shard: str) -> None:
    expected = [(shard + quote_name(path), len(data)) for path, data in sorted(MEMBERS)]
    assert list(list_objects(cluster, shard)) == expected
    assert [e.size for e in list_objects(cluster, shard, sizes=False)] == [UNKNOWN_SIZE] * len(expected)
    for i, (url, _) in enumerate(expected):
        assert list(list_objects(cluster, shard, start_after=url)) == expected[i + 1 :]


def test_members_may_be_asked_for_by_the_beginning_of_their_paths(cluster: AisCluster, shard: str) -> None:
    assert names(cluster, shard + "s/") == [shard + "s/001.jpg", shard + "s/002.jpg"]
    assert names(cluster, shard + "nothing") == []
    flat = names(cluster, shard, recursive=False)
    assert flat == [shard + "plain%25%3F.txt", shard + "é"]
    assert names(cluster, shard + "a/b", recursive=False) == [shard + "a/b/c.txt"]


def test_shard_that_is_listed_as_an_object_is_one(cluster: AisCluster, shard: str) -> None:
    assert names(cluster, shard.partition("?")[0]) == ["ais://shards/a b.tar", "ais://shards/a b.tar.idx"]


def test_member_that_is_there_twice_is_listed_once_with_no_size(
    server: AisServer, cluster: AisCluster, shard: str
) -> None:
    server.store.put(Bck("shards"), "twice.tar", tar_of([("x", b"first"), ("y", b""), ("x", b"2")]))
    head = "ais://shards/twice.tar?archpath="
    assert list(list_objects(cluster, head)) == [(head + "x", UNKNOWN_SIZE), (head + "y", 0)]


def test_missing_shard_and_what_is_no_shard_are_errors(cluster: AisCluster, shard: str) -> None:
    with pytest.raises(FileMissingError):
        list(list_objects(cluster, "ais://shards/none.tar?archpath="))
    with pytest.raises(ContainerMissingError):
        list(list_objects(cluster, "ais://nothere/none.tar?archpath="))
    with pytest.raises(ShardError) as caught:
        list(list_objects(cluster, "ais://shards/fake.tar?archpath="))
    assert pickle.loads(pickle.dumps(caught.value)).url == "ais://shards/fake.tar?archpath="
