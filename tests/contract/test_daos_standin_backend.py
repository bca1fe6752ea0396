"""The contract on libdfs, as its stand-in has it."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator

import pytest

from datapipes.backends.base import Backend
from datapipes.backends.daos import DaosBackend

from .directory_hooks import OverDirectory
from .standin import StandIn, available

pytestmark = available

_containers = itertools.count()


class TestDaosStandInBackend(OverDirectory):
    @pytest.fixture(autouse=True)
    def container(self, standin: StandIn, fresh_forkserver: None) -> Iterator[None]:
        self.standin = standin
        self.name = f"train{next(_containers)}"
        self.root, self.beginning = standin.root / "tank" / self.name, f"daos://tank/{self.name}/"
        self.root.mkdir(parents=True)
        yield
        gc.collect()
        assert not standin.left()

    def make(self) -> Backend:
        return DaosBackend("tank", self.name)

    def missing_container(self) -> tuple[Backend, str]:
        return DaosBackend("tank", "missing"), "daos://tank/missing/a"
