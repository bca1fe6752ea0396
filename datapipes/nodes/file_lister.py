"""``FileLister``: the names of all files under some URLs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from datapipes.backends.base import DEFAULT_HANDLE_CACHE_BYTES, Backend
from datapipes.backends.registry import backend_for
from datapipes.nodes.base import StageNode, as_source
from datapipes.stages.list_files import ListFiles

__all__ = ["FileLister"]


class FileLister(StageNode[Any]):
    """Yields the URL of every file under ``source``, listed once for the whole job and host.

    Args:
        source: a URL, a list of them, or a node or pipe that yields them; of any store.
        recursive, masks, relist, entries, sizes, types, handle_cache_bytes, resolve: see
            :class:`datapipes.stages.ListFiles`.
    """

    def __init__(
        self,
        source: str | Iterable[Any],
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: bool = False,
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
        resolve: Callable[[str], Backend] = backend_for,
    ) -> None:
        stage = ListFiles(
            as_source(source),
            recursive=recursive,
            masks=masks,
            relist=relist,
            entries=entries,
            sizes=sizes,
            types=types,
            handle_cache_bytes=handle_cache_bytes,
            resolve=resolve,
        )
        super().__init__(stage, source)
