"""Jobs over lists of objects, done before they are answered: delete, evict, prefetch; and their status."""

from __future__ import annotations

import itertools
import json
import re
import time
from collections.abc import Iterator, Mapping
from typing import Any

from aiohttp import web

from datapipes.testing.ais_server.call import Call, json_response, text_response
from datapipes.testing.ais_server.errors import ApiError
from datapipes.testing.ais_server.names import Bck

__all__ = ["LISTRANGE", "job_snapshots", "job_status", "run_job"]

LISTRANGE = ("delete-listrange", "evict-listrange", "prefetch-listrange")


def run_job(call: Call, bck: Bck, action: str, value: Any) -> web.Response:
    """Does what is asked to every object named; answers with the job's id."""
    if not isinstance(value, dict):
        raise ApiError(400, f'invalid action "{action}": no list of objects')
    if action != "delete-listrange" and not bck.is_remote:
        what = f"{action}: expecting remote bucket (have {bck.title})"
        raise ApiError(400, what, "ErrNotRemoteBck")
    cold = call.cluster.cold.setdefault(bck, set())
    for name in _selected(call, bck, value):
        if action == "delete-listrange":
            call.cluster.store.delete(bck, name)
        elif action == "evict-listrange":
            cold.add(name)
        else:
            cold.discard(name)
    uuid = call.cluster.new_id()
    call.cluster.jobs[uuid] = action
    return text_response(uuid)


def _selected(call: Call, bck: Bck, value: Mapping[str, Any]) -> list[str]:
    """The names of a list, or of a template: a prefix, or ``shard-{000..099..3}.tar``."""
    if value.get("objnames"):
        return [str(name) for name in value["objnames"]]
    template = str(value.get("template", ""))
    if "{" not in template:
        return call.cluster.store.names(bck, template)
    return list(_expand(template))


def _expand(template: str) -> Iterator[str]:
    parts = re.split(r"\{(\d+)\.\.(\d+)(?:\.\.(\d+))?\}", template)
    fixed, ranges = parts[::4], zip(parts[1::4], parts[2::4], parts[3::4], strict=True)
    choices = [
        [f"{number:0{len(first)}d}" for number in range(int(first), int(last) + 1, int(step or 1))]
        for first, last, step in ranges
    ]
    for numbers in itertools.product(*choices):
        yield "".join(itertools.chain.from_iterable(zip(fixed, [*numbers, ""], strict=True)))


async def job_snapshots(call: Call) -> web.Response:
    """What each target has to say of a job: that it has ended."""
    asked = json.loads(await call.body() or b"{}")
    uuid, kind = asked.get("ID", ""), asked.get("Kind", "")
    known = [uuid] if uuid in call.cluster.jobs else []
    snaps = [_snapshot(one, call.cluster.jobs[one]) for one in known if kind in ("", call.cluster.jobs[one])]
    return json_response({node.id: snaps for node in call.cluster.active})


def _snapshot(uuid: str, kind: str) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    nowhere = {"name": "", "provider": "", "namespace": {"uuid": "", "name": ""}}
    places = {"bck": nowhere, "src-bck": nowhere, "dst-bck": nowhere}
    said = {"id": uuid, "kind": kind, "ctlmsg": "", "abort-err": "", "err": "", "glob.id": "1"}
    counts = dict.fromkeys(("loc-objs", "loc-bytes", "out-objs", "out-bytes", "in-objs", "in-bytes"), "0")
    times = {"start-time": now, "end-time": now}
    return {"ext": None, **times, **places, **said, "stats": counts, "aborted": False, "is_idle": True}


async def job_status(call: Call) -> web.Response:
    """A job that has ended; every job has."""
    asked = json.loads(await call.body() or b"{}")
    uuid = asked.get("ID", "")
    if uuid not in call.cluster.jobs:
        raise ApiError(404, f"{call.node.title}: x-[{uuid}] does not exist", "ErrNotFound")
    said = {"kind": call.cluster.jobs[uuid], "uuid": uuid, "err": ""}
    return text_response(json.dumps({**said, "end_time": time.time_ns(), "aborted": False}))
