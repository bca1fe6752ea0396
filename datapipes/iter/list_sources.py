"""``ais_list_sources``: the objects of the aistore SDK's sources, as URLs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from datapipes.backends.ais_sources import SourceUrls, source_key
from datapipes.iter.base import StagePipe
from datapipes.stages.list_sources import ListSources

__all__ = ["AISSourceLister"]


class AISSourceLister(StagePipe[str]):
    """Yields the URL of every object in the SDK's ``Bucket``, ``ObjectGroup``, ``Object``, or anything that
    implements ``AISSource`` (functional name: ``ais_list_sources``).

    The sources are asked once a job and host.

    Args:
        ais_sources: a list of sources, or a pipe of them.
        prefix: only objects whose names begin so.
        etl_name: URLs of what this ETL makes of each object.
    """

    def __init__(self, ais_sources: Iterable[Any], prefix: str = "", etl_name: str | None = None) -> None:
        super().__init__(ais_sources)
        self.prefix, self.etl_name = prefix, etl_name

    def stage(self) -> ListSources:
        return ListSources(
            self.source(),
            SourceUrls(self.prefix, self.etl_name),
            key=source_key,
            job=self.job,
            ordinal=self.ordinal,
        )

    def __len__(self) -> int:
        raise TypeError(f"{type(self).__name__} instance doesn't have valid length")
