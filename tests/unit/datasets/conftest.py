"""What tests over an embedded AIStore share; each module fills a server of its own, ``running``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from datapipes.testing.ais_server import AisServer


@pytest.fixture
def server(running: AisServer) -> AisServer:
    """The module's server, with every switch off and nothing counted."""
    running.clear()
    return running


@pytest.fixture
def client(server: AisServer) -> Iterator[Any]:
    """The aistore SDK's client of it."""
    sdk = pytest.importorskip("aistore.sdk")
    made = sdk.Client(server.url)
    yield made
    made._request_client.session_manager.session.close()
