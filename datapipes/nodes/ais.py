"""``AISFileLister``, ``AISFileLoader``, ``AISSourceLister``: AIStore with an endpoint of one's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, TypedDict, Unpack

from datapipes.backends.ais_sources import SourceUrls, source_key
from datapipes.backends.base import DEFAULT_BUFFER_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S
from datapipes.backends.registry import OneStore, backend_with
from datapipes.errors import DatapipesError
from datapipes.nodes.base import StageNode, as_source
from datapipes.stages.list_files import ListFiles
from datapipes.stages.list_sources import ListSources
from datapipes.stages.load_files import LoadFiles

__all__ = ["AISFileLister", "AISFileLoader", "AISSourceLister"]


class Cluster(TypedDict, total=False):
    """How to reach a cluster beside its endpoint: as of the SDK's ``Client``."""

    token: str | None
    ca_cert: str | None
    client_cert: str | tuple[str, str] | None
    skip_verify: bool


class AISFileLister(StageNode[Any]):
    """Yields the URL of every object under ``source``; see the pipe of the same name.

    Args:
        source: a URL, a list of them, or a node or pipe that yields them.
        url: the endpoint of a proxy; None takes ``AIS_ENDPOINT``.
        recursive, masks, relist, entries, sizes: see :class:`datapipes.stages.ListFiles`.
        cluster: ``token``, ``ca_cert``, ``client_cert``, ``skip_verify``, as of the SDK's ``Client``.
    """

    def __init__(
        self,
        source: str | Iterable[Any],
        url: str | None = None,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: bool = False,
        sizes: bool = True,
        **cluster: Unpack[Cluster],
    ) -> None:
        stage = ListFiles(
            as_source(source),
            recursive=recursive,
            masks=masks,
            relist=relist,
            entries=entries,
            sizes=sizes,
            resolve=OneStore("ais", backend_with("ais", endpoint=url or "", **cluster)),
        )
        super().__init__(stage, source)


class AISFileLoader(StageNode[Any]):
    """Yields ``(url, bytes)`` of every object that its source names; see the pipe of the same name.

    Args:
        source: a URL, a list of them, or a node or pipe that yields them.
        url: the endpoint of a proxy; None takes ``AIS_ENDPOINT``.
        etl_name: give what this ETL makes of each object.
        max_in_flight, max_buffer_bytes, ordered, on_error, timeout_s, verify: see
            :class:`datapipes.stages.LoadFiles`.
        batch_reads, http2: read by Get-Batch; not over HTTP/2 even where it is offered; see the pipe.
        cluster: ``token``, ``ca_cert``, ``client_cert``, ``skip_verify``, as of the SDK's ``Client``.
    """

    def __init__(
        self,
        source: str | Iterable[Any],
        url: str | None = None,
        etl_name: str | None = None,
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        ordered: bool = True,
        on_error: Literal["raise", "skip"] | Callable[[str, DatapipesError], Any] = "raise",
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        batch_reads: bool | int = False,
        http2: bool = True,
        **cluster: Unpack[Cluster],
    ) -> None:
        stage = LoadFiles(
            as_source(source),
            max_in_flight=max_in_flight,
            max_buffer_bytes=max_buffer_bytes,
            ordered=ordered,
            on_error=on_error,
            timeout_s=timeout_s,
            verify=verify,
            resolve=OneStore(
                "ais",
                backend_with(
                    "ais",
                    endpoint=url or "",
                    etl_name=etl_name,
                    batch_reads=batch_reads,
                    http2=http2,
                    **cluster,
                ),
            ),
        )
        super().__init__(stage, source)


class AISSourceLister(StageNode[Any]):
    """Yields the URL of every object in the SDK's sources; see the pipe of the same name."""

    def __init__(self, ais_sources: Iterable[Any], prefix: str = "", etl_name: str | None = None) -> None:
        stage = ListSources(as_source(ais_sources), SourceUrls(prefix, etl_name), key=source_key)
        super().__init__(stage, ais_sources)
