"""2. A store whose every open costs 200 us of waiting: depth is what fills the wire."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.data import build_c_loop, make_files
from benchmarks.harness import Contender, interleave, print_table
from benchmarks.reading import BATCH, EngineRun, batches, c_loop, count_batches, read_path

DELAY_US = 200


def _slow_read(path: str) -> bytes:
    time.sleep(DELAY_US / 1e6)
    return read_path(path)


def latency_table(root: Path, *, count: int, repeats: int) -> None:
    """Rates as the depth grows; the adaptive row chooses its own."""
    paths = make_files(root / "latency", count=count, size=8192)
    listing = root / "latency.txt"
    listing.write_text("".join(f"{path}\n" for path in paths))
    program = build_c_loop(root)
    contenders = [Contender("Python loop", count_batches(lambda: batches(map(_slow_read, paths))))]
    for depth in (1, 2, 4, 8, 16, 32, 64):
        run = EngineRun(paths, delay_us=DELAY_US, depth=depth)
        contenders.append(Contender(f"engine, depth {depth}", run, run.note))
    adaptive = EngineRun(paths, delay_us=DELAY_US)
    contenders.append(Contender("engine, adaptive", adaptive, adaptive.note))
    contenders += [c_loop(program, listing, threads, count, DELAY_US) for threads in (8, 64)]
    title = f"{count:,} files of 8 KiB, every open sleeps {DELAY_US} us, batches of {BATCH}"
    print_table(title, interleave(contenders, repeats), baseline="Python loop")
