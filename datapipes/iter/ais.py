"""``list_files_by_ais``, ``load_files_by_ais``: AIStore, with torchdata 0.9's parameters and our options."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from datapipes.backends.base import DEFAULT_BUFFER_BYTES, DEFAULT_IN_FLIGHT, DEFAULT_TIMEOUT_S, Backend
from datapipes.backends.registry import OneStore, backend_with
from datapipes.errors import DatapipesError
from datapipes.iter.list_files import StoreFileLister
from datapipes.iter.load_files import StoreFileLoader

__all__ = ["AISFileLister", "AISFileLoader"]


def cluster_at(
    url: str | None,
    *,
    etl_name: str | None = None,
    batch_reads: bool | int = False,
    http2: bool = True,
    token: str | None = None,
    ca_cert: str | None = None,
    client_cert: str | tuple[str, str] | None = None,
    skip_verify: bool = False,
) -> Backend:
    """The AIStore at ``url``; OptionError where neither that nor ``AIS_ENDPOINT`` says where it is."""
    return backend_with(
        "ais",
        endpoint=url or "",
        etl_name=etl_name,
        batch_reads=batch_reads,
        http2=http2,
        token=token,
        ca_cert=ca_cert,
        client_cert=client_cert,
        skip_verify=skip_verify,
    )


class AISFileLister(StoreFileLister):
    """Lists ``ais://bucket/prefix`` and buckets behind the cluster: ``s3://``, ``gs://``, ``az://``, ...
    (functional names: ``list_files_by_ais``, ``ais_list_files``).

    The cluster is asked once a job and host; see ``relist``.

    Args:
        source_datapipe: one URL, a list, or a pipe of URLs; each lists the objects whose names begin so.
            ``ais://bucket/shard.tar?archpath=`` lists the members of a shard.
        url: the endpoint of a proxy (``localhost:8080`` gets ``http://``); None takes ``AIS_ENDPOINT``.
        length: what ``len()`` says; with -1, ``len()`` is a TypeError.
        recursive: with what lies below the next ``/``.
        masks: shell patterns for the part of a name after its last ``/``, one of which must fit.
        relist: ``"epoch"`` asks the cluster again for each epoch, for data that changes.
        entries: yield ``FileEntry(url, size)`` instead of the URL, sizes in bytes.
        sizes: False asks the cluster for names only; sizes are then -1.
        token, ca_cert, client_cert, skip_verify: as of the SDK's ``Client``; its variables
            (``AIS_AUTHN_TOKEN``, ``AIS_CLIENT_CA``, ``AIS_CRT``, ...) are taken where these are not given.
    """

    SCHEME = "ais"

    def __init__(
        self,
        source_datapipe: str | Iterable[Any],
        url: str | None = None,
        length: int = -1,
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: bool = False,
        sizes: bool = True,
        token: str | None = None,
        ca_cert: str | None = None,
        client_cert: str | tuple[str, str] | None = None,
        skip_verify: bool = False,
    ) -> None:
        self.backend = cluster_at(
            url, token=token, ca_cert=ca_cert, client_cert=client_cert, skip_verify=skip_verify
        )
        super().__init__(
            source_datapipe,
            recursive=recursive,
            masks=masks,
            relist=relist,
            entries=entries,
            sizes=sizes,
            length=None if length == -1 else length,
        )

    def store(self) -> OneStore:
        return OneStore("ais", self.backend)


class AISFileLoader(StoreFileLoader):
    """Yields ``(url, stream)`` or ``(url, bytes)`` for every object of AIStore that its source names
    (functional names: ``load_files_by_ais``, ``ais_load_files``).

    ``max_in_flight`` objects are read at once, straight from the targets that own them.

    Args:
        source_datapipe: a pipe of URLs, a list, or one URL: ``ais://bucket/name``, members of shards
            (``ais://bucket/shard.tar?archpath=name``), and what the SDK's sources list
            (``http://proxy/v1/objects/bucket/name?provider=ais``).
        url: the endpoint of a proxy (``localhost:8080`` gets ``http://``); None takes ``AIS_ENDPOINT``.
        length: what ``len()`` says; with -1, the length of the source where that has one.
        etl_name: give what this ETL makes of each object.
        max_in_flight: objects asked for beyond the last one delivered.
        max_buffer_bytes: bytes read ahead, at most (one object larger than that is read alone).
        ordered: deliver in the order of the source; otherwise as they come in.
        on_error: ``"raise"``; ``"skip"`` (counted in ``stats()``); or a callable ``(url, exception)`` that
            returns the item to deliver instead, or ``SKIP``.
        output: ``"stream"`` gives a StreamWrapper around the bytes, as torchdata's loaders do; ``"bytes"``
            gives the bytes.
        timeout_s: seconds that one object may take with all its tries; None for no bound.
        verify: ``"size"`` makes an object that has grown since it was listed an error too.
        batch_reads: read by Get-Batch, four requests of a quarter of ``max_in_flight`` objects each at once,
            or of as many objects as given. Worth it for small objects behind a slow network or many targets,
            with ``max_in_flight`` of some thousands; mostly plain reads are faster. What an answer lacks is
            read singly; its content carries no checksum.
        http2: over HTTP/2 where the cluster offers it over TLS: eight requests share a connection. False:
            over HTTP/1.1 always, a connection for each: less of the client's CPU time from 100 KiB on.
        token, ca_cert, client_cert, skip_verify: as of the SDK's ``Client``; its variables
            (``AIS_AUTHN_TOKEN``, ``AIS_CLIENT_CA``, ``AIS_CRT``, ...) are taken where these are not given.
    """

    SCHEME = "ais"

    def __init__(
        self,
        source_datapipe: str | Iterable[Any],
        url: str | None = None,
        length: int = -1,
        etl_name: str | None = None,
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        ordered: bool = True,
        on_error: Literal["raise", "skip"] | Callable[[str, DatapipesError], Any] = "raise",
        output: Literal["stream", "bytes"] = "stream",
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        batch_reads: bool | int = False,
        http2: bool = True,
        token: str | None = None,
        ca_cert: str | None = None,
        client_cert: str | tuple[str, str] | None = None,
        skip_verify: bool = False,
    ) -> None:
        self.backend = cluster_at(
            url,
            etl_name=etl_name,
            batch_reads=batch_reads,
            http2=http2,
            token=token,
            ca_cert=ca_cert,
            client_cert=client_cert,
            skip_verify=skip_verify,
        )
        super().__init__(
            source_datapipe,
            max_in_flight=max_in_flight,
            max_buffer_bytes=max_buffer_bytes,
            ordered=ordered,
            on_error=on_error,
            output=output,
            timeout_s=timeout_s,
            verify=verify,
            length=None if length == -1 else length,
        )

    def store(self) -> OneStore:
        return OneStore("ais", self.backend)
