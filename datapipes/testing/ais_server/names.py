"""How an object's name becomes a file's name and back, and which names an AIStore refuses."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

__all__ = ["PRIVATE", "Bck", "bucket_fault", "file_path", "name_fault", "object_name"]

PRIVATE = ".ais-server"
"""The server's own directory beside the buckets; a bucket's name cannot begin with a dot."""

AS_FILE = "%o"
"""Ends the file name of an object whose plain file name is taken by a directory."""

MORE = "%-"
"""Ends a directory that holds the first part of a component too long for one file name."""

LONGEST = 200
"""Bytes of one file name; file systems allow 255, and a temporary suffix must fit."""

SCHEMES = {"aws": "s3", "gcp": "gs", "azure": "az", "oci": "oc"}
"""Providers whose scheme in a URL is not their name."""

ODD = re.compile(rb"[\x00-\x1f%\x7f]")


@dataclass(frozen=True, slots=True)
class Bck:
    """A bucket: provider, namespace (``""`` or ``@uuid#name``) and name."""

    name: str
    provider: str = "ais"
    namespace: str = ""

    @property
    def title(self) -> str:
        """As error messages write it: ``ais://bucket``, ``s3://bucket``, ``ais://@#ns/bucket``."""
        scheme = SCHEMES.get(self.provider, self.provider)
        space = f"{self.namespace}/" if self.namespace else ""
        return f"{scheme}://{space}{self.name}"

    @property
    def uname(self) -> str:
        """What stands before an object's name where its owner is computed."""
        return f"{self.provider}/{self.namespace or '@#'}/{self.name}/"

    @property
    def folder(self) -> str:
        """The bucket's directory below the server's: ``bucket`` for ais in the global namespace."""
        if self.provider == "ais" and not self.namespace:
            return self.name
        return f".{self.provider}{self.namespace or '@#'}/{self.name}"

    @property
    def is_remote(self) -> bool:
        """Whether its data is another store's: a cloud's, or another cluster's (``@uuid#``)."""
        return self.provider != "ais" or self.namespace.partition("#")[0] not in ("", "@")

    @classmethod
    def of_folder(cls, folder: str) -> Bck:
        """The inverse of :attr:`folder`."""
        if not folder.startswith("."):
            return cls(folder)
        place, _, name = folder[1:].partition("/")
        provider, at, space = place.partition("@")
        namespace = at + space
        return cls(name, provider, "" if namespace == "@#" else namespace)


def bucket_fault(name: str) -> str | None:
    """Why no bucket can have this name, or None."""
    if name.startswith("."):
        return f'reserved bucket name "{name}" (unknown system bucket)'
    if len(name) > 64:
        return f"bucket name is too long: {len(name)} > 64(max length)"
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        allowed = "letters, numbers, dashes (-), underscores (_), and dots (.)"
        return f"bucket name is invalid: may only contain {allowed}"
    return None


def name_fault(name: str) -> str | None:
    """Why no object can have this name, or None."""
    parts = name.split("/")
    if "." in parts or ".." in parts or not parts[-1] or name.startswith("~/"):
        return f'invalid object name "{name}"'
    return None


def _component(raw: bytes) -> list[str]:
    """One component of a name, written as one or more components of a path."""
    if raw in (b".", b".."):
        return [raw.decode().replace(".", "%2E")]
    if not raw:
        return ["%"]
    text = os.fsdecode(ODD.sub(lambda found: b"%%%02X" % found.group()[0], raw))
    if len(os.fsencode(text)) <= LONGEST:
        return [text]
    pieces = [""]
    for character in re.findall(r"%[0-9A-F]{2}|.", text, flags=re.DOTALL):
        if len(os.fsencode(pieces[-1])) + len(os.fsencode(character)) > LONGEST:
            pieces[-1] += MORE
            pieces.append("")
        pieces[-1] += character
    return pieces


def file_path(name: str) -> str:
    """The path of an object's file below its bucket's directory.

    Bytes that are control characters or ``%`` are written ``%XX``, an empty component (``//``) is ``%``, a
    component over 200 bytes is cut into directories that end in ``%-``. If the path is taken by a directory
    (objects ``a`` and ``a/b``), the file's name is this path and ``%o``: the store looks for both.
    """
    return "/".join(piece for part in name.split("/") for piece in _component(os.fsencode(part)))


def object_name(path: str) -> str:
    """The name of the object whose file this is; the inverse of :func:`file_path`, with ``%o`` or without."""
    path = path.removesuffix(AS_FILE)
    parts = [""]
    for piece in path.split("/"):
        if piece.endswith(MORE):
            parts[-1] += piece.removesuffix(MORE)
            continue
        parts[-1] += "" if piece == "%" else piece
        parts.append("")
    return "/".join(os.fsdecode(unquote_to_bytes(os.fsencode(part))) for part in parts[:-1])
