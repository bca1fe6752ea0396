"""Whether an answer that came through whole is what it says it is."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, urljoin

import pycurl

from datapipes.transport import failures
from datapipes.transport.failures import Failure
from datapipes.transport.head import Head, checksum_of, content_range
from datapipes.transport.options import HttpOptions

if TYPE_CHECKING:
    from datapipes.transport.exchange import Exchange
    from datapipes.transport.item import HttpRequest

__all__ = ["checksum_fault", "length_fault", "redirect_target"]

_HTTP_1_1 = 2  # CURL_HTTP_VERSION_1_1; newer versions frame every body


def redirect_target(
    exchange: Exchange, head: Head, request: HttpRequest, options: HttpOptions
) -> str | Failure:
    """Where a redirect leads, percent-encoded where the server forgot to."""
    if exchange.hops >= options.max_redirects:
        reason = f"more than {options.max_redirects} redirects, the last to {exchange.url}"
        return failures.protocol(request.label, reason)
    location = quote(head.fields[b"location"], safe="%/:?#[]@!$&'()*+,;=~")
    target = location if location.startswith(("http://", "https://")) else urljoin(exchange.url, location)
    if not target.startswith(("http://", "https://")):
        return failures.protocol(request.label, f"a redirect to {target!r}, which is no http URL")
    return target if options.redirected is None else options.redirected(target, exchange.url)


def length_fault(exchange: Exchange, request: HttpRequest) -> Failure | None:
    """What is wrong with the number of bytes that came: fewer than were announced, or none were announced
    and nobody can say where the end is."""
    head, part = exchange.note_head(), exchange.part
    if head.status == 206:
        said = content_range(head)
        if said is None:
            return failures.protocol(request.label, "a part of it came without a valid Content-Range")
        wanted = said[2] if part.end is None else min(part.end, said[2])
        if part.first + part.got != wanted:
            reason = f"bytes up to {wanted} were asked for and came up to {part.first + part.got}"
            return failures.cut_short(request.label, reason)
        return None
    if head.delimited or _framed(exchange):
        return None
    if request.size < 0 and not head_has_proof(head, exchange.item.options):
        return failures.protocol(
            request.label,
            "its end is that of the connection, which may have broken, and its size is not known",
        )
    if part.got < request.size:
        return failures.cut_short(
            request.label, f"the connection ended after {part.got} of {request.size} bytes"
        )
    return None


def head_has_proof(head: Head, options: HttpOptions) -> bool:
    """Whether the content can be checked against a checksum that came with it."""
    kind, value = checksum_of(head, options)
    return bool(value) and any(kind == name.encode() for name, _ in options.hashes)


def _framed(exchange: Exchange) -> bool:
    assert exchange.channel is not None  # noqa: S101 - it has an answer
    return int(exchange.channel.easy.getinfo(pycurl.INFO_HTTP_VERSION)) > _HTTP_1_1


def checksum_fault(data: bytes, head: Head, request: HttpRequest, options: HttpOptions) -> Failure | None:
    """What is wrong with the content of a whole object, where a checksum that we know came with it."""
    kind, value = checksum_of(head, options)
    if not value:
        return None
    for name, make in options.hashes:
        if kind == name.encode():
            hash_ = make()
            hash_.update(data)
            found = hash_.hexdigest()
            said = value.decode("ascii", "replace").lower()
            return None if found == said else failures.damaged(request.label, name, said, found)
    return None
