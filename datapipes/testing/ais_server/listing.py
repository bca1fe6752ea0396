"""Listing of objects: pages of names, sizes and properties, in JSON or MessagePack."""

from __future__ import annotations

import bisect
import os
import posixpath
from typing import Any

import msgspec
from aiohttp import web

from datapipes.testing.ais_server.archives import kind_of_name
from datapipes.testing.ais_server.call import Call, json_response
from datapipes.testing.ais_server.errors import ApiError
from datapipes.testing.ais_server.listed import IN_ARCHIVE, IS_ARCHIVE, IS_CACHED, IS_DIRECTORY, Item, Listed
from datapipes.testing.ais_server.names import Bck

__all__ = ["LARGEST_PAGE", "list_objects"]

LARGEST_PAGE = 10_000
"""Names in a page, whatever was asked for."""

# Bits of the request.
ONLY_CACHED, ARCHIVES, NAME_ONLY, NAME_SIZE = 1, 8, 16, 32
NOT_CACHED, NO_RECURSION, DIFF = 512, 2048, 4096

KEYS = {
    "prefix", "pagesize", "uuid", "props", "continuation_token", "flags", "target", "start_after",
    "time_format", "hdr", "sid",
}  # fmt: skip

SHORT = {
    "name": "n", "checksum": "cs", "atime": "a", "version": "v", "location": "t", "custom": "k",
    "size": "s", "copies": "c", "flags": "f",
}  # fmt: skip
"""MessagePack's names of the properties, in the order in which a cluster sends them."""


async def list_objects(call: Call, value: dict[str, Any]) -> web.StreamResponse:
    """One page."""
    if call.node.kind == "target":
        raise ApiError(400, f'list-objects: invalid UUID "{value.get("uuid", "")}"')
    bck = call.need_bucket()
    _need_targets(call, str(value.get("uuid", "")))
    flags, page = _check(call, bck, value)
    prefix, token = str(value.get("prefix", "")), str(value.get("continuation_token", ""))
    uuid = str(value.get("uuid", "")) or call.cluster.new_id()
    key = (uuid, bck, prefix, flags)
    listed = call.cluster.listings.get(key) if token else None
    if listed is None:
        listed = walk(call, bck, prefix, flags)
    after = max(token, str(value.get("start_after", "")), key=os.fsencode)
    begin = bisect.bisect_right(listed.keys, os.fsencode(after)) if after else 0
    items = listed.items[begin : begin + page]
    last = items[-1].name if len(items) == page else ""
    if last:
        call.cluster.listings.keep(key, listed)
    props = _props(str(value.get("props", "")), flags)
    entries = [_entry(call, bck, item, props) for item in items]
    if "application/msgpack" in call.http.headers.get("Accept", ""):
        return _msgpack(uuid, last, entries)
    for entry in entries:
        if "size" in entry:
            entry["size"] = str(entry["size"])
    page_value = {"uuid": uuid, "continuation_token": last, "entries": entries or None, "flags": 0}
    return json_response(page_value)


def _need_targets(call: Call, uuid: str) -> None:
    for node in call.cluster.active:
        if node.is_down:
            asked = f'Get "{node.url}{call.path}?{call.raw_query}": dial tcp {node.host}:{node.port}'
            what = f"{call.node.title}: failed to call {node.title} list[{uuid or call.cluster.new_id()}]"
            raise ApiError(400, f"{what}, err: {asked}: connect: connection refused", "ErrFailedTo")


def _check(call: Call, bck: Bck, value: dict[str, Any]) -> tuple[int, int]:
    """Flags and page size, or the error that the request deserves."""
    kind = f"{call.node.title}: failed to unmarshal list (map[string]interface {{}}), err: apc.LsoMsg."
    flags, page = value.get("flags", "0"), value.get("pagesize", 0)
    if not isinstance(flags, str) or not flags.isdigit():
        raise ApiError(400, f'{kind}Flags: stringModeNumberDecoder: expect ", but found {flags}')
    if not isinstance(page, int):
        raise ApiError(400, f"{kind}PageSize: readUint64: unexpected character: {page}")
    for unknown in value.keys() - KEYS:
        raise ApiError(400, f"{kind}ReadObject: found unknown field: {unknown}")
    if page < 0:
        raise ApiError(400, f"page size {page}: this kills every target of a cluster")
    if ".." in str(value.get("prefix", "")).split("/"):
        what = f'bad list-objects request: invalid prefix "{value["prefix"]}"'
        raise ApiError(400, what, "errInvalidPath")
    bits = int(flags)
    if bits & NOT_CACHED and not bck.is_remote:
        raise ApiError(400, f"{bck.title} is not a remote bucket - cannot list 'not cached' objects")
    if bits & DIFF:
        what = "cannot perform remote versions check (or diff vs remote bucket): bucket"
        raise ApiError(400, f"{what} {bck.title} does not provide remote versioning info")
    target = value.get("target", "")
    if target and call.cluster.node(target) is None:
        map_title, origin = call.cluster.map_title, call.cluster.targets[0].title
        what = f"{origin}: list-objects failure: node {target} not present in {map_title}"
        raise ApiError(400, what, "errNodeNotFound", caller=call.node.title, node=origin)
    return bits, min(page or LARGEST_PAGE, LARGEST_PAGE)


def walk(call: Call, bck: Bck, prefix: str, flags: int) -> Listed:
    """All names below a prefix, in the order of their bytes."""
    items, cold = {}, call.cluster.cold.get(bck, set())
    for name, entry in call.cluster.store.files(bck, prefix):
        is_cold = name in cold
        if not (is_cold and flags & ONLY_CACHED) and (is_cold or not flags & NOT_CACHED):
            items[name] = Item(name, entry.stat().st_size, 0 if is_cold else IS_CACHED)
    if flags & NO_RECURSION:
        items = _one_level(items, prefix)
    found = list(items.values())
    if flags & ARCHIVES:
        found = [part for item in found for part in _expanded(call, bck, item)]
    _need_utf8(bck, found)
    ordered = sorted(((os.fsencode(item.name), item) for item in found), key=lambda pair: pair[0])
    return Listed([key for key, _ in ordered], [item for _, item in ordered])


def _need_utf8(bck: Bck, items: list[Item]) -> None:
    try:
        "".join(item.name for item in items).encode()
    except UnicodeEncodeError:
        names = (os.fsencode(item.name) for item in items)
        name = next(name for name in names if name.decode(errors="replace").encode() != name)
        raise ApiError(
            400, f"{bck.title}: a page holds UTF-8, and the name {name!r} is not: rename it"
        ) from None


def _expanded(call: Call, bck: Bck, item: Item) -> list[Item]:
    """An object, and if its name is an archive's what could be read of that: its members below it.

    The members' names are cleaned like paths, so ``../up`` lands outside and ``./in`` has another name than
    the one it can be read by: so it was recorded.
    """
    kind = kind_of_name(item.name)
    content = call.contents.find(bck, item.name) if kind else None
    if content is None:
        return [item]
    try:
        archive = call.cluster.archives.open(content, kind, item.name)
    except ApiError:
        return [item]
    if archive.fault and not archive.members:
        return [item]
    members = [
        Item(posixpath.normpath(f"{item.name}/{member.name}"), member.size, IS_CACHED | IN_ARCHIVE)
        for member in archive.members
        if not member.is_directory
    ]
    return [Item(item.name, item.size, IS_CACHED | IS_ARCHIVE), *members]


def _one_level(items: dict[str, Item], prefix: str) -> dict[str, Item]:
    """Directories instead of what is in them; with NoDirs as well, so it was recorded.

    A prefix that is a directory's whole name lists what is in it. Other directories that begin with the
    prefix are listed at the top of the bucket only: so it was recorded.
    """
    kept = {}
    level = prefix.rpartition("/")[0] + "/" if "/" in prefix else ""
    for name, item in items.items():
        inside = prefix + "/" if prefix and name.startswith(prefix + "/") else level
        head, slash, _ = name[len(inside) :].partition("/")
        if not slash:
            kept[name] = item
        elif inside != level or not level or level == prefix:
            kept[f"{inside}{head}/"] = Item(f"{inside}{head}/", flags=IS_DIRECTORY)
    return kept


def _props(text: str, flags: int) -> set[str]:
    if flags & NAME_ONLY:
        return {"name"}
    if flags & NAME_SIZE:
        return {"name", "size"}
    if text:
        return set(text.split(","))
    return {"name", "size", "checksum", "atime"} if flags & ONLY_CACHED else {"name", "size"}


def _entry(call: Call, bck: Bck, item: Item, props: set[str]) -> dict[str, Any]:
    """An entry of a page, by its long names."""
    entry: dict[str, Any] = {"name": item.name}
    known = None
    if item.flags & IS_CACHED and not item.flags & IN_ARCHIVE and props - {"name", "size"}:
        known = call.contents.find(bck, item.name)
    if known is not None and "checksum" in props:
        entry["checksum"] = known.checksum
    if known is not None and "atime" in props:
        entry["atime"] = str(known.mtime_ns)
    if known is not None and "version" in props and known.facts.version:
        entry["version"] = str(known.facts.version)
    if known is not None and "location" in props:
        owner = call.cluster.owner(bck, item.name)
        entry["location"] = f"{owner.title}:mp[{call.cluster.store.root(bck)}, tmpfs, hdd]"
    if known is not None and "custom" in props and known.facts.custom:
        entry["custom-md"] = ", ".join(f"{key}={value}" for key, value in known.facts.custom.items())
    if "size" in props and item.size:
        entry["size"] = item.size
    if known is not None and "copies" in props:
        entry["copies"] = 1
    entry["flags"] = item.flags
    return entry


def _msgpack(uuid: str, token: str, entries: list[dict[str, Any]]) -> web.Response:
    short = [{SHORT.get(key, key): value for key, value in entry.items()} for entry in entries]
    page = {"UUID": uuid, "ContinuationToken": token, "Entries": short, "Flags": 0}
    return web.Response(body=msgspec.msgpack.encode(page), headers={"Content-Type": "application/msgpack"})
