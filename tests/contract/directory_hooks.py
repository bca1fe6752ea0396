"""Hooks of back ends whose data lie in a directory: what is seeded and looked at goes through ``os``."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from datapipes.testing.backend_contract import BackendContract
from datapipes.urls import parse_url, quote_name


class OverDirectory(BackendContract):
    """``root`` is the directory that the URLs of ``beginning`` lead into."""

    root: Path
    beginning: str

    @pytest.fixture(autouse=True)
    def places(self) -> None:
        self._places = itertools.count()

    def seed(self, files: Mapping[str, bytes]) -> str:
        place = f"place{next(self._places)}"
        (self.root / place).mkdir()
        for name, data in files.items():
            path = os.path.join(self.root, place, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            if not name.endswith("/"):
                with open(path, "wb") as file:
                    file.write(data)
        return f"{self.beginning}{quote_name(place)}"

    def path(self, url: str) -> str:
        return os.path.join(self.root, parse_url(url).path.removeprefix(str(self.root) + "/"))

    def alter(self, url: str, data: bytes | None) -> None:
        if data is None:
            os.remove(self.path(url))
        else:
            with open(self.path(url), "wb") as file:
                file.write(data)

    def peek(self, url: str) -> bytes | None:
        try:
            with open(self.path(url), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None
