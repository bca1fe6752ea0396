"""Redirects, headers, TLS and proxies: who is told what."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapipes.errors import OptionError, StoreConnectionError
from datapipes.transport.http import HttpRequest
from datapipes.transport.options import Origin, origin_of

from .conftest import Reader, Serve, context
from .raw_server import Answer, Asked, Line, closed_port

DATA = b"content" * 1000


def to(target: str) -> Answer:
    def answer(_: Asked, line: Line) -> None:
        line.answer(301, b"<html>moved</html>", f"Location: {target}")

    return answer


def whole(asked: Asked, line: Line) -> None:
    line.serve(asked, DATA)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(serve: Serve, reader: Reader, status: int, *, relative: bool) -> None:
    def answer(asked: Asked, line: Line) -> None:
        if asked.target == "/new?x=1":
            line.serve(asked, DATA)
        else:
            line.answer(status, b"", f"Location: {'' if relative else server.url}/new?x=1")

    server = serve(answer)
    assert reader.get(f"{server.url}/old").data == DATA


def test_a_redirect_keeps_the_range(serve: Serve, reader: Reader) -> None:
    target = serve(whole)
    result = reader.get(f"{serve(to(target.url + '/x')).url}/x", offset=5, length=10)
    assert (result.data, result.total) == (DATA[5:15], len(DATA))


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ('/a b"<>|`\\\tc', "/a%20b%22%3C%3E%7C%60%5C%09c"),
        ("/\u00e9", "/%C3%A9"),
        ("/%2e%2E/./x", "/%2E%2E/./x"),
    ],
)
def test_a_location_reaches_the_name_it_spells(
    serve: Serve, reader: Reader, location: str, target: str
) -> None:
    def answer(asked: Asked, line: Line) -> None:
        if asked.target == "/old":
            line.send(
                f"HTTP/1.1 301 x\r\nLocation: {server.url}{location}\r\nContent-Length: 0\r\n\r\n".encode()
            )
        else:
            line.serve(asked, asked.target.encode())

    server = serve(answer)
    assert reader.get(f"{server.url}/old").data == target.encode()


def test_headers_go_to_those_they_are_meant_for_and_to_nobody_else(serve: Serve, reader: Reader) -> None:
    stranger = serve(whole)
    friend = serve(to(f"{stranger.url}/x"))
    first = serve(to(f"{friend.url}/x"))
    friends = {origin_of(server.url) for server in (first, friend)}

    def headers_for(origin: Origin) -> tuple[str, ...]:
        return ("Authorization: Bearer secret", "X-Own: mine") if origin in friends else ()

    asked = [HttpRequest(f"{first.url}/{i}", f"store://{i}") for i in range(20)]
    results = list(reader.reads(asked, options=reader.options(headers_for=headers_for)))
    assert [result.data for result in results] == [DATA] * 20
    for server in (first, friend):
        assert {asked.headers.get("authorization") for asked in server.asked} == {"Bearer secret"}
        assert {asked.headers.get("x-own") for asked in server.asked} == {"mine"}
    assert len(stranger.asked) == 20
    assert all(
        "secret" not in str(asked.headers) and "x-own" not in asked.headers for asked in stranger.asked
    )


@pytest.mark.parametrize("line", ["A: b\r\nEvil: yes", "A: b\nEvil: yes", "A\r\n: b", "no colon", "A: \0"])
def test_headers_that_could_smuggle_are_refused(serve: Serve, reader: Reader, line: str) -> None:
    server = serve(whole)
    result = reader.get(f"{server.url}/x", options=reader.options(headers_for=lambda _: (line,)))
    assert type(result.error) is OptionError
    assert server.asked == []


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://Host/x", ("http", "host", 80)),
        ("HTTPS://h:8443?x", ("https", "h", 8443)),
        ("http://user@h:1/x@y", ("http", "h", 1)),
        ("http://[::1]:90/", ("http", "[::1]", 90)),
    ],
)
def test_origin_of_a_url(url: str, origin: tuple[str, str, int]) -> None:
    assert origin_of(url) == origin


def test_the_environments_proxies_are_not_used(
    serve: Serve, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{closed_port()}")
    assert reader.get(f"{serve(whole).url}/x", options=reader.options(stall_timeout_s=2.0)).data == DATA


def test_a_proxy_that_is_asked_for_is_used(serve: Serve, reader: Reader) -> None:
    proxy = serve(whole)
    result = reader.get("http://no-such-host.invalid/x", options=reader.options(proxy=proxy.url))
    assert result.data == DATA
    assert proxy.asked[0].target == "http://no-such-host.invalid/x"
    direct = serve(whole)
    options = reader.options(proxy=proxy.url, no_proxy="elsewhere.invalid,127.0.0.1")
    assert reader.get(f"{direct.url}/y", options=options).data == DATA
    assert len(direct.asked) == len(proxy.asked) == 1


# --- TLS


def test_tls_with_an_authority_of_ones_own(serve: Serve, reader: Reader, keys: Path) -> None:
    server = serve(whole, context(keys))
    options = reader.options(ca_file=str(keys / "ca.pem"))
    asked = [HttpRequest(f"{server.url}/{i}", f"store://{i}") for i in range(20)]
    assert [result.data for result in reader.reads(asked, options=options)] == [DATA] * 20


def test_tls_without_that_authority_is_refused_at_once(serve: Serve, reader: Reader, keys: Path) -> None:
    server = serve(whole, context(keys))
    result = reader.get(f"{server.url}/x")
    assert type(result.error) is StoreConnectionError
    assert "certificate" in str(result.error)
    assert server.connections == 1
    assert reader.get(f"{server.url}/x", options=reader.options(verify_tls=False)).data == DATA


def test_tls_with_a_client_certificate(serve: Serve, reader: Reader, keys: Path) -> None:
    server = serve(whole, context(keys, wants_client=True))
    options = {"ca_file": str(keys / "ca.pem"), "retry_budget_s": 0.1}
    without = reader.get(f"{server.url}/x", options=reader.options(**options))
    assert without.error is not None
    own = {"client_cert": str(keys / "client.pem"), "client_key": str(keys / "client.key")}
    assert reader.get(f"{server.url}/x", options=reader.options(**options, **own)).data == DATA


def test_from_https_to_http_no_header_is_sent(serve: Serve, reader: Reader, keys: Path) -> None:
    plain = serve(whole)
    secure = serve(to(f"{plain.url}/x"), context(keys))
    options = reader.options(headers_for=lambda _: ("Authorization: secret",), ca_file=str(keys / "ca.pem"))
    assert reader.get(f"{secure.url}/x", options=options).data == DATA
    assert "authorization" in secure.asked[0].headers
    assert "authorization" not in plain.asked[0].headers
