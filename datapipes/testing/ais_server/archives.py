"""Archives as targets read them: tar, tar.gz and zip, by member."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from datapipes.testing.ais_server.contents import Content
from datapipes.testing.ais_server.errors import ApiError

__all__ = ["Archive", "Archives", "Member", "archive_kind", "kind_of_name", "tar_end", "tar_entry"]

ENDS = {".tar": "tar", ".tgz": "tgz", ".tar.gz": "tgz", ".zip": "zip", ".tar.lz4": "lz4"}

MIMES = {
    **ENDS, "tar": "tar", "tgz": "tgz", "tar.gz": "tgz", "zip": "zip", "tar.lz4": "lz4",
    "application/x-tar": "tar", "application/gzip": "tgz", "application/x-tgz": "tgz",
    "application/zip": "zip", "application/x-lz4": "lz4",
}  # fmt: skip
"""What ``archmime`` and a batch's ``mime`` may say."""

BAD_TAR = "archive/tar: invalid tar header"


@dataclass(frozen=True, slots=True)
class Member:
    """A member; ``offset`` is where its bytes begin in the plain tar, or its number in a zip.

    ``name`` is what it is asked for by, without a leading slash; the rest is as the tar has it.
    """

    name: str
    size: int
    offset: int
    is_directory: bool = False
    mtime: int = 0
    stored_name: str = ""
    kind: bytes = tarfile.REGTYPE
    link: str = ""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive's members, in order.

    Attributes:
        fault: what is wrong with the archive after the last member, or "".
    """

    kind: str
    members: list[Member]
    fault: str
    read: Callable[[Member], bytes]


def kind_of_name(name: str) -> str:
    """The kind of archive that a name's end stands for, or ""."""
    return next((kind for end, kind in ENDS.items() if name.endswith(end)), "")


def archive_kind(name: str, content: Content, mime: str = "") -> str:
    """The kind of an archive: by ``archmime``, by its name's end, or by its first bytes."""
    if mime:
        if mime not in MIMES:
            raise ApiError(400, f'unknown mime type "{mime}"', "errUnknownMime")
        return MIMES[mime]
    if kind := kind_of_name(name):
        return kind
    head = b"".join(content.read(0, min(512, content.size)))
    if head[257:262] == b"ustar":
        return "tar"
    if head[:2] == b"\x1f\x8b":
        return "tgz"
    if head[:4] == b"PK\x03\x04":
        return "zip"
    if head[:4] == b"\x04\x22\x4d\x18":
        return "lz4"
    raise ApiError(400, f'unrecognized or unsupported file format: "{name}"')


class Archives:
    """Archives that were read lately; the members of eight are remembered."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[str, int, int, str], Archive] = OrderedDict()

    def open(self, content: Content, kind: str, title: str) -> Archive:
        """The archive in an object; ApiError if nothing of it can be read."""
        key = (content.path, content.mtime_ns, content.size, kind)
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = _open(content, kind, title)
            if len(self._known) > 8:
                self._known.popitem(last=False)
        return found


def _open(content: Content, kind: str, title: str) -> Archive:
    if kind == "tar":
        return _open_tar(content, kind)
    if kind == "tgz":
        try:
            plain = gzip.decompress(content.whole())
        except (EOFError, OSError, zlib.error):
            raise ApiError(400, "unexpected EOF") from None
        headers: list[tuple[str, str]] = []
        inner = Content("", len(plain), content.mtime_ns, "none", "", content.facts, plain, headers)
        return _open_tar(inner, kind)
    if kind == "zip":
        try:
            return _open_zip(zipfile.ZipFile(io.BytesIO(content.whole())))
        except zipfile.BadZipFile:
            what = f"failed to open {title}: zip: not a valid zip file"
            raise ApiError(400, what, "wrapError") from None
    raise ApiError(501, f"{kind}: this server reads no such archives", "ErrUnsupp")


def _open_tar(content: Content, kind: str) -> Archive:
    members: list[Member] = []
    fault = ""
    source = io.BytesIO(content.data) if content.data is not None else open(content.path, "rb")  # noqa: SIM115
    with source:
        try:
            with tarfile.open(fileobj=source, mode="r:") as tar:
                for info in tar:
                    name = info.name.lstrip("/") + ("/" if info.isdir() else "")
                    size = info.size if info.isfile() else 0
                    seen = (info.isdir(), int(info.mtime), info.name, info.type, info.linkname)
                    members.append(Member(name, size, info.offset_data, *seen))
                end = tar.offset
            source.seek(end)
            block = source.read(tarfile.BLOCKSIZE)
            if len(block) == tarfile.BLOCKSIZE and any(block):
                fault = BAD_TAR
        except tarfile.ReadError as error:
            if not str(error).startswith(("empty", "unexpected end")):
                fault = BAD_TAR
    return Archive(kind, members, fault, lambda member: _slice(content, member))


def _slice(content: Content, member: Member) -> bytes:
    return b"".join(content.read(member.offset, member.offset + member.size))


def _open_zip(opened: zipfile.ZipFile) -> Archive:
    infos = opened.infolist()
    members = [
        Member(info.filename.lstrip("/"), info.file_size, number, info.is_dir())
        for number, info in enumerate(infos)
    ]
    return Archive("zip", members, "", lambda member: opened.read(infos[member.offset]))


def tar_entry(name: str, data: bytes, mtime: int, *, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """A member of a tar as AIStore writes it: mode 0644, ids 0, no owner names, PAX for long or odd names."""
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode, info.type, info.linkname = len(data), mtime, 0o644, kind, link
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)


def tar_end() -> bytes:
    """The two empty blocks that end a tar; AIStore adds no more."""
    return b"\0" * (2 * tarfile.BLOCKSIZE)
