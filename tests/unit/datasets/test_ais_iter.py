"""AISIterDataset, AISBatchIterDataset and their base on the embedded AIStore."""

from __future__ import annotations

import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datapipes.errors import FileMissingError, OptionError, StateError

sdk = pytest.importorskip("aistore.sdk")
pytest.importorskip("aiohttp", reason="the embedded AIStore needs it")

from datapipes.datasets import ais  # noqa: E402
from datapipes.datasets.ais import (  # noqa: E402
    AISBaseIterDataset,
    AISBatchIterDataset,
    AISIterDataset,
    AISMapDataset,
)
from datapipes.testing.ais_server import AisServer  # noqa: E402

OBJECTS = {f"train/{i:02}": b"content %d" % i for i in range(12)}
PAIRS = list(OBJECTS.items())


def upper(data: bytes, args: str) -> bytes:
    return data.upper()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AisServer]:
    with AisServer(tmp_path_factory.mktemp("ais")) as server:
        for name, data in OBJECTS.items():
            server.store.put("b", name, data)
        server.register_etl("to-upper", upper)
        yield server


@pytest.fixture
def holey(client: Any) -> Any:
    """A group with an object that is not there."""
    return client.bucket("b").objects(obj_names=[PAIRS[0][0], "gone", PAIRS[1][0]])


def given(dataset: Any) -> list[Any]:
    """Without asking for the length first, as list() does."""
    return [item for item in dataset]  # noqa: C416 - see above


def test_nothing_is_asked_before_the_first_item(client: Any, server: AisServer) -> None:
    before = len(server.requests())
    dataset = AISIterDataset(client.bucket("nowhere"))
    walk = iter(dataset)
    walk.state_dict()  # type: ignore[attr-defined]
    assert len(server.requests()) == before
    with pytest.raises(sdk.errors.ErrBckNotFound):
        next(walk)


def test_objects_come_in_the_order_of_the_listing(client: Any) -> None:
    dataset = AISIterDataset([client.bucket("b")], max_in_flight=3, max_buffer_bytes=20)
    assert given(dataset) == given(dataset) == PAIRS
    assert len(dataset) == 12


def test_an_etl_is_applied(client: Any) -> None:
    dataset = AISIterDataset(client.bucket("b"), etl_name="to-upper")
    assert given(dataset) == [(name, data.upper()) for name, data in PAIRS]


def test_a_prefix_may_be_one_or_several(client: Any) -> None:
    bucket = client.bucket("b")
    assert given(AISIterDataset(bucket, {bucket: "train/1"})) == PAIRS[10:]
    assert given(AISIterDataset(bucket, {bucket: ["train/1", "train/00"]})) == [*PAIRS[10:], PAIRS[0]]


def test_progress_is_shown_by_tqdm(client: Any, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm")
    assert given(AISIterDataset(client.bucket("b"), show_progress=True)) == PAIRS
    assert "AISIterDataset" in capfd.readouterr().err


def test_an_exception_ends_the_iteration_and_its_state_is_the_one_before(client: Any, holey: Any) -> None:
    walk: Any = iter(AISIterDataset(holey))
    assert next(walk) == PAIRS[0]
    with pytest.raises(FileMissingError, match="gone") as raised:
        next(walk)
    assert isinstance(raised.value, sdk.errors.AISError)
    state = walk.state_dict()
    assert list(walk) == []
    assert (state["position"], state["finished"]) == (1, False)


@pytest.mark.parametrize("batched", [False, True])
def test_a_state_goes_on_anywhere_and_reads_nothing_twice(
    client: Any, server: AisServer, batched: bool
) -> None:
    def make() -> Any:
        bucket = client.bucket("b")
        return AISBatchIterDataset(bucket, client, batch_reads=True) if batched else AISIterDataset(bucket)

    walk = iter(make())
    states = [walk.state_dict(), *(json.loads(json.dumps(walk.state_dict())) for _ in walk)]
    for taken, state in enumerate(states):
        before = len(server.requests())
        again = iter(make())
        again.load_state_dict(state)
        assert again.state_dict() == state
        assert list(again) == PAIRS[taken:]
        read = {request.name for request in server.requests()[before:] if request.name}
        rest = {name for name, _ in PAIRS[taken:]}
        assert read <= rest if batched else read == rest  # what a batch gives is no request of its own
    finished = iter(make())
    finished.load_state_dict(walk.state_dict())
    assert list(finished) == PAIRS  # the next epoch


def test_a_state_of_other_data_or_another_dataset_is_refused(client: Any) -> None:
    bucket = client.bucket("b")
    walk: Any = iter(AISIterDataset(bucket))
    next(walk)
    for other in ({bucket: "train/1"}, {bucket: "no"}):
        again: Any = iter(AISIterDataset(bucket, other))
        again.load_state_dict(walk.state_dict())
        with pytest.raises(StateError, match="other data"):
            next(again)
    with pytest.raises(StateError, match="another pipeline"):
        iter(AISBatchIterDataset(bucket, client)).load_state_dict(walk.state_dict())  # type: ignore[attr-defined]


class Calls(AISIterDataset):
    """Overrides what the incumbent lets be overridden, and notes the calls."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.calls: list[str] = []

    def _create_objects_iter(self, sources: Any = None) -> Any:
        self.calls.append("create")
        for thing in super()._create_objects_iter(sources):
            self.calls.append(f"object {type(thing).__name__}")
            yield thing

    def _reset_iterator(self) -> None:
        self.calls.append("reset")
        super()._reset_iterator()

    def _get_worker_iter_info(self) -> Any:
        self.calls.append("worker")
        return super()._get_worker_iter_info()


def test_overridden_methods_are_called_in_order_and_see_every_object(client: Any) -> None:
    dataset = Calls(client.bucket("b"))
    assert given(dataset) == PAIRS
    assert dataset.calls == ["reset", "worker", "create", *["object Object"] * 12]
    assert len(dataset) == 12


class OwnObject:
    def __init__(self, name: str) -> None:
        self.name = name

    def get_reader(self, etl: Any = None) -> OwnObject:
        assert etl.name is None
        return self

    def read_all(self) -> bytes:
        return b"own"


class OwnSource(sdk.AISSource):  # type: ignore[misc, name-defined]
    def __init__(self, bucket: Any) -> None:
        self.bucket = bucket

    @property
    def client(self) -> Any:
        return self.bucket.client

    def list_all_objects_iter(self, prefix: str = "", props: str = "name,size") -> Any:
        yield OwnObject("first")
        yield from self.bucket.list_all_objects_iter(prefix, props)
        yield OwnObject("last")

    def list_urls(self, prefix: str = "", etl: Any = None) -> Any:
        raise NotImplementedError


def test_users_sources_may_give_anything_that_has_a_reader(client: Any) -> None:
    source = OwnSource(client.bucket("b"))
    expected = [("first", b"own"), *PAIRS, ("last", b"own")]
    assert given(AISIterDataset(source)) == expected
    assert given(AISBatchIterDataset([source], client)) == expected


class Squared(AISBaseIterDataset):
    def __iter__(self) -> Iterator[Any]:
        self._reset_iterator()
        objects, worker = self._get_worker_iter_info()
        assert worker == ""
        for thing in objects:
            yield thing.name, thing.get_reader().read_all()


def test_the_base_is_extended_as_before(client: Any) -> None:
    assert given(Squared(client.bucket("b"))) == PAIRS


def test_an_iterator_shared_by_threads_gives_each_object_once(client: Any, shared_by_threads: Any) -> None:
    dataset = AISIterDataset([client.bucket("b")])
    for _ in range(20):
        assert sorted(shared_by_threads(iter(dataset)), key=str) == PAIRS


def test_a_dataset_travels_by_pickle(client: Any) -> None:
    dataset = pickle.loads(pickle.dumps(AISIterDataset([client.bucket("b")])))
    assert given(dataset) == PAIRS


@pytest.mark.parametrize(
    "options",
    [{}, {"batch_reads": True}, {"streaming": False, "batch_reads": True}, {"output_format": ".zip"}],
    ids=str,
)
def test_a_missing_object_of_a_batch_raises_is_logged_or_dropped(
    client: Any, holey: Any, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    bucket = client.bucket("b")
    lister = type("Holey", (AISBatchIterDataset,), {"_create_objects_iter": _holey})
    with pytest.raises(FileMissingError, match="gone"):
        given(lister(bucket, client, **options))
    with caplog.at_level(logging.WARNING):
        assert given(lister(bucket, client, cont_on_err=True, **options)) == PAIRS[:2]
    assert "Skipping gone" in caplog.text
    caplog.clear()
    assert given(lister(bucket, client, drop_missing=True, **options)) == PAIRS[:2]
    assert "gone" not in caplog.text


def _holey(self: Any, sources: Any = None) -> Any:
    [bucket] = self._ais_source_list
    for name in (PAIRS[0][0], "gone", PAIRS[1][0]):
        yield bucket.object(name)


def test_get_batch_is_used_when_asked_for_and_only_then(client: Any, server: AisServer) -> None:
    bucket = client.bucket("b")
    for options, batches in (
        ({}, 0),
        ({"max_batch_size": 5}, 0),
        ({"max_batch_size": np.int64(5)}, 0),
        ({"batch_reads": True, "max_batch_size": 5}, 3),
        ({"output_format": ".zip"}, 1),
        ({"colocation": sdk.enums.Colocation.TARGET_AWARE}, 1),
    ):
        before = _batches(server)
        assert given(AISBatchIterDataset(bucket, client, **options)) == PAIRS
        assert _batches(server) - before == batches, options


def _batches(server: AisServer) -> int:
    """Those at the proxy, which sends them on to a target."""
    return sum(request.kind == "proxy" and "/v1/ml/moss" in request.path for request in server.requests())


@pytest.mark.parametrize("options", [{}, {"streaming": False}], ids=str)
def test_what_a_broken_answer_of_get_batch_lacks_is_read_singly(
    client: Any, server: AisServer, options: Any, caplog: pytest.LogCaptureFixture
) -> None:
    server.truncate(3000, times=1)
    before = len(server.requests())
    with caplog.at_level(logging.WARNING):
        assert given(AISBatchIterDataset(client.bucket("b"), client, batch_reads=True, **options)) == PAIRS
    assert {request.name for request in server.requests()[before:]} >= {PAIRS[-1][0]}
    assert ("broke off" in caplog.text) == bool(options)  # the SDK's answer is lost as a whole


class Processed(AISBatchIterDataset):
    def _process_batch(self, batch_objects: list[Any]) -> Iterator[Any]:
        assert all(type(thing).__name__ == "Object" for thing in batch_objects)
        yield len(batch_objects)
        for name, data in super()._process_batch(batch_objects):
            yield name, len(data)


def test_an_overridden_process_batch_is_given_objects_and_resumes(client: Any) -> None:
    def make() -> Any:
        return Processed(client.bucket("b"), client, max_batch_size=5)

    expected: list[Any] = []
    for start in (0, 5, 10):
        batch = PAIRS[start : start + 5]
        expected += [len(batch), *((name, len(data)) for name, data in batch)]
    walk = iter(make())
    states, items = [walk.state_dict()], []
    for item in walk:
        items.append(item)
        states.append(walk.state_dict())
    assert items == expected
    for taken, state in enumerate(states):
        again = iter(make())
        again.load_state_dict(state)
        assert list(again) == expected[taken:]


@pytest.mark.parametrize("wrong", [["a"], "a", {"bucket": 3}, {"bucket": ["a", None]}, 0])
def test_a_prefix_map_that_maps_nothing_is_refused(client: Any, wrong: Any) -> None:
    bucket = client.bucket("b")
    if isinstance(wrong, dict):
        wrong = {bucket: wrong["bucket"]}
    for make in (AISIterDataset, AISMapDataset):
        with pytest.raises(OptionError, match="prefix_map"):
            make(bucket, prefix_map=wrong)


@pytest.mark.parametrize("wrong", [9, -1, "target"])
def test_a_colocation_that_the_cluster_does_not_know_is_refused(client: Any, wrong: Any) -> None:
    with pytest.raises(OptionError, match="colocation"):
        AISBatchIterDataset(client.bucket("b"), client, colocation=wrong)


def test_what_1_x_had_is_refused_with_what_to_do(client: Any) -> None:
    with pytest.raises(TypeError, match="max_batch_size"):
        AISBatchIterDataset(client.bucket("b"), client, batch_size=3)
    former = type("Former", (AISIterDataset,), {"_get_sample_iter_from_source": lambda *_: None})
    with pytest.raises(TypeError, match="_create_objects_iter"):
        former(client.bucket("b"))
    with pytest.raises(ImportError, match="usual client"):
        ais.WorkerRequestClient  # noqa: B018
    with pytest.raises(AttributeError, match="no attribute"):
        ais.Nothing  # noqa: B018


def test_the_token_of_the_sources_client_is_used(tmp_path: Path) -> None:
    with AisServer(tmp_path, token="secret") as server:
        server.store.put("b", "x", b"content")
        client = sdk.Client(server.url, token="secret")
        assert given(AISIterDataset(client.bucket("b"))) == [("x", b"content")]
        client._request_client.session_manager.session.close()
        stranger = sdk.Client(server.url)
        with pytest.raises(PermissionError):
            given(AISIterDataset(stranger.bucket("b")))
        stranger._request_client.session_manager.session.close()


class Decoded(AISIterDataset):
    def __iter__(self) -> Iterator[Any]:
        for name, data in super().__iter__():
            yield name, len(data)


def test_an_overridden_iter_may_build_on_ours(client: Any) -> None:
    assert given(Decoded(client.bucket("b"))) == [(name, len(data)) for name, data in PAIRS]


def test_an_iteration_that_is_dropped_or_closed_reads_no_more(client: Any, server: AisServer) -> None:
    walk: Any = iter(AISIterDataset(client.bucket("b"), max_in_flight=2))
    assert next(walk) == PAIRS[0]
    state = walk.state_dict()
    walk.close()
    assert list(walk) == []
    assert walk.state_dict() == state
    again: Any = iter(AISIterDataset(client.bucket("b")))
    again.load_state_dict(state)
    assert list(again) == PAIRS[1:]
