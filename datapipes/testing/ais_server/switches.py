"""The switches and counters of a running server, as methods."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

from datapipes.testing.ais_server.faults import Request
from datapipes.testing.ais_server.names import Bck

__all__ = ["Switches"]


class Switches(abc.ABC):
    """What can be made to go wrong, and what was asked. All of it takes effect at once.

    ``name`` is an ``fnmatch`` pattern of ``bucket/object``. ``node`` is ``"proxy"``, ``"target"``, the
    number of one target (``"0"``), or ``""`` for all. ``times`` is how often, None for always.
    """

    @abc.abstractmethod
    def control(self, **asked: Any) -> Any:
        """Asks the running server for something."""

    def delay(
        self, ms: float, *, name: str = "*", node: str = "", method: str = "", times: int | None = None
    ) -> None:
        """Answers begin ``ms`` milliseconds later."""
        self._fault(effect="delay", ms=ms, name=name, node=node, method=method, times=times)

    def fail(
        self,
        status: int,
        *,
        name: str = "*",
        node: str = "target",
        method: str = "",
        times: int | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        """An error instead of the answer: 500, 503, 404, or 429 with ``Retry-After``."""
        asked = {"name": name, "node": node, "method": method, "times": times}
        self._fault(effect="status", status=status, retry_after_s=retry_after_s, **asked)

    def truncate(
        self, after: int, *, name: str = "*", node: str = "target", method: str = "", times: int | None = None
    ) -> None:
        """The connection closes after ``after`` bytes of the body, whatever length the headers promised."""
        self._fault(effect="truncate", after=after, name=name, node=node, method=method, times=times)

    def drop(
        self,
        *,
        after_headers: bool = False,
        name: str = "*",
        node: str = "target",
        method: str = "",
        times: int | None = None,
    ) -> None:
        """The connection closes without an answer, or right after its headers."""
        if after_headers:
            self.truncate(0, name=name, node=node, method=method, times=times)
        else:
            self._fault(effect="drop", name=name, node=node, method=method, times=times)

    def stall(
        self,
        *,
        after: int | None = None,
        name: str = "*",
        node: str = "target",
        method: str = "",
        times: int | None = None,
    ) -> None:
        """The server falls silent, before the headers or after ``after`` bytes of the body, for good."""
        self._fault(effect="stall", after=after, name=name, node=node, method=method, times=times)

    def clear(self) -> None:
        """Switches all of the above off, and forgets the requests that came."""
        self.control(do="clear")

    def set_down(self, target: int, *, down: bool = True) -> None:
        """A target refuses connections, and closes those it has; or listens again at its old port."""
        self.control(do="down", target=target, down=down)

    def set_in_map(self, target: int, *, present: bool) -> None:
        """Takes a target out of the cluster map, or puts it back: the map's version goes up, owners change.

        What lay on a target lies on its new owner at once, as after a rebalance; the old one answers 404.
        """
        self.control(do="map", target=target, present=present)

    def refuse_direct(self, status: int = 401) -> None:
        """Targets answer nothing but what a proxy sent them; the rest gets ``status``, 0 allows all again."""
        self.control(do="direct", status=status)

    def redirect_to(self, url: str | None) -> None:
        """The proxy sends clients to this address instead of the owner's; None ends it."""
        self.control(do="redirect", url=url)

    def make_cold(self, bucket: Bck, names: Sequence[str] | None = None) -> None:
        """Objects of a remote bucket (``Bck("name", "aws")``) are in its remote store only: these, or all.

        Listings show them as not cached; a GET by redirect, or straight at the owner, brings them in.
        """
        self.control(do="cold", bucket=bucket.folder, names=None if names is None else list(names))

    def choose_batch_target(self, target: int | None) -> None:
        """The target that answers every Get-Batch from now on; None: one at random, as a cluster does it."""
        self.control(do="batch_target", target=target)

    def requests(self) -> list[Request]:
        """The requests that came since the start or :meth:`clear`, oldest first, the last 100,000."""
        return [Request(**seen) for seen in self.control(do="requests")]

    def counts(self) -> dict[str, int]:
        """How many requests came, by node kind and method: ``{"proxy GET": 3, "target GET": 3}``."""
        counted: dict[str, int] = self.control(do="counts")
        return counted

    def _fault(self, **asked: Any) -> None:
        self.control(do="fault", **asked)
