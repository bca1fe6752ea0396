"""Errors as AIStore writes them: a JSON body, or for HEAD the same JSON in a header."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiohttp import web

from datapipes.testing.ais_server.names import Bck

__all__ = ["ApiError", "bucket_missing", "error_response", "object_missing"]


class ApiError(Exception):
    """A request that ends in an error.

    Args:
        status: the HTTP status.
        message: what is wrong; the SDK picks its exception from the ``ais://bucket/object`` in it.
        tcode: the name of the error's type, where AIStore gives one.
        caller: the node that asked, where one node asked another.
        headers: more headers of the answer.
        plain: the body, if it is plain text and no JSON.
        node, path, method: of the request that failed, where it is one node's to another.
    """

    def __init__(
        self,
        status: int,
        message: str,
        tcode: str = "",
        *,
        caller: str = "",
        headers: Mapping[str, str] | None = None,
        plain: str | None = None,
        node: str | None = None,
        path: str | None = None,
        method: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.tcode = tcode
        self.caller = caller
        self.headers = headers or {}
        self.plain = plain
        self.node = node
        self.path = path
        self.method = method


def bucket_missing(bck: Bck, status: int = 404) -> ApiError:
    """What every request to a bucket that does not exist ends in."""
    return ApiError(status, f'bucket "{bck.title}" does not exist', "ErrBckNotFound")


def object_missing(node: str, bck: Bck, name: str) -> ApiError:
    """What a GET of an object ends in where ``node`` does not hold it."""
    return ApiError(404, f"{node}: {bck.title}/{name} does not exist", "ErrNotFound")


def error_response(error: ApiError, *, method: str, path: str, peer: str, node: str) -> web.Response:
    """The answer that tells a client of an error."""
    headers = {**error.headers, "X-Content-Type-Options": "nosniff"}
    if error.plain is not None:
        headers["Content-Type"] = "text/plain; charset=utf-8"
        return web.Response(status=error.status, body=error.plain.encode(), headers=headers)
    said = {"tcode": error.tcode} if error.tcode else {}
    said |= {"message": error.message, "method": error.method or method, "url_path": error.path or path}
    facts = {"remote_addr": peer, "caller": error.caller, "node": error.node or node, "status": error.status}
    text = json.dumps({**said, **facts}, ensure_ascii=False, separators=(",", ":"))
    headers["Content-Type"] = "application/json"
    body = text.encode("utf-8", "replace")
    if method == "HEAD":
        headers["Hdr-Error"] = body.decode()
        return web.Response(status=error.status, headers=headers)
    return web.Response(status=error.status, body=body + b"\n", headers=headers)
