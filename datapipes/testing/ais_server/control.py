"""The server's own door: switches and counters for the tests that use it, over HTTP."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from typing import Any

from aiohttp import web

from datapipes.testing.ais_server.call import Call, json_response
from datapipes.testing.ais_server.cluster import Cluster
from datapipes.testing.ais_server.errors import ApiError
from datapipes.testing.ais_server.faults import Fault
from datapipes.testing.ais_server.names import Bck
from datapipes.testing.ais_server.state import function_at

__all__ = ["KEY_HEADER", "apply", "control_request"]

KEY_HEADER = "X-Control-Key"


async def control_request(call: Call) -> web.StreamResponse:
    """``POST /_control`` with ``{"do": NAME, ...}``: what :func:`apply` gives, in JSON.

    Only for whoever started the server and knows its key: functions can be registered here, so others on the
    same machine must stay out.
    """
    key = call.cluster.control_key
    if key is None or not hmac.compare_digest(call.http.headers.get(KEY_HEADER, ""), key):
        raise ApiError(403, "the control door is open to whoever started this server only")
    asked = json.loads(await call.body())
    try:
        return json_response({"value": await apply(call.cluster, **asked)})
    except (AttributeError, ImportError, LookupError, TypeError, ValueError) as error:
        return json_response({"error": f"{type(error).__name__}: {error}"}, 400)


async def apply(cluster: Cluster, do: str, **given: Any) -> Any:
    """One command; the methods of :class:`.switches.Switches` say what there is."""
    if do == "down":
        return await cluster.switch(cluster.targets[given["target"]], down=given["down"])
    return COMMANDS[do](cluster, **given)


def _cold(cluster: Cluster, bucket: str, names: list[str] | None) -> None:
    bck = Bck.of_folder(bucket)
    cluster.cold[bck] = set(cluster.store.names(bck) if names is None else names)


def _etl(cluster: Cluster, name: str, place: str = "", function: Callable[..., bytes] | None = None) -> None:
    cluster.etls.register(name, function or function_at(place), f"etl-{cluster.new_id()}")


def _in_map(cluster: Cluster, target: int, *, present: bool) -> None:
    cluster.set_in_map(cluster.targets[target], present=present)


def _fault(cluster: Cluster, **given: Any) -> None:
    cluster.faults.active.append(Fault(**given))


def _direct(cluster: Cluster, status: int) -> None:
    cluster.direct_status = status


def _redirect(cluster: Cluster, url: str | None) -> None:
    cluster.redirect_to = url


def _batch_target(cluster: Cluster, target: int | None) -> None:
    cluster.batches.chosen = target


COMMANDS: dict[str, Callable[..., Any]] = {
    "batch_target": _batch_target,
    "clear": lambda cluster: cluster.faults.clear(),
    "cold": _cold,
    "counts": lambda cluster: cluster.faults.counted(),
    "direct": _direct,
    "etl": _etl,
    "fault": _fault,
    "map": _in_map,
    "redirect": _redirect,
    "requests": lambda cluster: cluster.faults.seen(),
}
