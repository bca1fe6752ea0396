"""A server that misbehaves: each fault its exception, nothing lost, repeated, reordered or silently short."""

from __future__ import annotations

import errno
import hashlib
import time
from collections.abc import Callable
from typing import Any

import pytest

from datapipes.errors import (
    AccessDeniedError,
    BackendIOError,
    ChecksumMismatchError,
    DatapipesError,
    FileMissingError,
    StoreConnectionError,
    StoreTimeoutError,
    UrlError,
)
from datapipes.testing.backend_hooks import check_error
from datapipes.transport.http import HttpRequest, HttpResult
from datapipes.transport.options import HttpOptions

from .conftest import Reader, Serve
from .raw_server import Asked, Line, RawServer, closed_port

DATA = bytes(range(251)) * 400


def failed(result: HttpResult, kind: type[DatapipesError], words: str = "") -> DatapipesError:
    assert result.data is None
    assert type(result.error) is kind, result.error
    assert words in str(result.error)
    check_error(result.error)
    return result.error


def send_chunks(line: Line, *, whole: bool) -> None:
    line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(DATA) if whole else 5000, 1000):
        piece = DATA[at : at + 1000]
        line.send(b"%x\r\n%b\r\n" % (len(piece), piece))
    if whole:
        line.send(b"0\r\n\r\n")
    else:
        line.end()


def half_a_head(line: Line) -> None:
    line.send(b"HTTP/1.1 200 OK\r\nCon")
    line.reset()


def half_a_body(line: Line) -> None:
    line.answer(200, DATA[:5000], length=len(DATA))


def ended_early(line: Line) -> None:
    half_a_body(line)
    line.end()


def stalled_half_way(line: Line) -> None:
    half_a_body(line)
    line.wait()


def garbage(line: Line) -> None:
    line.send(b"\x00\x01nonsense\r\n\r\n")
    line.end()


def endless(line: Line) -> None:
    line.answer(200, DATA, length=None)
    line.end()


def status(code: int, *headers: str) -> Callable[[Line], None]:
    return lambda line: line.answer(code, b"sorry", *headers)


Fault = tuple[Callable[[Line], None], type[DatapipesError]]

FAULTS: dict[str, Fault] = {
    "empty reply": (Line.end, StoreConnectionError),
    "reset before the answer": (Line.reset, StoreConnectionError),
    "reset in the headers": (half_a_head, StoreConnectionError),
    "reset in the body": (lambda line: line.serve(Asked("", {}, 0), DATA, cut=5000), StoreConnectionError),
    "end in the body": (ended_early, StoreConnectionError),
    "truncated chunks": (lambda line: send_chunks(line, whole=False), StoreConnectionError),
    "stall before the answer": (Line.wait, StoreTimeoutError),
    "stall in the body": (stalled_half_way, StoreTimeoutError),
    "429": (status(429), BackendIOError),
    "500": (status(500), BackendIOError),
    "503": (status(503), BackendIOError),
}
"""What may be better a moment later."""

FINAL: dict[str, Fault] = {
    "garbage": (garbage, BackendIOError),
    "oversized headers": (status(200, "X-Long: " + "x" * 400_000), BackendIOError),
    "401": (status(401), AccessDeniedError),
    "403": (status(403), AccessDeniedError),
    "404": (status(404), FileMissingError),
    "400": (status(400), BackendIOError),
    "redirect for ever": (status(301, "Location: /again"), BackendIOError),
    "redirect to another scheme": (status(301, "Location: file:///etc/passwd"), BackendIOError),
    "redirect to nowhere": (status(302), BackendIOError),
    "end that cannot be told": (endless, BackendIOError),
}


def brief(reader: Reader, **changes: Any) -> HttpOptions:
    short = {"retry_budget_s": 0.3, "stall_timeout_s": 0.3, "first_byte_timeout_s": 0.3}
    return reader.options(**short | changes)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_passing_fault_is_tried_again_and_spares_the_rest(serve: Serve, reader: Reader, fault: str) -> None:
    act, _ = FAULTS[fault]

    def answer(asked: Asked, line: Line) -> None:
        if asked.target.endswith("7") and asked.before < 2:
            act(line)
        else:
            line.serve(asked, DATA + asked.target.encode())

    url = serve(answer).url
    asked = [HttpRequest(f"{url}/{i}", f"store://{i}") for i in range(40)]
    options = brief(reader, retry_budget_s=5.0)
    results = list(reader.reads(asked, options=options))
    assert [result.error for result in results] == [None] * 40
    assert [result.data for result in results] == [DATA + b"/%d" % i for i in range(40)]


@pytest.mark.parametrize("fault", [*FAULTS, *FINAL])
def test_a_lasting_fault_is_its_exception_in_its_place(serve: Serve, reader: Reader, fault: str) -> None:
    act, kind = (FAULTS | FINAL)[fault]

    def answer(asked: Asked, line: Line) -> None:
        if asked.target in ("/3", "/again"):
            act(line)
        else:
            line.serve(asked, DATA)

    server = serve(answer)
    asked = [HttpRequest(f"{server.url}/{i}", f"store://{i}") for i in range(6)]
    patient = {} if "stall" in fault else {"stall_timeout_s": 30.0, "first_byte_timeout_s": 30.0}
    results = list(reader.reads(asked, options=brief(reader, **patient), max_in_flight=2))
    error = failed(results[3], kind)
    assert error.url == "store://3"
    assert [result.data for result in results if result.position != 3] == [DATA] * 5
    if fault in FAULTS:
        assert server.counts("/3") > 1
        assert "given up after" in str(error)
    elif "redirect" not in fault:
        assert server.counts("/3") == 1


def test_a_server_that_is_not_there_is_a_connection_error(reader: Reader) -> None:
    for url, words, number in (
        ("http://no-such-host.invalid/x", "resolve", errno.EHOSTUNREACH),
        (f"http://127.0.0.1:{closed_port()}/x", "connect", errno.ECONNREFUSED),
    ):
        error = failed(reader.get(url, options=brief(reader)), StoreConnectionError, words)
        assert error.errno == number


def test_a_time_out_between_tries_is_the_error_that_failed_them(reader: Reader) -> None:
    request = HttpRequest(f"http://127.0.0.1:{closed_port()}/x", "store://object")
    (result,) = reader.reads([request], options=reader.options(retry_budget_s=60.0), timeout_s=1.5)
    error = failed(result, StoreConnectionError, "connect")
    assert error.errno == errno.ECONNREFUSED
    assert "given up after " in str(error)
    assert "longer than 1.5 s" in str(error)


@pytest.mark.parametrize("url", ["ftp://host/x", "http:///x", "host/x", "http://127.0.0.1/a b"])
def test_what_is_no_url_is_an_error_of_its_item(reader: Reader, url: str) -> None:
    result = reader.get(url, options=brief(reader))
    assert type(result.error) is UrlError


def test_the_servers_wish_to_be_left_alone_is_kept(serve: Serve, reader: Reader) -> None:
    def answer(asked: Asked, line: Line) -> None:
        if asked.before == 0:
            line.answer(429, b"", "Retry-After: 1")
        else:
            line.serve(asked, DATA)

    began = time.monotonic()
    assert reader.get(f"{serve(answer).url}/x").data == DATA
    assert time.monotonic() - began >= 1


def test_a_slow_first_byte_is_not_a_stall(serve: Serve, reader: Reader) -> None:
    def answer(asked: Asked, line: Line) -> None:
        line.wait(1.0)
        line.serve(asked, DATA)

    options = reader.options(stall_timeout_s=0.3, first_byte_timeout_s=10.0)
    assert reader.get(f"{serve(answer).url}/x", options=options).data == DATA


def test_an_answer_that_drips_is_no_stall(serve: Serve, reader: Reader) -> None:
    def answer(asked: Asked, line: Line) -> None:
        line.answer(200, b"", length=20)
        for _ in range(20):
            line.send(b"x")
            line.wait(0.05)

    assert reader.get(f"{serve(answer).url}/x", options=reader.options(stall_timeout_s=0.4)).data == b"x" * 20


# --- going on where it broke off


Headers = Callable[[Asked], tuple[str, ...]]
Data = Callable[[Asked], bytes]


def broken_once(headers: Headers, data: Data) -> Callable[..., None]:
    def answer(asked: Asked, line: Line) -> None:
        line.serve(asked, data(asked), *headers(asked), cut=30_000 if asked.before == 0 else None)

    return answer


def ranges_of(server: RawServer) -> list[str | None]:
    return [asked.headers.get("range") for asked in server.asked]


@pytest.mark.parametrize("proof", ['ETag: "strong"', "X-Sum: abc"])
def test_a_body_that_broke_off_goes_on_where_the_object_is_provably_the_same(
    serve: Serve, reader: Reader, proof: str
) -> None:
    server = serve(broken_once(lambda _: ("X-Kind: k", proof), lambda _: DATA))
    options = reader.options(checksum_headers=(b"x-kind", b"x-sum"))
    assert reader.get(f"{server.url}/x", options=options).data == DATA
    first, second = ranges_of(server)
    assert first is None
    assert second is not None
    assert int(second.removeprefix("bytes=").rstrip("-")) > 0


def wrong_at_first(data: bytes, first: bytes) -> Data:
    return lambda asked: data if asked.before else first


OTHER = wrong_at_first(DATA, b"?" * len(DATA))


@pytest.mark.parametrize(
    ("headers", "data"),
    [
        (lambda _: (), OTHER),
        (lambda _: ('ETag: W/"weak"',), OTHER),
        (lambda asked: (f'ETag: "{asked.before}"',), OTHER),
        (lambda asked: ('ETag: "e"', f"X-Version: {asked.before > 0}"), OTHER),
        (lambda _: ('ETag: "e"',), wrong_at_first(DATA, b"?" * (len(DATA) + 1))),
        (lambda _: ('ETag: "e"',), wrong_at_first(DATA[:20_000], b"?" * len(DATA))),
    ],
    ids=["no proof", "weak etag", "other etag", "other version", "other size", "shorter than what came"],
)
def test_a_body_that_broke_off_is_read_anew_where_it_may_be_another(
    serve: Serve, reader: Reader, headers: Headers, data: Data
) -> None:
    server = serve(broken_once(headers, data))
    result = reader.get(f"{server.url}/x", options=reader.options(version_header=b"x-version"))
    assert result.data == data(Asked("", {}, 1))
    assert ranges_of(server)[-1] is None


def test_a_whole_answer_to_the_rest_of_a_body_is_a_fresh_start(serve: Serve, reader: Reader) -> None:
    def answer(asked: Asked, line: Line) -> None:
        if asked.before == 0:
            line.serve(asked, b"?" * len(DATA), 'ETag: "e"', cut=30_000)
        else:
            line.answer(200, DATA, 'ETag: "f"')

    assert reader.get(f"{serve(answer).url}/x").data == DATA


# --- checksums and lengths


def sums(reader: Reader) -> HttpOptions:
    return reader.options(checksum_headers=(b"x-kind", b"x-sum"), hashes=(("md5", hashlib.md5),))


@pytest.mark.parametrize("times", [1, 100])
def test_a_wrong_checksum_is_read_again_once_and_then_an_error(
    serve: Serve, reader: Reader, times: int
) -> None:
    said = hashlib.md5(DATA).hexdigest()

    def answer(asked: Asked, line: Line) -> None:
        data = DATA if asked.before >= times else b"!" + DATA[1:]
        line.serve(asked, data, "X-Kind: md5", f"X-Sum: {said}")

    server = serve(answer)
    result = reader.get(f"{server.url}/x", options=sums(reader))
    assert len(server.asked) == 2
    if times == 1:
        assert result.data == DATA
    else:
        failed(result, ChecksumMismatchError, said)


def test_a_part_is_not_held_against_the_checksum_of_the_whole(serve: Serve, reader: Reader) -> None:
    said = hashlib.md5(DATA).hexdigest()
    server = serve(lambda asked, line: line.serve(asked, DATA, "X-Kind: md5", f"X-Sum: {said}"))
    result = reader.get(f"{server.url}/x", options=sums(reader), offset=10, length=100)
    assert result.data == DATA[10:110]


def test_a_continued_body_is_held_against_the_checksum_of_the_whole(serve: Serve, reader: Reader) -> None:
    said = hashlib.md5(DATA).hexdigest()

    def answer(asked: Asked, line: Line) -> None:
        data = b"!" + DATA[1:] if asked.before == 0 else DATA
        line.serve(asked, data, "X-Kind: md5", f"X-Sum: {said}", cut=30_000 if asked.before == 0 else None)

    server = serve(answer)
    assert reader.get(f"{server.url}/x", options=sums(reader)).data == DATA
    assert len(server.asked) == 3


@pytest.mark.parametrize("known", ["size", "checksum"])
def test_a_body_ended_by_the_connection_needs_a_size_or_a_checksum(
    serve: Serve, reader: Reader, known: str
) -> None:
    said = hashlib.md5(DATA).hexdigest()

    sum_of_it = ["X-Kind: md5", f"X-Sum: {said}"] if known == "checksum" else []

    def answer(asked: Asked, line: Line) -> None:
        data = DATA if asked.before else DATA[:50_000]
        line.answer(200, data, *sum_of_it, length=None)
        line.end()

    server = serve(answer)
    size = len(DATA) if known == "size" else -1
    assert reader.get(f"{server.url}/x", options=sums(reader), size=size).data == DATA
    assert len(server.asked) == 2


def test_chunks_are_put_together(serve: Serve, reader: Reader) -> None:
    server = serve(lambda _, line: send_chunks(line, whole=True))
    assert reader.get(f"{server.url}/x").data == DATA


# --- another address


@pytest.mark.parametrize("fault", ["404", "403", "400", "503", "refused", "unreachable port"])
def test_what_the_first_address_does_not_give_the_other_does(
    serve: Serve, reader: Reader, fault: str
) -> None:
    other = serve(lambda asked, line: line.serve(asked, DATA))
    first = f"http://127.0.0.1:{closed_port()}"
    if fault.isdigit():
        first = serve(lambda _, line: line.answer(int(fault))).url
    asked = [HttpRequest(f"{first}/{i}", f"store://{i}", otherwise=f"{other.url}/{i}") for i in range(10)]
    reads = reader.reads(asked)
    assert [result.data for result in reads] == [DATA] * 10
    assert reads.stats()["elsewhere"] == 10


def test_the_error_is_that_of_the_other_address(serve: Serve, reader: Reader) -> None:
    first, other = (serve(lambda _, line, s=status: line.answer(s)) for status in (403, 404))
    result = reader.get(f"{first.url}/x", otherwise=f"{other.url}/x")
    failed(result, FileMissingError)
