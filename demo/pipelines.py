"""The same pipeline twice: as pipes and as nodes. Both give the same samples in the same order."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import default_collate
from torchdata.nodes import Batcher, Mapper, ParallelMapper

from datapipes import nodes
from datapipes.iter import IterableWrapper, IterDataPipe

__all__ = ["BATCH", "as_node", "as_pipe", "decode"]

BATCH = 64


def decode(item: tuple[str, bytes]) -> tuple[str, torch.Tensor, int]:
    """(url, pixels in [0, 1], label); the label is the file's folder."""
    url, data = item
    pixels = np.asarray(Image.open(io.BytesIO(data)), dtype=np.float32) / 255
    return url, torch.from_numpy(pixels), int(url.rsplit("/", 2)[1])


def as_pipe(url: str) -> IterDataPipe[Any]:
    """For DataLoader as it is, for StatefulDataLoader with ``.resumable()`` after it."""
    source = IterableWrapper([url])
    files: IterDataPipe[tuple[str, bytes]]
    if url.startswith("ais://"):
        names = source.list_files_by_ais(masks="*.png").shuffle_files(seed=0).shard_files()
        files = names.load_files_by_ais(max_in_flight=64, output="bytes")
    else:
        names = source.list_files_by_daos(masks="*.png").shuffle_files(seed=0).shard_files()
        files = names.load_files_by_daos(max_in_flight=64, output="bytes")
    return files.map(decode).batch(BATCH).collate()


def as_node(url: str) -> Any:
    """The same for ``torchdata.nodes.Loader``, decoding in two threads."""
    names = nodes.FileSharder(nodes.FileShuffler(nodes.FileLister([url], masks="*.png"), seed=0))
    files = nodes.FileLoader(names, max_in_flight=64)
    samples = ParallelMapper(files, decode, num_workers=2, method="thread")
    return Mapper(Batcher(samples, BATCH, drop_last=False), default_collate)
