"""5. Going on at 90 % of an epoch: a position for us, a replay of names for torch's shuffle."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

from torch.utils.data.datapipes.iter import IterableWrapper

from benchmarks.harness import print_rows
from datapipes.index import FileIndex
from datapipes.stages import ShuffleFiles


def _first_item_s(make: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        next(iter(make()))  # type: ignore[call-overload]
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def resume_table(root: Path, *, repeats: int) -> None:
    """Seconds until the first name after a resume, at 0 % and at 90 % of the epoch."""
    index = FileIndex.open(root / "names.index")
    count = len(index)

    def ours(position: int) -> float:
        stage = ShuffleFiles(index, seed=0)
        stage.reset()
        next(stage)
        state = stage.get_state()
        state["position"] = position

        def resume() -> object:
            fresh = ShuffleFiles(index, seed=0)
            fresh.reset(state)
            return fresh

        return _first_item_s(resume, repeats)

    def torchs(position: int) -> float:
        def replay() -> object:
            iterator = iter(IterableWrapper(range(count), deepcopy=False).shuffle())
            for _ in range(position):
                next(iterator)
            return iterator

        return _first_item_s(replay, 1)

    begin, late = ours(0), ours(count * 9 // 10)
    print_rows(
        f"Resume in an epoch of {count:,} names",
        [
            ("shuffle_files, at 0 %, ms", f"{1e3 * begin:.2f}"),
            ("shuffle_files, at 90 %, ms", f"{1e3 * late:.2f}"),
            ("torch shuffle replaying names, at 90 %, s", f"{torchs(count * 9 // 10):.1f}"),
        ],
    )
