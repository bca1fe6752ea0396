"""A memory store for each test, and a probe before it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from datapipes.backends.memory import MemoryBackend
from datapipes.backends.registry import backend_for
from datapipes.testing.probe_backend import Probe


class Store:
    """Files whose content follows from their number."""

    def __init__(self) -> None:
        self.name = f"unit-{uuid.uuid4().hex}"
        self.backend = MemoryBackend(self.name)
        self.root = f"memory://{self.name}"

    def fill(self, count: int, folder: str = "d") -> list[str]:
        """Write ``count`` files; their URLs in order."""
        urls = [f"{self.root}/{folder}/file{i:06}" for i in range(count)]
        for url in urls:
            self.backend.write(url, self.content(url))
        return urls

    @staticmethod
    def content(url: str) -> bytes:
        return url[-6:].encode() * 3

    def items(self, urls: list[str]) -> list[Any]:
        return [(url, self.content(url)) for url in urls]


@pytest.fixture
def store() -> Iterator[Store]:
    made = Store()
    made.backend.write(f"{made.root}/empty", b"")
    yield made
    made.backend.delete()


@pytest.fixture
def probe() -> Probe:
    return Probe(backend_for)
