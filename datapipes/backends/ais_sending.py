"""One request about one object, over its redirects: the token to the cluster alone, a body to its target.

The SDK sends a body to the proxy as well, which answers without reading it, and breaks off beyond a few MiB;
and it loses the token, because the target's port is another.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urljoin

from datapipes.backends.ais_errors import AisAnswer, ais_error, error_from_answer
from datapipes.backends.ais_map import origin_of
from datapipes.backends.ais_names import AisName, object_path, redirected
from datapipes.errors import BackendIOError

if TYPE_CHECKING:
    from datapipes.backends.ais_cluster import AisCluster
    from datapipes.backends.ais_opened import Opened

__all__ = ["Body", "send"]

_PIECE_BYTES = 1 << 20
_MOST_HOPS = 5
_REDIRECTS = (301, 302, 303, 307, 308)


class Body:
    """What is uploaded: a buffer, or a file from its start, in pieces. It can be sent again.

    In pieces because a socket's time-out is for all that one call sends.
    """

    def __init__(self, data: bytes | bytearray | memoryview | BinaryIO, size: int, checksum: str) -> None:
        self._data = data
        self.size = size
        self.checksum = checksum

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes | memoryview]:
        if isinstance(self._data, (bytes, bytearray, memoryview)):
            view = memoryview(self._data).cast("B")
            for start in range(0, self.size, _PIECE_BYTES):
                yield view[start : start + _PIECE_BYTES]
            return
        self._data.seek(0)
        while piece := self._data.read(_PIECE_BYTES):
            yield piece


def send(
    cluster: AisCluster,
    opened: Opened,
    method: str,
    name: AisName,
    *,
    url: str,
    operation: str,
    headers: Mapping[str, str] | None = None,
    body: Body | None = None,
) -> Any:
    """The answer (of ``requests``) to ``method`` for an object, asked through the proxy; errors are raised.

    With a ``body`` the proxy is asked by its headers alone where to send it: ``Expect`` says that the body
    waits for an answer, and a proxy's answer is always a redirect. A name goes out percent-encoded as it
    is, whatever ``Location`` makes of it.
    """
    path = object_path(name)
    address, hops = cluster.endpoint + path, 0
    while True:
        waits = bool(body) and hops == 0
        answer = opened.http.request(
            method,
            address,
            headers={**(headers or {}), **_headers(cluster, address, body, waits=waits)},
            data=body if body and not waits else None,  # an empty one needs no pieces
            timeout=opened.timeout_s,
            allow_redirects=False,
        )
        location = answer.headers.get("Location")
        if answer.status_code in _REDIRECTS and location:
            hops += 1
            address = _next_hop(address, location, path, hops, url=url, operation=operation)
        elif answer.status_code >= 400:
            said = AisAnswer.of(answer.status_code, answer.content, answer.headers)
            raise error_from_answer(said, url=url, operation=operation)
        elif answer.status_code >= 300 or waits:
            raise _odd(f"the proxy answered {answer.status_code} and named no target", url, operation)
        else:
            return answer


def _headers(cluster: AisCluster, address: str, body: Body | None, *, waits: bool) -> dict[str, str]:
    origin = origin_of(address)
    lines = cluster.headers_for(origin) if origin is not None else ()
    found = dict(line.split(": ", 1) for line in lines)
    if body is not None:
        found |= {"Content-Type": "application/octet-stream"}
        found |= {"Ais-Checksum-Type": "xxhash2", "Ais-Checksum-Value": body.checksum}
    if waits and body is not None:
        # The length as it will be, because clusters that sign their redirects sign it too.
        found |= {"Content-Length": str(body.size), "Expect": "100-continue", "Connection": "close"}
    return found


def _next_hop(address: str, location: str, path: str, hops: int, *, url: str, operation: str) -> str:
    # Header values come as Latin-1; AIStore sends some names there as they are.
    target = redirected(urljoin(address, location), path)
    if hops > _MOST_HOPS:
        raise _odd(f"more than {_MOST_HOPS} redirects, the last to {target!r}", url, operation)
    if origin_of(target) is None:
        raise _odd(f"a redirect to {target!r}, which is no http URL", url, operation)
    if address.startswith("https:") and not target.startswith("https:"):
        raise _odd(f"a redirect from TLS to {target!r}", url, operation)
    return target


def _odd(reason: str, url: str, operation: str) -> BaseException:
    return ais_error(
        BackendIOError,
        f"{operation} {url!r} failed: {reason} [EPROTO]",
        url=url,
        operation=operation,
        number=errno.EPROTO,
    )
