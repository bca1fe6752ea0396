"""The cluster that the server pretends to be: its nodes, its map, and what all nodes share."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from datapipes.testing.ais_server.archives import Archives
from datapipes.testing.ais_server.checksums import highest_score, name_digest
from datapipes.testing.ais_server.contents import Contents
from datapipes.testing.ais_server.errors import ApiError
from datapipes.testing.ais_server.faults import Faults
from datapipes.testing.ais_server.listed import Listings
from datapipes.testing.ais_server.names import Bck
from datapipes.testing.ais_server.state import Batches, Etls, Uploads
from datapipes.testing.ais_server.store import Store

__all__ = ["VERSION", "Cluster", "Node", "short_id"]

VERSION = "5.0."
"""The version of AIStore that was recorded, and that this server says it is."""

KEY = "bm8ga2V5OiByZWRpcmVjdHMgYXJlIG5vdCBzaWduZWQ="

DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def short_id(number: int, length: int = 9) -> str:
    """An id as AIStore makes them: letters and digits, nothing else."""
    text = ""
    for _ in range(length):
        number, digit = divmod(number, 62)
        text = DIGITS[digit] + text
    return text


class Switch(Protocol):
    """Lets a node refuse connections, or listen again."""

    async def __call__(self, node: Node, *, down: bool) -> None: ...


async def _not_served(node: Node, *, down: bool) -> None:
    raise RuntimeError(f"{node.title} is not served: cannot switch it {'off' if down else 'on'}")


class Node:
    """A proxy or a target."""

    def __init__(self, kind: str, name: str, digest: int | None = None) -> None:
        self.kind = kind
        self.id = name
        self.digest = name_digest(name) if digest is None else digest
        self.host = "127.0.0.1"
        self.port = 0
        self.is_down = False
        self.in_map = True

    @property
    def url(self) -> str:
        """The address that clients use."""
        return f"http://{self.host}:{self.port}"

    @property
    def title(self) -> str:
        """As error messages write it: ``p[id]``, ``t[id]``."""
        return f"{self.kind[0]}[{self.id}]"

    def as_snode(self, flags: int = 0, *, key: bool = True) -> dict[str, Any]:
        """The node's entry in the cluster map; all three networks are one here.

        ``key`` adds the one that redirects could be signed with; targets in the map have none.
        """
        net = {"node_ip_addr": self.host, "daemon_port": str(self.port), "direct_url": self.url}
        nets = {"public_net": net, "intra_data_net": net, "intra_control_net": net}
        who = {"daemon_type": self.kind, "daemon_id": self.id, "flags": flags, "id_digest": self.digest}
        return {**nets, **who, "verifying_key": KEY} if key else {**nets, **who}


class Cluster:
    """Nodes, store and the state of the moment. Everything here is touched by the server's loop only."""

    def __init__(
        self,
        store: Store,
        *,
        targets: int = 2,
        token: str | None = None,
        name_conflicts: bool = True,
        target_digests: Sequence[int] | None = None,
        etl: bool = True,
    ) -> None:
        digests: list[int | None] = [*target_digests] if target_digests else [None] * targets
        self.store = store
        self.token = token
        self.name_conflicts = name_conflicts
        self.proxy = Node("proxy", "embpROXY")
        self.targets = [Node("target", f"embt{i:04d}", digest) for i, digest in enumerate(digests)]
        self.map_version = 3 + len(self.targets)
        self.map_uuid = short_id(name_digest("cluster"))
        self.started_ns = time.time_ns()
        self.ids = 0
        self.contents = Contents(store)
        self.listings = Listings()
        self.archives = Archives()
        self.uploads = Uploads()
        self.batches = Batches()
        self.etls = Etls(supported=etl)
        self.jobs: dict[str, str] = {}
        self.cold: dict[Bck, set[str]] = {}
        self.direct_status = 0
        self.redirect_to: str | None = None
        self.control_key: str | None = None
        self.faults = Faults()
        self.switch: Switch = _not_served
        self._owners: OrderedDict[tuple[Bck, str], Node] = OrderedDict()

    @property
    def nodes(self) -> list[Node]:
        """The proxy and every target, also those that are down or no longer in the map."""
        return [self.proxy, *self.targets]

    @property
    def active(self) -> list[Node]:
        """The targets in the cluster map."""
        return [node for node in self.targets if node.in_map]

    def new_id(self, length: int = 9) -> str:
        """An id for a job, a listing or an upload; never the same twice."""
        self.ids += 1
        return short_id(name_digest(f"{self.started_ns} {self.ids}"), length)

    def next_time(self) -> str:
        """The time that a proxy adds to a redirect: twelve characters, never the same twice."""
        self.ids += 1
        return f"{self.ids:012x}"

    def node(self, name: str) -> Node | None:
        """A node of the map by id."""
        return next((node for node in self.nodes if node.id == name and node.in_map), None)

    def owner(self, bck: Bck, name: str) -> Node:
        """The target that keeps an object, by rendezvous hashing over the targets of the map."""
        key = (bck, name)
        found = self._owners.get(key)
        if found is None:
            active = self.active
            if not active:
                raise ApiError(500, f"no available targets, {self.map_title}", "ErrNoNodes")
            position = highest_score([node.digest for node in active], name_digest(bck.uname + name))
            found = self._owners[key] = active[position]
            if len(self._owners) > 200_000:
                self._owners.popitem(last=False)
        return found

    def set_in_map(self, node: Node, *, present: bool) -> None:
        """Takes a target out of the map, or puts it back; the map's version changes."""
        node.in_map = present
        self.map_version += 1
        self._owners.clear()

    @property
    def map_title(self) -> str:
        """As error messages write it."""
        return f"Smap v{self.map_version}"

    def as_smap(self) -> Mapping[str, Any]:
        """The cluster map, as ``what=smap`` gives it."""
        proxy = self.proxy.as_snode(flags=2)
        return {
            "pmap": {self.proxy.id: proxy},
            "proxy_si": proxy,
            "tmap": {node.id: node.as_snode(key=False) for node in self.active},
            "uuid": self.map_uuid,
            "creation_time": time.ctime(self.started_ns // 10**9),
            "version": str(self.map_version),
        }
