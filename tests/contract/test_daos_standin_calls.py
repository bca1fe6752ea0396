"""What reading DAOS costs in calls of its libraries: no round trip too many, and no thread that spins."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from datapipes.backends.daos import DaosBackend
from datapipes.records import HandleFile, ReadRequest

from .standin import StandIn, available

pytestmark = available

FILES = 200
SIZE = 1000
CALLS = ("dfs_lookup", "dfs_lookup_rel", "dfs_open", "dfs_get_size", "dfs_stat", "dfs_ostat", "dfs_read")

_containers = itertools.count()


@pytest.fixture
def store(standin: StandIn) -> Iterator[tuple[DaosBackend, list[str]]]:
    """A container with files in two directories, of which the libraries know nothing yet."""
    name = f"calls{next(_containers)}"
    urls = []
    for number in range(FILES):
        file = standin.root / "tank" / name / f"d{number % 2}" / f"{number:03}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(bytes([number]) * SIZE)
        urls.append(f"daos://tank/{name}/{file.parent.name}/{file.name}")
    backend = DaosBackend("tank", name)
    backend.stat(urls[0])  # connects
    standin.reset()
    yield backend, urls
    standin.reset()


def calls(standin: StandIn) -> dict[str, int]:
    return {name: standin.count(name) for name in CALLS if standin.count(name)}


@pytest.mark.parametrize("size", [SIZE, -1], ids=["size known", "size not known"])
def test_a_file_costs_one_look_up_and_one_read(
    standin: StandIn, store: tuple[DaosBackend, list[str]], size: int
) -> None:
    backend, urls = store
    backend.read(urls[1])  # the other directory
    standin.reset()
    results = list(backend.read_many([ReadRequest(url, size=size) for url in urls]))
    assert [len(result.unwrap()) for result in results] == [SIZE] * FILES
    assert calls(standin) == {"dfs_lookup_rel": FILES, "dfs_read": FILES}
    assert standin.count("dfs_release") == FILES


def test_a_file_that_was_read_before_costs_one_read(
    standin: StandIn, store: tuple[DaosBackend, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    backend, urls = store
    place = HandleFile(str(tmp_path_factory.mktemp("handles") / "h"), "", FILES, 1 << 20)
    requests = [ReadRequest(url) for url in urls]
    list(backend.read_many(requests, handles=place))
    standin.reset()
    results = list(backend.read_many(requests, handles=place))
    assert [len(result.unwrap()) for result in results] == [SIZE] * FILES
    assert calls(standin) == {"dfs_read": FILES}


def test_one_stream_after_another_needs_one_queue(
    standin: StandIn, store: tuple[DaosBackend, list[str]]
) -> None:
    """Though the threads of the one may still be ending when the other begins."""
    backend, urls = store
    requests = [ReadRequest(url, size=SIZE) for url in urls]
    list(backend.read_many(requests))
    queues = standin.count("queues")
    for _ in range(50):
        assert len(list(backend.read_many(requests))) == FILES
    assert standin.count("queues") == queues


@pytest.mark.parametrize("cost", ["burn", "sleep"])
def test_nobody_asks_a_queue_for_reads_that_are_still_being_started(
    standin: StandIn, store: tuple[DaosBackend, list[str]], cost: str
) -> None:
    backend, urls = store
    standin.set("STANDIN_COST", cost)
    standin.set("STANDIN_READ_US", "1000")
    began = time.monotonic()
    for result in backend.read_many([ReadRequest(url, size=SIZE) for url in urls]):
        result.unwrap()
    slices = (time.monotonic() - began) / 0.1  # a question waits so long for an answer
    assert standin.count("daos_eq_poll") <= FILES + slices + 2
