"""3. What a pipe or a node adds to the bare engine iterator, per item."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from benchmarks.data import make_files
from benchmarks.harness import Contender, interleave, print_rows
from benchmarks.reading import EngineRun
from datapipes.iter import LocalFileLoader


def overhead_table(root: Path, *, count: int, repeats: int) -> None:
    """Microseconds an item on top of the engine, on one-byte files so that only the calls count."""
    paths = make_files(root / "overhead", count=count, size=1)

    def drain(items: Iterable[object]) -> int:
        return sum(1 for _ in items)

    contenders = [
        Contender("engine", EngineRun(paths)),
        Contender("pipe, output='bytes'", lambda: drain(LocalFileLoader(paths, output="bytes"))),
        Contender("pipe, output='stream'", lambda: drain(LocalFileLoader(paths))),
    ]
    try:
        from datapipes.nodes import FileLoader
    except ImportError:
        pass
    else:
        from torchdata.nodes import Loader

        def node() -> int:
            loader = FileLoader(paths)
            loader.reset()
            count = 0
            while True:
                try:
                    loader.next()
                except StopIteration:
                    return count
                count += 1

        contenders.append(Contender("node", node))
        contenders.append(Contender("node through Loader", lambda: drain(Loader(FileLoader(paths)))))
    engine, *faces = interleave(contenders, repeats)
    rows = [("engine iterator, us an item", f"{engine.item_us:.2f}")]
    rows += [(f"{c.name}, us an item above it", f"{c.item_us - engine.item_us:+.2f}") for c in faces]
    print_rows(f"Overhead over the bare engine iterator, {count:,} files of 1 byte", rows)
