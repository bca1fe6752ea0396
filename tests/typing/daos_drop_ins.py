"""What type checkers must infer; read by mypy and pyright, never run. See test_typing.py."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Sequence
from typing import Any, BinaryIO, assert_type

from torch.utils.data import DataLoader

from datapipes.datasets import ResumableSampler
from datapipes.datasets.daos import Checkpoint, Dataset, IterableDataset
from datapipes.index import FileIndex


def decode(sample: bytearray) -> int:
    sample[0] = 0
    return len(sample)


dataset = Dataset("tank", "train", "/samples", decode, 128, 65536, 16)
same = Dataset(pool="tank", container="train", transform_fn=decode, in_flight_ops_max=16)
assert_type(dataset.objects, Sequence[tuple[str, int]])
assert_type(dataset.objects[0], tuple[str, int])
assert_type(dataset.__getitems__([0, 1]), list[Any])
assert_type(dataset.index(), FileIndex)
dataset.objects = [pair for pair in dataset.objects if pair[1]]
loader: DataLoader[Any] = DataLoader(dataset, num_workers=2, worker_init_fn=dataset.worker_init)
sampler: ResumableSampler[int] = ResumableSampler(dataset)

with IterableDataset("tank", "train", None, decode, 128, 32, 65536, 16, seed=0) as iterable:
    assert_type(iterable, IterableDataset)
    assert_type(iter(iterable).state_dict(), dict[str, Any])
    iterable.workset = iterable.workset[::2]
    iterable.set_epoch(1)

with Checkpoint("tank", "train", prefix="/saved", workers=8) as checkpoint:
    assert_type(checkpoint.writer("a", ensure_path=False), BinaryIO)
    assert_type(checkpoint.reader("a"), io.BytesIO)
    with tempfile.TemporaryFile() as file:
        checkpoint.reader("a", stream=file)
    assert_type(checkpoint.reader("a", io.BytesIO()), io.BytesIO)

IterableDataset("tank", "train", seeds=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Dataset("tank", "train", transform_fn=str.encode)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
