"""``read_shards``: the members of tar shards, in any store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

from datapipes.backends.base import DEFAULT_BUFFER_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S, Backend
from datapipes.backends.registry import backend_for
from datapipes.errors import DatapipesError, OptionError
from datapipes.iter.base import StagePipe
from datapipes.iter.load_files import Substitute, as_bytes, as_stream
from datapipes.stages.read_shards import CHUNK_BYTES, ReadShards
from datapipes.tar import MEMBER_BYTES

__all__ = ["ShardReader"]


class ShardReader(StagePipe[tuple[str, Any]]):
    """Yields ``(url, stream)`` or ``(url, bytes)`` for every file in every tar shard of its source.

    The URL of a member is ``SHARD?archpath=NAME`` (functional name: ``read_shards``). Shards are read in
    ranges, several at once, of whatever store; order, errors and memory: see
    :class:`datapipes.stages.ReadShards`.

    Args:
        source_datapipe: a pipe of shards' URLs (or FileEntries), a list, or one URL.
        chunk_bytes: bytes of one read.
        max_in_flight: reads asked for beyond the one whose members are delivered.
        max_buffer_bytes: bytes read ahead, at most.
        on_error: ``"raise"``; ``"skip"`` (counted in ``stats()``); or a callable ``(shard's URL, exception)``
            that returns the item to deliver in place of the rest of a shard, or ``SKIP``.
        output: ``"stream"`` gives a StreamWrapper around the bytes; ``"bytes"`` gives the bytes.
        timeout_s: seconds that one read may take; None for no bound.
        verify: ``"size"`` makes a shard that has grown since it was listed an error too.
        max_member_bytes: a larger member is an error.
        resolve: URL to back end.
        length: what ``len()`` says; without it there is none.
    """

    COUNTS = True

    def __init__(
        self,
        source_datapipe: str | Iterable[Any],
        *,
        chunk_bytes: int = CHUNK_BYTES,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        on_error: Literal["raise", "skip"] | Callable[[str, DatapipesError], Any] = "raise",
        output: Literal["stream", "bytes"] = "stream",
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        max_member_bytes: int = MEMBER_BYTES,
        resolve: Callable[[str], Backend] = backend_for,
        length: int | None = None,
    ) -> None:
        if output not in ("stream", "bytes"):
            raise OptionError(f"output must be 'stream' or 'bytes', not {output!r}")
        super().__init__(source_datapipe)
        self.chunk_bytes, self.max_member_bytes = chunk_bytes, max_member_bytes
        self.max_in_flight, self.max_buffer_bytes = max_in_flight, max_buffer_bytes
        self.on_error, self.output = on_error, output
        self.timeout_s, self.verify, self.length = timeout_s, verify, length
        self.resolve = resolve
        self._build(())  # the stage checks its options, and does nothing else before it is iterated

    def stage(self) -> ReadShards:
        return self._build(self.source())

    def _build(self, source: Iterable[Any]) -> ReadShards:
        return ReadShards(
            source,
            chunk_bytes=self.chunk_bytes,
            max_in_flight=self.max_in_flight,
            max_buffer_bytes=self.max_buffer_bytes,
            on_error=Substitute(self.on_error) if callable(self.on_error) else self.on_error,
            timeout_s=self.timeout_s,
            verify=self.verify,
            max_member_bytes=self.max_member_bytes,
            resolve=self.resolve,
        )

    def outputs(self, stage: Iterator[Any]) -> Iterator[Any]:
        if self.output == "stream":
            return map(as_stream, stage)
        return map(as_bytes, stage) if callable(self.on_error) else stage

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError("read_shards has no length: nobody has counted the members of its shards")
        return self.length
