"""What a back end's author fills in to run ``BackendContract``, and what all its parts share."""

from __future__ import annotations

import os
import pickle
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, settings

from datapipes.backends.base import Backend
from datapipes.backends.latency import LatencyBackend
from datapipes.errors import DatapipesError
from datapipes.records import FileEntry, ReadRequest, ReadResult
from datapipes.urls import format_url, parse_url

__all__ = [
    "NO_URLS",
    "BackendHooks",
    "check_error",
    "check_good",
    "entries_of",
    "fault_of",
    "in_thread",
    "nothing",
    "open_descriptors",
    "quick",
    "raises_exactly",
    "requests_of",
    "resident_bytes",
    "wait_until",
]


NO_URLS = [
    "nostore://a/b",  # another store's
    "{root}/a/../../etc/passwd",  # leads out of the container
    "{prefix}/%zz",  # no escape that we know
    "{prefix}/a#b",
    "{prefix}/a?b=c",  # options, which a store of plain files does not take
    "{prefix}/a\0b",
    "{prefix}/\ud800",  # a letter that has no bytes
    "",
]
"""What names nothing in any store; see :meth:`BackendHooks.no_url`."""


quick = settings(
    max_examples=20,
    deadline=None,
    # Hooks make a new directory at every call, and several stores inherit these tests: both are meant.
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
)
"""Settings of the property tests."""


def nothing() -> None:
    """Nothing has to be set up in a new process."""


class BackendHooks(ABC):
    """The store under test, and ways to its data that go round the back end: a fault must not hide itself."""

    names_are_bytes = True
    """Whether names that are not UTF-8 can exist in the store at all."""

    @abstractmethod
    def make(self) -> Backend:
        """A back end never used before; equal to every other one made within the same test."""

    @abstractmethod
    def seed(self, files: Mapping[str, bytes]) -> str:
        """Put ``files`` (raw names to contents) into a new, empty directory and return its URL, without ``/``
        at the end. A name that ends with ``/`` is an empty directory, where the store has such a thing."""

    @abstractmethod
    def alter(self, url: str, data: bytes | None) -> None:
        """Replace the file at ``url``, in place, or with None remove it, behind the back end's back."""

    @abstractmethod
    def peek(self, url: str) -> bytes | None:
        """What the store holds at ``url``; None when there is no file."""

    @abstractmethod
    def missing_container(self) -> tuple[Backend, str] | None:
        """A back end of a container that does not exist, and a URL in it; None where the scheme has none."""

    def slow(self, delay_s: float) -> Backend:
        """The store, answering each open for reading only after ``delay_s``. Slow it where the back end under
        test does its waiting, if that can be done."""
        return LatencyBackend(self.make(), open_s=delay_s)

    def child_setup(self) -> Callable[[], object]:
        """Picklable; called first in a process that starts afresh. For stores that live in a process."""
        return nothing

    def url(self, prefix: str, name: str) -> str:
        """The URL of a raw ``name`` below ``prefix``."""
        scheme, container, path, _ = parse_url(prefix)
        return format_url(scheme, container, f"{path}/{name}" if path else name)

    def no_url(self, kind: str) -> str:
        """One of ``NO_URLS``, in this store."""
        prefix = self.seed({"a": b"a"})
        scheme, container, _, _ = parse_url(prefix)
        return kind.format(root=f"{scheme}://{container}", prefix=prefix)

    def seeded(self, count: int, size: int = 20) -> tuple[str, dict[str, bytes]]:
        """(prefix, contents by URL) of ``count`` files, no two alike, in name order."""
        files = {f"{i // 50:03}/{i:05}.bin": (b"%d " % i * size)[:size] for i in range(count)}
        prefix = self.seed(files)
        return prefix, {self.url(prefix, name): data for name, data in files.items()}


def fault_of(error: BaseException) -> type[BaseException]:
    """Our class of an error. A store may raise one of its own that derives from it, and from what its own
    client raises for the same fault."""
    return next(kind for kind in type(error).__mro__ if kind.__module__ == DatapipesError.__module__)


def check_error(error: BaseException) -> None:
    """What every error about data promises: url, operation, and a life after pickling and rebuilding."""
    assert isinstance(error, DatapipesError)
    assert error.url is not None
    assert error.operation
    assert repr(error.url)[1:-1] in str(error)
    rebuilt = type(error)(str(error))  # what DataLoader does with a worker's exception
    assert str(rebuilt) == str(error)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert (copy.url, copy.operation, copy.errno) == (error.url, error.operation, error.errno)


@contextmanager
def raises_exactly(kind: type[DatapipesError]) -> Iterator[pytest.ExceptionInfo[DatapipesError]]:
    """One fault, one type: no other of ours, no cousin."""
    with pytest.raises(DatapipesError) as caught:
        yield caught
    assert fault_of(caught.value) is kind, f"{type(caught.value).__name__}: {caught.value}"
    check_error(caught.value)


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether ``condition`` comes true in time."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True


def entries_of(files: Mapping[str, bytes], url: Callable[[str], str]) -> list[FileEntry]:
    """The listing that ``files`` should give, by plain sorting of the names' bytes."""
    names = sorted(
        (n for n in files if not n.endswith("/")), key=lambda n: n.encode("utf-8", "surrogateescape")
    )
    return [FileEntry(url(name), len(files[name])) for name in names]


def requests_of(urls: Mapping[str, bytes]) -> list[ReadRequest]:
    """A request for each file, its size unknown."""
    return [ReadRequest(url) for url in urls]


def open_descriptors() -> int:
    """File descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    """Memory of this process in RAM."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def in_thread(work: Callable[[], object]) -> threading.Thread:
    """A started thread that does ``work``."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def check_good(results: list[ReadResult], contents: Mapping[str, bytes]) -> None:
    """Every result holds what its file does."""
    for result in results:
        assert result.error is None
        assert result.data is not None
        assert bytes(result.data) == contents[result.request.url]
