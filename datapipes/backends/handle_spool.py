"""``HandleSpool``: what listing teaches stores of opening files, until there is an index to keep it for."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Protocol

from datapipes.records import HandleFile

__all__ = ["HandleSpool"]


class _Kept(Protocol):
    """A store's own: the engine's."""

    def settle(self, path: str, *, identity: str, files: int, max_bytes: int) -> None: ...
    def give_up(self) -> None: ...


class HandleSpool:
    """For one index that is being built: goes to every ``Backend.list`` of it.

    Attributes:
        directory: where the index will be.
        max_bytes: bound of the table beside it, and of what is kept until then.
        masks: shell patterns of the files that the index takes; none: all.
        kept: None until a store keeps something.
    """

    def __init__(self, directory: str | os.PathLike[str], max_bytes: int, masks: Sequence[str] = ()) -> None:
        self.directory = os.fspath(directory)
        self.max_bytes = max_bytes
        self.masks = tuple(masks)
        self.kept: _Kept | None = None
        self._given_up = False

    def give_up(self) -> bool:
        """Make room on the disk: True if anything was kept until now, of which nothing is from here on."""
        if self.kept is None or self._given_up:
            return False
        self._given_up = True
        self.kept.give_up()
        return True

    def settle(self, place: HandleFile) -> None:
        """The index is complete: what was kept becomes the table beside it. Where that cannot be made, files
        are opened by path."""
        path, identity, files, max_bytes = place
        if self.kept is not None and not self._given_up:
            with contextlib.suppress(OSError):
                self.kept.settle(path, identity=identity, files=files, max_bytes=max_bytes)
