"""The hooks of ``BackendContract`` for AIStore: one bucket for each test class, seeded without HTTP."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest

from datapipes.backends.ais import AisBackend
from datapipes.backends.ais_batches import GetBatch
from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_names import parse_ais_url
from datapipes.backends.base import Backend
from datapipes.testing.ais_server import AisServer
from datapipes.testing.backend_contract import BackendContract

_places = itertools.count()


class OverAis(BackendContract):
    """AIStore embedded, a proxy and two targets in a process of their own."""

    names_are_bytes = False  # the cluster lists names as UTF-8

    server: AisServer
    get_batch: GetBatch | None = None

    @pytest.fixture(autouse=True)
    def fresh(self, ais_server: AisServer) -> None:
        ais_server.clear()
        # Connections stay open: how many must not depend on where batches happened to go.
        ais_server.choose_batch_target(0 if self.get_batch else None)
        self.server = ais_server
        if not ais_server.store.has_bucket("contract"):
            ais_server.store.create_bucket("contract")

    def make(self) -> Backend:
        return AisBackend(AisCluster(self.server.url), get_batch=self.get_batch)

    def seed(self, files: Mapping[str, bytes]) -> str:
        place = f"place{next(_places)}"
        for name, data in files.items():
            if not name.endswith("/"):
                self.server.store.put("contract", f"{place}/{name}", data)
        return f"ais://contract/{place}"

    def alter(self, url: str, data: bytes | None) -> None:
        name = parse_ais_url(url).name
        if data is None:
            assert self.server.store.delete("contract", name)
        else:
            self.server.store.put("contract", name, data)

    def peek(self, url: str) -> bytes | None:
        try:
            return self.server.store.get("contract", parse_ais_url(url).name)
        except FileNotFoundError:
            return None

    def missing_container(self) -> tuple[Backend, str] | None:
        return self.make(), "ais://never-made/a"

    def slow(self, delay_s: float) -> Backend:
        name = "*" if self.get_batch else "contract/*"  # a batch names no object
        self.server.delay(delay_s * 1000, node="target", method="GET", name=name)
        return self.make()
