from __future__ import annotations

from pathlib import Path

import pytest

from datapipes.backends.base import Backend
from datapipes.backends.local import LocalBackend

from .directory_hooks import OverDirectory


class OverLocal(OverDirectory):
    @pytest.fixture(autouse=True)
    def directory(self, tmp_path: Path) -> None:
        self.root, self.beginning = tmp_path, f"file://{tmp_path}/"

    def make(self) -> Backend:
        return LocalBackend()

    def missing_container(self) -> tuple[Backend, str] | None:
        return None  # file URLs have no container

    def slow(self, delay_s: float) -> Backend:
        return LocalBackend(open_delay_us=int(delay_s * 1e6))


class TestLocalBackend(OverLocal):
    pass
