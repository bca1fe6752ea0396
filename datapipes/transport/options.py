"""How a store is read over HTTP: time-outs, TLS, and what proves that two answers are of one object."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pycurl

from datapipes.errors import OptionError, UrlError

__all__ = ["NOWHERE", "HttpOptions", "Origin", "check_headers", "no_headers", "origin_of"]

_ORIGIN = re.compile(r"(https?)://(?:[^/@?#]*@)?(\[[^\]/]*\]|[^:/?#]*)(?::(\d+))?(?=[/?#]|$)", re.IGNORECASE)
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*")

USER_AGENT = "torch-datapipes"

_RECEIVE_BYTES = 128 * 1024
"""What libcurl takes from a socket at once; with its own 16 KiB a body of 1 MiB costs a quarter more CPU."""


class Origin(NamedTuple):
    """To whom a request goes: headers are given to exactly this scheme, host and port."""

    scheme: str
    host: str
    port: int


NOWHERE = Origin("", "", 0)


def origin_of(url: str) -> Origin:
    """The origin of an absolute http or https URL; UrlError for anything else."""
    slash = url.find("/", len("https://"))
    origin = _origin(url if slash < 0 else url[:slash])
    if origin is None:
        raise UrlError(f"{url!r} is no absolute http or https URL", url=url, operation="read")
    return origin


@functools.lru_cache(maxsize=1024)
def _origin(head: str) -> Origin | None:
    match = _ORIGIN.match(head)
    if match is None or not match.group(2):
        return None
    scheme, host, port = match.group(1).lower(), match.group(2).lower(), match.group(3)
    return Origin(scheme, host, int(port) if port else (443 if scheme == "https" else 80))


def check_headers(lines: tuple[str, ...]) -> tuple[str, ...]:
    """``lines`` (``Name: value``), or OptionError for one that could smuggle in another."""
    for line in lines:
        if not _HEADER.fullmatch(line):
            name = line.partition(":")[0]
            raise OptionError(f"the header {name!r} is no header: line ends and NULs cannot be sent")
    return lines


def no_headers(origin: Origin) -> tuple[str, ...]:  # noqa: ARG001 - the same for everybody
    """No header for anybody."""
    return ()


@dataclass(frozen=True)
class HttpOptions:
    """What all requests of a store have in common. Times are in seconds, sizes in bytes.

    Attributes:
        headers_for: the caller's headers (``Name: value``) for an origin, asked anew for each hop of a
            redirect. A hop from https to http gets none.
        connect_timeout_s: until a connection (with TLS) stands.
        first_byte_timeout_s: from then until the answer begins. Generous: what is made on demand is silent
            until it is ready.
        stall_timeout_s: without a single byte, once an answer has begun.
        retry_budget_s: from the first failure of an item on, in which it may be tried again.
        first_wait_s: the longest wait before the second try; it doubles with each.
        max_redirects: hops that one request may take.
        redirected: where to go on after a redirect to (location) of a request for (url), for servers whose
            ``Location`` does not always mean what was asked for.
        range_bytes: what turns out to be larger is read as ranges of this size, side by side, if its answers
            prove that they are of one object.
        checksum_headers: names (in lower case) of the headers that carry type and value of a checksum of an
            object's content.
        hashes: for each type of checksum that can be verified, what makes a hash with ``update`` and
            ``hexdigest``. An unknown type is not verified.
        version_header: name (in lower case) of the header whose value must stay the same while an object is
            read in parts.
        verify_tls: check the server's certificate.
        ca_file, client_cert, client_key: paths of PEM files.
        http2: speak HTTP/2 with those that offer it over TLS (ALPN): eight requests share a connection.
            Without it, and with all others, each request on its way has a connection of HTTP/1.1.
        proxy: a proxy's URL. The environment's proxies are not used.
        no_proxy: hosts that are reached without it, separated by commas.
        idle_connections: how many are kept open between readings, of all that are idle together.
    """

    headers_for: Callable[[Origin], tuple[str, ...]] = no_headers
    connect_timeout_s: float = 10.0
    first_byte_timeout_s: float = 60.0
    stall_timeout_s: float = 30.0
    retry_budget_s: float = 30.0
    first_wait_s: float = 0.1
    max_redirects: int = 5
    redirected: Callable[[str, str], str] | None = None
    range_bytes: int = 16 << 20
    checksum_headers: tuple[bytes, bytes] = (b"", b"")
    hashes: tuple[tuple[str, Callable[[], Any]], ...] = ()
    version_header: bytes = b""
    verify_tls: bool = True
    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    http2: bool = True
    proxy: str | None = None
    no_proxy: str | None = None
    idle_connections: int = 256

    @property
    def may_share(self) -> bool:
        """Whether HTTP/2 is wanted, and this libcurl has it."""
        return self.http2 and bool(pycurl.version_info()[4] & pycurl.VERSION_HTTP2)

    def apply(self, easy: pycurl.Curl) -> None:
        """Set what is the same for every transfer."""
        set_ = easy.setopt
        set_(pycurl.NOSIGNAL, 1)
        set_(pycurl.USERAGENT, USER_AGENT)
        set_(pycurl.FOLLOWLOCATION, 0)  # redirects are followed by hand: headers are chosen for each hop
        set_(pycurl.PATH_AS_IS, 1)  # names go out as they are, dots and all
        set_(pycurl.CONNECTTIMEOUT, 3600)  # our own sweep judges progress
        set_(pycurl.TCP_KEEPALIVE, 1)
        set_(pycurl.BUFFERSIZE, _RECEIVE_BYTES)
        two = self.may_share
        set_(pycurl.HTTP_VERSION, pycurl.CURL_HTTP_VERSION_2TLS if two else pycurl.CURL_HTTP_VERSION_1_1)
        set_(pycurl.PROXY, self.proxy or "")
        set_(pycurl.NOPROXY, self.no_proxy or "")
        set_(pycurl.SSL_VERIFYPEER, int(self.verify_tls))
        set_(pycurl.SSL_VERIFYHOST, 2 if self.verify_tls else 0)
        for option, path in (
            (pycurl.CAINFO, self.ca_file),
            (pycurl.SSLCERT, self.client_cert),
            (pycurl.SSLKEY, self.client_key),
        ):
            if path:
                set_(option, path)
