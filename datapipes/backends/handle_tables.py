"""The engine's tables of handles, mapped once in each process."""

from __future__ import annotations

import functools

from datapipes import _dfs
from datapipes.backends.handle_spool import HandleSpool
from datapipes.records import HandleFile

__all__ = ["spool_of", "table_at"]

_MOST = 16


@functools.lru_cache(_MOST)
def table_at(place: HandleFile) -> _dfs.Handles | None:
    """The table at ``place``; None where it can be neither opened nor made: files are then opened by path.

    A forked child goes on using its parent's.
    """
    path, identity, files, max_bytes = place
    try:
        return _dfs.Handles(path, identity=identity, files=files, max_bytes=max_bytes)
    except OSError:
        return None


def spool_of(spool: HandleSpool) -> _dfs.HandleSpool | None:
    """The engine's part of ``spool``, made at first use; None where it cannot be."""
    kept = spool.kept
    if kept is None:
        try:
            kept = _dfs.HandleSpool(spool.directory, max_bytes=spool.max_bytes, masks=spool.masks)
        except OSError:
            return None
        spool.kept = kept
    assert isinstance(kept, _dfs.HandleSpool)  # noqa: S101 - nobody else keeps any
    return kept
