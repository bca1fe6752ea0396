"""Shards in AIStore: samples of one series, and pairs of two."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from benchmarks.aistore_readers import count_of, put_all
from benchmarks.harness import Contender, interleave, print_table

SAMPLE_BYTES = 8 << 10
SHARDS, SAMPLES = 20, 1_000
"""Shards of samples, and how many samples are in each."""
PAIRED_SHARDS, PAIRS = 20, 500
"""Shards of each series, and how many members are in each."""


def shard(members: Iterable[tuple[str, bytes]]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return made.getvalue()


def samples(first: int, count: int) -> Iterator[tuple[str, bytes]]:
    for number in range(first, first + count):
        yield f"{number:07}.jpg", os.urandom(SAMPLE_BYTES)
        yield f"{number:07}.cls", b"%d" % (number % 1000)


def sharded(client: Any, shards: int, count: int) -> Any:
    """A bucket of ``shards`` shards with ``count`` samples each."""
    bucket = client.bucket(f"bench-samples-{shards}x{count}").create(exist_ok=True)
    if len(bucket.list_all_objects()) != shards:
        put_all(bucket, {f"{i:06}.tar": shard(samples(i * count, count)) for i in range(shards)})
    return bucket


def paired(client: Any, url: str, shards: int, count: int) -> list[Any]:
    """Two series of shards in a bucket, of images and of labels, as the SDK's sources."""
    from aistore.sdk.dataset.data_shard import DataShard

    bucket = client.bucket(f"bench-pairs-{shards}x{count}").create(exist_ok=True)
    if len(bucket.list_all_objects()) != 2 * shards:
        made = {}
        for i in range(shards):
            both = list(samples(i * count, count))
            made[f"images-{i:06}.tar"], made[f"labels-{i:06}.tar"] = shard(both[::2]), shard(both[1::2])
        put_all(bucket, made)
    return [DataShard(url, bucket.name, prefix=prefix) for prefix in ("images-", "labels-")]


def samples_table(client: Any, url: str, *, scale: int, repeats: int) -> None:
    """Samples of two members, in the order of the shards."""
    from aistore.pytorch import AISShardReader as Incumbent

    from datapipes.backends.ais import AisBackend
    from datapipes.backends.ais_cluster import AisCluster
    from datapipes.datasets.ais import AISShardReader
    from datapipes.iter import IterableWrapper

    bucket = sharded(client, max(4, SHARDS // scale), SAMPLES)
    names = [entry.name for entry in bucket.list_all_objects()]
    backend = AisBackend(AisCluster(url))
    shards = IterableWrapper([f"ais://{bucket.name}/"]).list_files_by_ais(url)
    members = shards.read_shards(output="bytes", resolve=lambda _: backend)
    contenders = [
        Contender("AISShardReader", count_of(lambda: Incumbent([bucket]))),
        Contender("webdataset", count_of(webdataset_over(bucket, names))),
        Contender("our AISShardReader", count_of(lambda: AISShardReader([bucket]))),
        Contender("read_shards", lambda: sum(1 for _ in members) // 2),
    ]
    title = f"{len(names)} shards of {SAMPLES:,} samples of 8 KiB with a label"
    print_table(title, interleave(contenders, repeats), baseline="AISShardReader", unit="samples")


def webdataset_over(bucket: Any, names: list[str]) -> Callable[[], Iterable[Any]]:
    """It reads through curl, one process for each shard."""
    import webdataset

    urls = [bucket.object(name).get_url() for name in names]
    return lambda: webdataset.WebDataset(urls, shardshuffle=False)


def pairs_table(client: Any, url: str, *, scale: int, repeats: int) -> None:
    """Members of two series side by side; the incumbent over one shard of each."""
    from aistore.pytorch import AISMultiShardStream as Incumbent

    from datapipes.datasets.ais import AISMultiShardStream

    count = PAIRS // min(scale, 5)
    one = paired(client, url, 1, count)
    many = paired(client, url, PAIRED_SHARDS, count)
    contenders = [
        Contender("AISMultiShardStream", count_of(lambda: Incumbent(one))),
        Contender("our AISMultiShardStream", count_of(lambda: AISMultiShardStream(many))),
    ]
    title = f"pairs: two series of {PAIRED_SHARDS} shards, {count} members each, of 8 KiB and of a label"
    print_table(title, interleave(contenders, repeats), baseline="AISMultiShardStream", unit="pairs")
