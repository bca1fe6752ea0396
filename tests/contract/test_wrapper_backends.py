"""Every wrapper keeps the contract itself, over a quick store and over one with threads."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from datapipes.backends.base import Backend
from datapipes.backends.wrappers import (
    CountingBackend,
    Fault,
    FaultBackend,
    LatencyBackend,
    RetryBackend,
    WrapperBackend,
)
from datapipes.testing.backend_hooks import BackendHooks

from .test_local_backend import OverLocal
from .test_memory_backend import OverMemory

ELSEWHERE = Fault(url="*/other than all URLs here", errno=errno.EIO)
HICCUPS = tuple(Fault(errno=errno.ESTALE, first=7**k, times=1) for k in range(6))


class Wrapped(BackendHooks):
    """``over`` another back end in all hooks that make one."""

    def over(self, inner: Backend) -> Backend:
        raise NotImplementedError

    def make(self) -> Backend:
        return self.over(super().make())  # type: ignore[safe-super]

    def slow(self, delay_s: float) -> Backend:
        return self.over(super().slow(delay_s))

    def missing_container(self) -> tuple[Backend, str] | None:
        missing = super().missing_container()  # type: ignore[safe-super]
        return missing and (self.over(missing[0]), missing[1])


class Bare(Wrapped):
    def over(self, inner: Backend) -> Backend:
        return WrapperBackend(inner)


class Late(Wrapped):
    def over(self, inner: Backend) -> Backend:
        return LatencyBackend(inner, open_s=0.0001, read_s=0.0001, list_s=0.0001)


class Faulty(Wrapped):
    def over(self, inner: Backend) -> Backend:
        return FaultBackend(inner, (ELSEWHERE,))


class Counting(Wrapped):
    @pytest.fixture(autouse=True)
    def count(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.counted: Path = tmp_path_factory.mktemp("count") / "reads"

    def over(self, inner: Backend) -> Backend:
        return CountingBackend(inner, str(self.counted))


class Retrying(Wrapped):
    def over(self, inner: Backend) -> Backend:
        return RetryBackend(FaultBackend(inner, HICCUPS), retry_budget_s=0.3, first_wait_s=0.001)


class TestWrapperOverLocal(Bare, OverLocal): ...


class TestLatencyOverMemory(Late, OverMemory): ...


class TestLatencyOverLocal(Late, OverLocal): ...


class TestFaultOverMemory(Faulty, OverMemory): ...


class TestCountingOverLocal(Counting, OverLocal): ...


class TestRetryOverLocal(Retrying, OverLocal): ...
