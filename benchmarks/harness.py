"""Timing by interleaved runs: contenders take turns, medians are quoted, ratios come from one run.

These figures are ratios to a named incumbent on the same machine at the same time; absolute rates say as
much about the machine as about the code. CPU time counts this process, its threads and its children.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any


@dataclass
class Contender:
    """Something to time. ``run`` does the whole job once and returns the number of items it handled; a
    program that times itself returns (items, wall seconds, CPU seconds) instead."""

    name: str
    run: Callable[[], int | tuple[int, float, float]]
    note: Callable[[], str] = lambda: ""
    wall_us: list[float] = field(default_factory=list)
    """Microseconds of wall clock an item, of each run; ``cpus_us``: of the client's CPU."""
    cpus_us: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Items a second, median over the runs."""
        return 1e6 / self.item_us

    @property
    def item_us(self) -> float:
        """Microseconds of wall clock an item, median over the runs."""
        return statistics.median(self.wall_us)

    @property
    def cpu_us(self) -> float:
        """Microseconds of client CPU an item, median over the runs."""
        return statistics.median(self.cpus_us)


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def interleave(contenders: Sequence[Contender], repeats: int) -> Sequence[Contender]:
    """Run each contender once for warmth, then ``repeats`` rounds of all of them in turn."""
    for turn in range(repeats + 1):
        for contender in contenders:
            gc.collect()
            cpu, wall = _cpu(), time.perf_counter()
            result = contender.run()
            wall, cpu = time.perf_counter() - wall, _cpu() - cpu
            if isinstance(result, tuple):
                result, wall, cpu = result
            if turn:
                contender.wall_us.append(1e6 * wall / result)
                contender.cpus_us.append(1e6 * cpu / result)
    return contenders


def print_table(title: str, contenders: Sequence[Contender], *, baseline: str, unit: str = "files") -> None:
    """A markdown table; ratios are to the contender named ``baseline``."""
    base = next(c for c in contenders if c.name == baseline)
    print(f"\n### {title}\n")
    print(f"| | {unit}/s | x {baseline} | CPU us each | |\n|---|---:|---:|---:|---|")
    for c in contenders:
        print(
            f"| {c.name} | {c.rate:,.0f} | {c.rate / base.rate:.2f} | {c.cpu_us:.1f} | {c.note()} |",
            flush=True,
        )


def print_rows(title: str, rows: Sequence[tuple[str, Any]]) -> None:
    """A markdown table of single figures."""
    print(f"\n### {title}\n\n| | |\n|---|---:|")
    for name, value in rows:
        print(f"| {name} | {value} |", flush=True)


def print_machine(repeats: int) -> None:
    """Versions and settings, so that a table can be read a year later. Refuses a debug build."""
    from datapipes import _dfs

    if _dfs.build_type != "release":
        sys.exit("this is a debug build of the engine; its timings would mean nothing")
    cpu = next(
        (line.split(":")[1].strip() for line in open("/proc/cpuinfo") if "model name" in line),
        platform.machine(),
    )
    packages = {}
    for name in ("torch", "torchdata", "numpy", "torch-datapipes"):
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "not installed"
    print(f"machine: {os.cpu_count()} cores, {cpu}, Linux {platform.release()}")
    print(
        f"versions: Python {platform.python_version()}, " + ", ".join(f"{k} {v}" for k, v in packages.items())
    )
    print(f"engine: {_dfs.build_type} build; median of {repeats} interleaved runs after one warm-up")
