"""``list_files``: the names of all files under some URLs, listed once for a whole job."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

from datapipes.backends.base import DEFAULT_HANDLE_CACHE_BYTES, Backend
from datapipes.backends.checks import check_flag, check_handle_cache_bytes
from datapipes.backends.registry import backend_for
from datapipes.errors import OptionError, UrlError
from datapipes.index import FileIndex
from datapipes.jobs import Job
from datapipes.masks import url_filter
from datapipes.records import FileEntry
from datapipes.stages.indexed import (
    IndexedStage,
    Order,
    digest,
    place_in_job,
    read_names,
    whole_index,
)
from datapipes.stages.state import KIND_KEY, VERSION_KEY, State
from datapipes.urls import parse_url

__all__ = ["ListFiles"]


class ListFiles(IndexedStage):
    """Yields the URL of every file under ``sources``: source by source, each in byte order of the path.

    The first process of a job that needs the names lists them into a :class:`FileIndex`; the others, and
    every later epoch, map it.

    Args:
        sources: one URL, a list of them, or any iterable of them (a pipe, a node). In file stores a URL names
            a directory or a file, which must exist; in object stores a prefix.
        recursive: with what lies in subdirectories.
        masks: ``fnmatch`` patterns of base names, one of which must match; None: all files.
        relist: ``"job"`` lists once, ``"epoch"`` anew for every epoch (``sources`` is then read anew too).
        entries: yield FileEntry (URL and size in bytes) in place of the URL.
        sizes, types, handle_cache_bytes: what listing asks for and keeps: see ``FileIndex.build``.
        resolve: URL to back end.
        job, ordinal: where the index is shared, and this lister's number there; by default this process's
            job and a number drawn from it, which is the same in every process that builds the same pipeline.
    """

    KIND = "list_files"

    def __init__(
        self,
        sources: str | Iterable[Any],
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: bool = False,
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
        resolve: Callable[[str], Backend] = backend_for,
        job: Job | None = None,
        ordinal: int | None = None,
    ) -> None:
        check_sources(sources)
        if relist not in ("job", "epoch"):
            raise OptionError(f"relist must be 'job' or 'epoch', not {relist!r}")
        if relist == "epoch" and isinstance(sources, Iterator) and not hasattr(sources, "reset"):
            raise OptionError(
                f"relist='epoch' reads the sources anew for each epoch, and {type(sources).__name__} can be "
                "read only once; give a list, a pipe or a node"
            )
        check_flag("recursive", recursive)
        check_flag("entries", entries)
        super().__init__(entries=entries)
        self.sources = sources
        self.recursive = bool(recursive)
        self.masks = check_masks(masks)
        self.relist = relist
        handle_cache_bytes = check_handle_cache_bytes(handle_cache_bytes)
        self._asked = {"sizes": bool(sizes), "types": bool(types)}
        self._handle_cache_bytes = handle_cache_bytes
        self.resolve = resolve
        self._job, self._ordinal = place_in_job(job, ordinal)

    def order(self, epoch: int) -> Order:
        own: State = {VERSION_KEY: self.VERSION, KIND_KEY: self.KIND}
        return replace(whole_index(self._listed(epoch), own), relisted=self.relist == "epoch")

    def _listed(self, epoch: int) -> FileIndex:
        listed = None if self.relist == "job" else epoch
        known = self._known
        if known is None or known[0] != listed:
            urls = (
                [self.sources] if isinstance(self.sources, str) else [n.url for n in read_names(self.sources)]
            )
            options = json.dumps([urls, self.recursive, self.masks, self._asked])
            key = f"list-{self._ordinal}-{digest(options)}"
            build = partial(self._build, urls)
            known = (listed, self._job.shared_index(key, build, epoch=listed))
            self._known = known
        return known[1]

    def _build(self, urls: list[str], path: Any) -> FileIndex:
        return FileIndex.build(
            urls,
            path,
            recursive=self.recursive,
            masks=self.masks,
            handle_cache_bytes=self._handle_cache_bytes,
            resolve=self.resolve,
            **self._asked,
        )

    _known: tuple[int | None, FileIndex] | None

    def _live(self) -> State:
        return {**super()._live(), "_known": None}


def check_sources(sources: Any) -> None:
    """Raise UrlError for malformed URLs as far as they are at hand; other iterables are read when listed."""
    if isinstance(sources, str):
        parse_url(sources)
    elif isinstance(sources, (list, tuple)):
        for source in sources:
            parse_url(source.url if isinstance(source, FileEntry) else source)
    elif not isinstance(sources, Iterable):
        raise UrlError(
            f"sources must be a URL or an iterable of URLs, not {sources!r:.200}", operation="list"
        )


def check_masks(masks: Any) -> tuple[str, ...] | None:
    """The masks as a tuple; OptionError for what is no mask."""
    if url_filter(masks) is None:  # says what is wrong with one
        return None
    return (masks,) if isinstance(masks, str) else tuple(masks)
