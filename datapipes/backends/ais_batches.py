"""Get-Batch: many objects of one bucket in one tar, which comes in while it is made.

Entries come in the order of the request and are called ``bucket/object[/member]``. A missing one is an empty
``__404__/...`` while there are few of them; beyond that the tar ends early, in good order. So entries are
matched one by one to what was asked for, and an empty one is never believed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from datapipes.backends.ais_names import AisName, bucket_query

if TYPE_CHECKING:
    from datapipes.transport.http import BatchRequest

__all__ = ["GetBatch", "batch_request", "is_batchable"]

_MOST_BYTES = 16 << 20
"""A larger object is better read as ranges, side by side."""


class GetBatch(NamedTuple):
    """Read by Get-Batch.

    Attributes:
        size: objects of one request; 0: a quarter of ``max_in_flight``, so that four are under way.
        colocation: a hint to the cluster, see the SDK's ``Colocation``.
    """

    size: int = 0
    colocation: int = 0


def is_batchable(name: AisName, size: int) -> bool:
    """Whether the whole of ``name``, of ``size`` bytes if that is not negative, may come in a batch."""
    if name.etl_name is not None or name.archpath == "" or size == 0 or size > _MOST_BYTES:
        return False
    try:
        f"{name.name}{name.archpath or ''}".encode()
    except UnicodeEncodeError:
        return False  # JSON holds text
    return True


def batch_request(endpoint: str, names: Sequence[AisName], colocation: int) -> BatchRequest:
    """The request for ``names``, all of one bucket, to the proxy at ``endpoint``."""
    from datapipes.transport.http import BatchRequest  # noqa: PLC0415 - loads libcurl

    first = names[0]
    entries = []
    for name in names:
        entry = {"objname": name.name}
        if name.archpath is not None:
            entry["archpath"] = name.archpath
        entries.append(entry)
    query = bucket_query(first.provider, first.namespace)
    if colocation:
        query += f"&coloc={colocation}"
    asked = {"in": entries, "mime": ".tar", "coer": True, "onob": False, "strm": True}
    url = f"{endpoint}/v1/ml/moss/{first.bucket}?{query}"
    return BatchRequest(url, json.dumps(asked).encode(), _Entries(url, names))


class _Entries:
    """Takes the answer apart, and says which of the names each entry is."""

    def __init__(self, url: str, names: Sequence[AisName]) -> None:
        from datapipes.tar import TarStream  # noqa: PLC0415 - loads the engine

        self._tar = TarStream(url=url)
        self._names = [_entry_name(name) for name in names]
        self._at = 0

    def __call__(self, piece: bytes) -> list[tuple[int, bytes]]:
        found = []
        for entry, data, _ in self._tar.feed(piece):
            at = self._index(entry) if data else -1
            if at >= 0:
                self._at = at + 1
                found.append((at, bytes(data)))
        return found

    def _index(self, entry: str) -> int:
        """Where ``entry`` was asked for, among what has not come yet; -1: nowhere."""
        names, at = self._names, self._at
        if at < len(names) and names[at] == entry:
            return at
        try:
            return names.index(entry, at)
        except ValueError:
            return -1


def _entry_name(name: AisName) -> str:
    shown = f"{name.bucket}/{name.name}"
    return shown if name.archpath is None else f"{shown}/{name.archpath.lstrip('/')}"
