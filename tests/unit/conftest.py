"""Directories of files for the tests of the engine."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

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
