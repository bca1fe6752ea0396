"""What one process has of a cluster: the SDK's client, the cluster map, the buckets seen so far."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from datapipes.backends.ais_errors import client
from datapipes.backends.ais_map import BucketFacts, ClusterMap, Origin, map_from_sdk, origin_of
from datapipes.backends.ais_names import AisName, bucket_text
from datapipes.errors import DatapipesError, OptionError

if TYPE_CHECKING:
    from datapipes.backends.ais_cluster import AisCluster

__all__ = ["Opened"]


class Opened:
    """Made by ``AisCluster.opened``; belongs to the process that made it. Threads share it."""

    def __init__(self, spec: AisCluster) -> None:
        self.pid = os.getpid()
        self.endpoint = spec.endpoint
        origin = origin_of(spec.endpoint)
        assert origin is not None  # noqa: S101 - the specification was checked
        self.origin: Origin = origin
        self.client = _sdk_client(spec)
        self.token: str = self.client.bucket("x").client.token or ""
        if not (self.token.isascii() and self.token.isprintable()):
            raise OptionError("the token of AIStore holds letters that no header can carry")
        self.header_lines = (f"Authorization: Bearer {self.token}",) if self.token else ()
        self.map: ClusterMap | None = None
        self.buckets: dict[str, BucketFacts] = {}
        self.avoid_until = 0.0
        self._asked_at = float("-inf")
        self._lock = threading.Lock()
        self._lock_of_thread = threading.Lock()
        self._refreshing = False

    @property
    def http(self) -> Any:
        """The SDK's session of ``requests``: with its TLS settings and its connections, without retries."""
        return self.client.bucket("x").client.session_manager.session

    @property
    def timeout_s(self) -> Any:
        """In the form that ``requests`` takes."""
        return self.client.bucket("x").client.timeout

    def sdk_bucket(self, name: AisName) -> Any:
        """The SDK's ``Bucket``."""
        space = None
        if name.namespace:
            uuid, _, part = name.namespace[1:].partition("#")
            space = client("aistore.sdk.types").Namespace(uuid=uuid, name=part)
        return self.client.bucket(name.bucket, provider=name.provider, namespace=space)

    def is_direct_avoided(self) -> bool:
        """Whether all is to go through the proxy for now."""
        return self.avoid_until > time.monotonic()

    def refresh(self, spec: AisCluster, *, once: bool = False) -> ClusterMap:
        """The cluster map, asked for anew unless that was done a moment ago."""
        with self._lock:
            if self.map is None or time.monotonic() - self._asked_at >= spec.refresh_s:
                smap = spec.call(_ask_map, url=self.endpoint, operation="open", once=once)
                self._asked_at = time.monotonic()
                self.map = map_from_sdk(smap)
            return self.map

    def refresh_soon(self, spec: AisCluster) -> None:
        """:meth:`refresh` in a thread; nothing if one is at it, or was a moment ago."""
        with self._lock_of_thread:
            if self._refreshing or time.monotonic() - self._asked_at < spec.refresh_s:
                return
            self._refreshing = True

        def work() -> None:
            try:
                self.refresh(spec)
            except DatapipesError:
                self._asked_at = time.monotonic()  # the old map stays in use, and is asked about again later
            finally:
                self._refreshing = False

        threading.Thread(target=work, name="datapipes-ais-map", daemon=True).start()

    def bucket_facts(
        self, spec: AisCluster, name: AisName, url: str, operation: str, *, once: bool = False
    ) -> BucketFacts:
        """As ``AisCluster.bucket``."""
        text = bucket_text(name)
        found = self.buckets.get(text)
        if found is None:

            def ask(opened: Opened) -> BucketFacts:
                headers = opened.sdk_bucket(name).head()
                return BucketFacts.of(name, headers.get("Ais-Bucket-Props", ""))

            found = self.buckets[text] = spec.call(ask, url=url, operation=operation, once=once)
        return found


def _ask_map(opened: Opened) -> Any:
    return opened.client.bucket("x").client.get_smap(force_update=True)


def _sdk_client(spec: AisCluster) -> Any:
    """The SDK's client, which tries once: we try again ourselves, inside our own budget."""
    sdk, settings, tenacity = client("aistore.sdk"), client("aistore.sdk.retry_config"), client("tenacity")
    once = settings.RetryConfig(
        http_retry=client("urllib3").Retry(0, read=False),
        network_retry=tenacity.Retrying(
            stop=tenacity.stop_after_attempt(1), retry=tenacity.retry_if_exception_type(()), reraise=True
        ),
    )
    made = sdk.Client(
        spec.endpoint + "/",
        skip_verify=spec.skip_verify,
        ca_cert=spec.ca_cert,
        client_cert=spec.client_cert,
        timeout=spec.timeout_s,
        retry_config=once,
        token=spec.token,
    )
    session = made.bucket("x").client.session_manager.session
    # Also keeps a .netrc from replacing the token.
    session.trust_env = spec.environment_proxies
    return made
