"""One node's answers: who may ask, what goes wrong on purpose, and which room a path belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from datapipes.testing.ais_server import objects
from datapipes.testing.ais_server.buckets import bucket_request, list_buckets
from datapipes.testing.ais_server.call import Call, action_of
from datapipes.testing.ais_server.cluster import Cluster, Node
from datapipes.testing.ais_server.control import control_request
from datapipes.testing.ais_server.daemon import (
    cluster_request,
    daemon_request,
    health,
    invalid_uri,
    reverse_request,
)
from datapipes.testing.ais_server.errors import ApiError, error_response
from datapipes.testing.ais_server.etl import etl_request
from datapipes.testing.ais_server.faults import Fault
from datapipes.testing.ais_server.getbatch import batch_request
from datapipes.testing.ais_server.names import name_fault
from datapipes.testing.ais_server.sending import HungUp, cut_short, hang_up
from datapipes.testing.ais_server.uploads import bucket_job, post_object

__all__ = ["Service"]

Handler = Callable[[Call], Awaitable[web.StreamResponse]]

AT_TARGET: dict[str, Handler] = {
    "GET": objects.get_object,
    "HEAD": objects.head_object,
    "PUT": objects.put_object,
    "DELETE": objects.delete_object,
    "PATCH": objects.patch_object,
    "POST": post_object,
}


READ_AT_MOST = 256 << 10
"""A proxy closes the connection after a redirect if the body that came with the request is longer."""

PLAIN: dict[str, Handler] = {
    "daemon": daemon_request,
    "cluster": cluster_request,
    "health": health,
    "reverse": reverse_request,
}


class Service:
    """Answers the requests that one node of the cluster gets."""

    def __init__(self, node: Node, cluster: Cluster) -> None:
        self.node = node
        self.cluster = cluster
        self.number = cluster.targets.index(node) if node in cluster.targets else -1

    async def __call__(self, http: web.BaseRequest) -> web.StreamResponse:
        """The answer to one request."""
        path, method = http.raw_path.partition("?")[0], http.method
        try:
            call = Call(http, self.node, self.cluster)
            path = call.path
            if path == "/_control":
                return await control_request(call)
            return await cut_short(call, await self._answer(call))
        except HungUp as gone:
            return gone.answer
        except ConnectionResetError:  # the client has gone: nobody is left to be told
            return HungUp().answer
        except ApiError as error:
            peer = http.get_extra_info("peername")
            client = f"{peer[0]}:{peer[1]}" if peer else ""
            answer = error_response(error, method=method, path=path, peer=client, node=self.node.title)
            if "Expect" in http.headers:
                answer.force_close()
            return answer

    async def _answer(self, call: Call) -> web.StreamResponse:
        room, rest = _room(call)
        if rest and room in ("objects", "buckets"):
            call.take_bucket(rest)
        for fault in self._happens(call):
            await suffer(call, fault)
        self._check_token(call)
        if room == "objects":
            return await self._object(call, rest)
        if room == "buckets":
            return await bucket_request(call, rest) if rest else await list_buckets(call)
        if room == "ml" and rest.split("/")[0] == "moss":
            return await batch_request(call, rest[5:])
        if room == "etl" and self.node.kind == "proxy":
            return await etl_request(call, rest)
        if room == "reverse" and self.node.kind == "target":
            raise invalid_uri(call)
        if room == "tokens":
            raise ApiError(
                405, "wrong method", plain="Method Not Allowed\n", headers={"Allow": "POST, DELETE"}
            )
        if room in PLAIN:
            return await PLAIN[room](call)
        raise invalid_uri(call)

    def _happens(self, call: Call) -> list[Fault]:
        headers = call.http.headers
        bucket = call.bucket.name if call.bucket else ""
        path, _, query = call.http.raw_path.partition("?")
        token, span = headers.get("Authorization", ""), headers.get("Range", "")
        node = self.node
        return self.cluster.faults.see(
            (node.kind, node.id, self.number, call.method, path, query, bucket, call.name, token, span)
        )

    def _check_token(self, call: Call) -> None:
        token = self.cluster.token
        if token is None or call.path == "/v1/health":
            return
        given = call.http.headers.get("Authorization", "")
        if not given:
            raise ApiError(401, "token required", "ErrNoToken")
        if given != f"Bearer {token}":
            raise ApiError(401, "invalid token", "ErrInvalidToken")

    async def _object(self, call: Call, rest: str) -> web.StreamResponse:
        if not call.name and call.method == "POST" and call.node.kind == "proxy" and rest.strip("/"):
            return await bucket_job(call)
        if not call.name:
            short, items = call.path.lstrip("/"), len([part for part in rest.split("/") if part])
            raise ApiError(400, f"URL '{short}' is too short: expected 4 items, got {2 + items}")
        if fault := name_fault(call.name):
            raise ApiError(400, fault, "errInvalidPath")
        if call.method not in AT_TARGET:
            headers = {"Allow": "DELETE, GET, HEAD, PATCH, POST, PUT"}
            raise ApiError(405, "wrong method", plain="Method Not Allowed\n", headers=headers)
        return await (self._at_proxy(call) if self.node.kind == "proxy" else self._at_target(call))

    async def _at_proxy(self, call: Call) -> web.StreamResponse:
        bck = call.need_bucket()
        if call.method == "POST":
            await action_of(call)
        answer = call.redirect(self.cluster.owner(bck, call.name))
        if "Expect" in call.http.headers or (call.http.content_length or 0) > READ_AT_MOST:
            answer.force_close()
        return answer

    async def _at_target(self, call: Call) -> web.StreamResponse:
        if self.cluster.direct_status and not call.is_redirected:
            raise ApiError(self.cluster.direct_status, "direct target access denied")
        if call.method not in ("GET", "HEAD") and not call.is_redirected:
            raise ApiError(400, f"{self.node.title}: {call.method}(obj) is expected to be redirected")
        if "Expect" in call.http.headers and call.http.transport is not None:
            call.need_bucket()
            call.http.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        return await AT_TARGET[call.method](call)


def _room(call: Call) -> tuple[str, str]:
    """The first part of the path after the version, and the rest."""
    empty, version, *rest = call.path.split("/", 3)
    if empty or version not in ("v1", "ais", "s3", "gs") or not rest:
        raise invalid_uri(call)
    if version == "ais":
        call.path = f"/v1/objects/{'/'.join(rest)}"
        call.query = {"provider": "ais", **call.query}
        call.raw_query = f"provider=ais&{call.raw_query}".rstrip("&")
        return "objects", "/".join(rest)
    return rest[0], rest[1] if len(rest) > 1 else ""


async def suffer(call: Call, fault: Fault) -> None:
    """Lets a fault happen now, or notes what shall happen to the body."""
    if fault.effect == "delay":
        await asyncio.sleep(fault.ms / 1000)
    elif fault.effect == "status":
        wait = {} if fault.retry_after_s is None else {"Retry-After": f"{fault.retry_after_s:g}"}
        place = f"{call.bucket.title}/{call.name}" if call.bucket else call.path
        missing = f"{call.node.title}: {place} does not exist"
        what = missing if fault.status == 404 else f"{call.node.title}: {place}: made to fail"
        raise ApiError(fault.status, what, headers=wait)
    elif fault.after is not None:
        call.limit = (fault.effect, fault.after)
    elif fault.effect == "stall":
        await asyncio.Event().wait()
    else:
        hang_up(call)
