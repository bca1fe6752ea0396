"""Reads of AIStore: our requests as HTTP, straight to the target that owns an object, and back as results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypedDict, Unpack

from datapipes.backends.ais_batches import GetBatch, batch_request, is_batchable
from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_errors import AisAnswer, client, error_from_answer
from datapipes.backends.ais_names import AisName, check_object, parse_ais_url, redirected
from datapipes.backends.slices import impossible, span
from datapipes.errors import DatapipesError
from datapipes.records import UNKNOWN_SIZE, WHOLE, ReadRequest, ReadResult

if TYPE_CHECKING:
    from datapipes.transport.head import Head
    from datapipes.transport.http import Batching, BatchRequest, HttpReads, HttpRequest
    from datapipes.transport.options import HttpOptions

__all__ = ["AisReads", "Asking", "http_options", "http_reads"]

_FAILURES_IN_A_ROW = 8
"""So many objects that targets did not give and the proxy did: then the proxy is asked for a while."""


def http_options(cluster: AisCluster) -> HttpOptions:
    """How objects of ``cluster`` are read, in this process."""
    from urllib.request import getproxies_environment  # noqa: PLC0415 - loads more than is needed as a rule

    from datapipes.transport.options import HttpOptions  # noqa: PLC0415 - loads libcurl

    opened = cluster.opened()
    session = opened.http
    proxies = getproxies_environment() if cluster.environment_proxies else {}
    cert = session.cert if isinstance(session.cert, tuple) else (session.cert, None)
    return HttpOptions(
        headers_for=cluster.headers_for,
        redirected=_redirected,
        checksum_headers=(b"ais-checksum-type", b"ais-checksum-value"),
        hashes=(("xxhash2", client("xxhash").xxh64),),
        version_header=b"ais-version",
        verify_tls=session.verify is not False,
        ca_file=session.verify if isinstance(session.verify, str) else None,
        client_cert=cert[0],
        client_key=cert[1],
        http2=cluster.http2,
        proxy=proxies.get(opened.origin[0]) or proxies.get("all"),
        no_proxy=proxies.get("no"),
    )


def _redirected(target: str, url: str) -> str:
    return redirected(target, url[url.find("/", len("https://")) :])


class HttpReading(TypedDict):
    """The bounds of a reading, as ``HttpReads`` takes them."""

    max_in_flight: int
    max_buffer_bytes: int
    ordered: bool
    timeout_s: float | None


class _Asked(NamedTuple):
    """What a result needs to know of its request."""

    request: ReadRequest
    whole: bool = False
    """The answer is all there is, and what was asked for is to be cut from it: it has no ranges."""
    made: bool = False
    """An ETL makes the answer, whose size no listing knows."""
    direct: bool = False
    """The owning target was asked first."""
    name: AisName | None = None
    """For Get-Batch."""


@dataclass
class Asking:
    """Makes HTTP requests of ours, many at once, and learns from how they are answered.

    ``failed`` counts objects in a row that their owners did not give.
    """

    cluster: AisCluster
    etl_name: str | None
    get_batch: GetBatch | None = None
    failed: int = 0

    def __call__(self, requests: Sequence[ReadRequest]) -> list[HttpRequest]:
        from datapipes.transport.http import HttpRequest  # noqa: PLC0415 - loads libcurl

        names: list[AisName] = []
        refused: dict[int, DatapipesError] = {}
        for at, request in enumerate(requests):
            try:
                names.append(self._name(request))
            except DatapipesError as error:
                refused[at] = error.with_traceback(None)
        routes = iter(zip(names, self.cluster.route(names), strict=True))
        made = []
        for at, request in enumerate(requests):
            if at in refused:
                made.append(HttpRequest("", request.url, tag=_Asked(request), refused=refused[at]))
                continue
            name, (url, otherwise) = next(routes)
            whole = name.archpath is not None or name.etl_name is not None
            offset, length, size = (0, WHOLE, UNKNOWN_SIZE) if whole else request[1:]
            asked = _Asked(request, whole, name.etl_name is not None, otherwise is not None, name)
            http = HttpRequest(url, request.url, offset, length, size, otherwise, asked)
            if self.get_batch is not None and not offset and length < 0 and is_batchable(name, size):
                http = http._replace(together=(name.provider, name.namespace, name.bucket))
            made.append(http)
        return made

    def batching(self, max_in_flight: int) -> Batching | None:
        """How objects are asked for together, if they are."""
        from datapipes.transport.http import Batching  # noqa: PLC0415 - loads libcurl

        if self.get_batch is None:
            return None
        return Batching(self.get_batch.size or max(1, max_in_flight // 4), self._ask_together)

    def _ask_together(self, requests: Sequence[HttpRequest]) -> BatchRequest:
        colocation = self.get_batch.colocation if self.get_batch is not None else 0
        return batch_request(self.cluster.endpoint, [request.tag.name for request in requests], colocation)

    def _name(self, request: ReadRequest) -> AisName:
        error = impossible(request)
        if error is not None:
            raise error
        name = check_object(parse_ais_url(request.url), request.url, "read")
        return name if self.etl_name is None else name._replace(etl_name=self.etl_name)

    def learn(self, *, elsewhere: bool) -> None:
        """An object that was asked of its owner came from there, or ``elsewhere``."""
        if not elsewhere:
            self.failed = 0
            return
        self.failed += 1
        self.cluster.refresh_soon()  # targets may have come or gone; nobody waits for it
        if self.failed >= _FAILURES_IN_A_ROW:
            self.failed = 0
            self.cluster.avoid_direct()

    def error(self, label: str, head: Head, body: bytes) -> DatapipesError:
        """The exception for an answer that is no success."""
        answer = AisAnswer.of(head.status, body, {"Hdr-Error": head.text(b"hdr-error")})
        return error_from_answer(answer, url=label, operation="read")


def http_reads(requests: Iterable[ReadRequest], asking: Asking, **options: Unpack[HttpReading]) -> HttpReads:
    """Results of HTTP for ``requests``, as ``asking`` puts them."""
    client("pycurl")
    from datapipes.transport.http import HttpReads  # noqa: PLC0415 - loads libcurl

    return HttpReads(
        requests,
        http_options(asking.cluster),
        translate=asking,
        make_error=asking.error,
        batching=asking.batching(options["max_in_flight"]),
        **options,
    )


class AisReads:
    """HTTP results as results of reads."""

    def __init__(self, reads: HttpReads, asking: Asking, *, verify_size: bool) -> None:
        self._reads = reads
        self._asking = asking
        self._verify_size = verify_size

    def __iter__(self) -> Iterator[ReadResult]:
        return self

    def __next__(self) -> ReadResult:
        position, http, data, error, total, elsewhere = next(self._reads)
        request, whole, made, direct, _ = http.tag
        if error is not None or data is None:
            return ReadResult(position, request, None, error)
        if direct and (elsewhere or self._asking.failed):
            self._asking.learn(elsewhere=elsewhere)
        _, offset, length, size = request
        if offset or length >= 0 or (size >= 0 and size != total and not made):
            rules = request._replace(size=UNKNOWN_SIZE) if made else request
            try:
                start, end = span(total, rules, verify_size=self._verify_size)
            except DatapipesError as broken:
                return ReadResult(position, request, None, broken.with_traceback(None))
            data = data[start:end] if whole else data[: end - start]
        return ReadResult(position, request, data, None)

    def close(self) -> None:
        """Cancel what is in flight."""
        self._reads.close()

    def stats(self) -> Mapping[str, float]:
        """See ``ReadIterator``."""
        return self._reads.stats()
