"""One AIStore cluster: its specification, its map, its buckets, who owns what, and who sees the token."""

from __future__ import annotations

import contextlib
import http.client
import os
import pickle
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar
from urllib.parse import urlsplit

import pytest

pytest.importorskip("aistore")
pytest.importorskip("aiohttp")

from datapipes.backends.ais import AisBackend, from_options
from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_map import BucketFacts, map_from_sdk, normal_endpoint, origin_of
from datapipes.backends.ais_names import AisName, object_path, parse_ais_url
from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    ContainerMissingError,
    OptionError,
    StoreConnectionError,
    StoreTimeoutError,
)
from datapipes.records import ReadRequest
from datapipes.testing.ais_server import AisServer

BUCKET = AisName("ais", "", "b", "")
SETTINGS = (
    "AIS_ENDPOINT",
    "AIS_AUTHN_TOKEN",
    "AIS_CRT",
    "AIS_CRT_KEY",
    "AIS_CLIENT_CA",
    "AIS_SKIP_VERIFY_CRT",
)


@pytest.fixture(autouse=True)
def own_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AisServer]:
    with AisServer(tmp_path_factory.mktemp("ais"), targets=3) as running:
        AisCluster(running.url).opened().client.bucket("b").create()
        yield running


@pytest.fixture
def cluster(server: AisServer) -> AisCluster:
    server.clear()
    return AisCluster(server.url, refresh_s=0.2, retry_budget_s=2)


def asked(server: AisServer, node: str = "proxy") -> int:
    return sum(count for kind, count in server.counts().items() if kind.startswith(node))


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("localhost:8080", "http://localhost:8080"),
        ("http://p:1/", "http://p:1"),
        ("https://p", "https://p"),
        ("[::1]:80", "http://[::1]:80"),
        ("http://gateway/ais/", "http://gateway/ais"),
    ],
)
def test_endpoint_gets_a_scheme_and_loses_its_slash(text: str, endpoint: str) -> None:
    assert normal_endpoint(text) == endpoint
    assert AisCluster(text).endpoint == endpoint


@pytest.mark.parametrize(
    "text",
    ["ftp://p", "http://", "http://u:p@h", "h h", "http://p?x", "http://p:99999999", "a/b#c", "http://p\r\n"],
)
def test_endpoint_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(OptionError):
        AisCluster(text)


def test_options_of_another_type_are_refused() -> None:
    with pytest.raises(OptionError, match="endpoint"):
        AisCluster(8080)  # type: ignore[arg-type]  # the mistake
    for name, wrong in (
        ("token", b"secret"),
        ("ca_cert", 1),
        ("client_cert", ("a", "b", "c")),
        ("client_cert", ("a", 2)),
        ("skip_verify", "no"),
        ("direct", None),
        ("http2", "1.1"),
    ):
        with pytest.raises(OptionError, match=name) as caught:
            AisCluster("p", **{name: wrong})  # type: ignore[arg-type]  # the mistake
        assert "secret" not in str(caught.value)
    with pytest.raises(OptionError, match="etl_name"):
        from_options(endpoint="http://proxy:8080", etl_name=3)  # type: ignore[arg-type]  # the mistake


def test_endpoint_is_taken_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="AIS_ENDPOINT"):
        AisCluster()
    monkeypatch.setenv("AIS_ENDPOINT", "proxy:8080")
    assert AisCluster().endpoint == "http://proxy:8080"


@pytest.mark.parametrize(
    "options", [{"timeout_s": -1}, {"timeout_s": (1, -1)}, {"retry_budget_s": -1}, {"refresh_s": -1}]
)
def test_absurd_option_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        AisCluster("p", **options)


def test_address_has_its_schemes_port() -> None:
    assert origin_of("http://Host/x") == ("http", "host", 80)
    assert origin_of("https://h:51080") == ("https", "h", 51080)
    assert origin_of("/x") is None


def test_making_a_cluster_asks_nothing_and_travels_as_its_options() -> None:
    cluster = AisCluster("127.0.0.1:1", token="secret", timeout_s=(1, 2))
    unused = pickle.dumps(cluster)
    assert cluster.opened() is cluster.opened()
    assert pickle.dumps(cluster) == unused
    copy = pickle.loads(unused)
    assert copy == cluster
    assert hash(copy) == hash(cluster)
    assert "secret" not in repr(cluster)
    assert copy.opened() is not cluster.opened()


def test_settings_of_the_sdk_are_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIS_AUTHN_TOKEN", "from-the-environment")
    monkeypatch.setenv("AIS_CLIENT_CA", "/ca.pem")
    monkeypatch.setenv("AIS_CRT", "/crt.pem")
    monkeypatch.setenv("AIS_CRT_KEY", "/key.pem")
    monkeypatch.setenv("AIS_CONNECT_TIMEOUT", "7")
    opened = AisCluster("p").opened()
    assert opened.token == "from-the-environment"
    assert (opened.http.verify, opened.http.cert) == ("/ca.pem", ("/crt.pem", "/key.pem"))
    assert opened.timeout_s == (7, 20)
    given = AisCluster("p", token="own", ca_cert="/own.pem", client_cert="/one.pem", timeout_s=5).opened()
    assert (given.token, given.http.verify, given.http.cert, given.timeout_s) == (
        "own",
        "/own.pem",
        "/one.pem",
        5,
    )


class Forwarding(BaseHTTPRequestHandler):
    """A proxy."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.path)
        to = urlsplit(self.path)
        with contextlib.closing(http.client.HTTPConnection(to.netloc, timeout=10)) as there:
            there.request(self.command, f"{to.path}?{to.query}", headers=dict(self.headers))
            answer = there.getresponse()
            body = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it

    def log_message(self, *_: object) -> None:
        pass


class Busy(BaseHTTPRequestHandler):
    """A proxy that is not ready, and takes its time to say so."""

    asked: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        self.asked.append(self.command)
        if self.command == "HEAD":
            time.sleep(2.2)
        self.send_response(503)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 - as http.server calls it

    def log_message(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("batch_reads", [False, True])
def test_what_is_asked_before_an_object_is_part_of_its_time(*, batch_reads: bool) -> None:
    Busy.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Busy) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        backend = from_options(endpoint=f"127.0.0.1:{proxy.server_port}", batch_reads=batch_reads)
        requests = [ReadRequest(f"ais://b/{i}") for i in range(2)]
        results = list(backend.read_many(requests, timeout_s=2.0))
        proxy.shutdown()
    assert len(results) == 2
    assert Busy.asked.index("HEAD") == 0
    assert Busy.asked.count("HEAD") == 1  # it is the object itself that is asked for as often as time allows
    assert len(Busy.asked) <= 9  # there is time until the clock is looked at, no two seconds
    assert all("longer than 2 s" in str(result.error) for result in results)


@pytest.mark.parametrize("asked_for", [False, True])
def test_the_environments_proxies_are_used_when_that_is_said(
    server: AisServer, monkeypatch: pytest.MonkeyPatch, *, asked_for: bool
) -> None:
    server.store.put("b", "through", b"content")
    Forwarding.asked.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Forwarding) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy.server_port}")
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        backend = AisBackend(AisCluster(server.url, environment_proxies=asked_for))
        assert backend.read("ais://b/through") == b"content"
        proxy.shutdown()
    kinds = {"through" in url for url in Forwarding.asked}
    assert kinds == ({False, True} if asked_for else set())  # the map by the SDK, and the object


def test_servers_are_not_verified_only_when_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.warns(UserWarning, match="insecure"):
        assert AisCluster("https://p", skip_verify=True).opened().http.verify is False
    monkeypatch.setenv("AIS_SKIP_VERIFY_CRT", "true")
    with pytest.warns(UserWarning, match="insecure"):
        assert AisCluster("https://p").opened().http.verify is False


@pytest.mark.parametrize("token", ["a\r\nX: y", "a\0", "é"])
def test_token_that_no_header_can_carry_is_refused(token: str) -> None:
    with pytest.raises(OptionError) as caught:
        AisCluster("p", token=token).opened()
    assert token not in str(caught.value)


def test_map_names_the_targets_and_every_address(server: AisServer, cluster: AisCluster) -> None:
    found = cluster.map()
    assert sorted(found.urls) == sorted(server.target_urls)
    assert len(set(found.ids)) == 3
    assert found.version > 0
    assert {origin_of(url) for url in (server.url, *server.target_urls)} <= found.origins


def test_map_is_asked_for_once_and_refreshed_no_oftener_than_allowed(
    server: AisServer, cluster: AisCluster
) -> None:
    first = cluster.map()
    for _ in range(5):
        assert cluster.map() is first
        cluster.refreshed_map()
    assert asked(server) == 1
    server.set_in_map(0, present=False)
    try:
        time.sleep(0.25)
        second = cluster.refreshed_map()
        assert (len(second.urls), second.version > first.version) == (2, True)
        assert cluster.map() is second
    finally:
        server.set_in_map(0, present=True)
    time.sleep(0.25)
    cluster.refresh_soon()
    cluster.refresh_soon()
    end = time.monotonic() + 5
    while len(cluster.map().urls) != 3 and time.monotonic() < end:
        time.sleep(0.01)
    assert len(cluster.map().urls) == 3
    assert asked(server) == 3


def node(flags: int = 0, url: str = "http://t:1") -> Any:
    net = SimpleNamespace(direct_url=url)
    return SimpleNamespace(
        daemon_id="x", flags=flags, id_digest=1, public_net=net, intra_control_net=None, intra_data_net=net
    )


def test_target_that_leaves_or_has_no_address_owns_nothing() -> None:
    nodes = {"a": node(), "b": node(4), "c": node(8), "d": node(url="")}
    found = map_from_sdk(SimpleNamespace(tmap=nodes, pmap={}, version=1, uuid=""))
    assert found.urls == ("http://t:1",)
    none = map_from_sdk(SimpleNamespace(tmap={}, pmap={"p": node()}, version=1, uuid=""))
    assert none.placement is None
    assert not none.urls
    assert none.origins == {("http", "t", 1)}


def test_bucket_is_asked_for_once(server: AisServer, cluster: AisCluster) -> None:
    assert [cluster.bucket(BUCKET)[:2] for _ in range(3)] == [(False, "xxhash2")] * 3
    assert cluster.bucket(BUCKET).props["provider"] == "ais"
    assert asked(server) == 1


def test_missing_bucket_is_an_error_and_is_not_remembered(cluster: AisCluster) -> None:
    name = AisName("ais", "@#space", "late", "")
    for _ in range(2):
        with pytest.raises(ContainerMissingError) as caught:
            cluster.bucket(name, url="ais://@#space/late/x", operation="list")
        assert (caught.value.url, caught.value.operation) == ("ais://@#space/late/x", "list")
    cluster.opened().sdk_bucket(name).create()
    assert cluster.bucket(name).checksum == "xxhash2"


@pytest.mark.parametrize(
    ("name", "props", "remote"),
    [
        (BUCKET, "{}", False),
        (BUCKET, '{"backend_bck": {"name": "cloud", "provider": "aws"}}', True),
        (BUCKET._replace(provider="aws"), "{}", True),
        (BUCKET._replace(namespace="@#ns"), "", False),
        (BUCKET._replace(namespace="@uuid#"), "{}", True),
    ],
)
def test_bucket_of_another_store_is_remote(name: AisName, props: str, remote: bool) -> None:
    assert BucketFacts.of(name, props).remote is remote


def test_owner_answers_directly_and_the_proxy_otherwise(cluster: AisCluster) -> None:
    names = [BUCKET._replace(name=f"dir/é {i}?") for i in range(20)]
    for name, route in zip(names, cluster.route(names), strict=True):
        cluster.opened().http.put(cluster.endpoint + object_path(name), data=b"x").raise_for_status()
        direct = cluster.opened().http.get(route.url, allow_redirects=False)
        assert (direct.status_code, direct.content) == (200, b"x")
        assert route.otherwise == cluster.endpoint + object_path(name)
    assert len({route.url.partition("/v1")[0] for route in cluster.route(names)}) > 1


def test_route_of_mixed_buckets_and_members_keeps_the_order(cluster: AisCluster) -> None:
    urls = ["ais://b/a", "s3://b/a", "ais://b/s.tar?archpath=x", "ais://nothere/a", "ais://b/c"]
    names = [parse_ais_url(url) for url in urls]
    routes = cluster.route(names)
    assert [(route.otherwise or route.url) for route in routes] == [
        cluster.endpoint + object_path(n) for n in names
    ]
    assert [route.otherwise is not None for route in routes] == [True, False, True, False, True]
    assert cluster.route([]) == []
    assert cluster.owners([]) is None


def test_route_is_the_proxys_where_targets_are_not_to_be_asked(
    server: AisServer, cluster: AisCluster
) -> None:
    name = [BUCKET._replace(name="x")]
    assert cluster.owners(name) is not None
    assert cluster.owners([name[0]._replace(etl_name="etl")]) is None
    assert AisCluster(server.url, direct=False).owners(name) is None
    cluster.avoid_direct(0.2)
    assert cluster.route(name) == [(cluster.endpoint + object_path(name[0]), None)]
    time.sleep(0.25)
    assert cluster.owners(name) is not None
    assert AisCluster("127.0.0.1:1", retry_budget_s=0).owners(name) is None


def test_route_does_not_wait_for_a_proxy_that_is_down_again_and_again(server: AisServer) -> None:
    server.clear()
    server.fail(503, node="proxy")
    try:
        cluster = AisCluster(server.url, retry_budget_s=0)
        names = [BUCKET._replace(name="x")]
        assert cluster.owners(names) is None
        before = asked(server)
        assert before > 0
        assert [cluster.owners(names) for _ in range(3)] == [None, None, None]
        assert asked(server) == before
    finally:
        server.clear()


def test_token_is_for_the_cluster_alone(server: AisServer) -> None:
    cluster = AisCluster(server.url, token="secret", refresh_s=0)
    lines = ("Authorization: Bearer secret",)
    for url in (server.url, *server.target_urls):
        origin = origin_of(url)
        assert origin is not None
        assert cluster.headers_for(origin) == lines
        assert cluster.headers_for((origin[0], "elsewhere", origin[2])) == ()
    assert AisCluster(server.url).headers_for(("http", "127.0.0.1", 1)) == ()
    far = AisCluster("https://127.0.0.1:1", token="secret", retry_budget_s=0)
    assert far.headers_for(("https", "127.0.0.1", 1)) == lines
    assert far.headers_for(("http", "127.0.0.1", 1)) == ()


def test_token_is_shown_to_a_target_that_has_joined_since(server: AisServer) -> None:
    cluster = AisCluster(server.url, token="secret", refresh_s=0)
    origin = origin_of(server.target_urls[1])
    assert origin is not None
    server.set_in_map(1, present=False)
    try:
        assert origin not in cluster.map().origins
    finally:
        server.set_in_map(1, present=True)
    assert cluster.headers_for(origin)


def test_wrong_token_is_refused_at_once(tmp_path: Path) -> None:
    with AisServer(tmp_path, token="right") as server:
        began = time.monotonic()
        with pytest.raises(AccessDeniedError):
            AisCluster(server.url, token="wrong").map()
        assert time.monotonic() - began < 3
        assert AisCluster(server.url, token="right").map().urls


def test_busy_proxy_is_asked_again_within_the_budget(server: AisServer, cluster: AisCluster) -> None:
    server.fail(503, node="proxy", times=3)
    assert cluster.map().urls
    assert asked(server) == 4
    server.fail(500, node="proxy")
    strict = AisCluster(server.url, retry_budget_s=0.3)
    began = time.monotonic()
    with pytest.raises(BackendIOError):
        strict.map()
    assert time.monotonic() - began < 2
    assert asked(server) > 5


def test_proxy_that_cannot_be_reached_is_a_connection_error() -> None:
    with pytest.raises(StoreConnectionError) as caught:
        AisCluster("127.0.0.1:1", retry_budget_s=0.1).map()
    assert caught.value.operation == "open"
    assert "127.0.0.1:1" in str(caught.value)


def test_silent_proxy_is_a_timeout(server: AisServer, cluster: AisCluster) -> None:
    server.stall(node="proxy")
    try:
        with pytest.raises(StoreTimeoutError):
            AisCluster(server.url, timeout_s=0.2, retry_budget_s=0).map()
    finally:
        server.clear()


def test_forked_child_opens_its_own_and_the_parents_goes_on(cluster: AisCluster) -> None:
    mine = cluster.opened()
    cluster.map()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        good = cluster.opened() is not mine and len(cluster.map().urls) == 3
        os._exit(0 if good else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert cluster.opened() is mine
    assert cluster.refreshed_map().urls


def test_threads_may_share_a_cluster_from_its_first_use_on(server: AisServer, cluster: AisCluster) -> None:
    start, found = threading.Barrier(6), []

    def work() -> None:
        start.wait(10)
        found.append(cluster.route([BUCKET._replace(name="x")]))

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == [found[0]] * 6
