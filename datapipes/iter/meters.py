"""``stats()`` of a pipe: what all copies of it have counted, in every worker process, while they run."""

from __future__ import annotations

import os
import sys
import time
import weakref
from typing import Any

from torch.utils.data import get_worker_info

from datapipes.jobs import Job

__all__ = ["Meter", "read_meters"]

COUNTERS = ("items", "bytes", "errors", "skipped", "wait_s")
GAUGES = ("depth",)
"""Summed over workers as they were told last; the rest is summed over everything that was done."""

WRITE_EVERY_S = 0.5

_live: dict[str, weakref.WeakSet[Meter]] = {}
"""The meters of this process by pipe, so that stats() is exact here in the middle of an iteration."""


class Meter:
    """Adds what one stage counts to the job's table, where the main process finds it."""

    def __init__(self, job: Job, key: str, stage: Any) -> None:
        info = get_worker_info()
        self._slot = 0 if info is None else info.id
        self._counters = job.counters(key, COUNTERS + GAUGES)
        self._stage = stage
        self._pid = os.getpid()
        self._written: dict[str, float] = dict.fromkeys(COUNTERS, 0.0)
        self._next = time.monotonic() + WRITE_EVERY_S
        _live.setdefault(key, weakref.WeakSet()).add(self)

    def tick(self) -> None:
        """Write if it is time to."""
        now = time.monotonic()
        if now >= self._next:
            self._next = now + WRITE_EVERY_S
            self.write()

    def write(self) -> None:
        """Bring the table up to date."""
        if os.getpid() != self._pid or sys.is_finalizing():
            return  # a forked child holds its parent's iteration, which is not its own; or the job is over
        stats = self._stage.stats()
        more = {name: stats.get(name, 0.0) - self._written[name] for name in COUNTERS}
        self._written = {name: stats.get(name, 0.0) for name in COUNTERS}
        before = self._counters.of_slot(self._slot)
        more.update({name: stats.get(name, 0.0) - before[name] for name in GAUGES})
        self._counters.add(self._slot, more)


def read_meters(job: Job, key: str) -> dict[str, float]:
    """The sums over all workers, up to half a second old for those in other processes."""
    for meter in _live.get(key, ()):
        meter.write()
    return job.counters(key, COUNTERS + GAUGES).total()
