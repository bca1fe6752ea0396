"""``FileDataset``: files as a map-style dataset that reads a whole batch at once."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, get_worker_info

from datapipes.backends.base import (
    DEFAULT_HANDLE_CACHE_BYTES,
    DEFAULT_IN_FLIGHT,
    DEFAULT_TIMEOUT_S,
    Backend,
)
from datapipes.backends.checks import check_handle_cache_bytes, check_read_options
from datapipes.backends.registry import backend_for
from datapipes.calling import call
from datapipes.datasets.batch_reader import BatchReader, flat_memory, lay_out, rows_of, spans_of
from datapipes.datasets.folders import FolderLabels
from datapipes.datasets.worker_batch import outbound
from datapipes.errors import IndexFileError, OptionError
from datapipes.index import FileIndex
from datapipes.index_format import absolute_path
from datapipes.jobs import Job, SharedCounters
from datapipes.stages.list_files import check_masks, check_sources

__all__ = ["FileDataset"]

Output = Literal["bytes", "bytearray", "view", "tensor"]
Ids = Sequence[int] | npt.NDArray[np.integer[Any]]
_COUNTERS = ("samples", "bytes", "batches", "wait_s")


class FileDataset(Dataset[Any]):
    """The files of a ``FileIndex`` by position; a DataLoader's batch is read in one call.

    A sample is the file's content after ``transform``; with ``labels`` it is ``(content, label)``, and with
    ``with_url`` the URL stands first. DataLoader hands a whole batch of indices to ``__getitems__``, and all
    of it is read concurrently without the GIL: worker processes are needed for heavy transforms only.

    Nothing is listed or opened before the first use. The names are then listed once for the whole job and
    host, and every worker maps the same index. The dataset travels to workers as a specification (paths and
    options), under every start method.

    A file that cannot be read raises; the message says which, why, and what to do. A map-style dataset owes
    its caller a sample for each index and cannot leave one out: where files may be broken, use the pipes or
    nodes with ``on_error="skip"``.

    Args:
        source: an index, or the URL or URLs of what to list (directories, prefixes, files).
        transform: called with the content of each file.
        labels: ``"folder"`` takes the first folder below the root, as torchvision's ImageFolder does, and
            numbers the names in sorted order; a callable is given the URL.
        output: ``"bytes"``; ``"bytearray"``, which can be written to; ``"view"``, a memoryview of memory that
            the batch shares; or ``"tensor"``, a one-dimensional uint8 tensor that shares it likewise. Worker
            processes can send all but views.
        with_url: put the file's URL before its content.
        recursive, masks: of the listing, as for ``list_files``; not for an index.
        index_path: where to keep the index. Made at first use, opened by later runs, which then list
            nothing: remove it when the data has changed. By default it lives in the job's directory.
        max_in_flight: files read at the same time.
        timeout_s: bound on each file in seconds; None for none.
        verify: ``"size"`` makes a file that has grown since it was listed an error; one that has shrunk
            always is.
        handle_cache_bytes: bound of the file beside the index in which all processes of a host keep what
            opens files of DAOS at once the next time. 0: keep nothing.
        resolve: finds the back end of a URL.
    """

    def __init__(
        self,
        source: FileIndex | str | Sequence[str],
        *,
        transform: Callable[[Any], Any] | None = None,
        labels: Literal["folder"] | Callable[[str], Any] | None = None,
        output: Output = "bytes",
        with_url: bool = False,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        index_path: str | os.PathLike[str] | None = None,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
        resolve: Callable[[str], Backend] = backend_for,
    ) -> None:
        if output not in get_args(Output):
            raise OptionError(f"output must be one of {get_args(Output)}, not {output!r}")
        if transform is not None and not callable(transform):
            raise OptionError(f"transform must be a callable or None, not {transform!r:.200}")
        if labels is not None and labels != "folder" and not callable(labels):
            raise OptionError(f"labels must be 'folder', a callable or None, not {labels!r}")
        if verify not in (None, "size"):
            raise OptionError(f"verify must be 'size' or None, not {verify!r}")
        max_in_flight, _ = check_read_options(max_in_flight=max_in_flight, timeout_s=timeout_s)
        handle_cache_bytes = check_handle_cache_bytes(handle_cache_bytes)
        self.transform = transform
        self.labels = labels
        self.output = output
        self.with_url = with_url
        self.index_path = None if index_path is None else str(absolute_path(index_path, "index_path"))
        self._resolve = resolve
        self._reader = BatchReader(
            resolve, max_in_flight=max_in_flight, timeout_s=timeout_s, verify_size=verify == "size"
        )
        self._handle_cache_bytes = handle_cache_bytes
        self._index: FileIndex | None = None
        self._sources: list[str] = []
        self._recursive, self._masks = recursive, check_masks(masks)
        self._folders: FolderLabels | None = None
        if isinstance(source, FileIndex):
            if masks is not None or index_path is not None or not recursive:
                raise OptionError("recursive, masks and index_path belong to a listing: an index is complete")
            self._index = source
        else:
            check_sources(source)
            self._sources = [source] if isinstance(source, str) else list(source)
        self._job = Job.current()
        self._key = f"dataset-{self._job.next_ordinal()}"
        self._counters: SharedCounters | None = None  # mapped memory of the job: made in each process

    def __len__(self) -> int:
        return len(self.index())

    def __getitem__(self, position: int) -> Any:
        url, size = self.index()[position]
        return self._samples([url], [size])[0]

    def __getitems__(self, positions: Ids) -> list[Any]:
        """The samples at ``positions``, all read at once; what DataLoader calls for a batch."""
        index, rows = self._rows(positions)
        return self._samples(*index.urls_and_sizes(rows)) if len(rows) else []

    def read_into(self, positions: Ids, out: Any) -> list[tuple[int, int]]:
        """Read the files at ``positions`` back to back into ``out``; (start, end) of each, in bytes.

        Args:
            positions: as for indexing.
            out: a contiguous tensor on the CPU, of any type, whose memory is filled (pinned memory stays
                pinned); or any writable buffer. It may be larger than what is read.

        Raises OptionError where ``out`` is too small, and what a failed read raises (``out`` may then hold
        any part).
        """
        memory = flat_memory(out)
        index, rows = self._rows(positions)
        if not len(rows):
            return []
        contents = self._counted(*index.urls_and_sizes(rows), memory)
        return spans_of([len(content) for content in contents])

    def index(self) -> FileIndex:
        """The names, in the order of the positions; listed at the first call of the first process."""
        if self._index is None:
            self._index = self._listed()
        if self.labels == "folder" and self._folders is None:
            self._folders = FolderLabels(self._index, self._sources)
        return self._index

    @property
    def classes(self) -> list[str]:
        """The names of the folders that are labels, sorted. OptionError without ``labels="folder"``."""
        self.index()
        if self._folders is None:
            raise OptionError('classes are known with labels="folder" only')
        return list(self._folders.classes)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """Class name to label."""
        return {name: number for number, name in enumerate(self.classes)}

    @property
    def fingerprint(self) -> str:
        """Digest of the names and sizes, in their order: a ``ResumableSampler`` keeps it in its states."""
        return self.index().fingerprint

    def stats(self) -> dict[str, float]:
        """``samples``, ``bytes``, ``batches`` read and ``wait_s`` (seconds spent reading), of this dataset in
        all processes of the job on this host and rank: DataLoader's workers are in it."""
        return self._shared_counters().total()

    def __repr__(self) -> str:
        return f"FileDataset({self._sources or self._index!r})"

    def _listed(self) -> FileIndex:
        path = self.index_path
        if path is None:
            options = json.dumps([self._sources, self._recursive, self._masks])
            return self._job.shared_index(f"{self._key} {options}", self._build)
        if not os.path.exists(path):
            # One process of the host builds, the others wait and open what it built.
            return self._job.shared_index(f"dataset {path}", lambda _: self._kept(path))
        return self._kept(path)

    def _build(self, path: str | os.PathLike[str]) -> FileIndex:
        return FileIndex.build(
            self._sources,
            path,
            recursive=self._recursive,
            masks=self._masks,
            handle_cache_bytes=self._handle_cache_bytes,
            resolve=self._resolve,
        )

    def _kept(self, path: str) -> FileIndex:
        """The index kept at ``path``, built if it is not there; IndexFileError if it is of something else."""
        if not os.path.exists(path):
            return self._build(path)
        index = FileIndex.open(path)
        options = index.options
        wanted = {"recursive": self._recursive, "masks": list(self._masks or [])}
        rest = len(self._sources) - 8  # as FileIndex.build describes what it lists
        listed = ", ".join(self._sources[:8]) + (f" and {rest} more" if rest > 0 else "")
        if index.source != listed or any(options.get(key) != wanted[key] for key in wanted):
            raise IndexFileError(
                f"index file {path!r} was made of {index.source!r} with {options}, and this dataset lists "
                f"{listed!r} with {wanted}. Remove it or give another index_path; to use it as it is, make "
                "the dataset of FileIndex.open(path)",
                url=path,
                operation="open index",
            )
        return index

    def _rows(self, positions: Ids) -> tuple[FileIndex, list[int] | npt.NDArray[np.int64]]:
        index = self.index()
        if type(positions) is list and set(map(type, positions)) == {int} and min(positions) >= 0:
            return index, positions
        return index, rows_of(positions, len(index))

    def _samples(self, urls: list[str], sizes: list[int]) -> list[Any]:
        contents = self._read(urls, sizes)
        if self.transform is not None:
            contents = [call(self.transform, content) for content in contents]
        columns = [contents]
        if self.with_url:
            columns.insert(0, urls)
        if self.labels is not None:
            columns.append(self._labels_of(urls))
        return outbound(contents if len(columns) == 1 else list(zip(*columns, strict=True)))

    def _labels_of(self, urls: list[str]) -> list[Any]:
        if self._folders is not None:
            return self._folders.of(urls)
        assert callable(self.labels)  # noqa: S101 - checked in the constructor
        return [call(self.labels, url) for url in urls]

    def _read(self, urls: list[str], sizes: list[int]) -> list[Any]:
        """The contents in the form that was asked for."""
        if self.output == "bytes":
            return [c if type(c) is bytes else bytes(c) for c in self._counted(urls, sizes, None)]
        if self.output == "bytearray":
            return self._counted(urls, sizes, None, writable=True)
        if min(sizes) < 0:
            contents = self._counted(urls, sizes, None)
            sizes = [len(content) for content in contents]
            slab = torch.empty(sum(sizes), dtype=torch.uint8)
            lay_out(contents, flat_memory(slab))
        else:
            slab = torch.empty(sum(sizes), dtype=torch.uint8)
            self._counted(urls, sizes, flat_memory(slab))
        if self.output == "tensor":
            return list(slab.split_with_sizes(sizes))
        view = flat_memory(slab)
        return [view[start:end] for start, end in spans_of(sizes)]

    def _counted(
        self, urls: list[str], sizes: list[int], out: memoryview | None, *, writable: bool = False
    ) -> list[Any]:
        began = perf_counter()
        handles = self.index().handle_file(self._handle_cache_bytes)
        contents = self._reader.read(urls, sizes, out, writable=writable, handles=handles)
        wait_s, total = perf_counter() - began, sum(map(len, contents))
        amounts = {"samples": len(urls), "bytes": total, "batches": 1, "wait_s": wait_s}
        self._shared_counters().add(_slot(), amounts)
        return contents

    def _shared_counters(self) -> SharedCounters:
        self._counters = self._counters or self._job.counters(self._key, _COUNTERS)
        return self._counters

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_counters": None}


def _slot() -> int:
    info = get_worker_info()
    return 0 if info is None else info.id + 1
