"""What a process knows of an AIStore cluster: its addresses, its targets, its buckets."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from datapipes.backends.ais_names import AisName, object_path, object_paths, unames
from datapipes.backends.ais_placement import Placement, digest_of
from datapipes.errors import OptionError

__all__ = [
    "BucketFacts",
    "ClusterMap",
    "Origin",
    "Route",
    "is_elsewhere",
    "map_from_sdk",
    "normal_endpoint",
    "origin_of",
    "proxy_routes",
]

Origin = tuple[str, str, int]
"""Scheme, host and port."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_ENDPOINT = re.compile(
    r"(https?)://(\[[0-9A-Fa-f:.%]+\]|[^\s/@?#:\[\]]+)(?::(\d{1,5}))?(/[^\s?#]*)?", re.IGNORECASE
)
_NOT_SERVING = 0b1100
"""Flags of a target in maintenance, or about to leave: it owns nothing."""


def normal_endpoint(text: str) -> str:
    """``text`` as an http or https URL without ``/`` at its end; ``localhost:8080`` gets ``http://``.

    Raises OptionError for what is no address of a server.
    """
    url = (text if _SCHEME.match(text) else f"http://{text}").rstrip("/")
    if origin_of(url) is None or _ENDPOINT.fullmatch(url) is None:
        raise OptionError(f"{text!r} is no endpoint of AIStore; the form is http://proxy:51080")
    return url


def origin_of(url: str) -> Origin | None:
    """Scheme, host and port that ``url`` leads to; None where it is no http or https URL."""
    match = _ENDPOINT.match(url)
    if match is None:
        return None
    scheme, host, port, _ = match.groups()
    default = 443 if scheme.lower() == "https" else 80
    return scheme.lower(), host.lower(), int(port) if port else default


class Route(NamedTuple):
    """Where to read an object: ``url``, and ``otherwise`` where ``url`` leads straight to a target, which
    may be gone or may no longer own it, the way through the proxy."""

    url: str
    otherwise: str | None = None


def is_elsewhere(name: AisName) -> bool:
    """Whether the name alone says that the bucket is of a cloud, or of another AIStore."""
    return name.provider != "ais" or (bool(name.namespace) and not name.namespace.startswith("@#"))


class BucketFacts(NamedTuple):
    """``remote`` says that the data may lie in another store, and not (yet) in the cluster."""

    remote: bool
    checksum: str
    props: dict[str, Any]

    @classmethod
    def of(cls, name: AisName, text: str) -> BucketFacts:
        """From the JSON of a bucket's properties."""
        props = json.loads(text or "{}")
        if not isinstance(props, dict):
            raise ValueError(f"a bucket's properties are {text[:80]!r}")  # noqa: TRY004 - of the answer's text
        behind = props.get("backend_bck") or {}
        checksum = str((props.get("checksum") or {}).get("type", ""))
        return cls(is_elsewhere(name) or bool(behind.get("name")), checksum, props)


class ClusterMap(NamedTuple):
    """A version of the cluster map: the targets that serve (ids and public URLs), and all addresses.

    ``origins`` holds scheme, host and port of every node on all its networks: who may see a token.
    """

    version: int
    uuid: str
    ids: tuple[str, ...]
    urls: tuple[str, ...]
    placement: Placement | None
    origins: frozenset[Origin]

    def owners(self, names: Sequence[AisName]) -> list[str]:
        """The URL of the target that owns each of ``names``, all of one bucket. There must be a target."""
        assert self.placement is not None  # noqa: S101 - the caller has asked
        owners = self.placement.owners(unames(names[0], [name.name for name in names]))
        return [self.urls[owner] for owner in owners.tolist()]


def map_from_sdk(smap: Any) -> ClusterMap:
    """From the SDK's ``Smap``."""
    serving = [node for node in smap.tmap.values() if not node.flags & _NOT_SERVING and _public(node)]
    digests = [node.id_digest or digest_of(node.daemon_id.encode()) for node in serving]
    addresses = {
        origin_of(net.direct_url)
        for nodes in (smap.tmap, smap.pmap)
        for node in nodes.values()
        for net in (node.public_net, node.intra_control_net, node.intra_data_net)
        if net is not None
    }
    return ClusterMap(
        version=smap.version,
        uuid=smap.uuid,
        ids=tuple(node.daemon_id for node in serving),
        urls=tuple(_public(node) for node in serving),
        placement=Placement(digests) if serving else None,
        origins=frozenset(origin for origin in addresses if origin is not None),
    )


def _public(node: Any) -> str:
    url: str = node.public_net.direct_url if node.public_net is not None else ""
    return url.rstrip("/") if origin_of(url) else ""


def proxy_routes(endpoint: str, names: Sequence[AisName]) -> list[str]:
    """The way through the proxy to each of ``names``, all of one bucket and ETL."""
    if all(name.archpath is None for name in names):
        return [endpoint + path for path in object_paths(names[0], [name.name for name in names])]
    return [endpoint + object_path(name) for name in names]
