from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("aistore", reason="needs the ais extra")
pytest.importorskip("pycurl", reason="needs the ais extra")
pytest.importorskip("aiohttp", reason="needs the ais-server extra")

from datapipes.backends.ais_batches import GetBatch
from datapipes.testing.ais_server import AisServer

from .ais_hooks import OverAis


@pytest.fixture(scope="module")
def ais_server() -> Iterator[AisServer]:
    with AisServer(process=True, name_conflicts=False) as server:
        yield server


class TestAisBackend(OverAis):
    pass


class TestAisBackendByGetBatch(OverAis):
    get_batch = GetBatch(size=8)  # the more requests fit into max_in_flight, the more connections are opened
