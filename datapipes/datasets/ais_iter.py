"""``AISBaseIterDataset`` and ``AISIterDataset``: objects of AIStore as iterable-style datasets."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any

from torch.utils.data import IterableDataset, get_worker_info

from datapipes.backends.base import DEFAULT_BUFFER_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S
from datapipes.datasets.ais_found import (
    Found,
    Places,
    as_prefix_map,
    as_sources,
    found_in,
    overridden,
    prefixes_of,
)
from datapipes.datasets.ais_reads import FoundReader
from datapipes.datasets.ais_walk import Progress, Walk, progress_bar, resumed

__all__ = ["AISBaseIterDataset", "AISIterDataset"]

_HOOKS = ("_create_objects_iter", "_reset_iterator", "_get_worker_iter_info")


class AISBaseIterDataset(ABC, IterableDataset[Any]):
    """Base of iterable-style datasets over AIStore, extended as ``aistore.pytorch``'s is.

    A subclass writes ``__iter__``: it calls ``_reset_iterator()`` and then ``_get_worker_iter_info()``, whose
    iterator gives the SDK's objects. The classes here that find nothing overridden list names only; otherwise
    they call the methods in this order, and every object comes through them.

    Nothing is listed before the first item. Every worker lists all sources and takes each n-th object, unless
    the sources are split.

    Args:
        ais_source_list: a source (``Bucket``, ``ObjectGroup``, any ``AISSource``) or a list of them.
        prefix_map: source to prefix or list of prefixes; only objects whose names begin so are taken.
        partition_sources_by_worker: workers share out the sources, so that each lists its own only.
    """

    def __init__(
        self,
        ais_source_list: Any,
        prefix_map: dict[Any, Any] | None = None,
        partition_sources_by_worker: bool = False,  # noqa: FBT001, FBT002 - as in aistore.pytorch
    ) -> None:
        if hasattr(self, "_get_sample_iter_from_source"):
            raise TypeError(
                f"{type(self).__name__} has _get_sample_iter_from_source, which aistore.pytorch 1.x called: "
                "override _create_objects_iter(sources) instead"
            )
        self._ais_source_list = as_sources(ais_source_list, self)
        self._prefix_map = as_prefix_map(prefix_map)
        self._obj_iterator: Any = None
        self._partition_sources_by_worker = partition_sources_by_worker

    def _create_objects_iter(self, sources: list[Any] | None = None) -> Any:
        """The SDK's objects of ``sources``, or of all."""
        for source in self._ais_source_list if sources is None else sources:
            for prefix in prefixes_of(source, self._prefix_map):
                yield from source.list_all_objects_iter(prefix=prefix)

    def _get_worker_iter_info(self) -> tuple[Any, str]:
        """This worker's objects, and what to call it in a progress bar."""
        worker, num_workers = _worker()
        if num_workers == 1:
            return self._obj_iterator, ""
        if self._partition_sources_by_worker:
            own = self._ais_source_list[worker::num_workers]
            return self._create_objects_iter(own), f" (Worker {worker})"
        return islice(self._obj_iterator, worker, None, num_workers), f" (Worker {worker})"

    @abstractmethod
    def __iter__(self) -> Iterator[Any]:
        """The samples."""

    def _reset_iterator(self) -> None:
        """Start from the first object again."""
        self._obj_iterator = self._create_objects_iter()

    def __len__(self) -> int:
        """The number of objects, of all workers; lists all of them."""
        return sum(1 for _ in self._everything())

    def _hooked(self) -> bool:
        """Whether objects must come through methods of a subclass."""
        return overridden(self, AISBaseIterDataset, _HOOKS)

    def _objects(self) -> tuple[Iterator[Any], str]:
        """This worker's objects, by way of the methods that a subclass may override."""
        self._reset_iterator()
        objects, title = self._get_worker_iter_info()
        return iter(objects), title

    def _everything(self) -> Iterator[Found]:
        """The objects of all workers."""
        if not self._hooked():
            return self._found(self._ais_source_list)
        self._reset_iterator()
        return map(Places().found, self._obj_iterator)

    def _shares(self) -> tuple[Iterator[Found], str]:
        """This worker's objects, by their names wherever possible, and what to call the worker."""
        if self._hooked():
            objects, title = self._objects()
            return map(Places().found, objects), title
        worker, num_workers = _worker()
        if num_workers == 1:
            return self._found(self._ais_source_list), ""
        title = f" (Worker {worker})"
        if self._partition_sources_by_worker:
            return self._found(self._ais_source_list[worker::num_workers]), title
        return islice(self._found(self._ais_source_list), worker, None, num_workers), title

    def _found(self, sources: list[Any]) -> Iterator[Found]:
        places = Places()
        for source in sources:
            for prefix in prefixes_of(source, self._prefix_map):
                yield from found_in(source, prefix, places)


class AISIterDataset(AISBaseIterDataset):
    """Yields (name, bytes) of every object; many are read at once, their order is that of the listing.

    Takes the place of ``aistore.pytorch.AISIterDataset``. Its iterators have ``state_dict()`` and
    ``load_state_dict()``: StatefulDataLoader goes on after the last object that was delivered. An object that
    cannot be read raises, and the error is also the SDK's for that fault.

    Args:
        ais_source_list, prefix_map, partition_sources_by_worker: as of the base class.
        etl_name: give what this ETL makes of each object.
        show_progress: show tqdm's bar.
        max_in_flight: objects under way or waiting to be delivered.
        max_buffer_bytes: bytes of these; one larger object is read alone.
        timeout_s: bound on each object in seconds; None for none.
    """

    def __init__(
        self,
        ais_source_list: Any,
        prefix_map: dict[Any, Any] | None = None,
        etl_name: str | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002 - as in aistore.pytorch
        partition_sources_by_worker: bool = False,  # noqa: FBT001, FBT002 - likewise
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        super().__init__(ais_source_list, prefix_map, partition_sources_by_worker)
        self._etl_name = etl_name
        self._show_progress = show_progress
        self._reader = FoundReader(
            etl_name, max_in_flight=max_in_flight, max_buffer_bytes=max_buffer_bytes, timeout_s=timeout_s
        )

    def __iter__(self) -> Iterator[tuple[str, bytes]]:
        return Walk(self, "ais_iter")

    def outputs(self, progress: Progress) -> Iterator[tuple[str, bytes]]:
        """The samples after ``progress``; for ``Walk``."""
        founds, worker = self._shares()
        results = self._reader.read(resumed(founds, progress, _name))
        with closing(results):
            title = f"AISIterDataset{worker}"
            for found, data, error in progress_bar(results, title, shown=self._show_progress):
                if error is not None:
                    raise error
                progress.over(found.name)
                yield found.name, data


def _name(found: Found) -> str:
    return found.name


def _worker() -> tuple[int, int]:
    info = get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)
