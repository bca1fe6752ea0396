"""Walking, copying and rewiring graphs of pipes, with torch's own ``traverse_dps`` as the only eye."""

from __future__ import annotations

import copy
import os
import threading
from typing import Any

from torch.utils.data import IterDataPipe
from torch.utils.data.graph import DataPipe, traverse_dps
from torch.utils.data.graph_settings import apply_sharding

__all__ = ["Graph", "copy_graph", "replace_source", "set_epoch", "shard_graph"]

_torch_looks = threading.RLock()
"""Held while torch looks at a graph, or a graph is copied: how pipes are pickled and copied is then said by
hooks of their classes, for all threads. Forks wait for it, or the child would have the hooks for good."""

os.register_at_fork(
    before=_torch_looks.acquire,
    after_in_parent=_torch_looks.release,
    after_in_child=_torch_looks.release,
)


class Graph:
    """A pipe and everything it reads from, seen once: torch pickles a whole graph to look at it."""

    def __init__(self, last: DataPipe) -> None:
        self.pipes: list[DataPipe] = []
        """Each once, ``last`` first, in an order that every process sees alike."""
        self._below: dict[int, Any] = {}
        with _torch_looks:
            graph = traverse_dps(last)
        self._visit(graph)

    def _visit(self, graph: dict[int, Any]) -> None:
        for pipe, below in graph.values():
            if id(pipe) not in self._below:
                self._below[id(pipe)] = below
                self.pipes.append(pipe)
                self._visit(below)

    def sources(self, pipe: DataPipe) -> list[DataPipe]:
        """The pipes that ``pipe`` reads from, in the order in which it holds them."""
        return [source for source, _ in self._below[id(pipe)].values()]

    def upstream(self, pipe: DataPipe) -> list[DataPipe]:
        """``pipe`` and everything that it reads from."""
        found: list[DataPipe] = []
        waiting = [pipe]
        while waiting:
            member = waiting.pop(0)
            if all(member is not known for known in found):
                found.append(member)
                waiting += self.sources(member)
        return found


def copy_graph(pipe: IterDataPipe[Any]) -> IterDataPipe[Any]:
    """A copy of the whole graph that shares what pipes only refer to: functions, and the data of sources.

    A user's function may be an object with a model inside, a source a list of a million names: neither is
    part of a pipe's state, and torch shares both between iterations too.
    """
    shared: dict[int, Any] = {}
    for member in Graph(pipe).pipes:
        for name, value in vars(member).items():
            if name == "iterable" or (callable(value) and not isinstance(value, IterDataPipe)):
                shared[id(value)] = value
    with _torch_looks:
        return copy.deepcopy(pipe, shared)


def shard_graph(pipe: IterDataPipe[Any], instances: int, instance: int) -> None:
    """Tell every sharding pipe of the graph that it is ``instance`` of ``instances``."""
    with _torch_looks:
        apply_sharding(pipe, instances, instance)


def replace_source(pipe: DataPipe, old: DataPipe, new: Any) -> bool:
    """Make ``pipe`` read from ``new`` where it read from ``old``; whether it did."""
    for name, value in vars(pipe).items():
        if value is old:
            setattr(pipe, name, new)
            return True
        if isinstance(value, (tuple, list)) and any(item is old for item in value):
            setattr(pipe, name, type(value)(new if item is old else item for item in value))
            return True
    return False


def set_epoch(datapipe: DataPipe, epoch: int) -> None:
    """Say which epoch the next iteration of a graph is: ``set_epoch`` of every pipe in it that has one.

    For graphs that end in pipes of torch, which have none: ``set_epoch(dp, epoch)`` before each loop.
    """
    for pipe in Graph(datapipe).pipes:
        if hasattr(pipe, "epochs"):
            pipe.epochs.set_epoch(epoch)
