from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from functools import partial

import pytest

from datapipes.backends.base import Backend
from datapipes.backends.memory import STORES, MemoryBackend, MemoryStore
from datapipes.testing.backend_contract import BackendContract
from datapipes.urls import parse_url

NAME = "contract"
_places = itertools.count()


def fill(files: Mapping[str, bytes]) -> None:
    store = STORES.setdefault(NAME, MemoryStore())
    for path, data in files.items():
        if path.endswith("/"):
            store.put(path + "x", data)
            store.pop(path + "x")
        else:
            store.put(path, data)


class OverMemory(BackendContract):
    """The hooks; inherited by wrappers that are tested over memory."""

    @pytest.fixture(autouse=True)
    def store(self) -> None:
        STORES[NAME] = MemoryStore()

    def make(self) -> Backend:
        return MemoryBackend(NAME)

    def seed(self, files: Mapping[str, bytes]) -> str:
        place = f"place{next(_places)}"
        fill({f"{place}/": b"", **{f"{place}/{name}": data for name, data in files.items()}})
        return f"memory://{NAME}/{place}"

    def alter(self, url: str, data: bytes | None) -> None:
        if data is None:
            assert STORES[NAME].pop(parse_url(url).path)
        else:
            assert STORES[NAME].put(parse_url(url).path, data) == 0

    def peek(self, url: str) -> bytes | None:
        return STORES[NAME].files.get(parse_url(url).path)

    def missing_container(self) -> tuple[Backend, str] | None:
        return MemoryBackend("never-made"), "memory://never-made/a"

    def child_setup(self) -> Callable[[], object]:
        return partial(fill, dict(STORES[NAME].files))


class TestMemoryBackend(OverMemory):
    pass
