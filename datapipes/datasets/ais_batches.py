"""``AISBatchIterDataset``: objects of AIStore in batches, by many GETs at once or by Get-Batch."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import islice
from logging import getLogger
from typing import Any

from datapipes.backends.base import DEFAULT_BUFFER_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S
from datapipes.datasets.ais_found import Found, GetBatch, Places, object_of, overridden
from datapipes.datasets.ais_iter import AISBaseIterDataset
from datapipes.datasets.ais_reads import FoundReader
from datapipes.datasets.ais_walk import Progress, Walk, progress_bar, resumed
from datapipes.errors import ContainerMissingError, FileMissingError
from datapipes.records import UNKNOWN_SIZE
from datapipes.stages.state import check_count

__all__ = ["AISBatchIterDataset"]

logger = getLogger(__name__)


class AISBatchIterDataset(AISBaseIterDataset):
    """Yields (name, bytes) of every object, one by one, in the order of the listing.

    Takes the place of ``aistore.pytorch``'s. The objects are read by many GETs at once, which is faster than
    Get-Batch; ``batch_reads=True``, a ``colocation`` or an ``output_format`` other than ``.tar`` ask for
    Get-Batch all the same, one request for each ``max_batch_size`` objects: several at once for a streamed
    ``.tar``, else one after the other through the SDK. Either way an object that is missing raises, where a
    streamed Get-Batch ends early without a word: what an answer of Get-Batch lacks is read singly.

    A subclass may override ``_process_batch``: then it is given the SDK's objects, batch by batch, and what
    it yields is yielded. Its state counts batches and outputs: the batch it was taken in is processed again.

    Args:
        ais_source_list, prefix_map, partition_sources_by_worker: as of the base class.
        client: the SDK's client.
        show_progress: show tqdm's bar.
        max_batch_size: objects of one Get-Batch, or of one call of an overridden ``_process_batch``.
        output_format, streaming, colocation: of Get-Batch.
        cont_on_err: log and leave out what cannot be read.
        batch_reads: use Get-Batch.
        drop_missing: leave out objects that are not there, without a word.
        max_in_flight: objects under way or waiting to be delivered; with Get-Batch two batches at least.
        max_buffer_bytes: bytes of these; one larger object is read alone.
        timeout_s: bound on each object in seconds; None for none.
    """

    def __init__(
        self,
        ais_source_list: Any,
        client: Any,
        prefix_map: dict[Any, Any] | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002 - as in aistore.pytorch
        max_batch_size: int = 32,
        output_format: str = ".tar",
        streaming: bool = True,  # noqa: FBT001, FBT002 - likewise
        colocation: int = 0,
        partition_sources_by_worker: bool = False,  # noqa: FBT001, FBT002 - likewise
        cont_on_err: bool = False,  # noqa: FBT001, FBT002 - likewise
        *,
        batch_reads: bool = False,
        drop_missing: bool = False,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        **former: Any,
    ) -> None:
        if former:
            hint = ": it is max_batch_size since aistore.pytorch 2.0" if "batch_size" in former else ""
            raise TypeError(f"AISBatchIterDataset has no option {', '.join(map(repr, former))}{hint}")
        max_batch_size = check_count("max_batch_size", max_batch_size, least=1)
        colocation = check_count("colocation", colocation, least=0, most=2)
        super().__init__(ais_source_list, prefix_map, partition_sources_by_worker)
        self.client = client
        self.max_batch_size = max_batch_size
        self.output_format = output_format
        self.streaming = streaming
        self._show_progress = show_progress
        self.colocation = colocation
        self.cont_on_err = cont_on_err
        self.drop_missing = drop_missing
        self._batch_reads = batch_reads
        self._by_sdk = output_format != ".tar" or not streaming
        batched = self.batch_reads and not self._by_sdk
        self._reader = FoundReader(
            None,
            max_in_flight=max(max_in_flight, 2 * max_batch_size) if batched else max_in_flight,
            max_buffer_bytes=max_buffer_bytes,
            timeout_s=timeout_s,
            get_batch=GetBatch(max_batch_size, int(colocation)) if batched else None,
        )

    def __iter__(self) -> Iterator[Any]:
        return Walk(self, "ais_batch_iter")

    @property
    def batch_reads(self) -> bool:
        """Whether objects are read by Get-Batch."""
        return self._batch_reads or bool(self.colocation) or self.output_format != ".tar"

    def outputs(self, progress: Progress) -> Iterator[Any]:
        """The samples after ``progress``; for ``Walk``."""
        if overridden(self, AISBatchIterDataset, ["_process_batch"]):
            return self._processed(progress)
        founds, worker = self._shares()
        rest = resumed(founds, progress, _name)
        read = self._batched if self.batch_reads and self._by_sdk else self._read
        return read(rest, worker, progress)

    def _process_batch(self, batch_objects: list[Any]) -> Iterator[tuple[str, Any]]:
        """The samples of a batch of the SDK's objects."""
        found = Places().found
        founds = [found(thing) for thing in batch_objects]
        by_sdk = self.batch_reads and self._by_sdk
        for name, data in self._got(founds) if by_sdk else self._given(iter(founds)):
            if data is not None:
                yield name, data

    def _read(self, founds: Iterator[Found], worker: str, progress: Progress) -> Iterator[tuple[str, bytes]]:
        results = self._given(founds)
        with closing(results):
            for name, data in progress_bar(results, self._title(worker), shown=self._show_progress):
                progress.over(name)
                if data is not None:
                    yield name, data

    def _batched(
        self, founds: Iterator[Found], worker: str, progress: Progress
    ) -> Iterator[tuple[str, bytes]]:
        shown = iter(progress_bar(founds, self._title(worker), shown=self._show_progress))
        while batch := list(islice(shown, self.max_batch_size)):
            for name, data in self._got(batch):
                progress.over(name)
                if data is not None:
                    yield name, data

    def _processed(self, progress: Progress) -> Iterator[Any]:
        """Batches through the subclass; a unit of ``progress`` is a batch."""
        things, worker = self._objects() if self._hooked() else self._plain_objects()
        shown = iter(progress_bar(things, self._title(worker), shown=self._show_progress))
        batches = iter(lambda: list(islice(shown, self.max_batch_size)), [])
        for batch in resumed(batches, progress, _first):
            skip, name = progress.within, _first(batch)
            for count, output in enumerate(self._process_batch(batch), 1):
                if count > skip:
                    progress.within, progress.last = count, name
                    yield output
            progress.over(name)

    def _plain_objects(self) -> tuple[Iterator[Any], str]:
        founds, worker = self._shares()
        return map(object_of, founds), worker

    def _title(self, worker: str) -> str:
        return f"AISBatchIterDataset{worker}"

    def _given(self, founds: Iterator[Found]) -> Generator[tuple[str, Any], None, None]:
        """Many at once; None in place of what is left out."""
        results = self._reader.read(founds)
        with closing(results):
            for found, data, error in results:
                yield found.name, self._checked(found.name, data, error)

    def _got(self, founds: list[Found]) -> Generator[tuple[str, Any], None, None]:
        """By the SDK's Get-Batch, in the order of the request; None in place of what is left out."""
        batch = self.client.batch(
            objects=[object_of(found) for found in founds],
            output_format=self.output_format,
            streaming_get=self.streaming,
            colocation=self.colocation,
            cont_on_err=True,  # one object does not end the answer: each is judged here
        )
        answer = _answer(batch)
        with closing(answer):
            for found in founds:
                info, data = next(answer, (None, None))
                error: Exception | None = None
                if info is None or not _is_whole(info, data, found):
                    data, error = self._singly(found)
                yield found.name, self._checked(found.name, data, error)

    def _singly(self, found: Found) -> tuple[Any, Exception | None]:
        try:
            return self._reader.read_apart([found])[0](), None
        except Exception as error:  # noqa: BLE001 - judged by the caller, as what is read by GETs
            return None, error

    def _checked(self, name: str, data: Any, error: Exception | None) -> Any:
        if error is None:
            return data
        missing = isinstance(error, FileMissingError) and not isinstance(error, ContainerMissingError)
        if missing and self.drop_missing:
            return None
        if not self.cont_on_err:
            raise error
        logger.warning("Skipping %s: %s", name, error)
        return None


def _answer(batch: Any) -> Generator[tuple[Any, Any], None, None]:
    """The entries of an answer of Get-Batch; it may end early, and one that breaks off does."""
    try:
        yield from batch.get()
    except Exception as error:  # noqa: BLE001 - what it would have given is read singly, and meets its error
        logger.warning("Get-Batch broke off, the rest is read singly: %s", error)


def _is_whole(info: Any, data: Any, found: Found) -> bool:
    """Whether an entry of Get-Batch is ``found``. An empty one may stand for an object that is missing."""
    size = found.size if found.size != UNKNOWN_SIZE else len(data)
    return not info.err_msg and info.obj_name == found.name and len(data) == size and size > 0


def _name(found: Found) -> str:
    return found.name


def _first(batch: list[Any]) -> str:
    return str(getattr(batch[0], "name", ""))
