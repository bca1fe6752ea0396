"""``FileLoader``: the content of files, many read at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from datapipes.backends.base import (
    DEFAULT_BUFFER_BYTES,
    DEFAULT_HANDLE_CACHE_BYTES,
    DEFAULT_IN_FLIGHT,
    DEFAULT_TIMEOUT_S,
    Backend,
)
from datapipes.backends.registry import backend_for
from datapipes.errors import DatapipesError
from datapipes.index import FileIndex
from datapipes.nodes.base import StageNode, as_source
from datapipes.stages.load_files import LoadFiles

__all__ = ["FileLoader"]


class FileLoader(StageNode[Any]):
    """Yields ``(url, bytes)`` of every name of the source, up to ``max_in_flight`` files read at once.

    Args:
        source: one of our nodes, a ``FileIndex``, a URL or a list of them, or any node or pipe of names; of
            any store.
        max_in_flight, max_buffer_bytes, ordered, on_error, timeout_s, verify, handle_cache_bytes, resolve:
            see :class:`datapipes.stages.LoadFiles`.
    """

    def __init__(
        self,
        source: str | FileIndex | Iterable[Any],
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        ordered: bool = True,
        on_error: Literal["raise", "skip"] | Callable[[str, DatapipesError], Any] = "raise",
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
        resolve: Callable[[str], Backend] = backend_for,
    ) -> None:
        stage = LoadFiles(
            as_source(source),
            max_in_flight=max_in_flight,
            max_buffer_bytes=max_buffer_bytes,
            ordered=ordered,
            on_error=on_error,
            timeout_s=timeout_s,
            verify=verify,
            handle_cache_bytes=handle_cache_bytes,
            resolve=resolve,
        )
        super().__init__(stage, source)
