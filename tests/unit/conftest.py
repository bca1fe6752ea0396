"""Directories of files for the tests of the engine, and threads that share an iterator."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .engine_tree import Tree, live, until


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    """An empty directory; its session must have nothing live when the test is over."""
    root = tmp_path / "root"
    root.mkdir()
    made = Tree(root)
    yield made
    gc.collect()
    until(lambda: live(made.session) == {}, "live objects")
    made.session.close()


@pytest.fixture
def many(tree: Tree) -> Tree:
    """270 files of many sizes in seven directories."""
    for i, size in enumerate([0, 1, 100, 4096, 8192, 65536, 65535, 300_000, 17] * 30):
        tree.add(f"{i % 7}/{i:04d}", size)
    return tree


@pytest.fixture
def shared_by_threads() -> Iterator[Callable[[Iterator[Any]], list[Any]]]:
    """Everything that four threads get from one iterator, while they are interrupted very often."""

    def share(iterator: Iterator[Any]) -> list[Any]:
        together = threading.Barrier(4)
        got: list[Any] = []

        def work() -> None:
            together.wait(50)
            try:
                for item in iterator:
                    got.append(item)  # noqa: PERF402 - an item at a time, as threads do
            except Exception as error:  # noqa: BLE001 - what comes is compared
                got.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return got

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield share
    sys.setswitchinterval(interval)
