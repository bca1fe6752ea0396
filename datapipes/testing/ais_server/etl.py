"""ETL by name: Python functions in the place of containers.

Nothing here was recorded: the SDK's code and the documentation are the reference.
"""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from datapipes.testing.ais_server.call import Call, json_response
from datapipes.testing.ais_server.errors import ApiError
from datapipes.testing.ais_server.state import Etl

__all__ = ["etl_request", "transform", "unsupported"]


def need_etl(call: Call, name: str) -> Etl:
    """The ETL of that name, if it exists."""
    if name not in call.cluster.etls.known:
        raise ApiError(404, f'{call.node.title}: etl job "{name}" does not exist', "ErrNotFound")
    return call.cluster.etls.known[name]


async def transform(call: Call, data: bytes) -> bytes:
    """The data after ``etl_name`` and ``etl_pipeline`` of the request, unchanged without them."""
    name = call.query.get("etl_name", "")
    if not name:
        return data
    if not call.cluster.etls.supported:
        raise unsupported()
    rest = [step for step in call.query.get("etl_pipeline", "").split(",") if step]
    for step in [name, *rest]:
        etl = need_etl(call, step)
        if not etl.is_running:
            raise ApiError(400, f'{call.node.title}: etl job "{step}" is not running')
        given = [data, call.query.get("etl_args", "")] if etl.takes_args else [data]
        etl.objects += 1
        etl.bytes_in += len(data)
        try:
            data = await asyncio.get_running_loop().run_in_executor(None, etl.function, *given)
        except Exception as error:  # noqa: BLE001 -- whatever a user's function raises
            what = f'{call.node.title}: etl job "{step}" failed: {type(error).__name__}: {error}'
            raise ApiError(500, what) from None
        etl.bytes_out += len(data)
    return data


def unsupported() -> ApiError:
    """What a build without ETL answers."""
    what = "cannot use ETL in a build without ETL support - operation not supported"
    return ApiError(501, what, "ErrUnsupp")


async def etl_request(call: Call, rest: str) -> web.StreamResponse:
    """``/v1/etl``: list, details, start, stop, delete; containers cannot be started."""
    etls = call.cluster.etls
    if not etls.supported:
        raise unsupported()
    if call.method == "PUT":
        raise ApiError(501, "this server runs no containers: register a Python function instead", "ErrUnsupp")
    name, _, verb = rest.partition("/")
    if not name:
        return json_response([_info(key, etl) for key, etl in etls.known.items()])
    etl = need_etl(call, name)
    if call.method == "GET" and verb.startswith("logs"):
        return json_response([{"target_id": node.id, "logs": ""} for node in call.cluster.active])
    if call.method == "GET":
        runtime = {"image": f"python:{etl.function.__name__}"}
        said = {"name": name, "communication": "hpush://", "init_timeout": "5m", "obj_timeout": "45s"}
        return json_response({"init_msg": {**said, "runtime": runtime}, "obj_errors": None})
    if call.method == "DELETE":
        del etls.known[name]
    elif verb in ("start", "stop"):
        etl.is_running = verb == "start"
    else:
        raise ApiError(400, f'invalid action "{verb}"')
    return web.Response()


def _info(name: str, etl: Etl) -> dict[str, Any]:
    stage = "Running" if etl.is_running else "Stopped"
    sizes = {"obj_count": etl.objects, "in_bytes": etl.bytes_in, "out_bytes": etl.bytes_out}
    return {"id": name, "xaction_id": etl.job, "stage": stage, **sizes}
