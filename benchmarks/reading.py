"""1. Small files from the page cache: the engine, pipe, node and dataset against the usual ways."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from benchmarks.data import build_c_loop, make_files
from benchmarks.harness import Contender, interleave, print_table
from datapipes import _dfs
from datapipes.datasets import FileDataset
from datapipes.index import FileIndex
from datapipes.iter import LocalFileLoader
from datapipes.records import FileEntry, ReadResult

BATCH = 64


def first(batch: list[Any]) -> list[Any]:
    """A collate function that leaves the batch alone, so that only reading is timed."""
    return batch


def batches(items: Iterable[Any]) -> Iterator[list[Any]]:
    """Lists of ``BATCH`` items."""
    iterator = iter(items)
    while chunk := list(islice(iterator, BATCH)):
        yield chunk


def read_path(path: str) -> bytes:
    """What users write by hand."""
    with open(path, "rb") as file:
        return file.read()


class PathDataset(Dataset[bytes]):
    """The incumbent pattern: a map dataset that opens and reads one path."""

    def __init__(self, paths: list[str]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> bytes:
        return read_path(self.paths[i])


def c_loop(program: str, listing: Path, threads: int, count: int, delay_us: int = 0) -> Contender:
    """The C reading loop, timed by itself."""

    def run() -> tuple[int, float, float]:
        command = [program, str(listing), str(threads), "1", str(delay_us)]
        wall, cpu = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        return count, float(wall), float(cpu)

    return Contender(f"C loop, {threads} thread" + "s" * (threads > 1), run)


def count_batches(make: Callable[[], Iterable[Any]]) -> Callable[[], int]:
    """A run that counts the items of an iterable of batches."""
    return lambda: sum(map(len, make()))


class EngineRun:
    """The bare engine iterator over paths, ``bytes`` or views, known or unknown sizes."""

    def __init__(self, paths: list[str], *, size: int = -1, delay_us: int = 0, **options: Any) -> None:
        self.session = _dfs.Session("posix", "/", open_delay_us=delay_us)
        self.requests = [(path[1:], 0, -1, size, None) for path in paths]
        self.options = {"max_in_flight": 64, "max_buffer_bytes": 64 << 20, **options}
        self.depth = 0.0

    def __call__(self) -> int:
        results = self.session.read_many(self.requests, result=ReadResult, error=fail, **self.options)
        count = sum(map(len, batches(results)))
        self.depth = results.stats()["depth"]
        results.close()
        return count

    def note(self) -> str:
        return f"depth {self.depth:.0f}"


class EngineTensorRun:
    """The engine reading batches into one tensor that the caller owns."""

    def __init__(self, paths: list[str], size: int) -> None:
        self.session = _dfs.Session("posix", "/")
        requests = [(path[1:], 0, -1, size, None) for path in paths]
        self.batches = list(batches(requests))
        self.spans = [(i * size, (i + 1) * size) for i in range(BATCH)]
        self.tensor = torch.empty(BATCH * size, dtype=torch.uint8)

    def __call__(self) -> int:
        out = self.tensor.numpy().data
        options: dict[str, Any] = {"result": ReadResult, "error": fail, "max_in_flight": BATCH, "out": out}
        count = 0
        for batch in self.batches:
            count += len(self.session.read_batch(batch, spans=self.spans[: len(batch)], **options))
        return count


def fail(tag: object, operation: str, errno: int) -> Exception:
    """What a read that fails becomes: these files are all there."""
    return OSError(errno, f"{operation}: {os.strerror(errno)}")


def _node_batches(paths: list[str]) -> Iterable[Any]:
    from torchdata.nodes import Loader

    from datapipes.nodes import FileLoader

    return batches(Loader(FileLoader(paths)))


def read_table(root: Path, *, count: int, size: int, repeats: int) -> None:
    """Time every way of reading ``count`` files of ``size`` bytes."""
    paths = make_files(root / f"{size}", count=count, size=size)
    listing = root / f"{size}.txt"
    listing.write_text("".join(f"{path}\n" for path in paths))
    program = build_c_loop(root)
    index = FileIndex.from_entries((FileEntry(f"file://{p}", size) for p in paths), root / f"{size}.index")
    dataset = FileDataset(index)
    as_bytes, as_views = EngineRun(paths), EngineRun(paths, views=True)
    known = EngineRun(paths, size=size)
    blocks = [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]

    def thread_pool() -> int:
        with ThreadPoolExecutor(64) as pool:
            return sum(map(len, batches(pool.map(read_path, paths))))

    def loader(data: Any, workers: int) -> Callable[[], int]:
        return count_batches(
            lambda: DataLoader(data, batch_size=BATCH, num_workers=workers, collate_fn=first)
        )

    contenders = [
        Contender("Python loop", count_batches(lambda: batches(map(read_path, paths)))),
        Contender("ThreadPoolExecutor(64)", thread_pool),
        Contender("DataLoader over a path dataset, 0 workers", loader(PathDataset(paths), 0)),
        Contender("DataLoader over a path dataset, 2 workers", loader(PathDataset(paths), 2)),
        c_loop(program, listing, 1, count),
        c_loop(program, listing, 2, count),
        Contender("engine, bytes", as_bytes, as_bytes.note),
        Contender("engine, bytes, sizes known", known, known.note),
        Contender("engine, views", as_views, as_views.note),
        Contender("engine, into a tensor", EngineTensorRun(paths, size)),
        Contender(
            "pipe load_files_by_local(output='bytes')",
            count_batches(lambda: batches(LocalFileLoader(paths, output="bytes"))),
        ),
        Contender(
            "pipe load_files_by_local(output='stream')",
            count_batches(lambda: batches(LocalFileLoader(paths))),
        ),
        Contender(
            "FileDataset.__getitems__(64)", lambda: sum(len(dataset.__getitems__(list(b))) for b in blocks)
        ),
        Contender("DataLoader over FileDataset, 0 workers", loader(dataset, 0)),
    ]
    try:
        import torchdata.nodes  # noqa: F401
    except ImportError:
        pass
    else:
        contenders.append(
            Contender("node FileLoader through Loader", count_batches(lambda: _node_batches(paths)))
        )
    print_table(
        f"{count:,} files of {size // 1024} KiB, page cache, in batches of {BATCH}",
        interleave(contenders, repeats),
        baseline="Python loop",
    )
