"""The unmodified datasets of ``aistore.pytorch`` on the embedded server."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from datapipes.testing.ais_server import AisServer

from . import etls

pytest.importorskip("torch")
pytest.importorskip("alive_progress", reason="aistore.pytorch needs it")
pytest.importorskip("webdataset", reason="aistore.pytorch needs it")
sdk = pytest.importorskip("aistore.sdk")
pytorch = pytest.importorskip("aistore.pytorch")
batches = pytest.importorskip("aistore.pytorch.batch_iter_dataset")
DataShard = pytest.importorskip("aistore.sdk.dataset.data_shard").DataShard

OBJECTS = {f"train/o{i:02d}": b"content %d" % i for i in range(20)}


def shard(number: int) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for i in range(4):
            for extension, data in (("jpg", b"image %d" % i), ("cls", b"%d" % number)):
                info = tarfile.TarInfo(f"s{number}-{i}.{extension}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return packed.getvalue()


@pytest.fixture(scope="module")
def seeded(process_server: AisServer) -> AisServer:
    """In a process of its own: DataLoader's workers fork."""
    for name, data in OBJECTS.items():
        process_server.store.put("b", name, data)
    for i in range(3):
        process_server.store.put("shards", f"s{i}.tar", shard(i))
    process_server.register_etl("to-upper", etls.upper)
    return process_server


@pytest.fixture
def client(seeded: AisServer) -> Iterator[Any]:
    made = sdk.Client(seeded.url)
    yield made
    made._request_client.session_manager.session.close()


def test_map_dataset_reads_every_object(client: Any) -> None:
    bucket = client.bucket("b")
    dataset = pytorch.AISMapDataset([bucket], prefix_map={bucket: "train/"})
    assert [dataset[i] for i in range(len(dataset))] == list(OBJECTS.items())


@pytest.mark.parametrize("workers", [0, 2])
def test_iter_dataset_reads_every_object(client: Any, workers: int) -> None:
    from torch.utils.data import DataLoader

    dataset = pytorch.AISIterDataset([client.bucket("b")])
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=None, num_workers=workers)
    assert dict(loader) == OBJECTS


def test_datasets_read_through_an_etl(client: Any) -> None:
    dataset = pytorch.AISIterDataset([client.bucket("b")], etl_name="to-upper")
    assert dict(dataset) == {name: data.upper() for name, data in OBJECTS.items()}


@pytest.mark.parametrize("streaming", [False, True])
def test_batch_dataset_reads_every_object(client: Any, streaming: bool) -> None:
    dataset = batches.AISBatchIterDataset([client.bucket("b")], client, max_batch_size=6, streaming=streaming)
    assert list(dataset) == list(OBJECTS.items())


def test_shard_reader_reads_every_sample(client: Any) -> None:
    reader = pytorch.AISShardReader([client.bucket("shards")])
    samples = [sample for sample in reader]  # noqa: C416 -- list() asks for its length, which 2.0.0 cannot tell
    assert len(samples) == 12
    name, content = samples[5]
    assert name == "s1-1"
    assert dict(content) == {"jpg": b"image 1", "cls": b"1"}


def test_multishard_stream_pairs_members(seeded: AisServer) -> None:
    sources = [DataShard(seeded.url, "shards", prefix=prefix) for prefix in ("s0.tar", "s1.tar")]
    pairs = list(pytorch.AISMultiShardStream(sources))
    for source in sources:
        source.client._request_client.session_manager.session.close()
    assert len(pairs) == 8
    assert {second for _, second in pairs} >= {b"1", b"image 3"}


def test_parallel_map_dataset_reads_every_object(client: Any) -> None:
    dataset = pytorch.AISParallelMapDataset([client.bucket("b")], num_workers=2)
    name, buffer = dataset[3]
    with buffer:
        assert (name, buffer.tobytes()) == ("train/o03", OBJECTS["train/o03"])
