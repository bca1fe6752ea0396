"""``ShardReader``: the members of tar shards, in any store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from datapipes.backends.base import DEFAULT_BUFFER_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S, Backend
from datapipes.backends.registry import backend_for
from datapipes.errors import DatapipesError
from datapipes.index import FileIndex
from datapipes.nodes.base import StageNode, as_source
from datapipes.stages.read_shards import CHUNK_BYTES, ReadShards
from datapipes.tar import MEMBER_BYTES

__all__ = ["ShardReader"]


class ShardReader(StageNode[Any]):
    """Yields ``(url, bytes)`` of every file in every tar shard of the source.

    Args:
        source: one of our nodes, a ``FileIndex``, a URL or a list of them, or any node or pipe of names; of
            any store.
        chunk_bytes, max_in_flight, max_buffer_bytes, on_error, timeout_s, verify, max_member_bytes, resolve:
            see :class:`datapipes.stages.ReadShards`.
    """

    def __init__(
        self,
        source: str | FileIndex | Iterable[Any],
        *,
        chunk_bytes: int = CHUNK_BYTES,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        on_error: Literal["raise", "skip"] | Callable[[str, DatapipesError], Any] = "raise",
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        max_member_bytes: int = MEMBER_BYTES,
        resolve: Callable[[str], Backend] = backend_for,
    ) -> None:
        stage = ReadShards(
            as_source(source),
            chunk_bytes=chunk_bytes,
            max_in_flight=max_in_flight,
            max_buffer_bytes=max_buffer_bytes,
            on_error=on_error,
            timeout_s=timeout_s,
            verify=verify,
            max_member_bytes=max_member_bytes,
            resolve=resolve,
        )
        super().__init__(stage, source)
