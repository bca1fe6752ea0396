"""One part of an object on its way: where its bytes go, and how far it has come."""

from __future__ import annotations

import io
from collections.abc import Callable

__all__ = ["Part", "reserved"]

_JOIN_BELOW = 256 * 1024
"""Smaller bodies are joined from their pieces at the end; larger ones are written to their place at once."""


def reserved(size: int) -> io.BytesIO:
    """A file of ``size`` bytes, 1 at least, to be filled: growing one would copy it several times."""
    file = io.BytesIO()
    file.seek(size - 1)
    file.write(b"\0")
    file.seek(0)
    return file


class Part:
    """The bytes of an object from ``first`` on, up to ``end`` (None: to its end).

    With ``into`` they go to that view, which is released when the part is whole. Otherwise they are collected
    and joined once.
    """

    __slots__ = ("_file", "_into", "_pieces", "end", "first", "got", "write")

    def __init__(self, first: int, end: int | None, into: memoryview | None = None) -> None:
        self.first, self.end = first, end
        self._into = into
        self.restart()

    def restart(self) -> None:
        """Forget what has come so far."""
        self.got = 0
        self._pieces: list[bytes] = []
        self._file: io.BytesIO | None = None
        self.write: Callable[[bytes], object] = (
            self._pieces.append if self._into is None else _filling(self._into)
        )

    def expect(self, size: int) -> None:
        """So many bytes are to come in all; said before the first of them."""
        if self._into is None and size >= _JOIN_BELOW and not self.got:
            self._file = reserved(size)
            self.write = self._file.write

    def whole(self) -> None:
        """Nothing more is to come."""
        if self._into is not None:
            self._into.release()

    def take(self) -> bytes:
        """All that has come, as bytes; for a part without ``into``."""
        if self._file is not None:
            self._file.truncate(self.got)
            return self._file.getvalue()  # the file's own memory, not a copy
        pieces = self._pieces
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _filling(view: memoryview) -> Callable[[bytes], object]:
    """Puts one piece after the other into ``view``. No method of a part: it would hold itself, and the memory
    until Python looks for cycles."""
    at = 0

    def put(piece: bytes) -> None:
        nonlocal at
        view[at : at + len(piece)] = piece
        at += len(piece)

    return put
