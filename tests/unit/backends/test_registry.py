from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from datapipes.backends.memory import MemoryBackend
from datapipes.backends.registry import backend_for, known_schemes, register_backend
from datapipes.errors import UrlError
from datapipes.urls import parse_url


def memory_of(url: str) -> MemoryBackend:
    return MemoryBackend(parse_url(url).container)


@pytest.fixture
def scheme() -> Iterator[str]:
    """A scheme of this test's own, served from memory."""
    register_backend("teststore", memory_of)
    yield "teststore"
    register_backend("teststore", memory_of)


def test_backend_for_urls_of_one_container_is_one_back_end() -> None:
    one = backend_for("memory://one/a")
    assert backend_for("memory://one/b/c") is one
    assert backend_for("MEMORY://one") is one
    assert backend_for("memory://two/a") == MemoryBackend("two")


def test_backend_for_plain_path_and_file_url_is_the_same() -> None:
    assert backend_for("/data/a").scheme == "file"
    assert backend_for("data/a") is backend_for("file:///other/b")


def test_backend_for_daos_serves_the_container_of_the_url() -> None:
    backend = backend_for("daos://tank/train/dir/a")
    assert backend.scheme == "daos"
    assert backend is backend_for("daos://tank/train/b")
    assert backend != backend_for("daos://tank/test/b")


def test_backend_for_unknown_scheme_names_those_known() -> None:
    with pytest.raises(UrlError, match=r"'nostore'.*daos://, file://, memory://") as caught:
        backend_for("nostore://a/b")
    assert caught.value.url == "nostore://a/b"


@pytest.mark.parametrize("url", ["", "daos://pool", "file://relative/a", "memory:///a", "daos://../x/y"])
def test_backend_for_malformed_url_raises_url_error(url: str) -> None:
    with pytest.raises(UrlError):
        backend_for(url)


def test_register_backend_adds_a_scheme_and_replaces_what_was_made(scheme: str) -> None:
    assert scheme in known_schemes()
    first = backend_for(f"{scheme}://box/a")
    assert first == MemoryBackend("box")
    register_backend(scheme, lambda url: MemoryBackend("instead"))
    assert backend_for(f"{scheme}://box/a") == MemoryBackend("instead")
    assert known_schemes() == sorted(known_schemes())


def test_importing_back_ends_loads_neither_torch_nor_the_engine() -> None:
    code = (
        "import sys, datapipes.backends; from datapipes.backends.memory import MemoryBackend; "
        "sys.exit(bool({'torch', 'datapipes._dfs', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_back_ends_load_no_torch() -> None:
    code = (
        "import sys, datapipes.backends.wrappers, datapipes.backends.local, datapipes.backends.daos; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
