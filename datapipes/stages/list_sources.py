"""``list_sources``: the names in objects that know their own, listed once for a whole job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from datapipes.errors import OptionError
from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.records import FileEntry
from datapipes.stages.indexed import IndexedStage, Order, digest, place_in_job, read_names, whole_index
from datapipes.stages.state import KIND_KEY, VERSION_KEY, State

__all__ = ["ListSources"]


class ListSources(IndexedStage):
    """Yields the names that ``expand`` gives for each of ``sources``, in their order.

    The first process of a job that needs them lists them into a :class:`FileIndex`; the others, and every
    later epoch, map it.

    Args:
        sources: buckets of a store's own client, say; any iterable of objects.
        expand: object to URLs (or FileEntries).
        key: object to what tells it from others in every process of the job. Where that differs from process
            to process, each lists for itself.
        job, ordinal: where the index is shared, and this lister's number there; by default this process's
            job and a number drawn from it.
    """

    KIND = "list_sources"

    def __init__(
        self,
        sources: Iterable[Any],
        expand: Callable[[Any], Iterable[str | FileEntry]],
        *,
        key: Callable[[Any], str] = repr,
        job: Job | None = None,
        ordinal: int | None = None,
    ) -> None:
        if isinstance(sources, str) or not isinstance(sources, Iterable):
            raise OptionError(f"the sources must be an iterable of objects, not {sources!r:.200}")
        super().__init__(entries=False)
        self.sources = sources
        self.expand = expand
        self.key = key
        self._job, self._ordinal = place_in_job(job, ordinal)

    def order(self, epoch: int) -> Order:  # noqa: ARG002 - the same in every epoch
        return whole_index(self._listed(), {VERSION_KEY: self.VERSION, KIND_KEY: self.KIND})

    def _listed(self) -> FileIndex:
        if self._index is None:
            sources = list(self.sources)
            name = f"sources-{self._ordinal}-{digest(repr([self.key(source) for source in sources]))}"
            names = self._names(sources)
            self._index = self._job.shared_index(
                name, lambda path: FileIndex.from_entries(read_names(names), path)
            )
        return self._index

    def _names(self, sources: list[Any]) -> Iterator[str | FileEntry]:
        for source in sources:
            yield from self.expand(source)

    _index: FileIndex | None

    def _live(self) -> State:
        return {**super()._live(), "_index": None}
