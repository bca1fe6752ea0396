"""DAOS: opens and reads that cost what a real one's cost, on the stand-in of the tests.

Two kinds of client: one that sleeps while the network answers, so that depth is what counts, and one that
burns the CPU meanwhile, as a real client on few cores was seen to do. The incumbent is the pattern of
pydaos.torch in C: one thread that opens a batch's files in turn, and reads them at once.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from benchmarks.daos_listing import BASELINE, listing_contenders
from benchmarks.data import make_files
from benchmarks.harness import Contender, interleave, print_table
from benchmarks.reading import batches, fail, first
from datapipes import _dfs
from datapipes.datasets import FileDataset
from datapipes.index import FileIndex
from datapipes.records import FileEntry, ReadResult

ROOT = Path(__file__).parents[1]
SLEEPING = {"STANDIN_COST": "sleep", "STANDIN_LOOKUP_US": "200", "STANDIN_READ_US": "100"}
SLEEPING_LISTS = {**SLEEPING, "STANDIN_SIZE_US": "200", "STANDIN_ROUND_US": "200"}
BURNING = {"STANDIN_COST": "burn"}
FREE = {"STANDIN_COST": "none"}
DEPTHS = (1, 4, 16, 64, 128, 256)
BATCH = 64
SIZE = 8192


class StandIn:
    """The libraries, built below ``root``; pool ``tank`` with the container ``train``."""

    def __init__(self, root: Path) -> None:
        libraries = root / "libraries"
        subprocess.run([ROOT / "tests" / "c" / "standin" / "build", libraries, "-O2"], check=True)
        self.variables = {"DATAPIPES_LIBDFS_DIR": str(libraries), "STANDIN_ROOT": str(root / "pools")}
        os.environ.update(self.variables)
        self.container = root / "pools" / "tank" / "train"
        self.container.mkdir(parents=True)
        self._library = libraries / "libdaos.so.2"
        self.program = str(root / "dloop")
        command = [os.environ.get("CC", "cc"), "-std=c11", "-D_GNU_SOURCE", "-O3", "-pthread"]
        core = ROOT / "_ext" / "core"
        command += [f"-I{core}", str(ROOT / "benchmarks" / "dloop.c"), str(core / "dfs_load.c"), "-ldl"]
        subprocess.run([*command, "-o", self.program], check=True)

    @contextmanager
    def costs(self, values: dict[str, str]) -> Iterator[None]:
        """What calls cost, in this process and in programs that are started meanwhile."""
        library = ctypes.CDLL(str(self._library))
        library.standin_reset()
        for name, value in values.items():
            assert library.standin_set(name.encode(), value.encode()) == 0
        os.environ.update(values)
        try:
            yield
        finally:
            for name in values:
                del os.environ[name]
            library.standin_reset()


class DfsRun:
    """The engine over the container's files, sizes known; with a table, by the handles that it keeps."""

    def __init__(
        self,
        session: _dfs.Session,
        names: list[str],
        *,
        in_flight: int,
        table: Path | None = None,
    ) -> None:
        self.session = session
        self.requests = [(name, 0, -1, SIZE, None) for name in names]
        handles = None
        if table is not None:
            handles = _dfs.Handles(str(table), identity="", files=len(names), max_bytes=1 << 30)
        self.options: dict[str, Any] = {
            "max_in_flight": in_flight,
            "max_buffer_bytes": 64 << 20,
            "handles": handles,
        }
        self.threads = 0.0

    def __call__(self) -> int:
        results = self.session.read_many(self.requests, result=ReadResult, error=fail, **self.options)
        count = 0
        for batch in batches(results):
            assert all(result.error is None for result in batch)
            count += len(batch)
        self.threads = results.stats()["depth"]
        results.close()
        return count

    def note(self) -> str:
        return f"{self.threads:.0f} threads"


def incumbent(standin: StandIn, listing: Path, count: int, *, keeps: bool) -> Contender:
    """One thread, opening in turn; ``keeps``: by handles that it has, which the incumbent has not."""

    def run() -> tuple[int, float, float]:
        command = [standin.program, "tank", "train", str(listing), str(SIZE), str(BATCH), str(int(keeps))]
        wall, cpu = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return count, float(wall), float(cpu)

    return Contender("one thread by handles, C" if keeps else "incumbent's pattern, C", run)


def dataset_contenders(names: list[str], root: Path) -> list[Contender]:
    """Batches of a dataset, alone and through DataLoader's workers, by path and by handles."""
    entries = (FileEntry(f"daos://tank/train/{name}", SIZE) for name in names)
    index = FileIndex.from_entries(entries, root / "index")
    blocks = [list(range(i, min(i + BATCH, len(names)))) for i in range(0, len(names), BATCH)]
    contenders = []
    for how, kept in (("path", 0), ("handles", 1 << 30)):
        dataset = FileDataset(index, output="bytearray", handle_cache_bytes=kept)

        def alone(dataset: FileDataset = dataset) -> int:
            return sum(len(dataset.__getitems__(block)) for block in blocks)

        def workers(dataset: FileDataset = dataset) -> int:
            loader = DataLoader(dataset, batch_size=BATCH, num_workers=2, collate_fn=first)
            return sum(map(len, loader))

        contenders.append(Contender(f"FileDataset.__getitems__({BATCH}), by {how}", alone))
        contenders.append(Contender(f"DataLoader, 2 workers, by {how}", workers))
    return contenders


def daos_table(root: Path, *, count: int, repeats: int) -> None:
    """Rates as the depth grows, by path and by handles; the CPU that a file costs; and what listing costs."""
    standin = StandIn(root)
    listing = root / "daos.txt"
    with standin.costs(FREE):
        paths = make_files(standin.container / "d", count=count, size=SIZE)
        names = [os.path.relpath(path, standin.container) for path in paths]
        listing.write_text("".join(f"{name}\n" for name in names))
        session = _dfs.Session("dfs", "tank/train")
    for kind, costs in (
        ("sleeping: opens 200 us, reads 100 us", SLEEPING),
        ("burning the CPU as a real client does", BURNING),
        ("free: what the engine, and the stand-in's own work, cost", FREE),
    ):
        with standin.costs(costs):
            contenders = [incumbent(standin, listing, count, keeps=keeps) for keeps in (False, True)]
            for depth in DEPTHS:
                for how, table in (("path", None), ("handles", root / "handles")):
                    run = DfsRun(session, names, in_flight=depth, table=table)
                    contenders.append(Contender(f"engine, {depth} in flight, by {how}", run, run.note))
            contenders += dataset_contenders(names, root)
            title = f"{count:,} files of {SIZE // 1024} KiB on the stand-in, {kind}"
            print_table(title, interleave(contenders, repeats), baseline="incumbent's pattern, C")
    listing_tables(standin, session, root, count=count, repeats=repeats)


def listing_tables(standin: StandIn, session: _dfs.Session, root: Path, *, count: int, repeats: int) -> None:
    """Each mode of listing one flat directory, on one target and on many."""
    with standin.costs(FREE):
        make_files(standin.container / "flat", count=count, size=16, directories=1)
        (flat,) = (standin.container / "flat").iterdir()
    for kind, costs in (("sleeping: a round trip 200 us", SLEEPING_LISTS), ("burning the CPU", BURNING)):
        for parts, spread in (("1", "on one target"), ("16", "over 16 targets")):
            with standin.costs({**costs, "STANDIN_PARTS": parts}):
                found = listing_contenders(session, f"flat/{flat.name}", count, root)
                title = f"Listing {count:,} files in one directory {spread}, {kind}"
                print_table(title, interleave(found, repeats), baseline=BASELINE, unit="entries")
