"""2b. Does the engine find the best number of threads by itself, within two seconds?"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

from benchmarks.data import make_files
from benchmarks.harness import Contender, interleave, print_table
from benchmarks.reading import fail
from datapipes import _dfs
from datapipes.records import ReadResult

WARM_S = 2.0
"""What the adaptive reader gets to find its depth; fixed depths get a tenth."""

TIMED_S = 1.0


class DepthRun:
    """A new session each time: ``WARM_S`` to settle, then ``TIMED_S`` that count. ``depth`` 0 adapts."""

    def __init__(self, paths: list[str], *, delay_us: int, depth: int) -> None:
        self.requests = [(path[1:], 0, -1, -1, None) for path in paths]
        self.delay_us, self.depth = delay_us, depth
        self.chosen: list[int] = []

    def __call__(self) -> tuple[int, float, float]:
        session = _dfs.Session("posix", "/", open_delay_us=self.delay_us)
        options: dict[str, Any] = {"result": ReadResult, "error": fail, "max_buffer_bytes": 64 << 20}
        results = session.read_many(cycle(self.requests), max_in_flight=64, depth=self.depth, **options)
        _take_for(results, WARM_S if self.depth == 0 else WARM_S / 10)
        cpu = time.process_time()
        count, wall = _take_for(results, TIMED_S)
        cpu = time.process_time() - cpu
        self.chosen.append(int(results.stats()["depth"]))
        results.close()
        session.close()
        return count, wall, cpu

    def note(self) -> str:
        return f"depth {', '.join(map(str, self.chosen))}" if self.depth == 0 else ""


def _take_for(results: Iterator[Any], seconds: float) -> tuple[int, float]:
    begin = now = time.perf_counter()
    count = 0
    while now - begin < seconds:
        for _ in range(64):
            next(results)
        count += 64
        now = time.perf_counter()
    return count, now - begin


def depth_table(root: Path, *, count: int, repeats: int) -> None:
    """Fixed depths against the one that the engine finds, where threads cost and where they pay."""
    paths = make_files(root / "depth", count=count, size=8192)
    for title, delay_us, depths in (
        ("page cache", 0, (1, 2, 3, 4, 8, 16)),
        ("every open sleeps 200 us", 200, (4, 8, 16, 24, 32, 48, 64)),
    ):
        adaptive = DepthRun(paths, delay_us=delay_us, depth=0)
        fixed = {depth: DepthRun(paths, delay_us=delay_us, depth=depth) for depth in depths}
        contenders = [
            Contender("adaptive", adaptive, adaptive.note),
            *(Contender(f"depth {depth}", run) for depth, run in fixed.items()),
        ]
        interleave(contenders, repeats)
        best = max(contenders[1:], key=lambda contender: contender.rate)
        print_table(
            f"8 KiB files, {title}: the second after {WARM_S:.0f} s, over the best fixed depth",
            contenders,
            baseline=best.name,
        )
