"""What nodes say of themselves and of the cluster: health, map, versions, jobs."""

from __future__ import annotations

import time
from typing import Any

from aiohttp import web

from datapipes.testing.ais_server.buckets import bucket_props
from datapipes.testing.ais_server.call import Call, json_response, text_response
from datapipes.testing.ais_server.cluster import VERSION, Node
from datapipes.testing.ais_server.errors import ApiError
from datapipes.testing.ais_server.jobs import job_snapshots, job_status

__all__ = ["cluster_request", "daemon_request", "health", "reverse_request"]


async def health(call: Call) -> web.StreamResponse:
    """An empty answer from a node that is well."""
    if call.node.kind == "target":
        return web.Response()
    uptime = str(time.time_ns() - call.cluster.started_ns)
    headers = {"Ais-Cluster-Uptime": uptime, "Ais-Node-Uptime": uptime}
    if "cii" not in call.query:
        return web.Response(headers=headers)
    cluster = call.cluster
    primary = {"pub_url": cluster.proxy.url, "control_url": cluster.proxy.url, "id": cluster.proxy.id}
    smap = {"Primary": primary, "uuid": cluster.map_uuid, "version": str(cluster.map_version)}
    rest = {"rmd": {"version": "0"}, "config": {"version": "0"}, "etlmd": {"version": "0"}, "flags": 6}
    answer = json_response({"smap": smap, "bmd": {"uuid": cluster.map_uuid, "version": "1"}, **rest})
    answer.headers.update(headers)
    return answer


async def daemon_request(call: Call) -> web.StreamResponse:
    """``/v1/daemon?what=``: what a node knows."""
    if call.method != "GET":
        headers = {"Allow": "GET, POST, PUT"}
        raise ApiError(405, "wrong method", plain="Method Not Allowed\n", headers=headers)
    what = call.query.get("what", "")
    said = node_says(call, call.node, what)
    if said is None:
        raise ApiError(400, f"invalid '{call.path}' request: unrecognized 'what={what}' query")
    return said


def node_says(call: Call, node: Node, what: str) -> web.Response | None:
    """A node's answer to a question, or None if there is none to it."""
    cluster = call.cluster
    if what == "smap":
        return json_response(cluster.as_smap())
    if what == "snode":
        return json_response(node.as_snode())
    if what == "software_version":
        return text_response(VERSION)
    if what == "bmd" and node.kind == "proxy":
        return json_response(_bmd(call))
    if what == "node_status":
        return json_response(_node_status(node))
    if what == "mountpaths" and node.kind == "target":
        return json_response({"available": [cluster.store.directory], "waiting_dd": [], "disabled": []})
    if what == "tls_certificate":
        raise ApiError(404, "no TLS certificate loaders configured")
    return None


def _bmd(call: Call) -> dict[str, Any]:
    """Buckets by provider and namespace."""
    providers: dict[str, dict[str, dict[str, Any]]] = {"ais": {"@#": {}}}
    for bck in call.cluster.store.buckets():
        spaces = providers.setdefault(bck.provider, {})
        spaces.setdefault(bck.namespace or "@#", {})[bck.name] = bucket_props(call, bck)
    return {"providers": providers, "uuid": call.cluster.map_uuid, "version": "1"}


def _node_status(node: Node) -> dict[str, Any]:
    """The part of a node's status that the SDK reads."""
    who = {"status": "", "deployment": "dev", "ais_version": VERSION, "build_time": "", "k8s_pod_name": ""}
    sizes = {"cs_err": "", "total_used": "0", "total_avail": "0", "pct_max": 0, "pct_avg": 0, "pct_min": 0}
    capacity = {"mountpaths": {}, **sizes}
    memory = {"mem_used": 0, "mem_avail": 0, "pct_mem_used": 0.0, "pct_cpu_used": 0.0}
    load = {"One": 0, "Five": 0, "Fifteen": 0}
    rest: dict[str, Any] = {"smap_version": "0", "reb_snap": None, "cluster_info": {}}
    return {
        **who, "snode": node.as_snode(), "tracker": {}, "capacity": capacity,
        "sys_info": {**memory, "load_avg": load}, **rest,
    }  # fmt: skip


async def cluster_request(call: Call) -> web.StreamResponse:
    """``/v1/cluster?what=``: what the proxy knows of all."""
    if call.node.kind == "target":
        raise invalid_uri(call)
    if call.method == "PUT":
        return web.Response()
    what = call.query.get("what", "")
    said = cluster_says(call, what)
    if said is not None:
        return said
    if what == "status":
        return await job_status(call)
    if what == "qryxstats":
        return await job_snapshots(call)
    raise ApiError(400, f"unexpected query [what={what}]")


def cluster_says(call: Call, what: str) -> web.Response | None:
    """The proxy's answer to a question about all nodes, or None if there is none to it."""
    cluster = call.cluster
    paths = {"available": [cluster.store.directory], "waiting_dd": [], "disabled": []}
    known: dict[str, Any] = {
        "running_all": [],
        "backends": [],
        "remote": {"a": None, "ver": 0},
        "smap": cluster.as_smap(),
        "mountpaths": {"targets": {node.id: paths for node in cluster.active}},
        "cluster_config": {"checksum": {"type": "xxhash2"}, "auth": {"enabled": bool(cluster.token)}},
    }
    if what in known:
        return json_response(known[what])
    if what == "status_all":
        return text_response("null")
    if what == "target_ips":
        return text_response(",".join([cluster.proxy.host] * 3 * len(cluster.active)))
    return None


async def reverse_request(call: Call) -> web.StreamResponse:
    """``/v1/reverse/daemon``: a question to another node, through the proxy."""
    name = call.http.headers.get("Ais-Node-Id", "")
    path = call.path.replace("/v1/reverse", "/v1", 1)
    if not name:
        raise ApiError(400, "missing node ID", path=path)
    node = call.cluster.node(name)
    if node is None:
        missing = f"node {name} not present in {call.cluster.map_title}"
        what = f"{call.node.title}: cannot forward request to node {missing}"
        raise ApiError(404, what, "errNodeNotFound", path=path)
    said = node_says(call, node, call.query.get("what", ""))
    if said is None:
        raise ApiError(400, f"invalid '{path}' request", path=path)
    return said


def invalid_uri(call: Call) -> ApiError:
    """What every path ends in that a node does not serve."""
    return ApiError(400, f"invalid request URI: '{call.method} {call.http.raw_path}' from {call.peer}")
