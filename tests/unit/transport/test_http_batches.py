"""Many objects by one request. An answer is a line for each, with number and length, and then its bytes."""

from __future__ import annotations

import json
import os
import random
import resource
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from datapipes.errors import ShardError, StoreTimeoutError
from datapipes.transport.http import Batching, BatchRequest, HttpReads, HttpRequest
from datapipes.transport.options import Origin, origin_of

from .conftest import Reader, Serve, in_child, taken_under_signals
from .raw_server import Asked, Line, RawServer

SIZES = [random.Random(7).choice([1, 100, 5000, 40_000]) for _ in range(120)]


def content(number: int) -> bytes:
    return random.Random(number).randbytes(SIZES[number])


class Lines:
    """Takes an answer apart."""

    def __init__(self, numbers: list[int]) -> None:
        self.numbers = numbers
        self.held = bytearray()
        self.open: tuple[int, int] | None = None
        """Number and length of what is coming in."""

    def __call__(self, piece: bytes) -> list[tuple[int, bytes]]:
        self.held += piece
        found: list[tuple[int, bytes]] = []
        while True:
            if self.open is None:
                end = self.held.find(b"\n")
                if end < 0:
                    return found
                words = self.held[:end].split()
                if not all(word.isdigit() for word in words):
                    if found:
                        return found
                    raise ShardError("no such line")
                self.open = int(words[0]), int(words[1])
                del self.held[: end + 1]
            number, size = self.open
            if len(self.held) < size:
                return found
            found.append((self.numbers.index(number), bytes(self.held[:size])))
            del self.held[:size]
            self.open = None


def batching(url: str, size: int) -> Batching:
    def ask(requests: Sequence[HttpRequest]) -> BatchRequest:
        numbers = [request.tag for request in requests]
        return BatchRequest(f"{url}/batch", json.dumps(numbers).encode(), Lines(numbers))

    return Batching(size, ask)


def requests(server: RawServer, *, known: bool = False) -> list[HttpRequest]:
    return [
        HttpRequest(
            f"{server.url}/one/{number}",
            f"store://{number}",
            size=SIZES[number] if known else -1,
            tag=number,
            together="all",
        )
        for number in range(len(SIZES))
    ]


def line_of(number: int) -> bytes:
    return b"%d %d\n%s" % (number, SIZES[number], content(number))


def whole(asked: Asked, line: Line) -> None:
    """The batch, or the one."""
    if asked.target == "/batch":
        line.answer(200, b"".join(line_of(number) for number in json.loads(asked.body)))
    else:
        line.answer(200, content(int(asked.target.rpartition("/")[2])))


def read(reader: Reader, server: RawServer, *, known: bool = False, size: int = 20, **how: Any) -> HttpReads:
    return reader.reads(
        requests(server, known=known), batching=batching(server.url, size), **{"max_in_flight": 80} | how
    )


def check(reads: HttpReads) -> None:
    results = sorted(reads)
    assert [result.position for result in results] == list(range(len(SIZES)))
    assert all(result.data == content(result.position) for result in results)


def singles(server: RawServer) -> list[int]:
    return sorted(int(asked.target[5:]) for asked in server.asked if asked.target.startswith("/one/"))


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("ordered", [False, True])
def test_a_batch_gives_all_and_nothing_else_is_asked(
    serve: Serve, reader: Reader, *, known: bool, ordered: bool
) -> None:
    server = serve(whole)
    check(read(reader, server, known=known, ordered=ordered))
    assert [asked.target for asked in server.asked] == ["/batch"] * 6
    assert {asked.headers["content-type"] for asked in server.asked} == {"application/json"}
    assert all("expect" not in asked.headers for asked in server.asked)


def test_a_connection_that_carried_a_batch_carries_plain_requests(serve: Serve, reader: Reader) -> None:
    server = serve(whole)
    check(read(reader, server))
    check(reader.reads(requests(server)))
    plain = [asked for asked in server.asked if asked.target != "/batch"]
    assert all(asked.body == b"" and "content-type" not in asked.headers for asked in plain)
    assert server.connections <= 8


def left_out(numbers: list[int]) -> bytes:
    return b"".join(line_of(number) for number in numbers if number % 4)


def cut(numbers: list[int]) -> bytes:
    answer = b"".join(map(line_of, numbers))
    return answer[: len(answer) // 2]


def of_another_size(numbers: list[int]) -> bytes:
    return b"".join(line_of(n) if n % 5 else b"%d 3\nabc" % n for n in numbers)


def turned(numbers: list[int]) -> bytes:
    """Some of it nonsense."""
    return b"".join(map(line_of, numbers[:3])) + b"what\n" + b"".join(map(line_of, numbers[3:]))


@pytest.mark.parametrize("answer", [left_out, cut, of_another_size, turned])
@pytest.mark.parametrize("ordered", [False, True])
def test_what_an_answer_lacks_is_asked_for_singly(
    serve: Serve, reader: Reader, answer: Callable[[list[int]], bytes], *, ordered: bool
) -> None:
    def flawed(asked: Asked, line: Line) -> None:
        if asked.target == "/batch":
            line.answer(200, answer(json.loads(asked.body)))
        else:
            whole(asked, line)

    server = serve(flawed)
    check(read(reader, server, known=True, ordered=ordered))
    assert 0 < len(singles(server)) < len(SIZES)
    assert len(set(singles(server))) == len(singles(server))


@pytest.mark.parametrize("how", ["status", "reset", "end", "garbage", "loop"])
def test_a_batch_that_fails_fails_nothing_else(serve: Serve, reader: Reader, how: str) -> None:
    def answer(asked: Asked, line: Line) -> None:
        if asked.target != "/batch":
            whole(asked, line)
        elif how == "status":
            line.answer(503, b"busy")
        elif how == "reset":
            line.answer(200, line_of(json.loads(asked.body)[0]), length=100_000)
            line.reset()
        elif how == "end":
            line.end()
        elif how == "garbage":
            line.send(b"SSH-2.0 what\r\n\r\n")
        else:
            line.answer(307, b"", f"Location: {line.server.url}/batch")

    check(read(reader, serve(answer)))


def test_a_redirect_keeps_the_body_and_chooses_headers_anew(serve: Serve, reader: Reader) -> None:
    there = serve(whole)

    def answer(asked: Asked, line: Line) -> None:
        if asked.target == "/batch":
            line.answer(307, b"", f"Location: {there.url}/batch")
        else:
            whole(asked, line)

    here = serve(answer)
    friend = origin_of(here.url + "/")

    def headers_for(origin: Origin) -> tuple[str, ...]:
        return ("Authorization: secret",) if origin == friend else ()

    check(read(reader, here, options=reader.options(headers_for=headers_for)))
    assert singles(here) == singles(there) == []
    assert {asked.headers.get("authorization") for asked in here.asked} == {"secret"}
    assert {asked.headers.get("authorization") for asked in there.asked} == {None}
    assert sorted(asked.body for asked in there.asked) == sorted(asked.body for asked in here.asked)


def test_memory_is_bounded_and_a_stalled_head_stops_nobody_for_good(serve: Serve, reader: Reader) -> None:
    """More comes than there is memory for; the first batch is silent until the others have filled it."""
    first_may_come = threading.Event()

    def answer(asked: Asked, line: Line) -> None:
        if asked.target == "/batch" and json.loads(asked.body)[0] == 0:
            first_may_come.wait(20)
        whole(asked, line)

    server = serve(answer)
    options = reader.options(stall_timeout_s=30.0)
    for known in (False, True):
        reads = read(reader, server, known=known, max_buffer_bytes=100_000, options=options)
        timer = threading.Timer(0.3, first_may_come.set)
        timer.start()
        check(reads)
        timer.join()
        first_may_come.clear()


@pytest.mark.parametrize("ordered", [False, True])
def test_answers_wait_while_there_is_no_memory_for_them(
    serve: Serve, reader: Reader, *, ordered: bool
) -> None:
    size, sent, quiet = 8 << 20, [0], threading.Event()

    def answer(asked: Asked, line: Line) -> None:
        numbers = json.loads(asked.body)
        if numbers[0] == 0:
            while not quiet.is_set():  # until the others have come to a stop
                before = sent[0]
                if not quiet.wait(0.7) and sent[0] == before:
                    quiet.set()
        line.answer(200, length=sum(len(b"%d %d\n" % (n, size)) + size for n in numbers))
        for number in numbers:
            line.send(b"%d %d\n" % (number, size))
            for _ in range(size >> 18):
                line.send(bytes(1 << 18))
                sent[0] += 0 if quiet.is_set() else 1 << 18

    server = serve(answer)
    asked = [HttpRequest(f"{server.url}/one/{n}", f"store://{n}", tag=n, together="all") for n in range(8)]
    reads = reader.reads(
        asked,
        batching=batching(server.url, 2),
        max_in_flight=8,
        max_buffer_bytes=2 << 20,
        ordered=ordered,
        options=reader.options(stall_timeout_s=60.0),
        timeout_s=None,
    )
    assert sorted(len(result.data or b"") for result in reads) == [size] * 8
    assert sent[0] < (32 << 20)  # of 48 MiB; most of it lies in sockets


def test_what_is_left_out_is_asked_for_though_no_connection_is_free(serve: Serve, reader: Reader) -> None:
    """The one connection that the process may have waits for memory, which waits for what it has left out."""

    def answer(asked: Asked, line: Line) -> None:
        if asked.target == "/batch":
            line.answer(200, b"".join(b"%d 200000\n" % n + bytes(200_000) for n in range(1, 4)))
        else:
            line.answer(200, bytes(200_000))

    server = serve(answer)
    asked = [HttpRequest(f"{server.url}/one/{n}", f"store://{n}", tag=n, together="all") for n in range(4)]

    def read() -> bool:
        few = len(os.listdir("/dev/fd")) + 33
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
        reads = reader.reads(
            asked, batching=batching(server.url, 4), max_buffer_bytes=100_000, max_in_flight=4
        )
        return [len(result.data or b"") for result in reads] == [200_000] * 4

    assert in_child(read)


def test_an_object_that_does_not_come_times_out_and_the_next_is_asked_for(
    serve: Serve, reader: Reader
) -> None:
    def answer(asked: Asked, line: Line) -> None:
        if asked.target == "/batch" and 30 in json.loads(asked.body):
            numbers = json.loads(asked.body)
            line.answer(200, b"".join(line_of(n) for n in numbers if n < 30), length=10_000_000)
            line.wait()
        else:
            whole(asked, line)

    options = reader.options(stall_timeout_s=30.0)
    results = list(read(reader, serve(answer), timeout_s=1.0, options=options))
    assert isinstance(results[30].error, StoreTimeoutError)
    assert [r.position for r in results if r.error is not None] == [30]
    assert all(r.data == content(r.position) for r in results if r.error is None)


# Python swallows what is raised while it frees something, and says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("ordered", [False, True])
def test_a_handler_that_raises_at_any_moment_loses_nothing(
    serve: Serve, reader: Reader, *, ordered: bool
) -> None:
    def slowly(asked: Asked, line: Line) -> None:
        time.sleep(0.005)
        whole(asked, line)

    reads = read(reader, serve(slowly), size=8, max_in_flight=32, ordered=ordered)
    results, heard = taken_under_signals(reads, 20)
    positions = [result.position for result in results]
    assert len(set(positions)) == len(positions)
    # It may ring between the last line of ``next`` and the list: what was taken then is the caller's loss.
    assert len(SIZES) - len(positions) <= heard
    assert heard > 0
    assert all(result.data == content(result.position) for result in results)
