"""One request: what was asked, of which node, in which cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast
from urllib.parse import parse_qsl, quote, unquote

from aiohttp import web

from datapipes.testing.ais_server.cluster import Cluster, Node
from datapipes.testing.ais_server.contents import Contents
from datapipes.testing.ais_server.errors import ApiError, bucket_missing
from datapipes.testing.ais_server.faults import Effect
from datapipes.testing.ais_server.names import Bck

__all__ = ["Call", "action_of", "json_response", "text_response"]

BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")

PROVIDERS = {
    "": "ais", "ais": "ais", "aws": "aws", "s3": "aws", "gcp": "gcp", "gs": "gcp", "google": "gcp",
    "azure": "azure", "az": "azure", "oci": "oci", "oc": "oci", "ht": "ht",
}  # fmt: skip


@lru_cache(maxsize=4096)
def parse_query(text: str) -> Mapping[str, str]:
    """The first value of every key."""
    found: dict[str, str] = {}
    for key, value in parse_qsl(text, keep_blank_values=True, errors="surrogateescape"):
        found.setdefault(key, value)
    return found


class Call:
    """A request with its path decoded and its query parsed."""

    __slots__ = ("bucket", "cluster", "http", "limit", "method", "name", "node", "path", "query", "raw_query")

    def __init__(self, http: web.BaseRequest, node: Node, cluster: Cluster) -> None:
        raw, _, self.raw_query = http.raw_path.partition("?")
        if "%" in raw:
            if BAD_PERCENT.search(raw):
                raise ApiError(400, "bad percent code", plain="400 Bad Request")
            raw = unquote(raw, errors="surrogateescape")
        self.path = raw
        self.http = http
        self.method = http.method
        self.node = node
        self.cluster = cluster
        self.query = parse_query(self.raw_query)
        self.bucket: Bck | None = None
        self.name = ""
        self.limit: tuple[Effect, int] | None = None

    @property
    def bck(self) -> Bck:
        """The bucket that the path names; :meth:`take_bucket` has read it."""
        assert self.bucket is not None
        return self.bucket

    @property
    def contents(self) -> Contents:
        """What is known of objects."""
        return self.cluster.contents

    @property
    def provider(self) -> str:
        """The provider that the query names, in its usual spelling."""
        return usual_provider(self.query.get("provider", ""))

    @property
    def is_redirected(self) -> bool:
        """Whether it carries the two parameters that a proxy adds; their values are not looked at."""
        return bool(self.query.get("pid") and self.query.get("utm"))

    @property
    def peer(self) -> str:
        """The client's address."""
        peer = self.http.get_extra_info("peername")
        return f"{peer[0]}:{peer[1]}" if peer else ""

    async def body(self) -> bytes:
        """The whole body of the request, of any length."""
        return b"".join([piece async for piece in self.http.content.iter_any()])

    def take_bucket(self, rest: str) -> None:
        """Reads ``bucket[/object]`` from a path."""
        name, _, self.name = rest.partition("/")
        self.bucket = Bck(name, self.provider, usual_namespace(self.query.get("namespace", "")))

    def need_bucket(self, status: int = 404) -> Bck:
        """The bucket, if it exists."""
        if not self.cluster.store.has_bucket(self.bck):
            raise bucket_missing(self.bck, status)
        return self.bck

    def redirect(self, target: Node, path: str | None = None) -> web.Response:
        """Sends the client to a target: 301 for GET of an object, 307 for all else.

        Names with a space or one of ``#?%+`` get their path encoded anew and the parameters sorted; of
        others the query stays as it came, and the path is sent decoded, but for bytes beyond ASCII.
        """
        path = path or self.path
        status = 301 if self.method == "GET" and path.startswith("/v1/objects/") else 307
        marks = f"pid={self.cluster.proxy.id}&utm={self.cluster.next_time()}"
        if any(character in path for character in " #?%+"):
            pairs = sorted([*self.query.items(), *parse_query(marks).items()])
            query = "&".join(f"{key}={_query_quote(value)}" for key, value in pairs)
            path = quote(path, safe="/$&+,:;=@~-_.", errors="surrogateescape")
        else:
            query = f"{self.raw_query}&{marks}" if self.raw_query else marks
        place = f"{self.cluster.redirect_to or target.url}{path}?{query}"
        headers = {"Location": _location(place)}
        if self.method not in ("GET", "HEAD"):
            return web.Response(status=status, headers=headers)
        headers["Content-Type"] = "text/html; charset=utf-8"
        reason = "Moved Permanently" if status == 301 else "Temporary Redirect"
        body = f'<a href="{_escape(place)}">{reason}</a>.\n\n' if self.method == "GET" else ""
        return web.Response(status=status, headers=headers, body=body.encode("utf-8", "surrogateescape"))


def usual_provider(text: str) -> str:
    """The name of a provider, given by name or scheme."""
    if text not in PROVIDERS:
        known = "[ais, aws (s3://), gcp (gs://), azure (az://), oci (oc://)]"
        what = f'invalid backend provider "{text}": must be one of {known}'
        raise ApiError(400, what, "ErrInvalidBackendProvider")
    return PROVIDERS[text]


def usual_namespace(text: str) -> str:
    """``""`` for the global namespace, else ``@uuid#name``."""
    return "" if text in ("", "@#") else text


def _query_quote(text: str) -> str:
    return quote(text, safe="~-_.", errors="surrogateescape").replace("%20", "+")


def _location(text: str) -> str:
    """As Go puts text into a header: control characters that would end it become spaces."""
    raw = text.encode("utf-8", "surrogateescape")
    plain = "".join(chr(byte) if byte < 0x80 else f"%{byte:02x}" for byte in raw)
    return re.sub(r"[\r\n\x00]", " ", plain)


def _escape(text: str) -> str:
    for character, code in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&#34;"), ("'", "&#39;")):
        text = text.replace(character, code)
    return text


async def action_of(call: Call, *, goes_without: bool = False) -> dict[str, Any] | None:
    """The action message in the request's body; None if there is no body and none is needed."""
    body = await call.body()
    if not body and goes_without:
        return None
    kind = f"{call.node.title}: failed to unmarshal [*apc.ActMsg] ({call.method}), err: "
    if not body:
        raise ApiError(400, kind + "EOF (htrun.go, #2910)")
    try:
        message = json.loads(body)
    except ValueError as error:
        raise ApiError(400, f"{kind}{error}") from None
    if not isinstance(message, dict):
        raise ApiError(400, kind + "expect { or n")
    return cast("dict[str, Any]", message)


def json_response(value: Any, status: int = 200) -> web.Response:
    """A JSON answer, with the newline at its end that AIStore sends."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace") + b"\n"
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return web.Response(status=status, body=body, headers=headers)


def text_response(text: str, status: int = 200) -> web.Response:
    """A plain answer."""
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    return web.Response(status=status, body=text.encode(), headers=headers)
