"""``AISBaseMapDataset`` and ``AISMapDataset``: objects of AIStore as map-style datasets."""

from __future__ import annotations

import operator
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from datapipes.backends.base import DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S
from datapipes.calling import call
from datapipes.datasets.ais_found import (
    Found,
    Places,
    as_prefix_map,
    as_sources,
    object_of,
    overridden,
    prefixes_of,
)
from datapipes.datasets.ais_names import FoundTable
from datapipes.datasets.ais_reads import FoundReader

__all__ = ["AISBaseMapDataset", "AISMapDataset"]


class AISBaseMapDataset(ABC, Dataset[Any]):
    """Base of map-style datasets over AIStore, extended as ``aistore.pytorch``'s is.

    A subclass writes ``__getitem__`` over ``self._obj_list``, a list of the SDK's objects. The list is made
    at its first use; the classes here never use it and hold names, unless a subclass does or overrides
    ``_create_objects_list``, through which then every object comes.

    The sources are listed by the constructor, once: workers get the names with the dataset.

    Args:
        ais_source_list: a source (``Bucket``, ``ObjectGroup``, any ``AISSource``) or a list of them.
        prefix_map: source to prefix or list of prefixes; only objects whose names begin so are taken.
    """

    def __init__(self, ais_source_list: Any, prefix_map: dict[Any, Any] | None = None) -> None:
        self._ais_source_list = as_sources(ais_source_list, self)
        self._prefix_map = as_prefix_map(prefix_map)
        self._table: FoundTable | None = None
        self._things: list[Any] | None = None
        if overridden(self, AISBaseMapDataset, ["_create_objects_list"]):
            self._things = self._create_objects_list()
        else:
            self._table = FoundTable(self._ais_source_list, self._prefix_map)

    @property
    def _obj_list(self) -> list[Any]:
        """The SDK's objects. From its first use on this list is what counts: it may be changed."""
        if self._things is None:
            table, self._table = self._table, None
            self._things = [] if table is None else [object_of(table[at]) for at in range(len(table))]
        return self._things

    @_obj_list.setter
    def _obj_list(self, things: list[Any]) -> None:
        self._things, self._table = things, None

    def _create_objects_list(self) -> list[Any]:
        """The SDK's objects in all sources."""
        found: list[Any] = []
        for source in self._ais_source_list:
            for prefix in prefixes_of(source, self._prefix_map):
                found.extend(source.list_all_objects_iter(prefix=prefix))
        return found

    def get_obj_list(self) -> list[Any]:
        """The SDK's objects, as a list that belongs to the dataset."""
        return self._obj_list

    def found_sizes(self) -> npt.NDArray[np.int64] | None:
        """The sizes in bytes, by position, as they were listed; None where they were not."""
        return None if self._table is None else self._table.sizes()

    def _count(self) -> int:
        return len(self._table if self._table is not None else self._obj_list)

    def _found(self, indices: Sequence[int]) -> list[Found]:
        """The objects at ``indices``. IndexError as a list raises it, with what this dataset is."""
        try:
            if self._table is not None:
                return [self._table[operator.index(index)] for index in indices]
            places, things = Places(), self._obj_list
            return [places.found(things[operator.index(index)]) for index in indices]
        except IndexError:
            raise IndexError(f"<{type(self).__name__}> index must be in bounds of dataset") from None

    @abstractmethod
    def __getitem__(self, index: int) -> Any:
        """The sample at ``index``."""

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The samples at ``indices``; what DataLoader calls for a batch."""
        return [call(self.__getitem__, index) for index in indices]


class AISMapDataset(AISBaseMapDataset):
    """Gives (name, bytes) of the object at an index; a DataLoader's batch is read at once.

    Takes the place of ``aistore.pytorch.AISMapDataset``. Where a subclass overrides ``__getitem__`` alone,
    the batch is still read at once, at the first call of ``super().__getitem__`` for it.

    Use it with a ``ResumableSampler``, or any sampler with a state, to resume exactly.

    Args:
        ais_source_list, prefix_map: as of the base class.
        etl_name: give what this ETL makes of each object.
        max_in_flight: objects of a batch that are read at the same time.
        timeout_s: bound on each object in seconds; None for none.
    """

    def __init__(
        self,
        ais_source_list: Any = (),
        prefix_map: dict[Any, Any] | None = None,
        etl_name: str | None = None,
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        super().__init__(ais_source_list, prefix_map)
        self._etl_name = etl_name
        self._reader = FoundReader(etl_name, max_in_flight=max_in_flight, timeout_s=timeout_s)
        self._batches: dict[int, _Batch] = {}  # by thread

    def __len__(self) -> int:
        return self._count()

    def __getitem__(self, index: int) -> tuple[str, bytes]:
        index = operator.index(index)
        batch = self._batches.get(threading.get_ident()) if self._batches else None
        if batch is not None and index in batch.wanted:
            [found] = self._found([index])
            return found.name, batch.take(index, self._read_apart)
        sample: tuple[str, bytes] = self._read([index])[0]
        return sample

    def __getitems__(self, indices: list[int]) -> list[Any]:
        """The samples at ``indices``, all read at once."""
        if not overridden(self, AISMapDataset, ["__getitem__"]):
            return self._read(indices)
        thread = threading.get_ident()
        self._batches[thread] = _Batch([operator.index(index) for index in indices])
        try:
            return [call(self.__getitem__, index) for index in indices]
        finally:
            del self._batches[thread]

    def _read(self, indices: Sequence[int]) -> list[Any]:
        founds = self._found(indices)
        contents = self._reader.read_all(founds)
        return [(found.name, content) for found, content in zip(founds, contents, strict=True)]

    def _read_apart(self, indices: list[int]) -> list[Callable[[], Any]]:
        return self._reader.read_apart(self._found(indices))


class _Batch:
    """A batch that is read when its first sample is asked for; each sample meets its own error."""

    def __init__(self, indices: list[int]) -> None:
        self.wanted = set(indices)
        self._results: dict[int, Callable[[], Any]] | None = None

    def take(self, index: int, read: Callable[[list[int]], list[Callable[[], Any]]]) -> Any:
        if self._results is None:
            wanted = sorted(self.wanted)
            self._results = dict(zip(wanted, read(wanted), strict=True))
        return self._results[index]()
