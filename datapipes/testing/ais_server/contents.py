"""What is known of an object's present contents, kept between requests while its file is unchanged."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from datapipes.testing.ais_server.checksums import digest_of, hasher
from datapipes.testing.ais_server.names import Bck
from datapipes.testing.ais_server.store import Facts, Store, StoredFile

__all__ = ["Content", "Contents"]

PIECE = 1 << 20
"""Bytes read at once from a file that is not kept in memory."""

KEPT = 256 << 20
"""Bytes of contents kept in memory in all; a file of more than an eighth of it is always read from disk."""


@dataclass(frozen=True, slots=True)
class Content:
    """An object as its file stood when it was asked for.

    Attributes:
        data: the bytes, if they are kept in memory.
        checksum: of the whole contents, in the type of the bucket.
        headers: those that every GET, PUT and full HEAD answer carries.
    """

    path: str
    size: int
    mtime_ns: int
    checksum_type: str
    checksum: str
    facts: Facts
    data: bytes | None
    headers: list[tuple[str, str]]

    def read(self, begin: int, end: int) -> Iterator[bytes]:
        """The bytes from ``begin`` to ``end``, in pieces."""
        if self.data is not None:
            yield self.data if (begin, end) == (0, self.size) else self.data[begin:end]
            return
        with open(self.path, "rb") as file:
            file.seek(begin)
            while begin < end and (piece := file.read(min(PIECE, end - begin))):
                begin += len(piece)
                yield piece

    def whole(self) -> bytes:
        """All bytes at once."""
        return self.data if self.data is not None else b"".join(self.read(0, self.size))


def original_path(root: str, bck: Bck, name: str) -> str:
    """Where a cluster says an object with a component over 255 bytes would lie; "" for others."""
    if len(name) < 64 or all(len(part.encode("utf-8", "surrogateescape")) < 256 for part in name.split("/")):
        return ""
    return f"{root}/@{bck.provider}/{bck.name}/%ob/{name}"


def headers_of(
    checksum_type: str, checksum: str, mtime_ns: int, facts: Facts, original: str = ""
) -> list[tuple[str, str]]:
    """Headers in the order in which AIStore sends them; ``original`` as :func:`original_path` gives it."""
    headers = [("Ais-Atime", str(mtime_ns))]
    if checksum:
        headers += [("Ais-Checksum-Type", checksum_type), ("Ais-Checksum-Value", checksum)]
    headers += [("Ais-Custom-Md", f"{key}={value}") for key, value in facts.custom.items()]
    if original:
        headers.append(("Ais-Custom-Md", f"orig_fntl={original}"))
    if facts.version:
        headers.append(("Ais-Version", str(facts.version)))
    return headers


class Contents:
    """Finds objects in a store and remembers them; every answer is checked against the file as it is now."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known: OrderedDict[tuple[Bck, str], tuple[tuple[int, int, int, int], Content]] = OrderedDict()
        self._kept = 0
        self._misplaced: dict[tuple[str, Bck, str], Content] = {}

    def misplaced(self, node: str, bck: Bck, name: str) -> Content | None:
        """A copy that was put on a target that does not own the object."""
        return self._misplaced.get((node, bck, name))

    def misplace(self, node: str, bck: Bck, name: str, data: bytes) -> Facts:
        """Keeps such a copy, in memory."""
        before = self._misplaced.get((node, bck, name))
        facts = Facts(before.facts.version + 1 if before else 1)
        checksum, now = digest_of(data), time.time_ns()
        headers = headers_of("xxhash2", checksum, now, facts)
        kept = Content("", len(data), now, "xxhash2", checksum, facts, data, headers)
        self._misplaced[node, bck, name] = kept
        return facts

    def displace(self, node: str, bck: Bck, name: str) -> bool:
        """Removes such a copy. False if there is none."""
        return self._misplaced.pop((node, bck, name), None) is not None

    def find(self, bck: Bck, name: str) -> Content | None:
        """The object, or None."""
        file = self.store.find(bck, name)
        if file is None:
            return None
        stamp = (file.inode, file.mtime_ns, file.size, self.store.facts_stamp(bck, name))
        known = self._known.get((bck, name))
        if known is not None and known[0] == stamp:
            return known[1]
        content = self._load(bck, name, file, self.store.facts(bck, name) if stamp[3] else Facts())
        self._forget(bck, name)
        self._known[bck, name] = (stamp, content)
        self._kept += len(content.data or b"")
        while self._kept > KEPT or len(self._known) > 200_000:
            self._forget(*next(iter(self._known)))
        return content

    def _load(self, bck: Bck, name: str, file: StoredFile, facts: Facts) -> Content:
        checksum_type = self.store.checksum_type(bck)
        whole = Content(file.path, file.size, file.mtime_ns, checksum_type, "", facts, None, [])
        summing, data = hasher(checksum_type), None
        pieces = []
        for piece in whole.read(0, file.size):
            summing.update(piece)
            if file.size <= KEPT // 8:
                pieces.append(piece)
        if file.size <= KEPT // 8:
            data = b"".join(pieces)
        checksum = summing.hexdigest()
        headers = headers_of(
            checksum_type, checksum, file.mtime_ns, facts, original_path(self.store.directory, bck, name)
        )
        return Content(
            file.path, file.size, file.mtime_ns, checksum_type, checksum, facts, data, headers
        )  # fmt: skip

    def _forget(self, bck: Bck, name: str) -> None:
        known = self._known.pop((bck, name), None)
        if known is not None:
            self._kept -= len(known[1].data or b"")
