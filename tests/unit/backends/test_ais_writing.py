"""Writes to AIStore: one upload to the target, the token to the cluster alone, all or nothing."""

from __future__ import annotations

import http.server
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("aistore")
pytest.importorskip("aiohttp")

from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_writing import open_write, remove, stat_size, write
from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    ChecksumMismatchError,
    ContainerMissingError,
    FileMissingError,
    IsDirectoryError,
    StoreConnectionError,
    UrlError,
)
from datapipes.testing.ais_server import AisServer
from datapipes.testing.ais_server.names import Bck
from datapipes.urls import quote_name

ODD = [
    "plain", "dir/a", "a b", "ünï/日本", "hash#tag", "what?q=1", "100%", "plus+plus", "a//b", "/leading", "~",
    "a\\b", "quote'\"q", "amp&amp", "tab\tin", "<tag>", "...", "%2F", "emoji😀", "back`tick", ".hidden",
]  # fmt: skip
BIG = 40 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AisServer]:
    with AisServer(tmp_path_factory.mktemp("ais")) as running:
        running.store.create_bucket(Bck("b"))
        yield running


@pytest.fixture
def cluster(server: AisServer) -> AisCluster:
    server.clear()
    return AisCluster(server.url, retry_budget_s=3)


def held(server: AisServer, name: str) -> bytes | None:
    path = server.store.find(Bck("b"), name)
    return None if path is None else server.store.get(Bck("b"), name)


@pytest.mark.parametrize("name", ODD, ids=ascii)
def test_object_of_any_name_is_written_sized_and_removed(
    server: AisServer, cluster: AisCluster, name: str
) -> None:
    url, data = f"ais://b/{quote_name(name)}", f"data of {name}".encode()
    write(cluster, url, data)
    assert held(server, name) == data
    assert stat_size(cluster, url) == len(data)
    write(cluster, url, bytearray(b""))
    assert held(server, name) == b""
    assert stat_size(cluster, url) == 0
    remove(cluster, url)
    assert held(server, name) is None
    for call in (remove, stat_size):
        with pytest.raises(FileMissingError) as caught:
            call(cluster, url)
        assert not isinstance(caught.value, ContainerMissingError)
        assert caught.value.url == url


def test_line_end_in_a_name_reaches_that_object_through_redirects(
    server: AisServer, cluster: AisCluster
) -> None:
    write(cluster, "ais://b/new line", b"another")
    write(cluster, "ais://b/new\nline", b"data")
    assert (held(server, "new line"), held(server, "new\nline")) == (b"another", b"data")
    remove(cluster, "ais://b/new\nline")
    assert (held(server, "new line"), held(server, "new\nline")) == (b"another", None)


def test_any_buffer_is_written_as_its_bytes(server: AisServer, cluster: AisCluster) -> None:
    for data in (
        b"bytes",
        bytearray(b"array"),
        memoryview(b"a view")[2:],
        memoryview(bytearray(16)).cast("I"),
    ):
        write(cluster, "ais://b/x", data)
        assert held(server, "x") == memoryview(data).tobytes()


def test_big_object_arrives_whole(server: AisServer, cluster: AisCluster) -> None:
    data = bytes(range(256)) * (BIG // 256)
    write(cluster, "ais://b/big", data)
    assert held(server, "big") == data
    with open_write(cluster, "ais://b/streamed") as file:
        for start in range(0, BIG, 3_000_000):
            file.write(data[start : start + 3_000_000])
    assert held(server, "streamed") == data


@pytest.mark.parametrize("size", [0, 10, 9 << 20])
def test_stream_appears_when_it_is_closed_and_not_before(
    server: AisServer, cluster: AisCluster, size: int
) -> None:
    file = open_write(cluster, "ais://b/stream")
    file.write(b"x" * size)
    file.flush()
    assert held(server, "stream") is None
    file.close()
    assert held(server, "stream") == b"x" * size
    remove(cluster, "ais://b/stream")


@pytest.mark.parametrize("size", [10, 9 << 20])
def test_stream_that_fails_or_is_dropped_writes_nothing(
    server: AisServer, cluster: AisCluster, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        with open_write(cluster, "ais://b/never") as file:
            file.write(b"x" * size)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pytest.warns(RuntimeWarning, match="ais://b/never' was not written"):
        open_write(cluster, "ais://b/never").write(b"x" * size)
    assert held(server, "never") is None
    assert server.counts() == {}


def test_full_disk_under_a_stream_is_our_error(
    cluster: AisCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "not there"))
    file = open_write(cluster, "ais://b/x")
    with pytest.raises(BackendIOError, match="TMPDIR"):
        file.write(b"x" * (9 << 20))
    with pytest.raises(BackendIOError):
        file.close()


@pytest.mark.parametrize(
    "url", ["ais://b/d/", "ais://b/..", "ais://b/", "ais://b/s.tar?archpath=x", "file:///x"]
)
def test_what_cannot_be_written_is_a_url_error_and_asks_nothing(
    server: AisServer, cluster: AisCluster, url: str
) -> None:
    with pytest.raises(UrlError):
        write(cluster, url, b"")
    with pytest.raises(UrlError):
        open_write(cluster, url)
    assert server.counts() == {}


def test_name_with_a_slash_at_the_end_is_missing(cluster: AisCluster) -> None:
    for call in (remove, stat_size):
        with pytest.raises(FileMissingError):
            call(cluster, "ais://b/d/")


def test_missing_bucket_is_that_error(cluster: AisCluster) -> None:
    def put(cluster: AisCluster, url: str) -> None:
        write(cluster, url, b"x")

    for call in (put, remove, stat_size):
        with pytest.raises(ContainerMissingError):
            call(cluster, "ais://nothere/x")


def test_object_in_the_way_of_another_is_an_error(tmp_path: Path) -> None:
    with AisServer(tmp_path, targets=1) as server:
        server.store.create_bucket(Bck("b"))
        cluster = AisCluster(server.url)
        write(cluster, "ais://b/a", b"x")
        with pytest.raises(FileMissingError):
            write(cluster, "ais://b/a/b", b"x")
        write(cluster, "ais://b/d/e", b"x")
        with pytest.raises(IsDirectoryError):
            write(cluster, "ais://b/d", b"x")


def test_token_is_kept_through_redirects(tmp_path: Path) -> None:
    with AisServer(tmp_path, token="secret") as server:
        server.store.create_bucket(Bck("b"))
        cluster = AisCluster(server.url, token="secret")
        write(cluster, "ais://b/x", b"12345")
        assert stat_size(cluster, "ais://b/x") == 5
        remove(cluster, "ais://b/x")
        for wrong in (None, "other"):
            with pytest.raises(AccessDeniedError):
                write(AisCluster(server.url, token=wrong), "ais://b/x", b"")


@pytest.mark.parametrize("node", ["proxy", "target"])
def test_fault_that_passes_is_not_noticed(server: AisServer, cluster: AisCluster, node: str) -> None:
    for dropped in (False, True):
        if dropped:
            server.drop(node=node, times=2)
        else:
            server.fail(503, node=node, times=2)
        write(cluster, "ais://b/x", b"y" * 3_000_000)
        assert held(server, "x") == b"y" * 3_000_000
    server.fail(503, node=node, times=1)
    with open_write(cluster, "ais://b/x") as file:
        file.write(b"z" * (9 << 20))
    assert held(server, "x") == b"z" * (9 << 20)
    server.drop(node=node, method="DELETE", times=1)
    remove(cluster, "ais://b/x")
    assert held(server, "x") is None


def test_fault_that_stays_is_an_error_within_the_budget(server: AisServer) -> None:
    cluster = AisCluster(server.url, retry_budget_s=0.3)
    server.clear()
    server.fail(500)
    began = time.monotonic()
    with pytest.raises(BackendIOError) as caught:
        write(cluster, "ais://b/x", b"")
    assert time.monotonic() - began < 3
    assert caught.value.code == 500
    server.clear()


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Node:
    """A server that answers as ``answer`` says: (status, headers)."""

    def __init__(self, answer: Callable[[Asked], tuple[int, dict[str, str]]], *, reads: bool) -> None:
        asked: list[Asked] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_expect_100(self) -> bool:
                return not reads or super().handle_expect_100()

            def _answer(self) -> None:
                size = int(self.headers.get("Content-Length", 0))
                body = self.rfile.read(size) if reads else b""
                headers = {name.lower(): value for name, value in self.headers.items()}
                asked.append(Asked(self.command, self.path, headers, body))
                status, extra = answer(asked[-1])
                self.send_response(status)
                for name, value in {"Content-Length": "0", **extra}.items():
                    self.send_header(name, value)
                if not reads:
                    self.close_connection = True
                self.end_headers()

            do_GET = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815 - the names http.server wants

            def log_message(self, *args: object) -> None:
                pass

        self.asked = asked
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"


@contextmanager
def node(answer: Callable[[Asked], tuple[int, dict[str, str]]], *, reads: bool = True) -> Iterator[Node]:
    made = Node(answer, reads=reads)
    thread = threading.Thread(target=made.server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield made
    finally:
        made.server.shutdown()
        made.server.server_close()
        thread.join()


def to(
    target: Node, query: str = "?provider=ais&pid=P&utm=U"
) -> Callable[[Asked], tuple[int, dict[str, str]]]:
    return lambda asked: (307, {"Location": f"{target.url}{asked.path.partition('?')[0]}{query}"})


def test_body_goes_to_the_target_alone_and_the_token_not_to_strangers() -> None:
    data = b"x" * 20_000_000
    with node(lambda asked: (200, {})) as target, node(to(target), reads=False) as proxy:
        write(AisCluster(proxy.url, token="secret"), "ais://b/a b", data)
        (first,) = [asked for asked in proxy.asked if asked.method == "PUT"]
        assert first.path == "/v1/objects/b/a%20b?provider=ais"
        assert first.headers["expect"] == "100-continue"
        assert first.headers["content-length"] == str(len(data))
        assert first.headers["authorization"] == "Bearer secret"
        (second,) = [asked for asked in target.asked if asked.method == "PUT"]
        assert second.path == "/v1/objects/b/a%20b?provider=ais&pid=P&utm=U"
        assert second.body == data
        assert "authorization" not in second.headers  # it is in no cluster map that anybody gave
        assert second.headers["ais-checksum-type"] == "xxhash2"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ((200, {}), "named no target"),
        ((307, {"Location": "ftp://t/x"}), "no http URL"),
        ((307, {}), "named no target"),
    ],
)
def test_proxy_that_does_not_redirect_an_upload_is_an_error(
    answer: tuple[int, dict[str, str]], reason: str
) -> None:
    with node(lambda asked: answer, reads=False) as proxy:
        with pytest.raises(BackendIOError, match=reason) as caught:
            write(AisCluster(proxy.url), "ais://b/x", b"data")
        assert len(proxy.asked) == 1
        assert caught.value.operation == "write"


def test_endless_redirects_end() -> None:
    with node(lambda asked: (307, {"Location": asked.path})) as proxy:
        with pytest.raises(BackendIOError, match="redirects"):
            remove(AisCluster(proxy.url), "ais://b/x")
        assert len(proxy.asked) < 10


def test_size_that_is_left_out_is_none_only_if_aistore_answers() -> None:
    said = {"Ais-Version": "1", "Ais-Checksum-Value": "ef46db3751d8e999"}
    with raw_answer(said) as url:
        assert stat_size(AisCluster(url, retry_budget_s=0), "ais://b/empty") == 0
    with raw_answer({}) as url, pytest.raises(BackendIOError):
        stat_size(AisCluster(url, retry_budget_s=0), "ais://b/empty")


@contextmanager
def raw_answer(headers: dict[str, str]) -> Iterator[str]:
    """A server that answers one request with 200, these headers and no length."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def serve(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(f"HTTP/1.1 200 OK\r\n{lines}Connection: close\r\n\r\n".encode())

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, args=(listening,))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def test_target_that_holds_something_else_is_a_checksum_mismatch() -> None:
    wrong = {"Ais-Checksum-Type": "xxhash2", "Ais-Checksum-Value": "0" * 16}
    with node(lambda asked: (200, wrong)) as target, node(to(target), reads=False) as proxy:
        with pytest.raises(ChecksumMismatchError):
            write(AisCluster(proxy.url, retry_budget_s=0.2), "ais://b/x", b"data")
        assert len(target.asked) > 1
        assert {asked.body for asked in target.asked} == {b"data"}


def test_target_that_does_not_listen_is_a_connection_error_at_last() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    with node(
        lambda asked: (307, {"Location": f"http://127.0.0.1:{address[1]}{asked.path}"}), reads=False
    ) as proxy:
        with pytest.raises(StoreConnectionError):
            write(AisCluster(proxy.url, retry_budget_s=0.3), "ais://b/x", b"data")
        assert len(proxy.asked) > 1  # each try asks the proxy: by now another target may own it
