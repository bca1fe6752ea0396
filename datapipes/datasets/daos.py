"""What takes the place of ``pydaos.torch``: change the import, keep the code.

Same constructors and samples; a whole batch is read at once by native threads without the GIL, and iteration
resumes exactly under StatefulDataLoader. What differs, and why, stands in ``docs/daos.md``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

import numpy as np
from torch.utils.data import IterableDataset as TorchIterableDataset
from torch.utils.data import get_worker_info

from datapipes.backends.base import DEFAULT_HANDLE_CACHE_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S
from datapipes.backends.checks import MOST_IN_FLIGHT, check_count
from datapipes.datasets.daos_checkpoint import Checkpoint
from datapipes.datasets.daos_iterator import DaosIterator
from datapipes.datasets.daos_names import ContainerNames, Objects, absolute, container_of, url_in
from datapipes.datasets.files import FileDataset
from datapipes.datasets.rank_order import Uneven
from datapipes.epochs import Epochs
from datapipes.errors import OptionError
from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.ranks import check_rank
from datapipes.stages.indexed import IndexedStage, IndexRows
from datapipes.stages.load_files import LoadFiles
from datapipes.stages.shard_files import ShardFiles
from datapipes.stages.shuffle_files import ShuffleFiles

__all__ = ["Checkpoint", "Dataset", "IterableDataset"]

READDIR_BATCH_SIZE = 128
DIR_CACHE_SIZE = 64 * 1024
READDIR_WORKERS = 16
ITER_BATCH_SIZE = 32


class Dataset(ContainerNames, FileDataset):
    """The files below a directory of a container, as a map-style dataset: a ``bytearray`` each, transformed.

    Takes the place of ``pydaos.torch.Dataset``. The names are listed by the constructor, once for the whole
    job and host, in path order. Batches of any length are read at once. No ``worker_init_fn`` is needed,
    under any start method. With a ``ResumableSampler`` it shuffles, shards over ranks and resumes exactly.
    For labels, masks and other forms of output see ``FileDataset``, with ``daos://pool/container/path``.

    Args:
        pool, cont: label or UUID each. ``container`` is another name of ``cont``.
        path: absolute path of a directory in the container, or of one file; None for all of the container.
        transform_fn: called with each sample, a ``bytearray`` of its own; None leaves it as it is.
        readdir_batch_size, dir_cache_size, readdir_workers: checked, and of no effect: listing and opening
            find their own measure.
        in_flight_ops_max: files read at the same time.
        index_path: where to keep the names, as for ``FileDataset``: later runs then list nothing.
        timeout_s: bound on each file in seconds; None for none.
        verify: ``"size"`` makes a file that has grown since it was listed an error; one that has shrunk
            always is.
        handle_cache_bytes: as for ``FileDataset``: what opens the files at once from the second epoch on, in
            all workers and local ranks, and with ``index_path`` in later runs.

    Raises:
        OptionError (a ValueError): an argument that cannot be. ContainerMissingError, FileMissingError,
        StoreConnectionError and others (OSErrors): what the listing meets.
    """

    def __init__(
        self,
        pool: str | None = None,
        cont: str | None = None,
        path: str | os.PathLike[str] | None = None,
        transform_fn: Callable[[bytearray], Any] | None = None,
        readdir_batch_size: int = READDIR_BATCH_SIZE,
        dir_cache_size: int = DIR_CACHE_SIZE,
        readdir_workers: int = READDIR_WORKERS,
        *,
        container: str | None = None,
        in_flight_ops_max: int = DEFAULT_IN_FLIGHT,
        index_path: str | os.PathLike[str] | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
    ) -> None:
        self._container = container_of(pool, cont, container)
        _check_listing(readdir_batch_size, dir_cache_size, readdir_workers)
        _check_samples(transform_fn, in_flight_ops_max)
        super().__init__(
            url_in(self._container, absolute("path", "/" if path is None else path)),
            transform=transform_fn,
            output="bytearray",
            index_path=index_path,
            max_in_flight=in_flight_ops_max,
            timeout_s=timeout_s,
            verify=verify,
            handle_cache_bytes=handle_cache_bytes,
        )
        self.index()

    def index(self) -> FileIndex:
        return FileDataset.index(self)

    def __repr__(self) -> str:
        return f"Dataset({self._container!r}, {len(self)} objects)"


class IterableDataset(ContainerNames, TorchIterableDataset[Any]):
    """The files below a directory of a container, one after another: a ``bytearray`` each, transformed.

    Takes the place of ``pydaos.torch.IterableDataset``. The names are listed by the constructor, once for the
    whole job and host. DataLoader's workers share them out in contiguous parts, with or without
    ``worker_init_fn``. Iterators have ``state_dict()`` and ``load_state_dict()``: StatefulDataLoader goes on
    after the last sample that was delivered, with the same number of workers.

    Args:
        pool, cont, path, transform_fn, readdir_batch_size, dir_cache_size, readdir_workers, container,
        index_path, timeout_s, verify, handle_cache_bytes: as for ``Dataset``.
        batch_size: files read ahead. Samples come one by one.
        in_flight_ops_max: the same, and wins over ``batch_size`` where it is given.
        seed: None keeps the path order; a number shuffles, all names in another order in every epoch, as
            ``shuffle_files`` does. Epochs advance by themselves; ``set_epoch`` says which one it is.
        rank, world_size: both or neither: only the part of this rank, as ``shard_files`` splits. By default
            every rank gets everything, as from ``pydaos.torch``.
        uneven: what ranks do about a remainder: ``"keep"``, ``"pad"`` or ``"drop"``, as for ``shard_files``.
    """

    def __init__(
        self,
        pool: str | None = None,
        cont: str | None = None,
        path: str | os.PathLike[str] | None = None,
        transform_fn: Callable[[bytearray], Any] | None = None,
        readdir_batch_size: int = READDIR_BATCH_SIZE,
        batch_size: int = ITER_BATCH_SIZE,
        dir_cache_size: int = DIR_CACHE_SIZE,
        readdir_workers: int = READDIR_WORKERS,
        *,
        container: str | None = None,
        in_flight_ops_max: int | None = None,
        index_path: str | os.PathLike[str] | None = None,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
        seed: int | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        uneven: Uneven = "keep",
    ) -> None:
        super().__init__()
        self._container = container_of(pool, cont, container)
        _check_listing(readdir_batch_size, dir_cache_size, readdir_workers)
        batch_size = check_count("batch_size", batch_size, least=1, most=MOST_IN_FLIGHT)
        _check_samples(transform_fn, batch_size if in_flight_ops_max is None else in_flight_ops_max)
        check_rank(rank, world_size)
        self._transform_fn = transform_fn
        self._order = {"rank": rank or 0, "world_size": world_size or 1, "uneven": uneven}
        self._reading: dict[str, Any] = {
            "max_in_flight": batch_size if in_flight_ops_max is None else in_flight_ops_max,
            "timeout_s": timeout_s,
            "verify": verify,
            "writable": True,
            "handle_cache_bytes": handle_cache_bytes,
        }
        self._seed = seed
        self._epochs = Epochs(Job.current())
        self._workset: FileIndex | None = None
        LoadFiles(self._part(()), **self._reading)  # checks the options before anything is listed
        source = url_in(self._container, absolute("path", "/" if path is None else path))
        self._index = FileDataset(
            source, transform=transform_fn, index_path=index_path, handle_cache_bytes=handle_cache_bytes
        ).index()

    def __iter__(self) -> DaosIterator:
        epochs = None if self._seed is None else self._epochs
        return DaosIterator(self._stage, self._transform_fn, epochs)

    def index(self) -> FileIndex:
        assert self._index is not None  # noqa: S101 - since the constructor
        return self._index

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is ``epoch``, here and in workers; after it, epochs count on by themselves."""
        self._epochs.set_epoch(epoch)

    @property
    def workset(self) -> Sequence[tuple[str, int]]:
        """The part of ``objects`` that this process iterates over: all of them, or those of this worker.

        A list of such pairs may be assigned in a worker: it then iterates over these, whatever its number.
        OptionError with a ``seed``: it is another part in every epoch.
        """
        if self._seed is not None:
            raise OptionError("with a seed the workset is another one in every epoch")
        order = self._part(self.index()).order(0)
        return Objects(order.index, order.rows(np.arange(order.length)), self._container)

    @workset.setter
    def workset(self, pairs: Iterable[tuple[str, int]]) -> None:
        self._workset = self._index_of(pairs)

    def _stage(self) -> LoadFiles:
        return LoadFiles(self._part(self.index()), **self._reading)

    def _part(self, names: FileIndex | tuple[()]) -> IndexedStage:
        """Those of ``names`` that this process has, in order."""
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        order: dict[str, Any] = {**self._order, "worker": worker, "num_workers": num_workers}
        source: IndexedStage = IndexRows(names)
        if self._workset is not None:
            source, order = IndexRows(self._workset), {}
        if self._seed is not None:
            source = ShuffleFiles(source, seed=self._seed)
        return ShardFiles(source, contiguous=True, **order)

    def __repr__(self) -> str:
        return f"IterableDataset({self._container!r}, {len(self.index())} objects)"


def _check_listing(readdir_batch_size: int, dir_cache_size: int, readdir_workers: int) -> None:
    check_count("readdir_batch_size", readdir_batch_size, least=1)
    check_count("dir_cache_size", dir_cache_size, least=0)
    check_count("readdir_workers", readdir_workers, least=1)


def _check_samples(transform_fn: object, in_flight_ops_max: int) -> None:
    """What goes on to ``FileDataset`` and ``LoadFiles`` under other names."""
    if transform_fn is not None and not callable(transform_fn):
        raise OptionError(f"transform_fn must be a callable or None, not {transform_fn!r:.200}")
    check_count("in_flight_ops_max", in_flight_ops_max, least=1, most=MOST_IN_FLIGHT)
