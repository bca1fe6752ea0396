"""Every switch, on a server in a thread and on one in a process of its own."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from datapipes.testing.ais_server import AisServer, Bck

SIZE = 3_000_000


@pytest.fixture(scope="module", params=[False, True], ids=["thread", "process"])
def running(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AisServer]:
    with AisServer(tmp_path_factory.mktemp("ais"), process=request.param, targets=3) as made:
        for i in range(40):
            made.store.put("b", f"o{i:02d}", b"content %02d" % i)
        made.store.put("b", "big", bytes(SIZE))
        yield made


@pytest.fixture
def server(running: AisServer) -> Iterator[AisServer]:
    running.clear()
    yield running
    running.clear()


def ask(
    url: str, method: str = "GET", *, body: Any = None, timeout: float = 10, headers: Any = None
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own, redirects not followed."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=timeout)
    try:
        text = None if body is None else json.dumps(body)
        connection.request(method, f"{parts.path}?{parts.query}", text, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def follow(url: str, method: str = "GET", **options: Any) -> tuple[int, dict[str, str], bytes]:
    status, headers, data = ask(url, method, **options)
    return ask(headers["Location"], method, **options) if status in (301, 307) else (status, headers, data)


def path(server: AisServer, name: str = "o00") -> str:
    return f"{server.url}/v1/objects/b/{name}?provider=ais"


def owner(server: AisServer, name: str = "o00") -> str:
    """The address of an object at its owner, without the marks of a redirect."""
    parts = urlsplit(ask(path(server, name))[1]["Location"])
    return f"http://{parts.netloc}{parts.path}?provider=ais"


def test_requests_are_counted_and_remembered(server: AisServer) -> None:
    follow(path(server), headers={"Authorization": "Bearer x", "Range": "bytes=0-1"})
    assert server.counts() == {"proxy GET": 1, "target GET": 1}
    first, second = server.requests()
    assert (first.kind, first.number, first.bucket, first.name) == ("proxy", -1, "b", "o00")
    assert (second.kind, second.range, second.authorization) == ("target", "bytes=0-1", "Bearer x")
    assert second.node in owner_ids(server)
    server.clear()
    assert server.counts() == {}


def owner_ids(server: AisServer) -> set[str]:
    return set(json.loads(ask(f"{server.url}/v1/daemon?what=smap")[2])["tmap"])


def test_answers_are_late_where_they_shall_be(server: AisServer) -> None:
    server.delay(150, name="b/o0*", node="target")
    begin = time.monotonic()
    assert follow(path(server, "o11"))[0] == 200
    assert time.monotonic() - begin < 0.14
    assert follow(path(server, "o01"))[0] == 200
    assert time.monotonic() - begin > 0.15
    server.clear()
    server.delay(100)
    begin = time.monotonic()
    follow(path(server, "o11"))
    assert time.monotonic() - begin > 0.2  # proxy and target


def test_errors_come_as_often_as_they_shall(server: AisServer) -> None:
    server.fail(500, name="b/o01", times=2)
    assert [follow(path(server, "o01"))[0] for _ in range(3)] == [500, 500, 200]
    server.fail(429, name="b/o02", times=1, retry_after_s=1.5)
    status, headers, data = follow(path(server, "o02"))
    assert (status, headers["Retry-After"]) == (429, "1.5")
    assert "ais://b/o02" in json.loads(data)["message"]
    server.fail(503, node="proxy", method="GET", times=1)
    assert ask(path(server))[0] == 503
    server.fail(404, name="b/o03")
    for _ in range(3):
        status, _, data = follow(path(server, "o03"))
        assert status == 404
        assert "ais://b/o03 does not exist" in json.loads(data)["message"]


def test_faults_of_one_target_leave_the_others_alone(server: AisServer) -> None:
    server.fail(500, node="1")
    found = {
        urlsplit(owner(server, f"o{i:02d}")).netloc: follow(path(server, f"o{i:02d}"))[0] for i in range(40)
    }
    failing = urlsplit(server.target_urls[1]).netloc
    assert found == {urlsplit(url).netloc: 500 if failing in url else 200 for url in server.target_urls}


@pytest.mark.parametrize("after", [0, 5, 1 << 20])
def test_bodies_are_cut_short(server: AisServer, after: int) -> None:
    server.truncate(after, name="b/big")
    with pytest.raises(http.client.IncompleteRead) as caught:
        follow(path(server, "big"))
    assert len(caught.value.partial) == after
    assert follow(path(server))[0] == 200


def test_a_streamed_batch_is_cut_in_the_middle_of_a_chunk(server: AisServer) -> None:
    server.truncate(700, method="GET")
    asked = {"in": [{"objname": f"o{i:02d}"} for i in range(9)], "strm": True}
    with pytest.raises(http.client.IncompleteRead) as caught:
        follow(f"{server.url}/v1/ml/moss/b?provider=ais", body=asked)
    assert len(caught.value.partial) == 700


def test_connections_are_dropped_before_and_after_the_headers(server: AisServer) -> None:
    server.drop(name="b/o00", times=1)
    with pytest.raises(http.client.RemoteDisconnected):
        follow(path(server))
    server.drop(after_headers=True, name="b/o00", times=1)
    with pytest.raises(http.client.IncompleteRead):
        follow(path(server))
    assert follow(path(server))[2] == b"content 00"


def test_a_stalled_server_says_nothing_more(server: AisServer) -> None:
    server.stall(name="b/o00", times=1)
    with pytest.raises(TimeoutError):
        follow(path(server), timeout=0.2)
    server.stall(after=100_000, name="b/big", times=1)
    with pytest.raises(TimeoutError):
        follow(path(server, "big"), timeout=0.2)
    assert follow(path(server, "big"))[0] == 200


def test_a_target_that_is_down_refuses_and_comes_back(server: AisServer) -> None:
    direct = owner(server)
    number = [urlsplit(url).netloc for url in server.target_urls].index(urlsplit(direct).netloc)
    server.set_down(number)
    with pytest.raises(ConnectionRefusedError):
        ask(direct)
    assert ask(path(server))[1]["Location"].startswith(server.target_urls[number])
    server.set_down(number, down=False)
    assert ask(direct)[2] == b"content 00"


def test_a_target_out_of_the_map_owns_nothing_and_nothing_is_lost(server: AisServer) -> None:
    before = json.loads(ask(f"{server.url}/v1/daemon?what=smap")[2])
    direct = owner(server)
    number = [urlsplit(url).netloc for url in server.target_urls].index(urlsplit(direct).netloc)
    server.set_in_map(number, present=False)
    after = json.loads(ask(f"{server.url}/v1/daemon?what=smap")[2])
    assert int(after["version"]) == int(before["version"]) + 1
    assert len(after["tmap"]) == len(before["tmap"]) - 1
    assert ask(direct)[0] == 404
    assert [follow(path(server, f"o{i:02d}"))[2] for i in range(40)] == [
        b"content %02d" % i for i in range(40)
    ]
    server.set_in_map(number, present=True)
    assert ask(direct)[0] == 200


def test_direct_access_can_be_refused(server: AisServer) -> None:
    direct = owner(server)
    server.refuse_direct()
    assert ask(direct)[0] == 401
    assert follow(path(server))[0] == 200
    server.refuse_direct(0)
    assert ask(direct)[0] == 200


def test_a_redirect_can_lead_to_a_foreign_host(server: AisServer) -> None:
    with AisServer(token="its own") as foreign:
        server.redirect_to(foreign.url)
        location = ask(path(server), headers={"Authorization": "Bearer x"})[1]["Location"]
        assert location.startswith(foreign.url)
        assert ask(location)[0] == 401
        assert [request.authorization for request in foreign.requests()] == [""]
    server.redirect_to(None)
    assert follow(path(server))[0] == 200


def test_data_of_a_remote_bucket_can_be_cold(server: AisServer) -> None:
    remote = Bck("cloud", "aws")
    server.store.put(remote, "x", b"far away")
    server.make_cold(remote)
    url = f"{server.url}/v1/objects/cloud/x?provider=s3"
    assert follow(url + "&props=size", "HEAD")[1]["Ais-Present"] == "false"
    assert follow(url)[2] == b"far away"
    assert follow(url + "&props=size", "HEAD")[1]["Ais-Present"] == "true"


def test_an_unknown_switch_is_an_error_that_says_so(server: AisServer) -> None:
    with pytest.raises((ValueError, KeyError, IndexError), match=r"nonsense|Error|range"):
        server.control(do="nonsense")
    with pytest.raises((ValueError, IndexError)):
        server.set_in_map(99, present=False)


@pytest.mark.parametrize("headers", [{}, {"X-Control-Key": "guessed"}])
def test_switches_are_turned_by_nobody_else(server: AisServer, headers: dict[str, str]) -> None:
    status, _, data = ask(f"{server.url}/_control", "POST", body={"do": "counts"}, headers=headers)
    assert status == 403
    assert "whoever started" in json.loads(data)["message"]


@pytest.mark.parametrize("process", [False, True], ids=["thread", "process"])
def test_a_server_stops_while_a_client_waits(process: bool) -> None:
    with AisServer(process=process) as server:
        server.store.put("b", "x", b"data")
        server.stall(name="b/x")
        with pytest.raises(TimeoutError):
            follow(f"{server.url}/v1/objects/b/x", timeout=0.1)
        parts = urlsplit(server.url)
        waiting = http.client.HTTPConnection(parts.netloc, timeout=5)
        waiting.request("GET", "/v1/health")
        waiting.getresponse().read()
        begin = time.monotonic()
    assert time.monotonic() - begin < 3
    waiting.close()
