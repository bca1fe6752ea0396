"""HTTP/2 over TLS: many requests on few connections, what is cut off on the way, servers without it."""

from __future__ import annotations

import contextlib
import gc
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("h2")
pytest.importorskip("pycurl")

import pycurl
from h2.errors import ErrorCodes

from datapipes.errors import StoreConnectionError, StoreTimeoutError
from datapipes.testing.backend_hooks import check_error
from datapipes.transport.http import HttpRequest
from datapipes.transport.options import HttpOptions, Origin, origin_of

from .conftest import Reader, Serve, context
from .h2_server import Answer, H2Server, Stream
from .raw_server import Asked

DATA = bytes(range(251)) * 400

pytestmark = pytest.mark.skipif(
    not pycurl.version_info()[4] & pycurl.VERSION_HTTP2, reason=f"{pycurl.version} speaks no HTTP/2"
)

ServeH2 = Callable[[Answer], H2Server]


@pytest.fixture
def serve_h2(keys: Path) -> Iterator[ServeH2]:
    with contextlib.ExitStack() as stack:

        def start(answer: Answer) -> H2Server:
            return stack.enter_context(contextlib.closing(H2Server(answer, context(keys))))

        yield start
        gc.collect()


@pytest.fixture
def two(reader: Reader, keys: Path) -> Callable[..., HttpOptions]:
    """Options with which HTTP/2 is spoken: the usual ones."""
    patient = {"ca_file": str(keys / "ca.pem"), "stall_timeout_s": 30.0}
    return lambda **more: reader.options(**patient | more)


def whole(asked: Asked, stream: Stream) -> None:
    stream.serve(asked, DATA)


def content(i: int) -> bytes:
    return b"%d," % i * (i * 7 % 2000)


def numbered(asked: Asked, stream: Stream) -> None:
    stream.answer(200, content(int(asked.target[1:])))


def requests(url: str, count: int) -> list[HttpRequest]:
    return [HttpRequest(f"{url}/{i}", f"store://{i}") for i in range(count)]


def after(event: threading.Event, then: Callable[[], None]) -> Callable[[], None]:
    def wait() -> None:
        event.wait(20)
        then()

    return wait


# --- many at once


@pytest.mark.parametrize("depth", [1, 8, 9, 64])
def test_eight_requests_share_a_connection(serve_h2: ServeH2, reader: Reader, two: Any, depth: int) -> None:
    """All connections that are needed are opened at once, and none but these."""
    server = serve_h2(numbered)
    for _ in range(2):
        reads = reader.reads(requests(server.url, 300), options=two(), max_in_flight=depth)
        assert [result.data for result in reads] == [content(i) for i in range(300)]
    assert server.connections == (depth + 7) // 8
    assert len(server.asked) == 600


def test_a_connection_that_is_slow_to_stand_brings_no_more_of_them(
    serve_h2: ServeH2, reader: Reader, two: Any
) -> None:
    """The first takes on more and more meanwhile, eight at once; the last requests wait for the second."""
    many = threading.Event()

    def answer(asked: Asked, stream: Stream) -> None:
        numbered(asked, stream)
        if len(server.asked) >= 280:
            many.set()

    server = serve_h2(answer)
    server.before_connecting = lambda number: number == 1 or many.wait(20)
    reads = reader.reads(requests(server.url, 300), options=two(), max_in_flight=16, ordered=False)
    assert sorted(result.position for result in reads) == list(range(300))
    assert server.connections == 2


@pytest.mark.parametrize("ordered", [True, False])
def test_as_many_as_may_be_are_on_their_way_and_never_more(
    serve_h2: ServeH2, reader: Reader, two: Any, *, ordered: bool
) -> None:
    held: list[tuple[Asked, Stream]] = []

    def all_of(some: list[tuple[Asked, Stream]]) -> None:
        for which in some:
            numbered(*which)

    def all_together(asked: Asked, stream: Stream) -> None:
        held.append((asked, stream))
        if len(held) == 8:
            *others, last = held
            held.clear()
            numbered(*last)
            stream.line.when_met(lambda: all_of(others))

    server = serve_h2(all_together)
    reads = reader.reads(requests(server.url, 80), options=two(), max_in_flight=8, ordered=ordered)
    results = list(reads)
    places = [result.position for result in results]
    assert sorted(places) == list(range(80))
    assert (places == list(range(80))) == ordered
    assert server.connections == 1
    assert [result.data for result in results] == [content(i) for i in places]
    assert server.most_at_once == 8


def test_bodies_that_wait_for_memory_stop_no_others(serve_h2: ServeH2, reader: Reader, two: Any) -> None:
    """All of a connection's streams share its window: what is not taken in must not use it up."""
    large = DATA * 30

    def answer(asked: Asked, stream: Stream) -> None:
        stream.answer(200, large if int(asked.target[1:]) % 2 else DATA)

    server = serve_h2(answer)
    how = {"max_in_flight": 24, "max_buffer_bytes": 2 * len(large)}
    results = list(reader.reads(requests(server.url, 24), options=two(), **how))
    assert [result.error for result in results] == [None] * 24
    assert all(result.data == (large if result.position % 2 else DATA) for result in results)


def test_what_came_with_the_end_of_another_is_not_forgotten(
    serve_h2: ServeH2, reader: Reader, two: Any
) -> None:
    """The end of /a and all of /b come at once, and /a alone is read on: it had to wait for memory. What is
    left of /b is in the memory of the TLS library then, of which no socket speaks."""
    waits, go, said = threading.Event(), threading.Event(), threading.Event()
    elsewhere: list[Stream] = []
    streams: dict[str, Stream] = {}

    def here(asked: Asked, stream: Stream) -> None:
        streams[asked.target] = stream
        if len(streams) == 2:
            streams["/a"].answer(200, DATA[:10_000], length=50_000)
            stream.line.when_met(rest)

    def rest() -> None:
        waits.set()
        go.wait(20)
        for target, data in ("/a", DATA[10_000:50_000]), ("/b", DATA[:2000]):
            streams[target].tell(data, begun=target == "/a")
        said.set()

    def there(asked: Asked, stream: Stream) -> None:
        elsewhere.append(stream)
        if asked.target == "/large":
            stream.answer(200, DATA * 3)
            stream.line.when_met(after(waits, lambda: elsewhere[0].answer(200, b"first")))
        elif asked.target != "/first":
            stream.answer(200, b"more")

    one, other = serve_h2(here).url, serve_h2(there).url
    names = [f"{other}/first", f"{other}/large", f"{one}/a", f"{one}/b", f"{other}/c", f"{other}/d"]
    how = {"max_in_flight": 4, "max_buffer_bytes": 380_000}
    reads = reader.reads([HttpRequest(name, "store://object") for name in names], options=two(), **how)
    assert next(reads).data == b"first"
    go.set()
    assert said.wait(20)
    assert [result.data for result in reads] == [DATA * 3, DATA[:50_000], DATA[:2000], b"more", b"more"]


def test_ranges_of_a_large_object_share_a_connection(serve_h2: ServeH2, reader: Reader, two: Any) -> None:
    server = serve_h2(lambda asked, stream: stream.serve(asked, DATA, 'ETag: "one"'))
    assert reader.get(f"{server.url}/x", options=two(range_bytes=10_000)).data == DATA
    assert {asked.headers.get("range") for asked in server.asked} >= {"bytes=0-9999", "bytes=100000-100399"}
    assert server.connections == 1


def test_an_end_by_frame_needs_no_length(serve_h2: ServeH2, reader: Reader, two: Any) -> None:
    server = serve_h2(lambda _, stream: stream.answer(200, DATA, length=None))
    assert reader.get(f"{server.url}/x", options=two()).data == DATA


def test_a_reading_that_is_closed_leaves_the_connection_whole(
    serve_h2: ServeH2, reader: Reader, two: Any
) -> None:
    def answer(asked: Asked, stream: Stream) -> None:
        if asked.target == "/0" or asked.before:
            stream.serve(asked, DATA)

    server = serve_h2(answer)
    options = two()
    reads = reader.reads(requests(server.url, 8), options=options)
    assert next(reads).data == DATA
    reads.close()
    results = list(reader.reads(requests(server.url, 8), options=options))
    assert [result.data for result in results] == [DATA] * 8
    assert server.connections == 1


# --- faults


def cut(code: ErrorCodes, *, after: int) -> Answer:
    """Streams that are reset, before an answer or in its body."""

    def answer(asked: Asked, stream: Stream) -> None:
        if after:
            stream.answer(200, DATA[:after], 'ETag: "one"', length=len(DATA))
        stream.reset(code)

    return answer


def gone(*, after: int) -> Answer:
    """The whole connection, with a word of farewell."""

    def answer(asked: Asked, stream: Stream) -> None:
        if after:
            stream.answer(200, DATA[:after], length=len(DATA))

        def leave() -> None:
            stream.line.go_away(stream.number, ErrorCodes.INTERNAL_ERROR)
            stream.line.end()

        stream.line.when_met(leave)

    return answer


def ended(asked: Asked, stream: Stream) -> None:
    stream.line.when_met(stream.line.end)


def too_short(asked: Asked, stream: Stream) -> None:
    stream.answer(200, DATA[:5000], length=len(DATA), end=True)


def too_long(asked: Asked, stream: Stream) -> None:
    stream.answer(200, DATA + b"more", length=len(DATA))


FAULTS: dict[str, Answer] = {
    **{
        f"{code.name}, {'in the body' if after else 'before the answer'}": cut(code, after=after)
        for after in (0, 5000)
        for code in (
            ErrorCodes.CANCEL,
            ErrorCodes.INTERNAL_ERROR,
            ErrorCodes.REFUSED_STREAM,
            ErrorCodes.ENHANCE_YOUR_CALM,
        )
    },
    "GOAWAY before the answer": gone(after=0),
    "GOAWAY in the body": gone(after=5000),
    "end of the connection": ended,
    "a body too short": too_short,
    "a body too long": too_long,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_cut_off_once_is_read_again(serve_h2: ServeH2, reader: Reader, two: Any, fault: str) -> None:
    def answer(asked: Asked, stream: Stream) -> None:
        if asked.target in {"/3", "/11"} and not asked.before:
            FAULTS[fault](asked, stream)
        else:
            stream.serve(asked, DATA, 'ETag: "one"')

    server = serve_h2(answer)
    results = list(reader.reads(requests(server.url, 20), options=two()))
    assert [result.error for result in results] == [None] * 20
    assert [result.data for result in results] == [DATA] * 20
    assert min(server.counts(target) for target in ("/3", "/11")) >= 2


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_cut_off_always_is_reported(serve_h2: ServeH2, reader: Reader, two: Any, fault: str) -> None:
    def answer(asked: Asked, stream: Stream) -> None:
        if asked.target == "/3":
            FAULTS[fault](asked, stream)
        else:
            whole(asked, stream)

    server = serve_h2(answer)
    results = list(reader.reads(requests(server.url, 8), options=two(retry_budget_s=0.3)))
    assert type(results[3].error) is StoreConnectionError, results[3].error
    assert "tries" in str(results[3].error)
    check_error(results[3].error)


def test_a_stream_that_was_cut_off_goes_on_where_it_was(serve_h2: ServeH2, reader: Reader, two: Any) -> None:
    def answer(asked: Asked, stream: Stream) -> None:
        stream.serve(asked, DATA, 'ETag: "one"', cut=None if asked.before else 5000)

    server = serve_h2(answer)
    assert reader.get(f"{server.url}/x", options=two()).data == DATA
    assert [asked.headers.get("range") for asked in server.asked] == [None, "bytes=5000-"]
    assert server.connections == 1


def test_a_silent_stream_is_a_timeout_of_its_own(serve_h2: ServeH2, reader: Reader, two: Any) -> None:
    def answer(asked: Asked, stream: Stream) -> None:
        if asked.target == "/3":
            stream.answer(200, DATA[:5000], length=len(DATA))
        else:
            whole(asked, stream)

    server = serve_h2(answer)
    options = two(retry_budget_s=0.0, stall_timeout_s=2.0)
    results = list(reader.reads(requests(server.url, 20), options=options))
    assert type(results[3].error) is StoreTimeoutError
    assert [result.data for result in results] == [DATA] * 3 + [None] + [DATA] * 16


def test_a_server_that_ends_its_connections_in_time_costs_no_retry(
    serve_h2: ServeH2, reader: Reader, two: Any
) -> None:
    """As servers do after so many requests: they finish what they took, and never see what came after."""

    def answer(asked: Asked, stream: Stream) -> None:
        if stream.line.asked <= 10:
            numbered(asked, stream)
        if stream.line.asked == 10:
            stream.line.go_away(stream.number)

    server = serve_h2(answer)
    reads = reader.reads(requests(server.url, 100), options=two())
    assert [result.data for result in reads] == [content(i) for i in range(100)]
    assert server.connections >= 10
    assert reads.stats()["retries"] == 0


# --- whom it is spoken with


def test_headers_are_chosen_for_each_hop(serve_h2: ServeH2, reader: Reader, two: Any) -> None:
    stranger = serve_h2(whole)
    friend = serve_h2(
        lambda asked, stream: stream.answer(302, b"", f"Location: {stranger.url}{asked.target}")
    )

    def headers_for(origin: Origin) -> tuple[str, ...]:
        return ("Authorization: Bearer secret",) if origin == origin_of(friend.url) else ()

    results = list(reader.reads(requests(friend.url, 20), options=two(headers_for=headers_for)))
    assert [result.data for result in results] == [DATA] * 20
    assert {asked.headers.get("authorization") for asked in friend.asked} == {"Bearer secret"}
    assert {asked.headers.get("authorization") for asked in stranger.asked} == {None}
    assert len(stranger.asked) == 20


@pytest.mark.parametrize("offers", [["http/1.1"], [], None], ids=["http/1.1", "nothing", "no TLS"])
def test_servers_without_it_are_read_by_http_1_1(
    serve: Serve, reader: Reader, two: Any, keys: Path, offers: list[str] | None
) -> None:
    tls = None if offers is None else context(keys)
    if tls is not None and offers:
        tls.set_alpn_protocols(offers)
    server = serve(lambda asked, line: line.serve(asked, DATA), tls)
    reads = reader.reads(requests(server.url, 100), options=two(), max_in_flight=8)
    assert [result.data for result in reads] == [DATA] * 100
    assert server.most_at_once <= 8
    assert reads.stats()["retries"] == 0


def test_a_server_without_it_has_all_requests_before_it_answers_one(
    serve: Serve, reader: Reader, two: Any, keys: Path
) -> None:
    all_asked = threading.Barrier(20, timeout=18)

    def answer(asked: Asked, line: Any) -> None:
        all_asked.wait()
        line.serve(asked, DATA)

    server = serve(answer, context(keys))
    options = two(connect_timeout_s=60.0)
    results = list(reader.reads(requests(server.url, 20), options=options, max_in_flight=20, timeout_s=60.0))
    assert not all_asked.broken
    assert [result.data for result in results] == [DATA] * 20


def test_who_wants_none_is_read_by_http_1_1(serve: Serve, reader: Reader, two: Any, keys: Path) -> None:
    tls = context(keys)
    tls.set_alpn_protocols(["h2", "http/1.1"])
    server = serve(lambda asked, line: line.serve(asked, DATA), tls)
    assert reader.get(f"{server.url}/x", options=two(http2=False)).data == DATA


def test_requests_that_wait_for_a_connection_fail_with_it(
    serve_h2: ServeH2, reader: Reader, two: Any
) -> None:
    """Those that would share it are told the same, and do not wait for nothing."""
    server = serve_h2(whole)
    server.close()
    results = list(reader.reads(requests(server.url, 20), options=two(retry_budget_s=0.0), max_in_flight=20))
    assert {type(result.error) for result in results} == {StoreConnectionError}


def test_requests_that_wait_for_a_connection_can_be_given_up(reader: Reader, two: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes connections and never says a word
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        options = two(retry_budget_s=0.0, connect_timeout_s=0.3)
        for _ in range(2):
            results = list(reader.reads(requests(url, 20), options=options, max_in_flight=20))
            assert {type(result.error) for result in results} == {StoreTimeoutError}
