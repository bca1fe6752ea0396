"""A process that reads a DAOS container one way, as ``daos_pool`` tells it to: ``pydaos`` or ``datapipes``.

A line ``WORK PATH`` on its standard input is answered by ``ITEMS SECONDS CPU_SECONDS``. The two ways never
share a process, as libdaos is one per process.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.reading import first
from datapipes.backends.daos import DaosBackend
from datapipes.datasets import FileDataset
from datapipes.iter import IterableWrapper

BATCH = 64  # pydaos.torch overruns its stack with larger ones
SINGLE = 1_000
DIRECTORIES = 20
WORKERS = 2
STATE_MIB = 128


class Client:
    """Datasets that stay open between the runs, with their workers."""

    def __init__(self, which: str, pool: str, cont: str) -> None:
        if which == "pydaos":
            from pydaos.torch import Checkpoint, Dataset, IterableDataset
        else:
            from datapipes.datasets.daos import Checkpoint, Dataset, IterableDataset
        self._map, self._iterable, self._checkpoint = Dataset, IterableDataset, Checkpoint
        self._place = (pool, cont)
        self._datasets: dict[str, Any] = {}
        self._loaders: dict[str, Any] = {}
        self._state: dict[str, torch.Tensor] | None = None
        self._store = DaosBackend(pool, cont)

    def dataset(self, path: str) -> Any:
        if path not in self._datasets:
            self._datasets[path] = self._map(*self._place, path)
        return self._datasets[path]

    def batches(self, path: str) -> int:
        """All files in batches, in another order each time."""
        return read(self.dataset(path))

    def afresh(self, path: str) -> int:
        """Listing, and the first epoch after it."""
        return read(self._map(*self._place, path))

    def listing(self, path: str) -> int:
        return len(self._map(*self._place, path))

    def single(self, path: str) -> int:
        """File by file."""
        dataset = self.dataset(path)
        rows = shuffled(len(dataset))[:SINGLE]
        return len([dataset[row] for row in rows])

    def loader(self, path: str) -> int:
        """By DataLoader's workers, which stay alive between epochs and send what they read as it is."""
        if path not in self._loaders:
            dataset = self.dataset(path)
            self._loaders[path] = DataLoader(
                dataset,
                batch_size=BATCH,
                shuffle=True,
                num_workers=WORKERS,
                collate_fn=first,
                worker_init_fn=dataset.worker_init,
                persistent_workers=True,
            )
        return sum(map(len, self._loaders[path]))

    def tensors(self, path: str) -> int:
        """The same with tensors, which workers share with the main process in place of sending them."""
        key = f"tensors {path}"
        if key not in self._loaders:
            self._loaders[key] = DataLoader(
                FileDataset(self._url(path), output="tensor"),
                batch_size=BATCH,
                shuffle=True,
                num_workers=WORKERS,
                collate_fn=first,
                persistent_workers=True,
            )
        return sum(map(len, self._loaders[key]))

    def stream(self, path: str) -> int:
        """One file after another, in the order of the names, read ahead."""
        key = f"stream {path}"
        if key not in self._datasets:
            self._datasets[key] = self._iterable(*self._place, path, batch_size=BATCH)
        return sum(1 for _ in self._datasets[key])

    def pipe(self, path: str) -> int:
        """``list_files_by_daos().load_files_by_daos()``, which lists once."""
        key = f"pipe {path}"
        if key not in self._datasets:
            urls = IterableWrapper([self._url(path)])
            self._datasets[key] = urls.list_files_by_daos().load_files_by_daos(max_in_flight=BATCH)
        return sum(1 for _ in self._datasets[key])

    def names(self, path: str) -> int:
        """Listing names alone, directory by directory, as nothing says which of them are such."""
        names = (f"{self._url(path)}{number:02d}/" for number in range(DIRECTORIES))
        found = (self._store.list(name, recursive=False, sizes=False, types=False) for name in names)
        return sum(len(list(entries)) for entries in found)

    def types(self, path: str) -> int:
        """Listing names and what is a file."""
        return len(list(self._store.list(self._url(path), sizes=False)))

    def saves(self, path: str) -> int:
        """A state of ``STATE_MIB`` by ``torch.save``: MiB."""
        if self._state is None:
            self._state = {str(part): torch.rand(STATE_MIB // 16, 1 << 18) for part in range(16)}
        with self._checkpoint(*self._place, prefix=path) as place, place.writer("model.pt") as file:
            torch.save(self._state, file)
        return STATE_MIB

    def loads(self, path: str) -> int:
        """The same by ``torch.load``."""
        with self._checkpoint(*self._place, prefix=path) as place:
            assert len(torch.load(place.reader("model.pt"))) == 16
        return STATE_MIB

    def _url(self, path: str) -> str:
        return "daos://{}/{}{}/".format(*self._place, path)


def shuffled(count: int) -> list[int]:
    rows = list(range(count))
    random.shuffle(rows)
    return rows


def read(dataset: Any) -> int:
    rows = shuffled(len(dataset))
    return sum(len(dataset.__getitems__(rows[at : at + BATCH])) for at in range(0, len(rows), BATCH))


def cpu() -> float:
    """Seconds that this process has used, and its workers: those that live are not in RUSAGE_CHILDREN yet."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(each.ru_utime + each.ru_stime for each in used)
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        seconds += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return seconds


def main(which: str, pool: str, cont: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # where libraries print what they have to say
    client = Client(which, pool, cont)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        work, path = line.split()
        run: Callable[[str], int] = getattr(client, work)
        began, before = time.perf_counter(), cpu()
        count = run(path)
        print(count, time.perf_counter() - began, cpu() - before, file=answers, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
