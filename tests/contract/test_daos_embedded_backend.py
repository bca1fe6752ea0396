from __future__ import annotations

from pathlib import Path

import pytest

from datapipes.backends.base import Backend
from datapipes.backends.daos import ROOT_VARIABLE, DaosBackend

from .directory_hooks import OverDirectory


class TestDaosEmbeddedBackend(OverDirectory):
    @pytest.fixture(autouse=True)
    def container(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.beginning = tmp_path / "tank/train", "daos://tank/train/"
        self.root.mkdir(parents=True)
        monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))

    def make(self) -> Backend:
        return DaosBackend("tank", "train")

    def missing_container(self) -> tuple[Backend, str]:
        return DaosBackend("tank", "missing"), "daos://tank/missing/a"
