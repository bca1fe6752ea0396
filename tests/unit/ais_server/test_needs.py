"""Whether the tests of this folder can run at all."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("name", ["aiohttp", "msgspec", "xxhash", "aistore"])
def test_what_the_server_and_its_tests_need_is_installed(name: str) -> None:
    assert pytest.importorskip(name, reason="needs the extras ais and ais-server")
