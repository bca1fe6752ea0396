"""What comes of many requests: which bytes, in which order, within which bounds."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import resource
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datapipes.errors import OptionError
from datapipes.transport.http import HttpReads, HttpRequest

from .conftest import Reader, Serve, allow_descriptors, in_child, taken_under_signals
from .raw_server import Asked, Line


@functools.cache
def content(size: int) -> bytes:
    return bytes(itertools.islice(itertools.cycle(range(251)), size))


def by_size(asked: Asked, line: Line) -> None:
    """``/SIZE/anything`` holds so many bytes."""
    line.serve(asked, content(int(asked.target.split("/")[1])), 'ETag: "e"')


def requests(url: str, sizes: list[int], *, known: bool = False) -> list[HttpRequest]:
    return [
        HttpRequest(f"{url}/{size}/{i}", f"store://{i}", size=size if known else -1, tag=size)
        for i, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("max_in_flight", [1, 3, 64])
def test_every_size_comes_whole_and_in_order(
    serve: Serve, reader: Reader, max_in_flight: int, *, known: bool
) -> None:
    sizes = [0, 1, 16384, 16385, 262_143, 262_144, 262_145, 3_000_000] * 3
    asked = requests(serve(by_size).url, sizes, known=known)
    results = list(reader.reads(asked, max_in_flight=max_in_flight))
    assert [(r.position, r.request, r.error) for r in results] == [(i, r, None) for i, r in enumerate(asked)]
    assert all(r.data == content(r.request.tag) and r.total == r.request.tag for r in results)
    assert all(type(r.data) is bytes for r in results)


def test_as_completed_the_quick_come_before_the_slow(serve: Serve, reader: Reader) -> None:
    first_may_come = threading.Event()

    def answer(asked: Asked, line: Line) -> None:
        if asked.target.endswith("/0"):
            first_may_come.wait(10)
        by_size(asked, line)

    reads = reader.reads(requests(serve(answer).url, [10] * 20), ordered=False)
    positions = [next(reads).position for _ in range(19)]
    first_may_come.set()
    assert sorted(positions) == list(range(1, 20))
    assert [result.position for result in reads] == [0]


@pytest.mark.parametrize(
    ("offset", "length", "first", "end"),
    [(0, 10, 0, 10), (990, 10, 990, 1000), (5, -1, 5, 1000), (995, 50, 995, 1000), (500, 0, 500, 500)],
)
@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "server without ranges"])
def test_a_range_gives_its_bytes_and_the_whole_size(
    serve: Serve, reader: Reader, offset: int, length: int, first: int, end: int, *, ranges: bool
) -> None:
    def answer(asked: Asked, line: Line) -> None:
        if ranges:
            by_size(asked, line)
        else:
            line.answer(200, content(1000))

    result = reader.get(f"{serve(answer).url}/1000", offset=offset, length=length)
    assert (result.data, result.total) == (content(1000)[first:end], 1000)


@pytest.mark.parametrize("offset", [1000, 2000])
def test_a_range_beyond_the_end_is_empty_and_tells_the_size(
    serve: Serve, reader: Reader, offset: int
) -> None:
    result = reader.get(f"{serve(by_size).url}/1000", offset=offset)
    assert (result.data, result.total) == (b"", 1000)


@pytest.mark.parametrize("known", [False, True])
def test_large_objects_are_read_as_ranges_side_by_side(serve: Serve, reader: Reader, *, known: bool) -> None:
    together = threading.Barrier(5)

    def answer(asked: Asked, line: Line) -> None:
        if "range" in asked.headers:
            together.wait(20)  # until all five have come
        by_size(asked, line)

    server = serve(answer)
    options = reader.options(range_bytes=1 << 20, stall_timeout_s=30.0)
    (result,) = reader.reads(requests(server.url, [5_000_001], known=known), options=options)
    assert result.data == content(5_000_001)
    assert type(result.data) is bytes  # as of any other object: it can be pickled and hashed
    assert len({asked.headers.get("range") for asked in server.asked} - {None}) == 5


@pytest.mark.parametrize("flaw", ["no proof", "other proof", "no ranges", "shrank"])
def test_ranges_that_cannot_be_of_one_object_are_read_anew_in_one_piece(
    serve: Serve, reader: Reader, flaw: str
) -> None:
    count = itertools.count()

    def answer(asked: Asked, line: Line) -> None:
        if "range" not in asked.headers or flaw == "no ranges":
            line.answer(200, content(3_000_000), 'ETag: "new"')
        elif flaw == "no proof":
            line.serve(asked, content(3_000_000))
        elif flaw == "other proof":
            line.serve(asked, b"x" * 3_000_000, f'ETag: "{next(count)}"')
        else:
            line.serve(asked, b"x" * 1_500_000, 'ETag: "e"')

    server = serve(answer)
    (result,) = reader.reads(
        requests(server.url, [3_000_000], known=True), options=reader.options(range_bytes=1 << 20)
    )
    assert result.data == content(3_000_000)


def after_company(number: int) -> Callable[[Asked, Line], None]:
    """The first ``number`` requests are answered once all of them have come."""
    count, together = itertools.count(), threading.Barrier(number)

    def answer(asked: Asked, line: Line) -> None:
        if next(count) < number:
            together.wait(20)
        by_size(asked, line)

    return answer


def test_requests_at_once_are_bounded_and_reach_the_bound(serve: Serve, reader: Reader) -> None:
    server = serve(after_company(7))
    list(reader.reads(requests(server.url, [100] * 100), max_in_flight=7))
    assert server.most_at_once == 7


def test_connections_are_kept_for_the_next_reading(serve: Serve, reader: Reader) -> None:
    server = serve(by_size)
    options = reader.options()
    for _ in range(5):
        list(reader.reads(requests(server.url, [100] * 40), options=options))
    assert server.connections <= 8


def test_each_of_the_requests_at_once_has_a_connection_and_keeps_it(serve: Serve, reader: Reader) -> None:
    server = serve(after_company(24))
    options = reader.options(idle_connections=4)
    list(reader.reads(requests(server.url, [100] * 200), options=options, max_in_flight=24))
    assert server.connections == 24


def test_no_more_connections_than_may_idle_outlive_their_reading(serve: Serve, reader: Reader) -> None:
    server = serve(after_company(24))
    before = len(os.listdir("/dev/fd"))
    options = reader.options(idle_connections=4, stall_timeout_s=1.5)
    list(reader.reads(requests(server.url, [100] * 24), options=options, max_in_flight=24))
    deadline = time.monotonic() + 20
    while len(os.listdir("/dev/fd")) - before > 12 and time.monotonic() < deadline:
        time.sleep(0.01)  # the server, which is in this process too, notices a little later
    assert len(os.listdir("/dev/fd")) - before <= 12  # both ends of four, a driver's own, the server's


def test_connections_of_many_sets_of_options_are_not_all_kept(serve: Serve, reader: Reader) -> None:
    url = serve(by_size).url
    before = len(os.listdir("/dev/fd"))
    for i in range(30):
        list(reader.reads(requests(url, [10] * 40), options=reader.options(stall_timeout_s=1.0 + i)))
    # Four readings' connections, both of their ends (the server is in this process too), and some that close.
    assert len(os.listdir("/dev/fd")) - before < 8 * (2 * 8 + 2)


def test_connections_that_idle_are_bounded_whatever_their_options(serve: Serve, reader: Reader) -> None:
    before = len(os.listdir("/dev/fd"))
    for i in range(4):
        url = serve(after_company(40)).url
        options = reader.options(idle_connections=60, stall_timeout_s=20.0 + i)
        list(reader.reads(requests(url, [10] * 40), options=options, max_in_flight=40))
    deadline = time.monotonic() + 20
    while len(os.listdir("/dev/fd")) - before > 120 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(os.listdir("/dev/fd")) - before <= 120  # both ends of forty, and of each server some


def test_idle_connections_make_room_for_those_of_another_reading(serve: Serve, reader: Reader) -> None:
    first, second = serve(after_company(80)), serve(after_company(100))

    def read() -> bool:
        allow_descriptors(150)
        errors = []
        for number, server in (80, first), (100, second):
            options = reader.options(stall_timeout_s=20.0 + number, idle_connections=100)
            reads = reader.reads(requests(server.url, [10] * number), options=options, max_in_flight=number)
            errors += [result.error for result in reads]
        return errors == [None] * 180

    assert in_child(read)
    assert second.most_at_once == 100


def in_chunks(asked: Asked, line: Line) -> None:
    """The same, without saying how many bytes there are."""
    data = content(int(asked.target.split("/")[1]))
    line.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for at in range(0, len(data), 1 << 16):
        piece = data[at : at + (1 << 16)]
        line.send(b"%x\r\n" % len(piece) + piece + b"\r\n")
    line.send(b"0\r\n\r\n")


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("size", ["known", "said by the answer", "never said"])
def test_bytes_on_their_way_are_bounded_while_the_first_is_slow(
    serve: Serve, reader: Reader, size: str, *, ordered: bool
) -> None:
    bytes_each, bound = 1 << 20, 4 << 20
    first_may_come = threading.Event()

    def answer(asked: Asked, line: Line) -> None:
        if asked.target.endswith("/0"):
            first_may_come.wait(20)
        (in_chunks if size == "never said" else by_size)(asked, line)

    wanted = requests(serve(answer).url, [bytes_each] * 40, known=size == "known")
    reads = reader.reads(wanted, max_in_flight=40, max_buffer_bytes=bound, ordered=ordered)
    releaser = threading.Timer(0.5, first_may_come.set)
    content(bytes_each)
    before, cpu = resident(), time.process_time()
    releaser.start()
    first = next(reads)
    if ordered:
        assert first.position == 0
    else:
        releaser.join()  # a consumer that takes no more
    assert resident() - before < bound + (16 << 20)
    assert time.process_time() - cpu < 0.45  # it waits, and does not ask again and again
    assert [len(result.data or b"") for result in reads] == [bytes_each] * 39


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def test_descriptors_bound_what_is_in_flight(serve: Serve, reader: Reader) -> None:
    server = serve(after_company(51))

    def read() -> bool:
        allow_descriptors(150)
        results = list(reader.reads(requests(server.url, [10] * 300), max_in_flight=250))
        return [result.error for result in results] == [None] * 300

    assert in_child(read)
    assert 50 < server.most_at_once < 150


@pytest.mark.parametrize("taken", [0, 1, 20])
def test_close_cancels_and_the_next_reading_is_whole(serve: Serve, reader: Reader, taken: int) -> None:
    server = serve(by_size)
    pulled = itertools.count()
    endless = (HttpRequest(f"{server.url}/5000/{i}", f"store://{i}") for i in pulled)
    reads = reader.reads(endless)
    for _ in range(taken):
        next(reads)
    reads.close()
    reads.close()
    assert list(reads) == []
    assert next(pulled) <= taken + 9
    assert [len(r.data or b"") for r in reader.reads(requests(server.url, [5000] * 20))] == [5000] * 20


def test_close_from_another_thread_ends_a_next_that_waits(serve: Serve, reader: Reader) -> None:
    reads = reader.reads(requests(serve(lambda _, line: line.wait()).url, [1]), timeout_s=None)
    threading.Timer(0.2, reads.close).start()
    began = time.monotonic()
    assert list(reads) == []
    assert time.monotonic() - began < 3


def test_two_threads_take_from_one_reading_and_nothing_is_lost(serve: Serve, reader: Reader) -> None:
    reads = reader.reads(requests(serve(by_size).url, [2000] * 300))
    taken: list[int] = []

    def take() -> None:
        taken.extend(result.position for result in reads)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert sorted(taken) == list(range(300))


def test_an_interrupt_while_waiting_is_heard_and_nothing_is_lost(serve: Serve, reader: Reader) -> None:
    may_come = threading.Event()

    def answer(asked: Asked, line: Line) -> None:
        may_come.wait(20)
        by_size(asked, line)

    reads = reader.reads(requests(serve(answer).url, [10] * 20), timeout_s=None)
    ringer = threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT))
    ringer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        next(reads)
    assert time.monotonic() - began < 1.4
    may_come.set()
    assert [result.position for result in reads] == list(range(20))


# Python swallows what is raised while it frees something, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_handler_that_raises_at_any_moment_loses_nothing(serve: Serve, reader: Reader) -> None:
    sizes = [20_000, 100, 300_000, 0] * 150
    reads = reader.reads(requests(serve(by_size).url, sizes), max_in_flight=16)
    results, heard = taken_under_signals(reads, 60)
    positions = [result.position for result in results]
    assert positions == sorted(set(positions))
    # It may ring between the last line of ``next`` and the list: what was taken then is the caller's loss.
    assert len(sizes) - len(positions) <= heard
    assert heard > 5
    assert all(len(result.data or b"") == result.request.tag for result in results)


def test_the_callers_own_time_counts_for_no_time_out(serve: Serve, reader: Reader) -> None:
    reads = reader.reads(requests(serve(by_size).url, [400_000] * 30), timeout_s=0.6, max_in_flight=4)
    next(reads)
    time.sleep(0.9)
    assert [result.error for result in reads] == [None] * 29


def test_a_forked_child_reads_by_itself_and_leaves_the_parents_connections(
    serve: Serve, reader: Reader
) -> None:
    url = serve(by_size).url
    options = reader.options()
    reads = reader.reads(requests(url, [5000] * 40), options=options)
    next(reads)

    def read() -> bool:
        own = [len(r.data or b"") for r in reader.reads(requests(url, [300] * 10), options=options)]
        with pytest.raises(RuntimeError, match="another process"):
            next(reads)
        reads.close()
        return own == [300] * 10

    assert in_child(read)
    assert [result.error for result in reads] == [None] * 39


def test_an_error_of_the_requests_comes_after_the_results_before_it(serve: Serve, reader: Reader) -> None:
    url = serve(by_size).url

    def failing() -> Iterator[HttpRequest]:
        yield from requests(url, [10] * 30)
        raise ZeroDivisionError

    reads = reader.reads(failing())
    assert [next(reads).position for _ in range(30)] == list(range(30))
    with pytest.raises(ZeroDivisionError):
        next(reads)
    assert list(reads) == []


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.sampled_from([0, 1, 100, 20_000, 300_000]), max_size=40),
    depth=st.integers(1, 16),
    bound=st.sampled_from([1, 1000, 100_000, 1 << 24]),
    ordered=st.booleans(),
    known=st.booleans(),
)
def test_whatever_the_sizes_and_bounds_each_comes_once(
    serve: Serve, reader: Reader, sizes: list[int], depth: int, bound: int, *, ordered: bool, known: bool
) -> None:
    url = serve(by_size).url
    asked = requests(url, sizes, known=known)
    results = list(reader.reads(asked, max_in_flight=depth, max_buffer_bytes=bound, ordered=ordered))
    positions = [result.position for result in results]
    assert (positions if ordered else sorted(positions)) == list(range(len(sizes)))
    assert all(result.data == content(result.request.tag) for result in results)


def test_requests_are_translated_together_and_may_be_refused(serve: Serve, reader: Reader) -> None:
    url, together = serve(by_size).url, []

    def translate(sizes: list[int]) -> list[HttpRequest]:
        together.append(len(sizes))
        no = OptionError("no", url="x", operation="read")
        return [HttpRequest(f"{url}/{s}", "store://x", tag=s, refused=no if s == 5 else None) for s in sizes]

    for ordered in (True, False):
        reads = HttpReads(
            iter(range(100)),
            reader.options(),
            translate=translate,
            max_in_flight=16,
            max_buffer_bytes=1 << 20,
            ordered=ordered,
        )
        results = sorted(reads, key=lambda result: result.position)
        assert [result.data for result in results] == [content(i) if i != 5 else None for i in range(100)]
        assert type(results[5].error) is OptionError
    assert max(together) == 16


def test_stats_count(serve: Serve, reader: Reader) -> None:
    server = serve(by_size)
    reads = reader.reads([*requests(server.url, [10] * 5), HttpRequest("ftp://x/y", "store://bad")])
    results = list(reads)
    assert [result.error is None for result in results] == [True] * 5 + [False]
    stats = reads.stats()
    assert (stats["items"], stats["bytes"], stats["errors"], stats["depth"]) == (6, 50, 1, 5)


def test_depth_is_the_most_that_were_on_their_way(serve: Serve, reader: Reader) -> None:
    together = threading.Barrier(6)

    def answer(asked: Asked, line: Line) -> None:
        together.wait(20)
        by_size(asked, line)

    reads = reader.reads(requests(serve(answer).url, [10] * 30), max_in_flight=6)
    assert reads.stats()["depth"] == 0
    assert len(list(reads)) == 30
    assert reads.stats()["depth"] == 6


def answer_at_once(listener: socket.socket) -> None:
    """A server without Python's overhead of threads: it answers while the client is still sending."""
    line, _ = listener.accept()
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while line.recv(1 << 16):
        line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def test_an_answer_quicker_than_the_next_look_is_not_waited_for(reader: Reader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        child = os.fork()
        if child == 0:
            try:
                answer_at_once(listener)
            finally:
                os._exit(0)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            asked = [HttpRequest(url, f"store://{i}") for i in range(2000)]
            with contextlib.closing(reader.reads(asked, max_in_flight=1)) as reads:
                next(reads)
                began = time.monotonic()
                assert [result.data for result in reads] == [b"ok"] * 1999
            assert time.monotonic() - began < 2  # a wait in vain takes 50 ms
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
