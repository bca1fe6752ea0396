"""AIStore's datasets beside the ones they replace: equal lists, equal signatures, exact resume.

On the embedded server always, and on a real cluster where ``AIS_ENDPOINT`` names one.
"""

from __future__ import annotations

import copy
import inspect
import io
import json
import os
import tarfile
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

sdk = pytest.importorskip("aistore.sdk")
pytest.importorskip("aiohttp", reason="the embedded AIStore needs it")
DataShard = pytest.importorskip("aistore.sdk.dataset.data_shard").DataShard

from datapipes.datasets import ResumableSampler, ais  # noqa: E402
from datapipes.testing.ais_server import AisServer  # noqa: E402

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata's call
]

WORKERS = [0, 2]


class Cluster:
    """Two buckets of objects, two of shards, made by the SDK."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.client = sdk.Client(url)
        tag = uuid.uuid4().hex[:8]
        self.first, self.second, self.shards, self.labels = (
            self.client.bucket(f"dp-{tag}-{name}").create() for name in ("a", "b", "shards", "labels")
        )
        for i in range(12):
            put(self.first, f"train/ü {i:02}?#%+.x", b"a%d" % i * (i + 1))
        for i in range(5):
            put(self.second, f"val/{i}", b"b%d" % i)
        for i in range(4):
            members = [(f"d/{i}-{j}.{kind}", f"{kind} {i} {j}") for kind in kinds(i) for j in range(3)]
            put(self.shards, f"s{i}.tar", packed(members))
            put(self.labels, f"l{i}.tar", packed([(f"{name}.json", name) for name, _ in members]))
        self.group = self.first.objects(obj_names=[f"train/ü {i:02}?#%+.x" for i in (7, 2, 5)])
        self.buckets = [self.first, self.second]

    def close(self) -> None:
        for bucket in (self.first, self.second, self.shards, self.labels):
            bucket.delete()
        self.client._request_client.session_manager.session.close()


def kinds(shard: int) -> list[str]:
    return ["jpg", "cls", "txt"] if shard == 2 else ["jpg", "cls"]


def put(bucket: Any, name: str, data: bytes) -> None:
    bucket.object(name).get_writer().put_content(data)


def packed(members: list[tuple[str, str]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, text in members:
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return out.getvalue()


@pytest.fixture(scope="module", params=["embedded", pytest.param("real", marks=pytest.mark.ais)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if request.param == "real":
        endpoint = os.environ.get("AIS_ENDPOINT")
        if not endpoint:
            pytest.skip("AIS_ENDPOINT names no cluster")
        made = Cluster(endpoint)
        yield made
        made.close()
        return
    # In a process of its own: DataLoader's workers fork.
    with AisServer(tmp_path_factory.mktemp("ais"), process=True) as server:
        made = Cluster(server.url)
        yield made
        made.close()


@pytest.fixture(scope="session")
def incumbent() -> Any:
    pytest.importorskip("alive_progress", reason="aistore.pytorch needs it")
    pytest.importorskip("webdataset", reason="aistore.pytorch needs it")
    module = pytest.importorskip("aistore.pytorch")
    module.AISBatchIterDataset = pytest.importorskip("aistore.pytorch.batch_iter_dataset").AISBatchIterDataset
    return module


def given(dataset: Any, workers: int, **options: Any) -> list[Any]:
    """What a DataLoader gives, without asking for the length first, as list() does."""
    loader: Any = DataLoader(dataset, batch_size=None, num_workers=workers, **options)
    return [item for item in loader]  # noqa: C416 - see above


ITERABLE: dict[str, Callable[[Any, Cluster], Any]] = {
    "iter": lambda module, c: module.AISIterDataset(c.buckets),
    "iter-group": lambda module, c: module.AISIterDataset([c.group, c.second]),
    "iter-prefixes": lambda module, c: module.AISIterDataset(
        c.buckets, {c.first: ["train/ü 1", "train/ü 03"], c.second: None}
    ),
    "iter-partitioned": lambda module, c: module.AISIterDataset(c.buckets, partition_sources_by_worker=True),
    "batch": lambda module, c: module.AISBatchIterDataset(c.buckets, c.client, max_batch_size=4),
    "batch-multipart": lambda module, c: module.AISBatchIterDataset(c.buckets, c.client, streaming=False),
    "batch-zip": lambda module, c: module.AISBatchIterDataset(c.buckets, c.client, output_format=".zip"),
    "shards": lambda module, c: module.AISShardReader(c.shards),
    "streams": lambda module, c: module.AISMultiShardStream(
        [DataShard(c.url, c.shards.name), DataShard(c.url, c.labels.name)]
    ),
}
MAPS: dict[str, Callable[[Any, Cluster], Any]] = {
    "map": lambda module, c: module.AISMapDataset(c.buckets),
    "map-group": lambda module, c: module.AISMapDataset([c.second, c.group]),
    "map-prefix": lambda module, c: module.AISMapDataset(c.first, prefix_map={c.first: "train/ü 0"}),
}


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", ITERABLE)
def test_iterable_datasets_give_what_the_incumbents_give(
    name: str, workers: int, cluster: Cluster, incumbent: Any
) -> None:
    make = ITERABLE[name]
    expected = given(make(incumbent, cluster), workers)
    assert expected
    assert given(make(ais, cluster), workers) == expected


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", MAPS)
def test_map_datasets_give_what_the_incumbents_give(
    name: str, workers: int, cluster: Cluster, incumbent: Any
) -> None:
    own, theirs = MAPS[name](ais, cluster), MAPS[name](incumbent, cluster)
    assert len(own) == len(theirs) > 0
    options: dict[str, Any] = {"batch_size": 3, "num_workers": workers, "collate_fn": list}
    assert list(DataLoader(own, **options)) == list(DataLoader(theirs, **options))


def test_batches_by_bytes_are_the_incumbents(cluster: Cluster, incumbent: Any) -> None:
    for shuffle in (False, True):
        torch.manual_seed(5)
        expected = list(incumbent.DynamicBatchSampler(MAPS["map"](incumbent, cluster), 40, shuffle=shuffle))
        torch.manual_seed(5)
        sampler = ais.DynamicBatchSampler(MAPS["map"](ais, cluster), 40, shuffle=shuffle)
        assert [batch for batch in sampler] == expected  # noqa: C416 - list() asks for the length
    loader = DataLoader(MAPS["map"](ais, cluster), batch_sampler=sampler, num_workers=2, collate_fn=list)
    assert sorted(name for batch in loader for name, _ in batch)[:5] != []


def test_large_objects_come_in_buffers_like_the_incumbents(cluster: Cluster, incumbent: Any) -> None:
    own, theirs = ais.AISParallelMapDataset(cluster.first), incumbent.AISParallelMapDataset(cluster.first)
    name, buffer = own[11]
    expected_name, expected = theirs[11]
    with buffer, expected:
        assert (name, len(buffer), bytes(buffer.buf)) == (expected_name, len(expected), bytes(expected.buf))
    names = [name for name, buffer in DataLoader(own, batch_size=None, num_workers=2) if len(buffer)]
    assert len(names) == 12


@pytest.mark.parametrize("name", ais.__all__)
def test_signatures_take_what_the_incumbents_take(name: str, incumbent: Any) -> None:
    own = inspect.signature(getattr(ais, name)).parameters
    theirs = inspect.signature(getattr(incumbent, name)).parameters
    positional = [each for each in own.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
    assert [each.name for each in positional] == list(theirs)
    for each in positional:
        default = theirs[each.name].default
        if isinstance(default, (list, dict)):  # mutable: ours are None or ()
            assert not each.default
        else:
            assert each.default == default
    assert all(
        each.kind is each.KEYWORD_ONLY or each.kind is each.VAR_KEYWORD
        for each in [*own.values()][len(theirs) :]
    )


@pytest.mark.parametrize("name", ais.__all__)
def test_methods_of_the_incumbents_are_there(name: str, incumbent: Any) -> None:
    theirs = {each for each in vars(getattr(incumbent, name)) if not each.startswith(("__", "_abc"))}
    ours = set(dir(getattr(ais, name)))
    assert theirs - ours <= {"_get_next_index"}  # of the sampler's loop


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
def test_datasets_work_under_every_start_method(cluster: Cluster, context: str) -> None:
    for make in (ITERABLE["iter"], ITERABLE["shards"], MAPS["map"]):
        dataset = make(ais, cluster)
        alone = given(dataset, 0)
        assert len(given(dataset, 2, multiprocessing_context=context)) == len(alone)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("name", ["iter", "batch", "iter-partitioned", "shards", "streams"])
def test_iterable_datasets_resume_at_every_item(name: str, workers: int, cluster: Cluster) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata 0.11")

    def make() -> Any:
        return stateful.StatefulDataLoader(ITERABLE[name](ais, cluster), batch_size=None, num_workers=workers)

    loader = make()
    states, items = [], []
    for item in loader:
        items.append(item)
        states.append(copy.deepcopy(loader.state_dict()))
    for taken, state in enumerate(states):
        again = make()
        again.load_state_dict(state)
        assert [item for item in again] == items[taken + 1 :]  # noqa: C416 - list() asks for the length
    json.dumps(states[0])


@pytest.mark.parametrize(("workers", "persistent"), [(0, False), (2, False), (2, True)])
@pytest.mark.parametrize("name", ["iter", "shards", "streams"])
def test_the_epoch_after_a_state_of_the_end_is_the_one_that_would_have_come(
    name: str, workers: int, persistent: bool, cluster: Cluster
) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata 0.11")

    def make() -> Any:
        return stateful.StatefulDataLoader(
            ITERABLE[name](ais, cluster), batch_size=None, num_workers=workers, persistent_workers=persistent
        )

    def epoch(loader: Any) -> list[Any]:
        return [item for item in loader]  # noqa: C416 - list() asks for the length

    loader = make()
    assert epoch(loader)
    state = copy.deepcopy(loader.state_dict())
    expected = epoch(loader)
    again = make()
    again.load_state_dict(state)
    assert epoch(again) == expected


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("sampled", ["resumable", "dynamic", "dynamic-shuffled"])
def test_map_datasets_resume_at_every_batch(sampled: str, workers: int, cluster: Cluster) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader", reason="needs torchdata 0.11")

    def make() -> Any:
        dataset = MAPS["map"](ais, cluster)
        sampler: Any = (
            ResumableSampler(dataset, seed=1, batch_size=3)
            if sampled == "resumable"
            else ais.DynamicBatchSampler(dataset, 30, shuffle=sampled != "dynamic")
        )
        return stateful.StatefulDataLoader(
            dataset, batch_sampler=sampler, num_workers=workers, collate_fn=list
        )

    loader = make()
    states, batches = [], []
    for batch in loader:
        batches.append(batch)
        states.append(copy.deepcopy(loader.state_dict()))
    for taken, state in enumerate(states):
        again = make()
        again.load_state_dict(state)
        assert [batch for batch in again] == batches[taken + 1 :]  # noqa: C416 - see above
