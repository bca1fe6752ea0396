"""One AIStore cluster: how to reach it, and what this process knows of it. Control goes through the SDK."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event
from typing import Any, TypeVar

from datapipes.backends.ais_errors import error_from_exception, is_busy
from datapipes.backends.ais_map import (
    BucketFacts,
    ClusterMap,
    Origin,
    Route,
    is_elsewhere,
    normal_endpoint,
    proxy_routes,
)
from datapipes.backends.ais_names import AisName, bucket_text
from datapipes.backends.ais_opened import Opened
from datapipes.backends.checks import check_flag, check_option
from datapipes.errors import DatapipesError, OptionError

__all__ = ["AisCluster"]

_T = TypeVar("_T")
_RNG = random.SystemRandom()  # not the generator that the user has seeded


@dataclass(frozen=True)
class AisCluster:
    """How to reach a cluster. Travels as these options; what is live is made at first use in each process.

    Attributes:
        endpoint: of a proxy. Without a scheme it gets ``http://``; None takes ``AIS_ENDPOINT``.
        token: for ``Authorization``; None takes ``AIS_AUTHN_TOKEN`` when the process opens the cluster. It is
            shown to addresses in the cluster map only.
        ca_cert: path of a PEM file to verify servers by; None takes ``AIS_CLIENT_CA``, or the system's.
        client_cert: path of a PEM file, or of certificate and key; None takes ``AIS_CRT`` and
            ``AIS_CRT_KEY``.
        skip_verify: do not verify servers; also ``AIS_SKIP_VERIFY_CRT``.
        timeout_s: for each answer in seconds, or for connecting and answering; None takes
            ``AIS_CONNECT_TIMEOUT`` and ``AIS_READ_TIMEOUT``, or 3 and 20.
        retry_budget_s: seconds from the first failure of a request in which it may be tried again.
        refresh_s: the cluster map is asked for anew at most once in this time.
        direct: read straight from the targets where that is possible.
        environment_proxies: obey ``HTTP_PROXY`` and the like.
        http2: read over HTTP/2 where the cluster offers it over TLS; False: over HTTP/1.1 always.
    """

    endpoint: str = ""
    token: str | None = field(default=None, repr=False)
    ca_cert: str | None = None
    client_cert: str | tuple[str, str] | None = None
    skip_verify: bool = False
    timeout_s: float | tuple[float, float] | None = None
    retry_budget_s: float = 10.0
    refresh_s: float = 1.0
    direct: bool = True
    environment_proxies: bool = False
    http2: bool = True

    def __post_init__(self) -> None:
        text = self.endpoint or os.environ.get("AIS_ENDPOINT", "")
        if not isinstance(text, str):
            raise OptionError(f"an endpoint of AIStore is a str (http://proxy:51080), not {text!r}")
        if not text:
            raise OptionError("no endpoint of AIStore: give one (http://proxy:51080) or set AIS_ENDPOINT")
        object.__setattr__(self, "endpoint", normal_endpoint(text))
        cert: Any = self.client_cert
        pair = cert if isinstance(cert, tuple) else (cert, None)
        texts = {"token": [self.token], "ca_cert": [self.ca_cert], "client_cert": pair}
        for name, given in texts.items():
            if len(given) > 2 or not all(text is None or isinstance(text, str) for text in given):
                raise OptionError(f"{name} must be a str, not of type {type(getattr(self, name)).__name__}")
        for name in ("skip_verify", "direct", "environment_proxies", "http2"):
            check_flag(name, getattr(self, name))
        for part in self.timeout_s if isinstance(self.timeout_s, tuple) else [self.timeout_s]:
            if part is not None:
                check_option("timeout_s", part, least=0, most=1e6)
        check_option("retry_budget_s", self.retry_budget_s, least=0, most=1e6)
        check_option("refresh_s", self.refresh_s, least=0, most=1e6)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_opened"}

    def opened(self) -> Opened:
        """What this process has of the cluster; asks nothing."""
        found: Opened | None = self.__dict__.get("_opened")
        if found is None or found.pid != os.getpid():
            # Two threads may both come here: one of the two is then used for one call only.
            found = Opened(self)
            object.__setattr__(self, "_opened", found)
        return found

    def call(
        self,
        work: Callable[[Opened], _T],
        *,
        url: str,
        operation: str,
        ended: Event | None = None,
        once: bool = False,
    ) -> _T:
        """What ``work`` returns, tried again inside the budget while the cluster is busy or out of reach.

        Whatever the SDK or requests raise comes out as our error, with ``url`` and ``operation``. Once
        ``ended`` is set nothing is tried again, and with ``once`` never.
        """
        opened, wait_s, deadline = self.opened(), 0.1, 0.0
        while True:
            try:
                return work(opened)
            except Exception as error:  # noqa: BLE001 - it is converted, and nothing is swallowed
                found = error_from_exception(error, url=url, operation=operation)
                now = time.monotonic()
                deadline = deadline or now + self.retry_budget_s
                pause_s = _RNG.uniform(0.5, 1.0) * wait_s
                if (
                    once
                    or not is_busy(found)
                    or now + pause_s > deadline
                    or (ended is not None and ended.is_set())
                ):
                    raise found from None
            time.sleep(pause_s)
            wait_s *= 2

    def map(self, *, once: bool = False) -> ClusterMap:
        """The cluster map as last seen; asks for it at first use."""
        return self.opened().map or self.refreshed_map(once=once)

    def refreshed_map(self, *, once: bool = False) -> ClusterMap:
        """The cluster map, asked for anew unless that was done within ``refresh_s``."""
        return self.opened().refresh(self, once=once)

    def refresh_soon(self) -> None:
        """Ask for the map anew, in a thread of its own: what was asked of its owner came from elsewhere."""
        self.opened().refresh_soon(self)

    def bucket(
        self, name: AisName, *, url: str | None = None, operation: str = "open", once: bool = False
    ) -> BucketFacts:
        """What there is to know of a bucket, asked for once in each process. ContainerMissingError."""
        return self.opened().bucket_facts(self, name, url or bucket_text(name), operation, once=once)

    def headers_for(self, origin: Origin) -> tuple[str, ...]:
        """The header lines that a request to ``origin`` may carry: the token goes to the cluster alone.

        An address that is not in the map as last seen has the map asked for anew. From a cluster with TLS
        nothing is shown over plain http.
        """
        opened = self.opened()
        if not opened.token or (origin[0] != "https" and opened.origin[0] == "https"):
            return ()
        if origin != opened.origin and not self._knows(origin):
            return ()
        return opened.header_lines

    def _knows(self, origin: Origin) -> bool:
        try:
            return origin in self.map().origins or origin in self.refreshed_map().origins
        except DatapipesError:
            return False

    def route(self, names: Sequence[AisName]) -> list[Route]:
        """Where to read each of ``names``: straight from the target that owns it, else through the proxy.

        Through the proxy go objects of remote buckets, what an ETL makes, and all of it while there is no
        map, no target, or after :meth:`avoid_direct`. A missing bucket is for the proxy to report.
        """
        found: list[Route] = []
        for _, group in groupby(names, _bucket_key):
            same = list(group)
            ways = proxy_routes(self.endpoint, same)
            owners = self.owners(same)
            if owners is None:
                found += map(Route, ways)
            else:
                cut = len(self.endpoint)
                found += [Route(owner + way[cut:], way) for owner, way in zip(owners, ways, strict=True)]
        return found

    def owners(self, names: Sequence[AisName]) -> list[str] | None:
        """The addresses of the targets that own ``names``, all of one bucket and ETL; None where it is the
        proxy that must be asked, for the reasons that :meth:`route` gives."""
        known = self._map_for(names[0]) if names else None
        return None if known is None else known.owners(names)

    def _map_for(self, name: AisName) -> ClusterMap | None:
        opened = self.opened()
        if not self.direct or name.etl_name or is_elsewhere(name) or opened.is_direct_avoided():
            return None
        try:
            if self.bucket(name, once=True).remote:
                return None
            known = self.map(once=True)
        except DatapipesError as error:
            if is_busy(error):  # the proxy will be asked for the object anyway, as often as time allows
                self.avoid_direct(10.0)
            return None
        return known if known.placement is not None else None

    def avoid_direct(self, seconds: float = 60.0) -> None:
        """Route everything through the proxy for a while: targets refuse, or cannot be reached."""
        self.opened().avoid_until = time.monotonic() + seconds


def _bucket_key(name: AisName) -> tuple[str | None, ...]:
    return name[0], name[1], name[2], name[5]
