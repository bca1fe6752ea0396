"""Bodies on their way to the client, cut short or silenced where a fault says so."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web
from multidict import CIMultiDict

from datapipes.testing.ais_server.call import Call

__all__ = ["HungUp", "cut_short", "hang_up", "send"]

BUFFERED = 2048
"""A body whose length nobody has said is sent with ``Content-Length`` if it is no longer, as Go does."""


class HungUp(Exception):  # noqa: N818 -- no error: the connection was closed on purpose
    """The connection is closed; nothing more can be answered than what was."""

    def __init__(self, answer: web.StreamResponse | None = None) -> None:
        super().__init__("closed on purpose")
        self.answer = answer or web.Response()


async def send(
    call: Call,
    headers: CIMultiDict[str],
    pieces: Iterable[bytes],
    *,
    size: int | None,
    status: int = 200,
    flushed: bool = False,
) -> web.StreamResponse:
    """An answer made of pieces.

    Args:
        call: what is answered.
        headers: of the answer, without its length.
        pieces: the body.
        size: its length; None sends it chunked.
        status: of the answer.
        flushed: chunked also if it is short.
    """
    remaining = iter(pieces)
    first = next(remaining, b"")
    if size is None and not flushed:
        while len(first) <= BUFFERED and (piece := next(remaining, None)) is not None:
            first += piece
        size = len(first) if len(first) <= BUFFERED else None
    if size is not None and len(first) == size and call.limit is None:
        return web.Response(status=status, headers=headers, body=first)
    answer = web.StreamResponse(status=status, headers=headers)
    if size is None:
        answer.enable_chunked_encoding()
    else:
        answer.content_length = size
    await answer.prepare(call.http)
    await _write(call, answer, first)
    for piece in remaining:
        await _write(call, answer, piece)
    await answer.write_eof()
    return answer


async def cut_short(call: Call, answer: web.StreamResponse) -> web.StreamResponse:
    """The same answer, of which the client sees only what a fault lets through."""
    if call.limit is None or answer.prepared or not isinstance(answer, web.Response):
        return answer
    body = answer.body if isinstance(answer.body, bytes) else b""
    return await send(call, answer.headers, [body], size=len(body), status=answer.status)


async def _write(call: Call, answer: web.StreamResponse, piece: bytes) -> None:
    if call.limit is None:
        await answer.write(piece)
        await asyncio.sleep(0)  # a client that reads fast must not keep the others waiting
        return
    effect, left = call.limit
    await answer.write(piece[:left])
    call.limit = (effect, left - len(piece[:left]))
    if len(piece) < left or not piece:
        return
    if effect == "stall":
        await asyncio.Event().wait()
    transport = call.http.transport
    while transport is not None and transport.get_write_buffer_size():  # noqa: ASYNC110 -- it has no event
        await asyncio.sleep(0.001)
    hang_up(call, answer)


def hang_up(call: Call, answer: web.StreamResponse | None = None) -> None:
    """Closes the connection and raises :class:`HungUp`; nothing may wait to be sent."""
    if call.http.transport is not None:
        call.http.transport.close()
    raise HungUp(answer)
