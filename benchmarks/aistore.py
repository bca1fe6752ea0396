"""6. AIStore: ours and the incumbents over one cluster, at ``AIS_ENDPOINT`` or the embedded one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from typing import Any

import pycurl

from benchmarks.aistore_readers import Stock, incumbents, limit, ours
from benchmarks.aistore_shards import pairs_table, samples_table
from benchmarks.harness import Contender, interleave, print_table

SIZES = {"10 KiB": (10 << 10, 10_000), "100 KiB": (100 << 10, 4_000), "1 MiB": (1 << 20, 500)}
"""Bytes and objects."""
IN_FLIGHT, IN_FLIGHT_SLOW = (64,), (64, 512)
"""``max_in_flight`` of ours; of those that many rows, where answers are slow."""
ONE_BY_ONE, ONE_BY_ONE_SLOW = 512, 50
"""Objects for those that read one after another and take a millisecond and more for each."""


@contextlib.contextmanager
def cluster() -> Iterator[tuple[str, str]]:
    """URL and description of the cluster that the environment names, else of an embedded one."""
    named = os.environ.get("AIS_ENDPOINT")
    if named:
        yield named, "a cluster"
        return
    from datapipes.testing.ais_server import AisServer

    with AisServer(process=True) as server:
        yield server.url, "the embedded server"


def make_client(url: str, where: str) -> Any:
    """A client of the SDK, as it comes; prints what everybody runs with."""
    from aistore.sdk import Client
    from aistore.sdk.retry_config import RetryConfig

    client = Client(url, retry_config=RetryConfig.default())
    targets = len(client.cluster().get_info().tmap)
    versions = ", ".join(f"{name} {version(name)}" for name in ("aistore", "webdataset", "pycurl"))
    print(f"\nAIStore: {where}, {targets} targets; {versions}, {pycurl.version.split()[1]}")
    return client


def reading_tables(client: Any, url: str, *, scale: int, repeats: int, latency_ms: float = 0) -> None:
    """Whole objects, size by size."""
    for label, (size, objects) in SIZES.items():
        count = objects // scale
        stock = Stock(client, size, count)
        depths = IN_FLIGHT_SLOW if latency_ms else IN_FLIGHT
        one_by_one = (ONE_BY_ONE_SLOW if latency_ms else ONE_BY_ONE) // min(scale, 2)
        theirs = incumbents(stock, one_by_one)
        mine = ours(stock, url, depths)
        bounds = limit(stock, [16, 512] if latency_ms else [16])
        note_the_best(mine, theirs)
        slow = f", answers {latency_ms:g} ms later" if latency_ms else ""
        title = f"{count:,} objects of {label}{slow}"
        table = interleave([*theirs, *mine, *bounds], repeats)
        print_table(title, table, baseline="AISIterDataset", unit="objects")


def note_the_best(mine: Sequence[Contender], theirs: Sequence[Contender]) -> None:
    """Say of each of ``mine`` how it stands to the fastest of ``theirs``."""

    def note(contender: Contender) -> str:
        best = max(theirs, key=lambda other: other.rate)
        return f"{contender.rate / best.rate:.1f} x {best.name}"

    for each in mine:
        each.note = partial(note, each)


def aistore_table(*, scale: int, repeats: int, latencies_ms: Sequence[float]) -> None:
    """Every table; with ``latencies_ms`` those of whole objects, over an embedded server as slow as that."""
    if not latencies_ms:
        with cluster() as (url, where):
            client = make_client(url, where)
            reading_tables(client, url, scale=scale, repeats=repeats)
            samples_table(client, url, scale=scale, repeats=repeats)
            pairs_table(client, url, scale=scale, repeats=repeats)
        return
    from datapipes.testing.ais_server import AisServer

    with AisServer(process=True) as server:
        client = make_client(server.url, "the embedded server")
        for latency_ms in latencies_ms:
            for size, objects in SIZES.values():
                Stock(client, size, objects // scale).fill()
            server.delay(latency_ms)
            reading_tables(client, server.url, scale=scale, repeats=repeats, latency_ms=latency_ms)
            server.clear()
