"""Buckets: create, head, information, summary, list, destroy."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from datapipes.testing.ais_server.call import Call, action_of, json_response, text_response, usual_namespace
from datapipes.testing.ais_server.errors import ApiError, bucket_missing
from datapipes.testing.ais_server.jobs import LISTRANGE, run_job
from datapipes.testing.ais_server.listing import list_objects
from datapipes.testing.ais_server.names import Bck, bucket_fault

__all__ = ["bucket_request", "list_buckets"]

METHODS = "DELETE, GET, HEAD, PATCH, POST"

FIRST_BUCKET = 1 << 63

USUAL: dict[str, Any] = {
    "backend_bck": {"name": "", "provider": "", "namespace": {"uuid": "", "name": ""}},
    "write_policy": {"data": "immediate", "md": "immediate"},
    "provider": "ais",
    "Renamed": "",
    "checksum": {
        "type": "xxhash2", "validate_cold_get": False, "validate_warm_get": False,
        "validate_obj_move": False, "enable_read_range": False,
    },
    "extra": {"aws": {}, "gcp": {}, "oci": {}},
    "rate_limit": {
        "backend": {"interval": "1m", "max_tokens": 1000, "enabled": False, "num_retries": 3},
        "frontend": {"interval": "1m", "max_tokens": 1000, "enabled": False, "burst_size": 375},
    },
    "ec": {
        "compression": "never", "bundle_multiplier": 2, "burst_buffer": 512, "objsize_limit": 262144,
        "data_slices": 2, "parity_slices": 2, "enabled": False, "disk_only": False,
    },
    "chunks": {"objsize_limit": "0B", "max_monolithic_size": "1TiB", "chunk_size": "1GiB"},
    "mirror": {"copies": 2, "burst_buffer": 512, "enabled": False},
    "lru": {"dont_evict_time": "2h0m", "capacity_upd_time": "10m", "batch_size": 32768, "enabled": False},
    "access": "18446744073709551615",
    "features": "0",
    "bid": "0",
    "created": "0",
    "versioning": {"enabled": True, "validate_warm_get": False, "synchronize": False},
}  # fmt: skip
"""The properties of a bucket that nobody has changed, in the order in which a cluster sends them."""


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the given properties changed, at any depth."""
    result = dict(base)
    for key, value in changes.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


def bucket_props(call: Call, bck: Bck) -> dict[str, Any]:
    """All properties of a bucket."""
    store = call.cluster.store
    made = os.stat(store.root(bck))
    props = merged(USUAL, store.bucket_props(bck))
    own = {"provider": bck.provider, "bid": str(FIRST_BUCKET + made.st_ino), "created": str(made.st_ctime_ns)}
    return props | own


def as_entry(bck: Bck) -> dict[str, Any]:
    """A bucket in a list of buckets."""
    uuid, _, name = bck.namespace.removeprefix("@").partition("#")
    return {"name": bck.name, "provider": bck.provider, "namespace": {"uuid": uuid, "name": name}}


async def list_buckets(call: Call) -> web.StreamResponse:
    """All buckets of a provider and a namespace, or of all."""
    asked = call.query.get("provider", "")
    provider = call.provider if asked else ""
    if call.method == "OPTIONS":
        return web.Response(headers={"Allow": METHODS})
    if call.method != "GET":
        short = call.path.lstrip("/")
        raise ApiError(400, f"URL '{short}' is too short: expected 3 items, got 2")
    message = await action_of(call, goes_without=True)
    if message is not None and message.get("action") != "list":
        raise ApiError(400, f'invalid action "{message.get("action", "")}"')
    buckets = [bck for bck in call.cluster.store.buckets() if provider in ("", bck.provider)]
    if provider not in ("", "ais") and not buckets:
        what = f"{provider.upper()} backend is missing in the cluster configuration"
        origin = call.cluster.targets[0].title
        raise ApiError(400, what, "ErrMissingBackend", caller=call.node.title, node=origin)
    if "namespace" in call.query:
        space = usual_namespace(call.query["namespace"])
        buckets = [bck for bck in buckets if bck.namespace == space]
    return json_response([as_entry(bck) for bck in buckets])


async def bucket_request(call: Call, rest: str) -> web.StreamResponse:
    """Everything whose path is ``/v1/buckets/NAME``."""
    if "/" in rest.rstrip("/"):
        raise ApiError(400, f'invalid request URI "{call.path}"')
    call.take_bucket(rest.rstrip("/"))
    if call.method == "HEAD":
        return await head_bucket(call)
    if call.method == "GET":
        return await get_bucket(call)
    if call.node.kind == "target":
        raise ApiError(400, f"{call.node.title}: {call.method}(bucket) requires proxy mediation")
    if call.method == "POST":
        return await post_bucket(call)
    if call.method == "DELETE":
        return await delete_bucket(call)
    if call.method == "PATCH":
        return await patch_bucket(call)
    headers = {"Allow": METHODS}
    raise ApiError(405, "wrong method", plain="Method Not Allowed\n", headers=headers)


async def post_bucket(call: Call) -> web.StreamResponse:
    """Creates a bucket."""
    message = await action_of(call) or {}
    bck, store = call.bck, call.cluster.store
    action = message.get("action")
    if action != "create-bck":
        call.need_bucket()
        if action in LISTRANGE:
            return run_job(call, bck, action, message.get("value"))
        if action == "etl-bck":
            what = "cannot use ETL in a build without ETL support"
            raise ApiError(404, f"{what} - operation not supported", "ErrUnsupp")
        raise ApiError(400, f'invalid action "{action}"')
    if fault := bucket_fault(bck.name):
        raise ApiError(400, fault)
    if store.has_bucket(bck):
        raise ApiError(409, f'bucket "{bck.title}" already exists', "ErrBucketAlreadyExists")
    if bck.is_remote:
        more = (
            "(further details at https://github.com/NVIDIA/aistore/blob/main/docs/bucket.md#bucket-lifecycle)"
        )
        what = f'{bck.provider} bucket "{bck.title}" does not exist {more}'
        raise ApiError(501, what, "ErrRemoteBckNotFound")
    value = message.get("value")
    store.create_bucket(bck, value if isinstance(value, dict) else None)
    return web.Response()


async def head_bucket(call: Call) -> web.StreamResponse:
    """A bucket's properties, and with ``bsumm_remote`` its summary, at the second time of asking."""
    bck = call.need_bucket()
    headers = {"Ais-Bucket-Props": json.dumps(bucket_props(call, bck), separators=(",", ":"))}
    if "bsumm_remote" not in call.query:
        return web.Response(headers=headers)
    uuid = call.query.get("uuid", "")
    headers["Ais-Xaction-Id"] = uuid or call.cluster.new_id()
    if not uuid:
        return web.Response(status=202, headers=headers)
    headers["Ais-Bucket-Summ"] = json.dumps(summary(call, bck, "", present=True), separators=(",", ":"))
    return web.Response(headers=headers)


def summary(call: Call, bck: Bck, prefix: str, *, present: bool) -> dict[str, Any]:
    """Counts and sizes of a bucket's objects."""
    sizes = [entry.stat().st_size for _, entry in call.cluster.store.files(bck, prefix)]
    total, disk = sum(sizes), os.statvfs(call.cluster.store.directory)
    whole = disk.f_frsize * disk.f_blocks
    return as_entry(bck) | {
        "ObjCount": {"obj_count_present": str(len(sizes)), "obj_count_remote": "0"},
        "ObjSize": {
            "obj_min_size": min(sizes, default=0),
            "obj_avg_size": total // len(sizes) if sizes else 0,
            "obj_max_size": max(sizes, default=0),
        },
        "TotalSize": {
            "size_on_disk": str(total),
            "size_all_present_objs": str(total),
            "size_all_remote_objs": "0",
            "total_disks_size": str(whole),
        },
        "used_pct": total * 100 // whole if whole else 0,
        "is_present": present,
    }


async def get_bucket(call: Call) -> web.StreamResponse:
    """A listing of a bucket's objects, or its summary."""
    message = await action_of(call, goes_without=True)
    action = "list" if message is None else message.get("action", "")
    if action == "summary-bck":
        bck = call.need_bucket()
        value = (message or {}).get("value") or {}
        if not value.get("uuid"):
            return text_response(call.cluster.new_id(), 202)
        found = summary(call, bck, str(value.get("prefix", "")), present=False)
        return text_response(json.dumps([found], separators=(",", ":")))
    if action != "list":
        raise ApiError(400, f'invalid action "{action}"')
    if message is not None and not isinstance(message.get("value"), dict):
        shown = f"({call.bck.title}, actm[list])"
        raise ApiError(400, f'bad list-buckets request: "{call.bck.name}" vs "" {shown}')
    return await list_objects(call, message["value"] if message else {})


async def delete_bucket(call: Call) -> web.StreamResponse:
    """Destroys a bucket, empty or not."""
    message = await action_of(call) or {}
    action = message.get("action")
    if action in LISTRANGE:
        return run_job(call, call.need_bucket(), action, message.get("value"))
    if action not in ("destroy-bck", "evict-remote-bck"):
        raise ApiError(400, f'invalid action "{action}"')
    if not call.cluster.store.has_bucket(call.bck):
        raise bucket_missing(call.bck)
    call.cluster.store.destroy_bucket(call.bck)
    return web.Response()


async def patch_bucket(call: Call) -> web.StreamResponse:
    """Changes properties of a bucket."""
    message = await action_of(call) or {}
    bck, store = call.need_bucket(), call.cluster.store
    if message.get("action") != "set-bprops" or not isinstance(message.get("value"), dict):
        raise ApiError(400, f'invalid action "{message.get("action", "")}"')
    store.set_bucket_props(bck, merged(store.bucket_props(bck), message["value"]))
    return web.Response()
