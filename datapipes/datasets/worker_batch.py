"""A batch on its way out of a DataLoader's worker: its contents go round the pipe.

What a worker returns is pickled, and the pipe to the main process takes it in pieces of 64 KiB: at 100 KiB a
sample that costs more than reading it. Tensors are spared that by torch, which shares their memory. Contents
of files are spared it here, by memory without a name (memfd_create(2)), whose descriptor is sent as torch
sends its.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import Callable
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any, NamedTuple

import torch.multiprocessing
from torch.utils.data import get_worker_info

__all__ = ["WorkerBatch", "outbound"]

_LEAST_BYTES = 1 << 20
"""A smaller batch is through the pipe before a descriptor is sent."""

_CONTENTS = (bytes, bytearray)


class WorkerBatch(list[Any]):
    """Samples that a worker is about to send: a list, and where it arrives a plain one.

    Samples that are ``bytes`` or ``bytearray``, or tuples with such in them, are sent as they are then, also
    after a ``collate_fn`` has changed the list; one that returns another list sends that as any other.
    """

    def __reduce__(self) -> tuple[type[list[Any]], tuple[list[Any]]]:
        return list, (list(self),)


def outbound(samples: list[Any]) -> list[Any]:
    """``samples``, as they are best returned by this process."""
    return samples if get_worker_info() is None else WorkerBatch(samples)


class _Place(NamedTuple):
    """Where contents stood."""

    kind: type[bytes | bytearray]
    size: int


def _sent(batch: WorkerBatch) -> tuple[Callable[..., list[Any]], tuple[Any, ...]]:
    contents: list[bytes | bytearray] = []
    rest = [_taken_out(sample, contents) for sample in batch]
    total = sum(map(len, contents))
    way = torch.multiprocessing.get_sharing_strategy()  # type: ignore[no-untyped-call]
    if total >= _LEAST_BYTES and way == "file_descriptor":
        with contextlib.suppress(OSError):  # no descriptor or memory to be had: then by the pipe
            return _received, (_shared(contents), total, rest)
    return batch.__reduce__()


def _taken_out(sample: Any, contents: list[bytes | bytearray]) -> Any:
    if type(sample) in _CONTENTS:
        contents.append(sample)
        return _Place(type(sample), len(sample))
    if type(sample) is tuple:
        return tuple(_taken_out(part, contents) for part in sample)
    return sample


def _shared(contents: list[bytes | bytearray]) -> Any:
    """Memory with ``contents`` back to back, as a descriptor that can be pickled."""
    with open(os.memfd_create("datapipes-batch", os.MFD_CLOEXEC), "wb", buffering=0) as memory:
        for content in contents:
            left = memoryview(content)
            while left:
                left = left[memory.write(left) :]
        return DupFd(memory.fileno())


def _received(descriptor: Any, total: int, rest: list[Any]) -> list[Any]:
    fd = descriptor.detach()
    try:
        memory = mmap.mmap(fd, total, mmap.MAP_SHARED | mmap.MAP_POPULATE, mmap.PROT_READ)
    finally:
        os.close(fd)
    with memory, memoryview(memory) as view:
        contents = _Contents(view)
        return [contents.put_back(sample) for sample in rest]


class _Contents:
    """Contents back to back, to be taken one after the other."""

    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    def put_back(self, sample: Any) -> Any:
        if type(sample) is _Place:
            start, self._at = self._at, self._at + sample.size
            return sample.kind(self._view[start : self._at])
        if type(sample) is tuple:
            return tuple(map(self.put_back, sample))
        return sample


if hasattr(os, "memfd_create"):
    ForkingPickler.register(WorkerBatch, _sent)
