"""Who reads whole objects of AIStore: the incumbents, ours, and a C program as the limit."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from benchmarks.harness import Contender

FEW, MANY = 512, 1024
"""Objects for readers by batches, whatever the batch: several batches each, and not a minute."""
LOADED = 64
"""Samples of a DataLoader's batch."""


class Stock:
    """Buckets with ``count`` objects of ``size`` bytes, or with fewer of them."""

    def __init__(self, client: Any, size: int, count: int) -> None:
        self.client, self.size, self.count = client, size, count

    def bucket(self, most: int = 1 << 60) -> Any:
        """The one with ``most`` of them, filled where it is not yet."""
        count = min(self.count, most)
        bucket = self.client.bucket(f"bench-{self.size >> 10}k-{count}").create(exist_ok=True)
        names = {f"{i // 1000:03}/{i:06}.bin" for i in range(count)}
        put_all(bucket, dict.fromkeys(names, os.urandom(self.size)))
        return bucket

    def fill(self) -> None:
        """Make all that will be asked for."""
        for most in (FEW, MANY, self.count):
            self.bucket(most)


def put_all(bucket: Any, objects: dict[str, bytes]) -> None:
    """Put those that are not there yet."""
    there = {entry.name for entry in bucket.list_all_objects()}

    def put(name: str) -> None:
        bucket.object(name).get_writer().put_content(objects[name])

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, sorted(set(objects) - there)))


def count_of(items: Callable[[], Iterable[Any]]) -> Callable[[], int]:
    return lambda: sum(1 for _ in items())


def loaded(data: Any, workers: int) -> Callable[[], int]:
    """All of ``data`` through DataLoader."""
    from torch.utils.data import DataLoader

    def items() -> Iterable[Any]:
        return DataLoader(data, batch_size=LOADED, num_workers=workers, collate_fn=transposed)

    return lambda: sum(len(batch[0]) for batch in items())


def transposed(batch: list[Any]) -> list[Any]:
    return list(zip(*batch, strict=True))


def incumbents(stock: Stock, one_by_one: int) -> list[Contender]:
    """The SDK and aistore.pytorch as shipped; ``one_by_one`` objects for those that read so."""
    from aistore.pytorch import AISIterDataset, AISMapDataset
    from aistore.pytorch.batch_iter_dataset import AISBatchIterDataset

    few = stock.bucket(one_by_one)

    def loop() -> Iterator[bytes]:
        for entry in few.list_all_objects():
            yield few.object(entry.name).get_reader().read_all()

    def batches(most: int, count: int) -> Contender:
        sources = [stock.bucket(count)]
        data = AISBatchIterDataset(sources, stock.client, max_batch_size=most)
        return Contender(f"AISBatchIterDataset({most})", count_of(lambda: data))

    mapped = AISMapDataset([stock.bucket(max(one_by_one, 4 * LOADED))])
    return [
        Contender("SDK, one after another", count_of(loop)),
        Contender("AISIterDataset", count_of(lambda: AISIterDataset([few]))),
        batches(32, FEW),
        batches(512, MANY),
        Contender("AISMapDataset, 0 workers", loaded(mapped, 0)),
        Contender("AISMapDataset, 2 workers", loaded(mapped, 2)),
    ]


def ours(stock: Stock, url: str, depths: Sequence[int]) -> list[Contender]:
    """Pipe, node and drop-in datasets, over all objects."""
    from datapipes import nodes
    from datapipes.datasets.ais import AISBatchIterDataset, AISIterDataset, AISMapDataset
    from datapipes.iter import IterableWrapper

    bucket = stock.bucket()
    prefix = f"ais://{bucket.name}/"

    def pipe(**options: Any) -> Callable[[], int]:
        names = IterableWrapper([prefix]).list_files_by_ais(url)
        return count_of(lambda: names.load_files_by_ais(url, output="bytes", **options))

    def node(depth: int) -> Callable[[], int]:
        def items() -> Iterator[Any]:
            loader = nodes.AISFileLoader(nodes.AISFileLister(prefix, url), url, max_in_flight=depth)
            loader.reset()
            return iter(loader)

        return count_of(items)

    def iterated(depth: int) -> Callable[[], int]:
        return count_of(lambda: AISIterDataset([bucket], max_in_flight=depth))

    def in_batches(**options: Any) -> Callable[[], int]:
        return count_of(lambda: AISBatchIterDataset([bucket], stock.client, **options))

    mapped = AISMapDataset([bucket])
    found = []
    for depth in depths:
        found += [
            Contender(f"load_files_by_ais, {depth} in flight", pipe(max_in_flight=depth)),
            Contender(f"nodes.AISFileLoader, {depth} in flight", node(depth)),
            Contender(f"our AISIterDataset, {depth} in flight", iterated(depth)),
        ]
    return [
        *found,
        Contender("our AISMapDataset, 0 workers", loaded(mapped, 0)),
        Contender("our AISMapDataset, 2 workers", loaded(mapped, 2)),
        *(
            Contender(f"load_files_by_ais, Get-Batch, {most}", pipe(max_in_flight=most, batch_reads=True))
            for most in (512, 2048)
        ),
        Contender("our AISBatchIterDataset", in_batches()),
        Contender(
            "our AISBatchIterDataset(512), Get-Batch", in_batches(max_batch_size=512, batch_reads=True)
        ),
    ]


def limit(stock: Stock, connections: Sequence[int]) -> list[Contender]:
    """wrk over one object, straight at its target: what a C client gets. None where it is not installed."""
    if shutil.which("wrk") is None:
        return []
    bucket = stock.bucket()
    name = next(iter(bucket.list_all_objects_iter())).name
    owner = stock.client.cluster().get_info().get_target_for_object(f"ais/@#/{bucket.name}/{name}")
    url = f"{owner.public_net.direct_url}/v1/objects/{bucket.name}/{name}?provider=ais"

    def run(count: int) -> tuple[int, float, float]:
        command = ["wrk", "-t1", f"-c{count}", "-d3s", url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        said = next(line for line in done.stdout.splitlines() if "Requests/sec" in line)
        return round(3 * float(said.split()[1])), 3.0, 0.0

    return [Contender(f"wrk, {count} connections", partial(run, count)) for count in connections]
