"""``archpath`` and ``archregx``: GET of one member, GET of all that match, PUT of one more."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote_plus

from aiohttp import web
from multidict import CIMultiDict

from datapipes.testing.ais_server.archives import (
    Archive,
    Member,
    archive_kind,
    tar_end,
    tar_entry,
)
from datapipes.testing.ais_server.call import Call
from datapipes.testing.ais_server.contents import Content
from datapipes.testing.ais_server.errors import ApiError
from datapipes.testing.ais_server.etl import transform
from datapipes.testing.ais_server.names import Bck, name_fault
from datapipes.testing.ais_server.sending import send

__all__ = ["add_member", "check_query", "find_member", "get_from_archive"]

MODES = ("regexp", "prefix", "suffix", "substr", "wdskey")


def check_query(call: Call) -> bool:
    """Whether the request wants something out of an archive; ApiError if it makes no sense."""
    path, pattern = call.query.get("archpath", ""), call.query.get("archregx", "")
    mode = call.query.get("archmode", "")
    if mode and mode not in MODES:
        known = " ".join(MODES)
        what = f'invalid matching mode "{mode}", expecting one of: [{known}]'
        raise ApiError(400, f"dpq: 'archmode={mode}', err: {what}")
    if path and mode and pattern:
        what = 'dpq: archpath="archpath" (match one) and archregx="archregx" (match many)'
        raise ApiError(400, f"dpq: 'archmode={mode}', err: {what} are mutually exclusive")
    if path and name_fault(path.lstrip("/")):
        raise ApiError(400, f"dpq: 'archpath={quote_plus(path)}', err: invalid archpath \"{path}\"")
    return bool(path or mode)


async def get_from_archive(call: Call, bck: Bck, content: Content) -> web.StreamResponse:
    """One member, or a tar of those that match."""
    path, title = call.query.get("archpath", "").lstrip("/"), f"{bck.title}/{call.name}"
    span = call.http.headers.get("Range", "")
    if span and path:
        what = f"cannot range-read archived content range: {span}, arch query: (archpath={path})"
        raise ApiError(400, f"{what} - operation not supported", "ErrUnsupp")
    kind = archive_kind(call.name, content, call.query.get("archmime", ""))
    if path:
        archive = call.cluster.archives.open(content, kind, title)
        member = find_member(archive, path)
        if member is None:
            raise ApiError(404, f"{call.node.title}: {path} in {title} does not exist", "ErrNotFound")
        headers = CIMultiDict({"Content-Type": "application/octet-stream"})
        data = await transform(call, archive.read(member))
        return await send(call, headers, [data], size=len(data))
    return await _matches(call, content, kind, title)


def find_member(archive: Archive, path: str) -> Member | None:
    """The first member of that name; ApiError if the archive is damaged before it comes."""
    for member in archive.members:
        if member.name == path and not member.is_directory:
            return member
    if archive.fault:
        raise ApiError(400, archive.fault)
    return None


async def _matches(call: Call, content: Content, kind: str, title: str) -> web.StreamResponse:
    pattern, mode = call.query.get("archregx", ""), call.query.get("archmode", "")
    asked = f"(archregx={pattern}, archmode={mode})"
    failed = f"{call.node.title}: failed to extract files that match {asked} from {title}, err: "
    if kind == "zip":
        raise ApiError(400, "archregx of a zip: a cluster drops the connection")
    try:
        is_wanted = _matcher(pattern, mode)
    except re.error as error:
        raise ApiError(400, f"{failed}error parsing regexp: {error}", "ErrFailedTo") from None
    archive = call.cluster.archives.open(content, kind, title)
    wanted = [member for member in archive.members if is_wanted(member.name)]
    if not wanted and archive.fault:
        raise ApiError(400, failed + archive.fault, "ErrFailedTo")
    if not wanted:
        raise ApiError(404, f"{call.node.title}: {asked} in {title} does not exist", "ErrNotFound")
    headers = CIMultiDict({"Content-Type": "application/x-tar"})
    return await send(call, headers, _as_tar(archive, wanted), size=None)


def _as_tar(archive: Archive, wanted: list[Member]) -> Iterator[bytes]:
    for member in wanted:
        data = archive.read(member)
        yield tar_entry(member.stored_name, data, member.mtime, kind=member.kind, link=member.link)
    yield tar_end()


def _matcher(pattern: str, mode: str) -> Callable[[str], bool]:
    if mode == "prefix":
        return lambda name: name.startswith(pattern)
    if mode == "suffix":
        return lambda name: name.endswith(pattern)
    if mode == "substr":
        return lambda name: pattern in name
    if mode == "wdskey":
        return lambda name: _wds_key(name) == pattern
    compiled = re.compile(pattern)
    return lambda name: compiled.search(name) is not None


def _wds_key(name: str) -> str:
    """WebDataset's key of a sample: all before the first dot of the last component."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


async def add_member(call: Call, bck: Bck, content: Content | None) -> bytes:
    """The archive with the request's body as one more member at its end."""
    path, title = call.query["archpath"].lstrip("/"), f"{bck.title}/{call.name}"
    if content is None and not call.http.headers.get("Ais-Pine"):
        raise ApiError(404, f"{call.node.title}: {title} does not exist", "ErrNotFound")
    data = await call.body()
    before = b""
    if content is not None:
        if archive_kind(call.name, content, call.query.get("archmime", "")) != "tar":
            raise ApiError(501, "this server adds members to plain tars only", "ErrUnsupp")
        archive = call.cluster.archives.open(content, "tar", title)
        last = archive.members[-1] if archive.members else None
        end = last.offset + last.size + -last.size % 512 if last else 0
        before = content.whole()[:end]
    return before + tar_entry(path, data, 0) + tar_end()
