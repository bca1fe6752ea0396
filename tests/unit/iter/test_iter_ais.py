"""Pipes and nodes of AIStore, over an embedded cluster."""

from __future__ import annotations

import contextlib
import inspect
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("aistore", reason="needs the ais extra")
pytest.importorskip("pycurl", reason="needs the ais extra")
pytest.importorskip("aiohttp", reason="needs the ais-server extra")

from aistore.sdk import Client
from aistore.sdk.errors import AISError, ErrBckNotFound, ErrObjNotFound
from torch.utils.data import DataLoader
from torch.utils.data.datapipes.utils.common import StreamWrapper

from datapipes.errors import ContainerMissingError, FileMissingError, OptionError, UrlError
from datapipes.iter import (
    AISFileLister,
    AISFileListerIterDataPipe,
    AISFileLoader,
    AISFileLoaderIterDataPipe,
    AISSourceLister,
    IterableWrapper,
)
from datapipes.records import FileEntry
from datapipes.testing.ais_server import AisServer
from datapipes.testing.ais_server.names import Bck

FILES = {f"train/{i % 3}/{i:03}.bin": b"%d " % i * (i + 1) for i in range(60)}
NAMES = sorted(FILES)


@pytest.fixture(scope="module")
def served() -> Iterator[AisServer]:
    with AisServer(process=True) as server:
        server.store.create_bucket("data")
        for name, content in FILES.items():
            server.store.put("data", name, content)
        yield server


@pytest.fixture
def server(served: AisServer) -> AisServer:
    served.clear()
    return served


def urls(names: list[str] = NAMES) -> list[str]:
    return [f"ais://data/{name}" for name in names]


def test_torchdatas_parameters_stand_in_their_order() -> None:
    def first(cls: Any, count: int) -> list[Any]:
        parameters = list(inspect.signature(cls).parameters.values())
        assert all(p.kind is p.KEYWORD_ONLY for p in parameters[count:])
        return [p.name for p in parameters[:count]]

    assert first(AISFileLister, 3) == ["source_datapipe", "url", "length"]
    assert first(AISFileLoader, 4) == ["source_datapipe", "url", "length", "etl_name"]
    assert first(AISSourceLister, 3) == ["ais_sources", "prefix", "etl_name"]
    assert AISFileListerIterDataPipe is AISFileLister
    assert AISFileLoaderIterDataPipe is AISFileLoader


def test_old_pipelines_run_unchanged(server: AisServer) -> None:
    prefixes = IterableWrapper(["ais://data/train/0", "ais://data/train/1/"])
    listed = AISFileLister(url=server.url, source_datapipe=prefixes)
    loaded = AISFileLoader(url=server.url, source_datapipe=listed)
    wanted = [name for name in NAMES if not name.startswith("train/2")]
    items = list(loaded)
    assert [url for url, _ in items] == urls(wanted)
    assert all(type(stream) is StreamWrapper for _, stream in items)
    assert [stream.read() for _, stream in items] == [FILES[name] for name in wanted]
    assert list(prefixes.ais_list_files(server.url).ais_load_files(server.url, output="bytes")) == [
        (url, FILES[name]) for url, name in zip(urls(wanted), wanted, strict=True)
    ]


def test_lengths_are_torchdatas(server: AisServer) -> None:
    listed = IterableWrapper(["ais://data/"]).list_files_by_ais(server.url)
    with pytest.raises(TypeError, match="doesn't have valid length"):
        len(listed)
    assert len(IterableWrapper(["ais://data/"]).list_files_by_ais(server.url, 60)) == 60
    with pytest.raises(TypeError):
        len(listed.load_files_by_ais(server.url))
    assert len(IterableWrapper(urls()).load_files_by_ais(server.url)) == 60
    assert len(listed.load_files_by_ais(server.url, 7)) == 7
    with pytest.raises(TypeError):
        len(AISSourceLister([]))


def test_a_length_of_minus_one_is_none_and_no_other_is_negative() -> None:
    assert len(AISFileLoader(["ais://data/x"], "p", length=-1)) == 1  # that of the source
    for face in AISFileLister, AISFileLoader:
        assert len(face(["ais://data/x"], "p", length=7)) == 7
        for wrong in (-5, 1.5, "3"):
            with pytest.raises(OptionError, match="length"):
                face(["ais://data/x"], "p", length=wrong)  # type: ignore[arg-type]  # the mistake


def test_an_endpoint_needs_no_scheme_and_may_come_from_the_environment(
    server: AisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = server.url.removeprefix("http://")
    assert list(AISFileLister("ais://data/train/0/", bare)) == urls(NAMES[:20])
    monkeypatch.delenv("AIS_ENDPOINT", raising=False)
    with pytest.raises(OptionError, match="AIS_ENDPOINT"):
        AISFileLister("ais://data/")
    monkeypatch.setenv("AIS_ENDPOINT", server.url)
    assert list(AISFileLister("ais://data/train/0/")) == urls(NAMES[:20])
    contents = [data for _, data in AISFileLoader(urls()[:3], output="bytes")]
    assert contents == [FILES[name] for name in NAMES[:3]]


def test_our_options_of_listing(server: AisServer) -> None:
    source = IterableWrapper(["ais://data/train/"])
    masked = source.list_files_by_ais(server.url, masks=["*0.bin", "*1.bin"])
    assert list(masked) == urls([name for name in NAMES if name[-5] in "01"])
    entries = list(source.list_files_by_ais(server.url, entries=True))
    assert entries == [FileEntry(url, len(FILES[name])) for url, name in zip(urls(), NAMES, strict=True)]
    names = list(source.list_files_by_ais(server.url, entries=True, sizes=False))
    assert names == [FileEntry(url, -1) for url in urls()]
    assert list(source.list_files_by_ais(server.url, recursive=False)) == []


def test_names_are_listed_once_for_all_epochs_and_workers(server: AisServer) -> None:
    pipe = IterableWrapper(["ais://data/"]).list_files_by_ais(server.url).sharding_filter()
    loader = DataLoader(pipe, num_workers=2, batch_size=None)
    server.requests()
    for _ in range(2):
        assert sorted(loader) == urls()
    lists = [r for r in server.requests() if r.method == "GET" and r.path.startswith("/v1/buckets/data")]
    assert len(lists) <= 2


@pytest.mark.parametrize("workers", [0, 2])
def test_the_main_pipeline_gives_every_object_once(server: AisServer, workers: int) -> None:
    dp = (
        IterableWrapper(["ais://data/train/"])
        .list_files_by_ais(url=server.url)
        .shuffle()
        .sharding_filter()
        .load_files_by_ais(url=server.url, max_in_flight=8, output="bytes")
    )
    items = [tuple(item) for item in DataLoader(dp, num_workers=workers, batch_size=None)]
    assert sorted(items) == [(url, FILES[name]) for url, name in zip(urls(), NAMES, strict=True)]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("stop", [0, 1, 17, 59, 60])
def test_a_resumable_pipeline_goes_on_exactly(server: AisServer, workers: int, stop: int) -> None:
    torchdata = pytest.importorskip("torchdata.stateful_dataloader")

    def loader() -> Any:
        dp = (
            IterableWrapper(["ais://data/"])
            .list_files_by_ais(url=server.url)
            .shuffle_files(seed=3)
            .shard_files()
            .load_files_by_ais(url=server.url, max_in_flight=8, output="bytes")
        )
        return torchdata.StatefulDataLoader(dp.resumable(), batch_size=None, num_workers=workers)

    whole = list(loader())
    assert len({url for url, _ in whole}) == 60
    first = loader()
    items = iter(first)
    head = [next(items) for _ in range(stop)]
    state = pickle.loads(pickle.dumps(first.state_dict()))
    second = loader()
    second.load_state_dict(state)
    rest = list(second)
    assert head + (rest if stop < 60 else []) == whole


def test_what_the_sdks_sources_list_can_be_loaded(server: AisServer) -> None:
    bucket = Client(server.url).bucket("data")
    listed = AISSourceLister([bucket, bucket.object(NAMES[3])], prefix="train/1")
    names = [name for name in NAMES if name.startswith("train/1")]
    found = list(listed)
    assert found[: len(names)] == [bucket.object(name).get_url() for name in names]
    loaded = IterableWrapper(found[:10]).load_files_by_ais(server.url, output="bytes")
    assert list(loaded) == [(url, FILES[name]) for url, name in zip(found, names[:10], strict=False)]
    group = bucket.objects(obj_names=NAMES[5:8])
    assert list(IterableWrapper([group], deepcopy=False).ais_list_sources()) == [
        bucket.object(name).get_url() for name in NAMES[5:8]
    ]
    with pytest.raises(OptionError, match="AISSource"):
        list(AISSourceLister(["ais://data"]))


def upper(data: bytes) -> bytes:
    return data.replace(b" ", b"_")


def test_an_etl_is_applied_by_name(server: AisServer) -> None:
    server.register_etl("underline", upper)
    loaded = AISFileLoader(urls()[:5], server.url, etl_name="underline", output="bytes")
    assert [data for _, data in loaded] == [upper(FILES[name]) for name in NAMES[:5]]
    bucket = Client(server.url).bucket("data")
    made = AISSourceLister([bucket], prefix="train/0/00", etl_name="underline")
    contents = [data for _, data in made.load_files_by_ais(server.url, output="bytes")]
    assert contents == [upper(FILES[name]) for name in NAMES if name.startswith("train/0/00")]


def test_a_missing_bucket_is_the_sdks_error_and_ours(server: AisServer) -> None:
    for pipe in (
        IterableWrapper(["ais://nothing/"]).list_files_by_ais(server.url),
        IterableWrapper(["ais://nothing/a"]).load_files_by_ais(server.url),
    ):
        with pytest.raises(ErrBckNotFound) as caught:
            list(pipe)
        assert isinstance(caught.value, ContainerMissingError)
        assert isinstance(caught.value, AISError)


def test_a_missing_object_is_the_error_of_that_item(server: AisServer) -> None:
    source = [*urls()[:3], "ais://data/nothing", *urls()[3:6]]
    pipe = IterableWrapper(source).load_files_by_ais(server.url, on_error="skip", output="bytes")
    assert [url for url, _ in pipe] == urls()[:6]
    assert pipe.stats()["skipped"] == 1
    with pytest.raises(ErrObjNotFound) as caught:
        list(IterableWrapper(source).load_files_by_ais(server.url))
    assert isinstance(caught.value, FileMissingError)
    assert caught.value.url == "ais://data/nothing"


@pytest.mark.parametrize("url", ["aws:bucket/folder/", "daos://a/b/c", "/plain/path", "ais://", "http://x/y"])
def test_a_malformed_or_foreign_url_is_refused_at_once(server: AisServer, url: str) -> None:
    with pytest.raises(UrlError) as caught:
        AISFileLoader([url], server.url)
    assert isinstance(caught.value, AISError)


def test_a_token_reaches_the_cluster_and_nobody_else() -> None:
    with AisServer(token="secret") as guarded, AisServer() as foreign:
        for server in (guarded, foreign):
            server.store.create_bucket("data")
            for name, content in FILES.items():
                server.store.put("data", name, content)

        def load() -> list[Any]:
            listed = IterableWrapper(["ais://data/"]).list_files_by_ais(guarded.url, token="secret")
            return list(listed.load_files_by_ais(guarded.url, token="secret", output="bytes"))

        assert [url for url, _ in load()] == urls()
        with pytest.raises(PermissionError):
            list(IterableWrapper(["ais://data/"]).list_files_by_ais(guarded.url))
        guarded.redirect_to(foreign.target_urls[0])
        guarded.fail(404, method="GET", name="data/*", node="target")
        with contextlib.suppress(OSError):  # whether a stranger has such objects or not
            load()
        assert foreign.requests()
        assert not any(request.authorization for request in foreign.requests())


@pytest.mark.parametrize("trouble", ["target down", "target gone from the map", "no direct access"])
def test_objects_come_through_the_proxy_where_they_must(server: AisServer, trouble: str) -> None:
    try:
        if trouble == "target down":
            server.fail(503, node="1", name="data/*", times=30)
        elif trouble == "target gone from the map":
            server.set_in_map(1, present=False)
        else:
            server.refuse_direct()
        pipe = IterableWrapper(urls() * 3).load_files_by_ais(server.url, output="bytes", max_in_flight=16)
        assert [data for _, data in pipe] == [FILES[name] for name in NAMES] * 3
    finally:
        server.set_in_map(1, present=True)
        server.refuse_direct(0)


def test_objects_of_a_store_behind_the_cluster_come_through_the_proxy(server: AisServer) -> None:
    bucket = Bck("cloud", "aws")
    server.store.create_bucket(bucket)
    for name in NAMES[:20]:
        server.store.put(bucket, name, FILES[name])
    server.make_cold(bucket)
    listed = IterableWrapper(["s3://cloud/train/"]).list_files_by_ais(server.url)
    contents = list(listed.load_files_by_ais(server.url, output="bytes"))
    assert contents == [(f"s3://cloud/{name}", FILES[name]) for name in NAMES[:20]]
    gets = [r for r in server.requests() if r.method == "GET" and r.name and r.kind == "proxy"]
    assert len(gets) == 20


def test_nodes_give_what_the_pipes_give(server: AisServer) -> None:
    torchdata_nodes = pytest.importorskip("torchdata.nodes")
    from datapipes import nodes

    node = nodes.AISFileLoader(
        nodes.FileShuffler(nodes.AISFileLister("ais://data/", server.url), seed=4), server.url
    )
    pipe = IterableWrapper(["ais://data/"]).list_files_by_ais(server.url).shuffle_files(seed=4)
    assert list(torchdata_nodes.Loader(node)) == list(pipe.load_files_by_ais(server.url, output="bytes"))
    bucket = Client(server.url).bucket("data")
    assert list(nodes.AISSourceLister([bucket])) == list(AISSourceLister([bucket]))
