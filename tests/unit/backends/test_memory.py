from __future__ import annotations

import pickle

import pytest

from datapipes.backends.memory import MemoryBackend
from datapipes.errors import ContainerMissingError


def test_store_is_made_by_writing_shared_by_name_and_gone_after_delete() -> None:
    backend = MemoryBackend("made")
    backend.delete()  # of nothing: fine
    with pytest.raises(ContainerMissingError, match="made by writing"):
        backend.read("memory://made/a")
    backend.write("memory://made/a", b"1")
    assert MemoryBackend("made").read("memory://made/a") == b"1"
    assert pickle.loads(pickle.dumps(backend)).read("memory://made/a") == b"1"
    backend.delete()
    with pytest.raises(ContainerMissingError):
        list(backend.list("memory://made/"))


def test_listing_shows_the_store_as_it_was_when_begun_less_what_was_removed() -> None:
    backend = MemoryBackend("changing")
    for name in "abcd":
        backend.write(f"memory://changing/{name}", b"")
    entries = backend.list("memory://changing")
    assert next(entries).url == "memory://changing/a"
    backend.remove("memory://changing/b")
    backend.write("memory://changing/c2", b"")
    assert [entry.url for entry in entries] == ["memory://changing/c", "memory://changing/d"]


def test_written_data_is_a_copy() -> None:
    data = bytearray(b"abc")
    backend = MemoryBackend("copying")
    backend.write("memory://copying/a", data)
    data[:] = b"xyz"
    assert backend.read("memory://copying/a") == b"abc"
