from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from datapipes.backends.latency import LatencyBackend
from datapipes.backends.memory import MemoryBackend
from datapipes.errors import OptionError
from datapipes.records import ReadRequest

URL = "memory://late/a"


def late(**seconds: float) -> LatencyBackend:
    inner = MemoryBackend("late")
    inner.write(URL, b"data")
    return LatencyBackend(inner, **seconds)


@pytest.mark.parametrize(("max_in_flight", "rounds"), [(1, 8), (4, 2), (8, 1)])
def test_reads_wait_side_by_side_up_to_max_in_flight(max_in_flight: int, rounds: int) -> None:
    backend = late(open_s=0.02, read_s=0.03)
    began = time.monotonic()
    results = list(backend.read_many([ReadRequest(URL)] * 8, max_in_flight=max_in_flight))
    took = time.monotonic() - began
    assert [result.data for result in results] == [b"data"] * 8
    assert rounds * 0.05 <= took
    assert took < (rounds + 1) * 0.05 + 0.2


@pytest.mark.parametrize("call", ["list", "stat", "write", "remove"])
def test_other_calls_are_late_as_well(call: str) -> None:
    backend = late(open_s=0.05, list_s=0.05)
    calls: dict[str, Callable[[], object]] = {
        "list": lambda: list(backend.list("memory://late/")),
        "stat": lambda: backend.stat(URL),
        "write": lambda: backend.write(URL, b""),
        "remove": lambda: backend.remove(URL),
    }
    began = time.monotonic()
    calls[call]()
    assert time.monotonic() - began >= 0.05


def test_negative_latency_raises_option_error() -> None:
    with pytest.raises(OptionError, match="open_s"):
        late(open_s=-1)
