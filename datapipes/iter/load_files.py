"""``load_files_by_daos``, ``load_files_by_local``: the content of files, many read at once."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, Literal, NamedTuple

from torch.utils.data.datapipes.utils.common import StreamWrapper

from datapipes.backends.base import (
    DEFAULT_BUFFER_BYTES,
    DEFAULT_HANDLE_CACHE_BYTES,
    DEFAULT_IN_FLIGHT,
    DEFAULT_TIMEOUT_S,
)
from datapipes.backends.registry import OneStore
from datapipes.calling import call
from datapipes.errors import DatapipesError, OptionError
from datapipes.iter.base import StagePipe
from datapipes.stages.base import SKIP
from datapipes.stages.load_files import LoadFiles
from datapipes.stages.state import check_count

__all__ = ["DaosFileLoader", "LocalFileLoader", "StoreFileLoader"]


class StoreFileLoader(StagePipe[tuple[str, Any]]):
    """Yields ``(url, stream)`` or ``(url, bytes)`` for every URL of its source; a subclass for each store.

    Native threads open, read and close ``max_in_flight`` files at once, without the GIL; how many really
    run is adapted to what the store and the machine give.

    Args:
        source_datapipe: a pipe of URLs (or FileEntries), a list, or one URL.
        max_in_flight: files asked for beyond the last one delivered.
        max_buffer_bytes: bytes read ahead, at most (one file larger than that is read alone).
        ordered: deliver in the order of the source; otherwise as they come in.
        on_error: ``"raise"``; ``"skip"`` (counted in ``stats()``); or a callable ``(url, exception)`` that
            returns the item to deliver instead, or ``SKIP``.
        output: ``"stream"`` gives a StreamWrapper around the bytes, as torchdata's loaders do; ``"bytes"``
            gives the bytes.
        timeout_s: seconds that one file may take; None for no bound.
        verify: ``"size"`` makes a file that has grown since it was listed an error too.
        handle_cache_bytes: behind our lister, shuffler or sharder, of DAOS: bound of the file, on each host,
            that keeps what opens its files at once in later epochs and other workers. 0: keep nothing.
        length: what ``len()`` says; without it, the length of the source where that has one.
    """

    SCHEME: ClassVar[str]
    COUNTS = True

    def __init__(
        self,
        source_datapipe: str | Iterable[Any],
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        ordered: bool = True,
        on_error: Literal["raise", "skip"] | Callable[[str, DatapipesError], Any] = "raise",
        output: Literal["stream", "bytes"] = "stream",
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
        length: int | None = None,
    ) -> None:
        if output not in ("stream", "bytes"):
            raise OptionError(f"output must be 'stream' or 'bytes', not {output!r}")
        if length is not None:
            length = check_count("length", length, least=0)
        super().__init__(source_datapipe)
        self.max_in_flight, self.max_buffer_bytes = max_in_flight, max_buffer_bytes
        self.ordered, self.on_error, self.output = ordered, on_error, output
        self.timeout_s, self.verify, self.length = timeout_s, verify, length
        self.handle_cache_bytes = handle_cache_bytes
        self.resolve = self.store()
        self.resolve.check_first(source_datapipe)
        self._build(())  # the stage checks its options, and does nothing else before it is iterated

    def store(self) -> OneStore:
        """Which store serves the URLs."""
        return OneStore(self.SCHEME)

    def stage(self) -> LoadFiles:
        return self._build(self.source())

    def _build(self, source: Iterable[Any]) -> LoadFiles:
        return LoadFiles(
            source,
            max_in_flight=self.max_in_flight,
            max_buffer_bytes=self.max_buffer_bytes,
            ordered=self.ordered,
            on_error=Substitute(self.on_error) if callable(self.on_error) else self.on_error,
            timeout_s=self.timeout_s,
            verify=self.verify,
            handle_cache_bytes=self.handle_cache_bytes,
            resolve=self.resolve,
        )

    def outputs(self, stage: Iterator[Any]) -> Iterator[Any]:
        if self.output == "stream":
            return map(as_stream, stage)
        return map(as_bytes, stage) if callable(self.on_error) else stage

    def __len__(self) -> int:
        if self.length is not None:
            return self.length
        return len(self.source_datapipe)  # TypeError where it has none


class Substitute:
    """``on_error`` as the stage calls it: what it returns is marked, for it is delivered as it is."""

    def __init__(self, on_error: Callable[[str, DatapipesError], Any]) -> None:
        self.on_error = on_error

    def __call__(self, url: str, error: DatapipesError) -> Any:
        item = call(self.on_error, url, error)
        return SKIP if item is SKIP else Substituted(item)


class Substituted(NamedTuple):
    """What an ``on_error`` callable returned."""

    item: Any


def as_stream(item: Any) -> Any:
    """An item of a stage as ``output="stream"`` gives it."""
    if type(item) is Substituted:
        return item.item
    url, data = item
    return url, StreamWrapper(io.BytesIO(data), name=url)


def as_bytes(item: Any) -> Any:
    """An item of a stage as ``output="bytes"`` gives it, where some may be substitutes."""
    return item.item if type(item) is Substituted else item


class DaosFileLoader(StoreFileLoader):
    """Loads ``daos://pool/container/path`` (functional name: ``load_files_by_daos``)."""

    SCHEME = "daos"
    __doc__ = f"{__doc__}\n\n{StoreFileLoader.__doc__}"


class LocalFileLoader(StoreFileLoader):
    """Loads plain paths and ``file:///path`` (functional name: ``load_files_by_local``)."""

    SCHEME = "file"
    __doc__ = f"{__doc__}\n\n{StoreFileLoader.__doc__}"
