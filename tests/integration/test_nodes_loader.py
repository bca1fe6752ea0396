"""Our nodes below torchdata's own: complete epochs, and exact resume at every item."""

from __future__ import annotations

import collections
import gc
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("torchdata.nodes")

from torchdata.nodes import (
    BaseNode,
    Batcher,
    Loader,
    MultiNodeWeightedSampler,
    ParallelMapper,
    PinMemory,
    Prefetcher,
    StopCriteria,
    Unbatcher,
)

from datapipes.backends.local import LocalBackend
from datapipes.backends.memory import MemoryBackend
from datapipes.errors import FileMissingError, StateError
from datapipes.nodes import FileLister, FileLoader, FileSharder, FileShuffler
from datapipes.records import ReadRequest

N = 11
ROOT = "memory://nodes-loader/data"
NAMES = [f"{ROOT}/{i:02}" for i in range(N)]


@pytest.fixture(autouse=True)
def store() -> Iterator[MemoryBackend]:
    backend = MemoryBackend("nodes-loader")
    for name in NAMES:
        backend.write(name, name[-2:].encode())
    yield backend
    backend.delete()


def files(names: Any = None, **options: Any) -> FileLoader:
    shuffled = FileShuffler(names or FileLister(ROOT), seed=3)
    return FileLoader(FileSharder(shuffled, rank=0, world_size=1), max_in_flight=4, **options)


def decode(item: tuple[str, bytes]) -> int:
    return int(item[1])


def decode_all(items: list[tuple[str, bytes]]) -> list[int]:
    return [int(data) for _, data in items]


def epochs(count: int) -> list[list[int]]:
    node, found = files(), []
    for _ in range(count):
        node.reset()
        found.append([decode(item) for item in node])
    return found


GRAPHS: dict[str, Callable[[], BaseNode[Any]]] = {
    "bare": files,
    "batcher": lambda: Batcher(files(), 4, drop_last=False),
    "unbatcher": lambda: Unbatcher(Batcher(files(), 4, drop_last=False)),
    "prefetcher": lambda: Prefetcher(files(), 3),
    "prefetcher-seldom-snapshots": lambda: Prefetcher(files(), 3, snapshot_frequency=4),
    "threads": lambda: ParallelMapper(files(), decode, num_workers=2),
    "threads-prebatch": lambda: ParallelMapper(files(), decode, num_workers=2, prebatch=3),
    "inline": lambda: ParallelMapper(files(), decode, num_workers=0),
    "all": lambda: Prefetcher(
        Batcher(ParallelMapper(files(), decode, num_workers=2, max_concurrent=1), 4, drop_last=False), 2
    ),
}


def numbers(items: Any) -> list[int]:
    """What was delivered, batches or not, decoded or not."""
    found: list[int] = []
    for item in items:
        if isinstance(item, list):
            found += numbers(item)
        else:
            found.append(item if isinstance(item, int) else decode(item))
    return found


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_epoch_is_complete_and_in_our_order(graph: str) -> None:
    loader = Loader(GRAPHS[graph]())
    wanted = epochs(3)
    assert [numbers(loader) for _ in range(3)] == wanted
    assert len({tuple(epoch) for epoch in wanted}) == 3


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize("graph", GRAPHS)
def test_loader_resumes_exactly_at_every_item(graph: str, restart: bool) -> None:
    wanted = epochs(4)
    loader = Loader(GRAPHS[graph](), restart_on_stop_iteration=restart)
    for epoch in (0, 1):
        states, delivered = [], []
        iterator = iter(loader)
        while True:
            states.append(json.dumps(loader.state_dict()))
            try:
                delivered.append(next(iterator))
            except StopIteration:
                break
        assert numbers(delivered) == wanted[epoch]
        for position, state in enumerate(states[:-1]):
            resumed = Loader(GRAPHS[graph](), restart_on_stop_iteration=restart)
            resumed.load_state_dict(json.loads(state))
            assert numbers(delivered[:position]) + numbers(resumed) == wanted[epoch]
            assert numbers(resumed) == wanted[epoch + 1]
        for after in (states[-1], json.dumps(loader.state_dict())):
            resumed = Loader(GRAPHS[graph](), restart_on_stop_iteration=restart)
            resumed.load_state_dict(json.loads(after))
            if not restart:  # the iterations of a run and of its resumed half then count alike
                assert numbers(resumed) == []
            assert numbers(resumed) == wanted[epoch + 1]


@pytest.mark.parametrize("graph", GRAPHS)
def test_loader_resumed_from_the_end_of_an_epoch_can_be_interrupted_in_the_next(graph: str) -> None:
    def make() -> Loader[Any]:
        return Loader(GRAPHS[graph](), restart_on_stop_iteration=False)

    wanted = epochs(3)
    loader = make()
    iterator = iter(loader)
    states = [loader.state_dict() for _ in iterator]
    for end in (states[-1], loader.state_dict()):
        resumed = make()
        resumed.load_state_dict(end)
        assert numbers(resumed) == []
        first = next(iter(resumed))
        again = make()
        again.load_state_dict(resumed.state_dict())
        assert numbers([first]) + numbers(again) == wanted[1]
        assert numbers(again) == wanted[2]


@pytest.mark.parametrize("graph", GRAPHS)
def test_state_at_the_end_of_an_epoch_starts_the_next(graph: str) -> None:
    wanted = epochs(3)
    loader = Loader(GRAPHS[graph]())
    assert numbers(loader) == wanted[0]
    resumed = Loader(GRAPHS[graph]())
    resumed.load_state_dict(pickle.loads(pickle.dumps(loader.state_dict())))
    assert [numbers(resumed), numbers(resumed)] == wanted[1:]


def test_unordered_threads_deliver_every_sample_once() -> None:
    loader = Loader(ParallelMapper(files(ordered=False), decode, num_workers=2, in_order=False))
    for _ in range(2):
        assert collections.Counter(loader) == collections.Counter(range(N))


@pytest.mark.slow
@pytest.mark.timeout(180)  # torch is imported anew by each of the processes
@pytest.mark.parametrize("in_order", [True, False])
def test_mapper_processes(in_order: bool) -> None:
    def make() -> Loader[int]:
        return Loader(
            ParallelMapper(
                files(ordered=in_order),
                decode,
                num_workers=2,
                in_order=in_order,
                method="process",
                multiprocessing_context="forkserver",
            )
        )

    wanted = epochs(2)
    loader = make()
    iterator = iter(loader)
    head = [next(iterator) for _ in range(4)]
    state = loader.state_dict()
    rest = list(iterator)
    assert collections.Counter(head + rest) == collections.Counter(range(N))
    if in_order:
        resumed = make()
        resumed.load_state_dict(state)
        assert head + list(resumed) == wanted[0]
        assert list(resumed) == wanted[1]


def test_state_before_the_first_item_is_the_start() -> None:
    loader = Loader(files())
    state = loader.state_dict()
    wanted = epochs(2)
    assert [numbers(loader), numbers(loader)] == wanted
    resumed = Loader(files())
    resumed.load_state_dict(state)
    assert [numbers(resumed), numbers(resumed)] == wanted


def test_set_epoch_names_the_next_iteration_of_a_loader() -> None:
    wanted = epochs(6)
    node = files()
    loader = Loader(Prefetcher(node, 2))
    node.set_epoch(4)
    assert [numbers(loader), numbers(loader)] == wanted[4:]
    node.set_epoch(1)
    assert numbers(loader) == wanted[1]


def test_iteration_left_in_the_middle_counts_as_an_epoch_and_frees_what_it_read() -> None:
    wanted = epochs(3)
    for make in (files, lambda: Prefetcher(files(), 2), lambda: ParallelMapper(files(), decode, 2)):
        loader = Loader(make())
        iterator = iter(loader)
        assert numbers([next(iterator)]) == wanted[0][:1]
        assert [numbers(loader), numbers(loader)] == wanted[1:]


def test_error_comes_out_at_its_place(store: MemoryBackend) -> None:
    order = epochs(1)[0]
    missing = f"{ROOT}/{order[5]:02}"
    store.remove(missing)
    graphs: list[Callable[[], BaseNode[Any]]] = [
        lambda: files(NAMES),
        lambda: Prefetcher(files(NAMES), 2),
        lambda: ParallelMapper(files(NAMES), decode, 2),
    ]
    for make in graphs:
        iterator = iter(Loader(make()))
        assert numbers(next(iterator) for _ in range(5)) == order[:5]
        with pytest.raises(FileMissingError, match=missing):
            next(iterator)
    skipping = files(NAMES, on_error="skip")
    assert numbers(Loader(Prefetcher(skipping, 2))) == order[:5] + order[6:]
    assert skipping.stats()["skipped"] == 1


def test_state_of_other_data_is_refused(store: MemoryBackend) -> None:
    state = Loader(Prefetcher(files(), 2)).state_dict()
    store.write(f"{ROOT}/99", b"99")
    other = Loader(Prefetcher(files(), 2))
    other.load_state_dict(state)
    with pytest.raises(StateError, match="other data"):
        iter(other)


@pytest.mark.parametrize(
    "criterion",
    [
        StopCriteria.ALL_DATASETS_EXHAUSTED,
        StopCriteria.FIRST_DATASET_EXHAUSTED,
        StopCriteria.CYCLE_UNTIL_ALL_DATASETS_EXHAUSTED,
    ],
)
def test_weighted_sampler_resumes_exactly_in_this_epoch_and_the_next(criterion: str) -> None:
    def make() -> Loader[Any]:
        few = FileLoader(FileShuffler(NAMES[:3], seed=1))
        return Loader(
            MultiNodeWeightedSampler({"few": few, "all": files()}, {"few": 1.0, "all": 2.0}, criterion, 0, 1)
        )

    reference = make()
    wanted = [numbers(reference) for _ in range(3)]
    loader = make()
    iterator, head, states = iter(loader), [], [loader.state_dict()]
    for item in iterator:
        head.append(item)
        states.append(loader.state_dict())
    assert numbers(head) == wanted[0]
    for position, state in enumerate([*states, loader.state_dict()]):
        resumed = make()
        resumed.load_state_dict(state)
        if position < len(wanted[0]):
            assert numbers(head[:position]) + numbers(resumed) == wanted[0]
        assert [numbers(resumed), numbers(resumed)] == wanted[1:]


def test_reset_while_next_waits_in_another_thread_neither_hangs_nor_steals() -> None:
    """torchdata joins its threads for half a second and then resets what they still read from."""
    gate, reached = threading.Event(), threading.Event()

    class Slow(MemoryBackend):
        def read_many(self, requests: Any, **options: Any) -> Any:
            def held() -> Iterator[ReadRequest]:
                for request in requests:
                    reached.set()
                    gate.wait(10)
                    yield request

            return super().read_many(held(), **options)

    node = FileLoader(NAMES, resolve=lambda url: Slow("nodes-loader"))
    node.reset()
    stolen: list[Any] = []
    thread = threading.Thread(target=lambda: stolen.extend(node))
    thread.start()
    reached.wait(10)
    node.reset()
    gate.set()
    assert numbers(node) == list(range(N))
    thread.join(10)
    assert not thread.is_alive()
    assert stolen == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="torchdata's PinMemory asks for an accelerator")
def test_pin_memory_resumes_exactly() -> None:
    def make() -> Loader[Any]:
        return Loader(PinMemory(ParallelMapper(files(), tensor, num_workers=2)))

    loader = make()
    iterator = iter(loader)
    head = [next(iterator) for _ in range(4)]
    assert all(item.is_pinned() for item in head)
    resumed = make()
    resumed.load_state_dict(loader.state_dict())
    assert [int(item) for item in [*head, *resumed]] == epochs(1)[0]


def tensor(item: tuple[str, bytes]) -> torch.Tensor:
    return torch.tensor(int(item[1]))


JOB = """
import json, os, random, signal, sys
import numpy, torch
from torchdata.nodes import Batcher, Loader, ParallelMapper, Prefetcher
from datapipes.backends.local import LocalBackend
from datapipes.backends.wrappers import CountingBackend
from datapipes.nodes import FileLister, FileLoader, FileSharder, FileShuffler

root, graph, saved, counted, seed, kill_after = sys.argv[1:]
seed, kill_after = int(seed), int(kill_after)
random.seed(seed), numpy.random.seed(seed), torch.manual_seed(seed)

names = FileSharder(FileShuffler(FileLister(root), seed=8))
files = FileLoader(names, max_in_flight=4, resolve=lambda url: CountingBackend(LocalBackend(), counted))
decode = lambda item: int(item[1])
if graph == "inline":
    root_node = Batcher(ParallelMapper(files, decode, num_workers=0), 3, drop_last=False)
else:
    root_node = Prefetcher(Batcher(ParallelMapper(files, decode, num_workers=2), 3, drop_last=False), 2)
loader = Loader(root_node, restart_on_stop_iteration=False)  # an epoch that is over is an empty loop

job = {"delivered": [], "state": None, "epoch": 0}
if os.path.exists(saved):
    with open(saved) as file:
        job = json.load(file)
    loader.load_state_dict(job["state"])

taken = 0
while job["epoch"] < 2:
    for batch in loader:
        taken += 1
        if taken == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)  # before this batch is in the checkpoint: it never happened
        job["delivered"] += batch
        job["state"] = loader.state_dict()
        with open(saved + ".new", "w") as file:
            json.dump(job, file)
        os.replace(saved + ".new", saved)
    job["epoch"] += 1
"""


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(("graph", "ahead"), [("inline", 4 + 3), ("threads", 4 + 2 * 2 + 1 + 3 * 3)])
def test_killed_anywhere_and_resumed_delivers_the_very_same_items(
    tmp_path: Path, graph: str, ahead: int
) -> None:
    """ahead: max_in_flight, what the mapper and the prefetcher hold, and the batch at hand."""
    count = 60
    root, saved, counted = tmp_path / "data", tmp_path / "checkpoint", tmp_path / "reads"
    root.mkdir()
    for i in range(count):
        (root / f"{i:03}").write_bytes(b"%d" % i)
    place = random.SystemRandom().randrange(1 << 32)
    rng = random.Random(place)
    print(f"killed at the places of seed {place}")  # shown when the test fails
    kills = 0
    for start in range(8):
        kill_after = rng.randrange(2, 13) if start < 3 else 1 << 30
        arguments = [root, graph, saved, counted, start, kill_after]
        done = subprocess.run(
            [sys.executable, "-c", JOB, *map(str, arguments)],
            env=os.environ,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != -signal.SIGKILL:
            assert done.returncode == 0, done.stderr
            break
        kills += 1
    assert kills == 3

    node, wanted = FileLoader(FileShuffler(FileLister(str(root)), seed=8)), []
    for _ in range(2):
        node.reset()
        wanted += numbers(node)
    assert json.loads(saved.read_text())["delivered"] == wanted
    reads = len(counted.read_text().splitlines())
    assert 2 * count <= reads <= 2 * count + kills * ahead


@pytest.mark.parametrize("ahead", [False, True])
def test_loader_dropped_in_the_middle_gives_back_what_it_holds(tmp_path: Path, ahead: bool) -> None:
    for i in range(200):
        (tmp_path / f"{i:03}").write_bytes(b"x" * 1000)
    store = LocalBackend()
    node = FileLoader(FileLister(str(tmp_path)), resolve=lambda url: store)
    loader = Loader(Prefetcher(node, 2) if ahead else node)
    iterator = iter(loader)
    next(iterator)
    assert store.stats()["readers_live"] == 1
    del node, loader, iterator
    gc.collect()  # a Loader and its iterator hold each other
    for _ in range(100):  # torchdata's thread looks every 0.1 s whether it is still wanted
        if not store.stats()["readers_live"]:
            break
        time.sleep(0.05)
    assert store.stats()["readers_live"] == 0
    assert store.stats()["buffers_live"] == 0
