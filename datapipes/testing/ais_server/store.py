"""Buckets and objects as directories and files, reached without a server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from datapipes.testing.ais_server.names import AS_FILE, PRIVATE, Bck, file_path, object_name

__all__ = ["Facts", "Store", "StoredFile"]

as_path = lru_cache(maxsize=1 << 17)(file_path)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a file cannot hold: version, custom properties, and the parts it was uploaded in."""

    version: int = 1
    custom: Mapping[str, str] = field(default_factory=dict)
    chunks: int = 0
    largest_chunk: int = 0


@dataclass(frozen=True, slots=True)
class StoredFile:
    """An object's file as it is now."""

    path: str
    size: int
    mtime_ns: int
    inode: int


class Store:
    """The objects below one directory, in this process or any other: a server sees every change at once.

    Args:
        directory: ``DIR/BUCKET/NAME`` is object NAME of bucket ``ais://BUCKET``; see ``README.md`` for the
            names that are written otherwise, and for other providers and namespaces.

    A bucket is given by name, or as a :class:`~datapipes.testing.ais_server.names.Bck`.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = os.path.abspath(directory)
        self._unfinished = self.private("unfinished")
        os.makedirs(self._unfinished, exist_ok=True)

    def private(self, *parts: str) -> str:
        """A path among the server's own files."""
        return os.path.join(self.directory, PRIVATE, *parts)

    # Buckets

    def root(self, bucket: str | Bck) -> str:
        """The directory of a bucket."""
        return os.path.join(self.directory, _bck(bucket).folder)

    def has_bucket(self, bucket: str | Bck) -> bool:
        """Whether the bucket exists."""
        return os.path.isdir(self.root(bucket))

    def create_bucket(self, bucket: str | Bck, props: Mapping[str, Any] | None = None) -> Bck:
        """Makes an empty bucket; ``props`` are merged into the properties every bucket has."""
        bck = _bck(bucket)
        if not self.has_bucket(bck):
            os.makedirs(self.root(bck), exist_ok=True)
        if props:
            self.set_bucket_props(bck, props)
        return bck

    def destroy_bucket(self, bucket: str | Bck) -> None:
        """Removes a bucket and all that is in it."""
        bck = _bck(bucket)
        shutil.rmtree(self.root(bck))
        shutil.rmtree(self.private("facts", bck.folder), ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self.private("props", bck.folder + ".json"))

    def buckets(self) -> list[Bck]:
        """Every bucket, by provider, namespace and name."""
        found = []
        for entry in os.scandir(self.directory):
            if not entry.is_dir() or entry.name == PRIVATE:
                continue
            if not entry.name.startswith("."):
                found.append(Bck(entry.name))
                continue
            names = [inner.name for inner in os.scandir(entry.path) if inner.is_dir()]
            found += [Bck.of_folder(f"{entry.name}/{name}") for name in names]
        return sorted(found, key=lambda bck: (bck.provider, bck.namespace, bck.name))

    def bucket_props(self, bucket: str | Bck) -> dict[str, Any]:
        """The properties that were set; empty for most buckets."""
        props: dict[str, Any] = _read_json(self.private("props", _bck(bucket).folder + ".json")) or {}
        return props

    def set_bucket_props(self, bucket: str | Bck, props: Mapping[str, Any]) -> None:
        """Replaces the properties that were set."""
        self._write_json(self.private("props", _bck(bucket).folder + ".json"), dict(props))

    def checksum_type(self, bucket: str | Bck) -> str:
        """The type of checksum that the bucket's objects have."""
        return str(self.bucket_props(bucket).get("checksum", {}).get("type", "xxhash2"))

    def is_versioned(self, bucket: str | Bck) -> bool:
        """Whether the bucket's objects have versions."""
        return bool(self.bucket_props(bucket).get("versioning", {}).get("enabled", True))

    # Objects

    def put(
        self, bucket: str | Bck, name: str, data: bytes, *, custom: Mapping[str, str] | None = None
    ) -> Facts:
        """Writes an object; its bucket is made if it is missing. Each write adds one to its version."""
        bck = self.create_bucket(bucket)
        facts = self.facts(bck, name) if self.find(bck, name) else Facts(version=0)
        merged = {**facts.custom, **(custom or {})}
        temporary = self.temporary(data)
        return self.adopt(bck, name, temporary, Facts(facts.version + 1, merged))

    def temporary(self, data: bytes = b"") -> str:
        """A new file among the server's own, to be filled and adopted."""
        path = f"{self._unfinished}/{os.getpid()}-{uuid.uuid4().hex}"
        with open(path, "xb", buffering=0) as file:
            remaining = memoryview(data)
            while remaining:
                remaining = remaining[file.write(remaining) :]
        return path

    def adopt(self, bucket: str | Bck, name: str, path: str, facts: Facts) -> Facts:
        """Makes a finished file of the same file system an object, all at once."""
        bck = _bck(bucket)
        self.set_facts(bck, name, facts)
        _stamp(path)
        for _ in range(100):  # another writer may turn a directory on the way into a file, or remove it
            try:
                os.replace(path, self._place(bck, name))
            except (IsADirectoryError, NotADirectoryError, FileNotFoundError, FileExistsError):
                if not os.path.exists(path):
                    raise
            else:
                return facts
        raise OSError(f"cannot write {bck.title}/{name}: its directories keep changing")

    def get(self, bucket: str | Bck, name: str) -> bytes:
        """An object's contents. FileNotFoundError if there is none."""
        found = self.find(bucket, name)
        if found is None:
            raise FileNotFoundError(f"no object {_bck(bucket).title}/{name}")
        with open(found.path, "rb") as file:
            return file.read()

    def delete(self, bucket: str | Bck, name: str) -> bool:
        """Removes an object and the directories that are empty without it. False if there is none."""
        bck = _bck(bucket)
        found = self.find(bck, name)
        if found is None:
            return False
        os.remove(found.path)
        with contextlib.suppress(FileNotFoundError):
            os.remove(self._facts_path(bck, name))
        root, parent = self.root(bck), os.path.dirname(found.path)
        with contextlib.suppress(OSError):
            while parent != root:
                os.rmdir(parent)
                parent = os.path.dirname(parent)
        return True

    def find(self, bucket: str | Bck, name: str) -> StoredFile | None:
        """The object's file, or None."""
        plain = f"{self.directory}/{_bck(bucket).folder}/{as_path(name)}"
        for path in (plain, plain + AS_FILE):
            try:
                seen = os.stat(path)
            except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a NUL in the name
                continue
            if stat.S_ISREG(seen.st_mode):
                return StoredFile(path, seen.st_size, seen.st_mtime_ns, seen.st_ino)
        return None

    def names(self, bucket: str | Bck, prefix: str = "") -> list[str]:
        """The names of all objects that begin with ``prefix``, in the order of their bytes."""
        return sorted((name for name, _ in self.files(bucket, prefix)), key=os.fsencode)

    def files(self, bucket: str | Bck, prefix: str = "") -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Name and directory entry of all objects that begin with ``prefix``, in no order."""
        root = self.root(bucket)
        # Only the directory that the prefix ends in is walked.
        start = os.path.dirname(file_path(prefix)) if "/" in prefix else ""
        if not os.path.isdir(os.path.join(root, start)):
            return
        pending = [os.path.join(root, start)]
        while pending:
            with os.scandir(pending.pop()) as entries:
                for entry in entries:
                    if entry.is_dir():
                        pending.append(entry.path)
                        continue
                    name = object_name(entry.path[len(root) + 1 :])
                    if name.startswith(prefix):
                        yield name, entry

    # What files cannot hold

    def facts(self, bucket: str | Bck, name: str) -> Facts:
        """Version, custom properties and parts of an object; the usual ones if nothing was noted."""
        noted = _read_json(self._facts_path(_bck(bucket), name))
        return Facts(**noted) if noted else Facts()

    def set_facts(self, bucket: str | Bck, name: str, facts: Facts) -> None:
        """Notes what the file cannot hold; nothing is written where all is usual."""
        path = self._facts_path(_bck(bucket), name)
        if (facts.version, facts.chunks) != (1, 0) or facts.custom:
            noted = {"version": facts.version, "custom": dict(facts.custom)}
            self._write_json(path, noted | {"chunks": facts.chunks, "largest_chunk": facts.largest_chunk})
            return
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.remove(path)

    def facts_stamp(self, bucket: Bck, name: str) -> int:
        """Changes whenever :meth:`set_facts` has changed something."""
        try:
            return os.stat(self._facts_path(bucket, name)).st_mtime_ns
        except (FileNotFoundError, NotADirectoryError, ValueError):
            return 0

    def _facts_path(self, bck: Bck, name: str) -> str:
        return f"{self.directory}/{PRIVATE}/facts/{bck.folder}/{as_path(name)}%f"

    def _place(self, bck: Bck, name: str) -> str:
        """Where to write an object: makes its directories, and room for them."""
        root, plain = self.root(bck), as_path(name)
        if "/" in plain:
            parent = root
            for piece in plain.split("/")[:-1]:
                parent = f"{parent}/{piece}"
                if os.path.isfile(parent):
                    os.replace(parent, parent + AS_FILE)
            if not os.path.isdir(parent):
                os.makedirs(parent, exist_ok=True)
        path = f"{root}/{plain}"
        return path + AS_FILE if os.path.isdir(path) or os.path.isfile(path + AS_FILE) else path

    def _write_json(self, path: str, value: Any) -> None:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        written = self.temporary(json.dumps(value).encode())
        _stamp(written)
        os.replace(written, path)


def _stamp(path: str) -> None:
    """Gives a file a time of its own: the file system's clock ticks too slowly to tell two writes apart."""
    now = time.time_ns()
    os.utime(path, ns=(now, now))


def _bck(bucket: str | Bck) -> Bck:
    return bucket if isinstance(bucket, Bck) else Bck(bucket)


def _read_json(path: str) -> dict[str, Any] | None:
    try:
        with open(path, "rb") as file:
            value: dict[str, Any] = json.loads(file.read())
            return value
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
