"""Objects in parts: append and flush, multipart upload, copy."""

from __future__ import annotations

import base64
from typing import Any

from aiohttp import web

from datapipes.testing.ais_server.call import Call, action_of, text_response, usual_namespace, usual_provider
from datapipes.testing.ais_server.errors import ApiError, bucket_missing, object_missing
from datapipes.testing.ais_server.etl import transform
from datapipes.testing.ais_server.names import Bck
from datapipes.testing.ais_server.state import Upload
from datapipes.testing.ais_server.store import Facts

__all__ = ["abort_upload", "append_object", "bucket_job", "copy_object", "post_object", "put_part"]


async def append_object(call: Call) -> web.StreamResponse:
    """``append_type=append`` adds to a file that nobody sees, ``flush`` makes it the object."""
    bck, store, uploads = call.need_bucket(), call.cluster.store, call.cluster.uploads
    handle, kind = call.query.get("append_handle", ""), call.query["append_type"]
    if kind not in ("append", "flush"):
        raise ApiError(400, f'invalid append operation "{kind}"')
    path = handle.split("|")[1] if handle.count("|") == 3 else ""
    if handle and uploads.appended.get(path) != (bck, call.name):
        raise ApiError(400, f'invalid append handle "{handle}"')
    if kind == "flush":
        if not handle:
            raise ApiError(400, "handle not provided")
        del uploads.appended[path]
        before = store.facts(bck, call.name) if store.find(bck, call.name) else Facts(version=0)
        store.adopt(bck, call.name, path, Facts(before.version + 1, before.custom))
        return web.Response()
    data = await call.body()
    if not handle:
        existing = call.contents.find(bck, call.name)
        path = store.temporary(existing.whole() if existing else b"")
        uploads.appended[path] = (bck, call.name)
    state = base64.b64encode(f"{_append(path, data):024d}".encode()).decode()
    return web.Response(headers={"Ais-Append-Handle": f"{call.node.id}|{path}|xxhash2|{state}"})


def _append(path: str, data: bytes) -> int:
    """Adds to a file; its size then."""
    with open(path, "ab") as file:
        file.write(data)
        return file.tell()


async def post_object(call: Call) -> web.StreamResponse:
    """Begins a multipart upload, or completes it."""
    message = await action_of(call) or {}
    bck, uploads = call.need_bucket(), call.cluster.uploads
    action = message.get("action")
    if action == "mpt-upload":
        uuid = call.cluster.new_id()
        uploads.multipart[uuid] = Upload(bck, call.name)
        return text_response(uuid)
    if action == "mpt-complete":
        return _complete(call, bck, message.get("value"))
    raise ApiError(400, f'invalid action "{action}"')


async def bucket_job(call: Call) -> web.StreamResponse:
    """What a POST to a bucket's objects asks for: nothing that this server does."""
    message = await action_of(call) or {}
    bck, action = call.need_bucket(), message.get("action")
    if action == "blob-download" and not bck.is_remote:
        what = f"blob-download: expecting remote bucket (have {bck.title})"
        raise ApiError(400, what, "ErrNotRemoteBck")
    raise ApiError(501, f"{action}: this server does no such job", "ErrUnsupp")


def _complete(call: Call, bck: Bck, value: Any) -> web.Response:
    upload = _upload(call, bck)
    numbers = sorted(int(part.get("part-number", 0)) for part in value or [])
    if not numbers:
        raise ApiError(400, "no chunks")
    for number in numbers:
        if number not in upload.parts:
            raise ApiError(400, f"o[{bck.name}/{call.name}]: part {number} was not uploaded")
    store = call.cluster.store
    parts = [upload.parts[number] for number in numbers]
    before = store.facts(bck, call.name) if store.find(bck, call.name) else Facts(version=0)
    facts = Facts(before.version + 1, before.custom, len(parts), max(map(len, parts)))
    store.adopt(bck, call.name, store.temporary(b"".join(parts)), facts)
    del call.cluster.uploads.multipart[call.query["uploadId"]]
    return web.Response()


async def put_part(call: Call) -> web.StreamResponse:
    """One part of a multipart upload."""
    upload, number = _upload(call, call.need_bucket()), call.query.get("partNumber", "")
    if not number.isdigit() or not 1 <= int(number) <= 10_000:
        raise ApiError(400, f'invalid part number "{number}"')
    upload.parts[int(number)] = await call.body()
    return web.Response()


async def abort_upload(call: Call) -> web.StreamResponse:
    """Forgets a multipart upload."""
    _upload(call, call.need_bucket())
    del call.cluster.uploads.multipart[call.query["uploadId"]]
    return web.Response()


def _upload(call: Call, bck: Bck) -> Upload:
    uuid = call.query.get("uploadId", "")
    upload = call.cluster.uploads.multipart.get(uuid)
    if upload is None or (upload.bck, upload.name) != (bck, call.name):
        raise ApiError(404, f"o[{bck.name}/{call.name}(-)]: {uuid} does not exist", "ErrNotFound")
    return upload


async def copy_object(call: Call) -> web.StreamResponse:
    """``object_to=provider/@#/bucket/name``: another object with the same contents and version."""
    bck, store = call.need_bucket(), call.cluster.store
    provider, space, bucket, name = [*call.query["object_to"].split("/", 3), "", "", ""][:4]
    target = Bck(bucket, usual_provider(provider), usual_namespace(space))
    content = call.contents.find(bck, call.name)
    if content is None:
        raise object_missing(call.node.title, bck, call.name)
    if not store.has_bucket(target):
        raise bucket_missing(target)
    data = await transform(call, content.whole())
    store.adopt(target, name or call.name, store.temporary(data), content.facts)
    return web.Response()
