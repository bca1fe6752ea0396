"""Memory for answers of unknown length: nothing keeps what was taken, and nobody waits for it in vain."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from .conftest import Reader, Serve, allow_descriptors, in_child
from .raw_server import Asked, Line
from .test_http_reads import by_size, in_chunks, requests, resident


def test_what_was_taken_as_it_completed_is_not_kept(serve: Serve, reader: Reader) -> None:
    """Behind one whose length is not known yet, others come out of turn."""

    def answer(asked: Asked, line: Line) -> None:
        if asked.target.endswith("7"):
            time.sleep(0.02)
        by_size(asked, line)

    bytes_each, bound = 500_000, 4 << 20
    wanted = requests(serve(answer).url, [bytes_each] * 400)
    reads = reader.reads(wanted, max_buffer_bytes=bound, ordered=False)
    for _ in range(100):
        next(reads)
    before = resident()
    assert sum(len(result.data or b"") for result in reads) == bytes_each * 300
    assert resident() - before < bound + (32 << 20)


@pytest.mark.parametrize("first", ["empty", "failed"])
@pytest.mark.parametrize("ordered", [True, False])
def test_nobody_waits_for_the_memory_of_one_that_needed_none(
    serve: Serve, reader: Reader, first: str, *, ordered: bool
) -> None:
    def answer(asked: Asked, line: Line) -> None:
        if not asked.target.endswith("/0"):
            in_chunks(asked, line)
        elif first == "empty":
            line.answer(200, b"")
        else:
            line.answer(404, b"no such object")

    sizes = [1_000_000] * 20
    reads = reader.reads(
        requests(serve(answer).url, sizes), max_buffer_bytes=1 << 20, ordered=ordered, timeout_s=None
    )
    results = sorted(reads, key=lambda result: result.position)
    assert [len(result.data or b"") for result in results] == [0, *sizes[1:]]
    assert [result.error is None for result in results] == [first == "empty"] + [True] * 19


@pytest.mark.parametrize("how", ["busy", "moved"])
def test_the_first_in_line_is_asked_again_while_all_others_wait_for_memory(
    serve: Serve, reader: Reader, how: str
) -> None:
    """Fewer requests may be on the wire than are pulled, and the others have taken all of its places."""
    first, others = itertools.count(), itertools.count(1)
    full = threading.Event()

    def answer(asked: Asked, line: Line) -> None:
        if not asked.target.endswith("/0"):
            if next(others) == 100:
                full.set()
        elif next(first) == 0:
            full.wait(20)
            line.answer(503 if how == "busy" else 307, b"", f"Location: {asked.target}")
            return
        in_chunks(asked, line)

    server = serve(answer)

    def read() -> bool:
        allow_descriptors(150)
        reads = reader.reads(
            requests(server.url, [200_000] * 300),
            max_in_flight=250,
            max_buffer_bytes=1 << 20,
            timeout_s=None,
            options=reader.options(first_wait_s=0.5),
        )
        return [len(result.data or b"") for result in reads] == [200_000] * 300

    assert in_child(read)
    assert server.connections < 130
