"""Objects at a target: GET, both kinds of HEAD, PUT, DELETE, PATCH."""

from __future__ import annotations

import time
from email.utils import formatdate

from aiohttp import web
from multidict import CIMultiDict

from datapipes.testing.ais_server.call import Call, action_of
from datapipes.testing.ais_server.checksums import CHECKSUMS, hasher
from datapipes.testing.ais_server.contents import Content, headers_of, original_path
from datapipes.testing.ais_server.errors import ApiError, object_missing
from datapipes.testing.ais_server.etl import transform, unsupported
from datapipes.testing.ais_server.members import add_member, check_query, get_from_archive
from datapipes.testing.ais_server.names import Bck
from datapipes.testing.ais_server.ranges import parse_range
from datapipes.testing.ais_server.sending import send
from datapipes.testing.ais_server.store import Facts
from datapipes.testing.ais_server.uploads import abort_upload, append_object, copy_object, put_part

__all__ = ["delete_object", "get_object", "head_object", "patch_object", "put_object"]

DISK = "tmpfs, hdd"

PROPS = {
    "name", "size", "version", "checksum", "atime", "copies", "ec", "custom", "location", "chunked",
    "last-modified", "etag",
}  # fmt: skip
"""What a selective HEAD may ask for."""


PARTS = {"append_type": append_object, "uploadId": put_part, "object_to": copy_object}
"""PUTs that a parameter of the query makes something else."""


def here(call: Call, bck: Bck, name: str) -> Content | None:
    """The object if this target holds it."""
    if call.cluster.owner(bck, name) is call.node:
        return call.contents.find(bck, name)
    return call.contents.misplaced(call.node.id, bck, name)


async def get_object(call: Call) -> web.StreamResponse:
    """Sends an object or a range of it. One that was cold, in another store only, is in the cluster then."""
    bck = call.need_bucket(404 if call.is_redirected else 400)
    wants_member = check_query(call)
    if call.query.get("etl_name") and not call.cluster.etls.supported:
        raise unsupported()
    content = here(call, bck, call.name)
    if content is None:
        raise object_missing(call.node.title, bck, call.name)
    call.cluster.cold.get(bck, set()).discard(call.name)
    if wants_member:
        return await get_from_archive(call, bck, content)
    if call.query.get("etl_name"):
        data = await transform(call, content.whole())
        plain = CIMultiDict({"Content-Type": "application/octet-stream"})
        return await send(call, plain, [data], size=len(data))
    span = parse_range(call.http.headers.get("Range", ""), content.size, f"{bck.title}/{call.name}")
    headers = CIMultiDict(content.headers)
    headers["Content-Type"] = "application/octet-stream"
    if span is None:
        return await send(call, headers, content.read(0, content.size), size=content.size)
    begin, end = span
    headers["Accept-Ranges"] = "bytes"
    headers["Content-Range"] = f"bytes {begin}-{end - 1}/{content.size}"
    return await send(call, headers, content.read(begin, end), size=end - begin, status=206)


async def head_object(call: Call) -> web.StreamResponse:
    """All headers, or with ``props`` the ones that were asked for."""
    bck = call.need_bucket()
    if "latest-ver" in call.query:
        raise ApiError(400, "HEAD with latest-ver: a cluster drops the connection")
    content = here(call, bck, call.name)
    if content is None:
        raise object_missing(call.node.title, bck, call.name)
    props = call.query.get("props", "")
    asked = set(props.split(",")) if props else PROPS - {"last-modified", "etag", "chunked"}
    for prop in props.split(",") if props else ():
        if prop not in PROPS:
            raise ApiError(400, f'invalid property "{prop}" in props list', headers={"Ais-Present": "true"})
    headers = _attributes(call, bck, content, asked, every=not props)
    headers["Ais-Present"] = str(call.name not in call.cluster.cold.get(bck, ())).lower()
    headers["Content-Length"] = str(content.size)
    return web.Response(headers=headers)


def _attributes(call: Call, bck: Bck, content: Content, asked: set[str], *, every: bool) -> CIMultiDict[str]:
    """The headers of the properties that were asked for; ``every`` is the kind of HEAD that names none."""
    headers = CIMultiDict[str]()
    wanted = {"Ais-Checksum-Type": "checksum", "Ais-Checksum-Value": "checksum", "Ais-Atime": "atime"}
    wanted |= {"Ais-Custom-Md": "custom", "Ais-Version": "version"}
    for key, value in content.headers:
        if wanted[key] in asked:
            headers.add(key, value)
    place = call.cluster.store.root(bck)
    if every:
        headers["Ais-Bucket-Name"], headers["Ais-Bucket-Provider"] = bck.name, bck.provider
        headers["Ais-Name"] = call.name
    if "location" in asked:
        headers["Ais-Location"] = f"{call.node.title}:mp[{place}, {DISK}]"
    if "copies" in asked:
        headers["Ais-Mirror-Copies"] = "1"
        headers["Ais-Mirror-Paths"] = f"[{place}]" if every else place
    if "chunked" in asked and content.facts.chunks:
        headers["Ais-Chunks-Count"] = str(content.facts.chunks)
        headers["Ais-Chunks-Max-Chunk-Size"] = str(content.facts.largest_chunk)
    if "last-modified" in asked:
        headers["Last-Modified"] = formatdate(content.mtime_ns / 1e9, usegmt=True)
    if "etag" in asked:
        headers["Etag"] = f'"v1-{content.checksum}-{content.mtime_ns:x}"'
    return headers


async def put_object(call: Call) -> web.StreamResponse:
    """Stores the request's body as the object's new contents, or as a part of something."""
    for key, handler in PARTS.items():
        if key in call.query:
            return await handler(call)
    bck = call.need_bucket()
    if call.query.get("archpath"):
        check_query(call)
        data = await add_member(call, bck, here(call, bck, call.name))
        store_object(call, bck, data, {})
        return web.Response()
    headers = call.http.headers
    given, value = headers.get("Ais-Checksum-Type", ""), headers.get("Ais-Checksum-Value", "")
    if given and given not in CHECKSUMS:
        raise ApiError(400, f'checksum type "{given}": a cluster drops the connection')
    kind = call.cluster.store.checksum_type(bck)
    own, asked = hasher(kind), hasher(given) if given else None
    pieces = []
    async for piece in call.http.content.iter_any():
        own.update(piece)
        if asked is not None:
            asked.update(piece)
        pieces.append(piece)
    if asked is not None and value and asked.hexdigest() != value:
        what = (
            f"BAD DATA CHECKSUM: {given}({value} != {asked.hexdigest()}) (context: {bck.title}/{call.name})"
        )
        raise ApiError(500, what, "ErrBadCksum")
    custom = dict(_pair(text) for text in headers.getall("Ais-Custom-Md", []))
    facts = store_object(call, bck, b"".join(pieces), custom)
    original = original_path(call.cluster.store.directory, bck, call.name)
    made = headers_of(kind, own.hexdigest(), time.time_ns(), facts, original)
    return web.Response(headers=CIMultiDict(made))


def store_object(call: Call, bck: Bck, data: bytes, custom: dict[str, str]) -> Facts:
    """Writes an object where it belongs, or as a misplaced copy where it does not."""
    store, name = call.cluster.store, call.name
    if "\0" in name:
        raise ApiError(500, f"[fs-path] {bck.title}/put.{name}: invalid argument", "PathError")
    if call.cluster.owner(bck, name) is not call.node:
        return call.contents.misplace(call.node.id, bck, name, data)
    _check_conflicts(call, bck, name)
    before = store.facts(bck, name) if store.find(bck, name) else Facts(version=0)
    version = before.version
    if store.is_versioned(bck):
        version += "skip_vc" not in call.query or not version
    else:
        version = 0
    facts = Facts(version, {**before.custom, **custom})
    return store.adopt(bck, name, store.temporary(data), facts)


def _check_conflicts(call: Call, bck: Bck, name: str) -> None:
    """Objects ``a`` and ``a/b`` exclude each other where one target would keep both."""
    cluster = call.cluster
    if not cluster.name_conflicts:
        return
    parts = name.split("/")
    for i in range(1, len(parts)):
        above = "/".join(parts[:i])
        if above and cluster.store.find(bck, above) and cluster.owner(bck, above) is call.node:
            raise ApiError(400, "destination contains an object in its path", "ErrMv")
    for below, _ in cluster.store.files(bck, name + "/"):
        if cluster.owner(bck, below) is call.node:
            raise ApiError(400, "destination exists and is a virtual directory", "ErrMv")


async def delete_object(call: Call) -> web.StreamResponse:
    """Removes an object, or a misplaced copy of it; or an upload that has begun."""
    if "uploadId" in call.query:
        return await abort_upload(call)
    bck = call.need_bucket()
    if call.cluster.owner(bck, call.name) is call.node:
        removed = call.cluster.store.delete(bck, call.name)
    else:
        removed = call.contents.displace(call.node.id, bck, call.name)
    if not removed:
        raise ApiError(404, f"{bck.title}/{call.name} doesn't exist")
    return web.Response()


async def patch_object(call: Call) -> web.StreamResponse:
    """Adds custom properties, or with ``set-new-custom`` replaces them."""
    bck, store = call.need_bucket(), call.cluster.store
    message = await action_of(call) or {}
    if here(call, bck, call.name) is None:
        raise object_missing(call.node.title, bck, call.name)
    given = message.get("value")
    if not isinstance(given, dict):
        raise ApiError(400, "expecting key=value pairs of custom properties")
    before = store.facts(bck, call.name)
    kept = {} if call.query.get("set-new-custom") == "true" else dict(before.custom)
    custom = {**kept, **{str(key): str(value) for key, value in given.items()}}
    store.set_facts(bck, call.name, Facts(before.version, custom, before.chunks, before.largest_chunk))
    return web.Response()


def _pair(text: str) -> tuple[str, str]:
    key, _, value = text.partition("=")
    return key, value
