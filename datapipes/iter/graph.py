"""Walking, copying and rewiring graphs of pipes, with torch's own ``traverse_dps`` as the only eye."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import IterDataPipe
from torch.utils.data.graph import DataPipe, traverse_dps

__all__ = ["all_pipes", "copy_graph", "direct_sources", "replace_source"]


def direct_sources(pipe: DataPipe) -> list[DataPipe]:
    """The pipes that ``pipe`` reads from, in the order in which it holds them."""
    (_, below) = traverse_dps(pipe)[id(pipe)]
    return [source for source, _ in below.values()]


def all_pipes(pipe: DataPipe) -> list[DataPipe]:
    """``pipe`` and everything it reads from, each once, in an order that every process sees alike."""
    found: dict[int, DataPipe] = {}

    def visit(graph: dict[int, Any]) -> None:
        for pipe_id, (member, below) in graph.items():
            if pipe_id not in found:
                found[pipe_id] = member
                visit(below)

    visit(traverse_dps(pipe))
    return list(found.values())


def copy_graph(pipe: IterDataPipe[Any]) -> IterDataPipe[Any]:
    """A copy of the whole graph that shares what pipes only refer to: functions, and the data of sources.

    A user's function may be an object with a model inside, a source a list of a million names: neither is
    part of a pipe's state, and torch shares both between iterations too.
    """
    shared: dict[int, Any] = {}
    for member in all_pipes(pipe):
        for name, value in vars(member).items():
            if name == "iterable" or (callable(value) and not isinstance(value, IterDataPipe)):
                shared[id(value)] = value
    return copy.deepcopy(pipe, shared)


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
