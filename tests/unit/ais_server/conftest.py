"""An embedded AIStore in a thread, and one in a process of its own."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from datapipes.testing.ais_server import AisServer

NEEDED = ("aiohttp", "msgspec", "xxhash", "aistore")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

# Without these extras none of the files can be imported; test_needs.py is skipped, and says so.
collect_ignore_glob = ["test_[!n]*.py"] if MISSING else []


@pytest.fixture
def server(tmp_path: Path) -> Iterator[AisServer]:
    from datapipes.testing.ais_server import AisServer

    with AisServer(tmp_path / "ais") as running:
        yield running


@pytest.fixture(scope="module")
def process_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AisServer]:
    from datapipes.testing.ais_server import AisServer

    with AisServer(tmp_path_factory.mktemp("ais"), process=True) as running:
        yield running


@pytest.fixture
def client(server: AisServer) -> Iterator[Any]:
    """The SDK's client of that server."""
    sdk = pytest.importorskip("aistore.sdk")
    made = sdk.Client(server.url)
    yield made
    made._request_client.session_manager.session.close()
