"""DAOS: a real pool, beside ``pydaos.torch``, each in a process of its own.

Needs a container that may be written to, named by ``DAOS_POOL`` and ``DAOS_CONT``, and ``pydaos`` (without it
only our own rows are printed). What is made in the container is removed again.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.util import find_spec
from types import TracebackType
from typing import NamedTuple, Self

from benchmarks.daos_client import BATCH, DIRECTORIES, STATE_MIB, WORKERS
from benchmarks.harness import Contender, interleave, print_table
from datapipes.backends.daos import DaosBackend
from datapipes.errors import FileMissingError

OURS, THEIRS = "datapipes", "pydaos.torch"


class Work(NamedTuple):
    """What is timed: by us, and by the incumbent if it is to be held against another way of its own."""

    title: str
    ours: str
    theirs: str
    name: str = ""


WORKS = (
    Work(f"__getitems__, batches of {BATCH}, later epochs", "batches", "batches"),
    Work("listing and first epoch", "afresh", "afresh"),
    Work("[i], one by one", "single", "single"),
    Work(f"DataLoader, {WORKERS} workers, batches of {BATCH}, later epochs", "loader", "loader"),
    Work(
        f"DataLoader, {WORKERS} workers, batches of {BATCH}, later epochs",
        "tensors",
        "loader",
        "FileDataset, tensors",
    ),
    Work(f"iterable, {BATCH} read ahead", "stream", "stream"),
    Work(f"iterable, {BATCH} read ahead", "pipe", "stream", "load_files_by_daos"),
    Work("listing", "listing", "listing"),
    Work("listing", "types", "listing", "names and types"),
    Work("listing", "names", "listing", "names"),
)


class ClientProcess:
    """``daos_client`` in a process, which keeps its connection and its datasets between the runs."""

    def __init__(self, which: str, pool: str, cont: str) -> None:
        command = [sys.executable, "-m", "benchmarks.daos_client", which, pool, cont]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._answer()

    def _answer(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the client has ended with {self._process.wait()}")
        return line

    def run(self, work: str, path: str) -> tuple[int, float, float]:
        assert self._process.stdin is not None
        print(work, path, file=self._process.stdin, flush=True)
        count, wall, cpu = self._answer().split()
        return int(count), float(wall), float(cpu)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def files(pool: str, cont: str, *, count: int, size: int) -> Iterator[str]:
    """The path of a directory of the container with so many files in it, for as long as the block runs."""
    store = DaosBackend(pool, cont)
    root, data = f"/datapipes-bench-{os.getpid()}-{size}", os.urandom(size)
    urls = [f"daos://{pool}/{cont}{root}/{i % DIRECTORIES:02d}/{i:06d}" for i in range(count)]
    try:
        for url in urls:
            store.write(url, data)
        yield root
    finally:
        for url in urls:
            store.remove(url)


def pool_tables(pool: str, cont: str, *, scale: int, repeats: int) -> None:
    """All tables, for small files and for larger ones; ``scale``: with so many times fewer."""
    for count, size in ((10_000, 8 * 1024), (2_000, 112 * 1024)):
        _tables(pool, cont, count=count // scale, size=size, repeats=repeats)
    _checkpoint_tables(pool, cont, repeats=repeats)


def _tables(pool: str, cont: str, *, count: int, size: int, repeats: int) -> None:
    """One table for each kind of work, on ``count`` files of ``size`` bytes."""
    with ExitStack() as stack:
        path = stack.enter_context(files(pool, cont, count=count, size=size))
        clients = _clients(stack, pool, cont)
        titles = dict.fromkeys(work.title for work in WORKS)
        for title in titles:
            works = [work for work in WORKS if work.title == title]
            contenders = [
                _contender(clients[OURS], work.ours, path, f"{OURS} {work.name}".rstrip()) for work in works
            ]
            if THEIRS in clients:
                contenders.append(_contender(clients[THEIRS], works[0].theirs, path, THEIRS))
            print_table(
                f"DAOS, {count:,} files of {size // 1024} KiB: {title}",
                interleave(contenders, repeats),
                baseline=contenders[-1].name,
            )


def _checkpoint_tables(pool: str, cont: str, *, repeats: int) -> None:
    """Saving and loading, in processes of their own: theirs (2.8.0) saves nothing beside an open dataset.

    Each save needs room of its own: DAOS takes back what is replaced when it has time.
    """
    store, root = DaosBackend(pool, cont), f"/datapipes-bench-{os.getpid()}-checkpoints"
    with ExitStack() as stack:
        numbered = list(enumerate(_clients(stack, pool, cont).items()))
        for at, _ in numbered:
            stack.callback(_remove, store, f"daos://{pool}/{cont}{root}-{at}/model.pt")
        for work, title in (("saves", "torch.save to"), ("loads", "torch.load from")):
            contenders = [_contender(client, work, f"{root}-{at}", name) for at, (name, client) in numbered]
            print_table(
                f"DAOS, a state of {STATE_MIB} MiB: {title} a checkpoint",
                interleave(contenders, repeats),
                baseline=contenders[-1].name,
                unit="MiB",
            )


def _remove(store: DaosBackend, url: str) -> None:
    with suppress(FileMissingError):  # it failed before
        store.remove(url)


def _clients(stack: ExitStack, pool: str, cont: str) -> dict[str, ClientProcess]:
    """Ours and, where there is one, theirs."""
    clients = {OURS: stack.enter_context(ClientProcess("datapipes", pool, cont))}
    if find_spec("pydaos") is not None:
        clients[THEIRS] = stack.enter_context(ClientProcess("pydaos", pool, cont))
    return clients


def _contender(client: ClientProcess, work: str, path: str, name: str) -> Contender:
    return Contender(name, lambda: client.run(work, path))
