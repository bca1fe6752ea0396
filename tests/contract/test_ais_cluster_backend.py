"""The contract on a real AIStore cluster, at ``AIS_ENDPOINT``: set and not to be reached is a failure."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

pytest.importorskip("aistore", reason="needs the ais extra")
pytest.importorskip("pycurl", reason="needs the ais extra")

import requests
from aistore.sdk import Client
from aistore.sdk.errors import ErrObjNotFound

from datapipes.backends.ais import AisBackend
from datapipes.backends.ais_batches import GetBatch
from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_names import parse_ais_url
from datapipes.backends.base import Backend
from datapipes.testing.backend_contract import BackendContract

ENDPOINT = os.environ.get("AIS_ENDPOINT", "")

pytestmark = [pytest.mark.ais, pytest.mark.skipif(not ENDPOINT, reason="AIS_ENDPOINT names no cluster")]

_places = itertools.count()


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    made = Client(ENDPOINT).bucket(f"contract-{uuid.uuid4().hex[:12]}").create()
    yield made
    made.delete()


class TestAisCluster(BackendContract):
    names_are_bytes = False
    get_batch: GetBatch | None = None

    @pytest.fixture(autouse=True)
    def place(self, bucket: Any) -> None:
        self.bucket = bucket

    def make(self) -> Backend:
        return AisBackend(AisCluster(ENDPOINT), get_batch=self.get_batch)

    def seed(self, files: Mapping[str, bytes]) -> str:
        place = f"place{next(_places)}"

        def put(item: tuple[str, bytes]) -> None:
            self.put(f"{place}/{item[0]}", item[1])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, [item for item in files.items() if not item[0].endswith("/")]))
        return f"ais://{self.bucket.name}/{place}"

    def put(self, name: str, data: bytes) -> None:
        """To where the proxy says, under the name as it is: a redirect spells some names as other ones."""
        path = f"/v1/objects/{self.bucket.name}/{quote(name)}"
        asked = requests.put(f"{ENDPOINT}{path}?provider=ais", allow_redirects=False, timeout=20)
        target = urlsplit(asked.headers["Location"])
        url = f"{target.scheme}://{target.netloc}{path}?{target.query}"
        requests.put(url, data=data, timeout=20).raise_for_status()

    def alter(self, url: str, data: bytes | None) -> None:
        thing = self.bucket.object(parse_ais_url(url).name)
        if data is None:
            thing.delete()
        else:
            self.put(parse_ais_url(url).name, data)

    def peek(self, url: str) -> bytes | None:
        try:
            content: bytes = self.bucket.object(parse_ais_url(url).name).get_reader().read_all()
        except ErrObjNotFound:
            return None
        return content

    def missing_container(self) -> tuple[Backend, str] | None:
        return self.make(), f"ais://never-made-{uuid.uuid4().hex[:8]}/a"


class TestAisClusterByGetBatch(TestAisCluster):
    get_batch = GetBatch()
