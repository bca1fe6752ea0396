"""Listings that clients are in the middle of."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from datapipes.testing.ais_server.names import Bck

__all__ = ["IN_ARCHIVE", "IS_ARCHIVE", "IS_CACHED", "IS_DIRECTORY", "Item", "Listed", "Listings"]

# Bits of an entry.
IS_CACHED, IN_ARCHIVE, IS_DIRECTORY, IS_ARCHIVE = 64, 128, 256, 512


@dataclass(frozen=True, slots=True)
class Item:
    """A name and what is known of it without opening anything."""

    name: str
    size: int = 0
    flags: int = IS_CACHED


@dataclass(frozen=True, slots=True)
class Listed:
    """The names of a bucket below a prefix, in order, as they were when the listing began."""

    keys: list[bytes]
    items: list[Item]


class Listings:
    """The listings that clients are in the middle of, by id; the oldest is forgotten first."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, Bck, str, int], Listed] = OrderedDict()

    def get(self, key: tuple[str, Bck, str, int]) -> Listed | None:
        """The names as they were, or None."""
        return self._known.get(key)

    def keep(self, key: tuple[str, Bck, str, int], listed: Listed) -> None:
        """Remembers a listing whose next page may be asked for."""
        self._known[key] = listed
        while len(self._known) > 16:
            self._known.popitem(last=False)
