"""Get-Batch: many objects in one archive, streamed or behind their metadata."""

from __future__ import annotations

import gzip
import io
import json
import time
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

from datapipes.testing.ais_server.archives import MIMES, archive_kind, tar_end, tar_entry
from datapipes.testing.ais_server.call import Call, usual_namespace, usual_provider
from datapipes.testing.ais_server.contents import Content
from datapipes.testing.ais_server.errors import ApiError, bucket_missing, object_missing
from datapipes.testing.ais_server.members import find_member
from datapipes.testing.ais_server.names import Bck, name_fault
from datapipes.testing.ais_server.sending import send

__all__ = ["batch_request"]

TYPES = {"tar": "application/x-tar", "tgz": "application/gzip", "zip": "application/zip"}

MISSING = "__404__/"

WRITTEN = 64 << 10
"""Bytes of a streamed tar that are written at once, at least."""

SOFT_ERRORS = 8
"""Placeholders that a streamed answer may have; it ends before the next. Multipart was seen to go on."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A member of the answer, and what the metadata says of it."""

    name: str
    data: bytes
    mtime: int
    said: dict[str, Any]


async def batch_request(call: Call, rest: str) -> web.StreamResponse:
    """``/v1/ml/moss[/BUCKET]`` at the proxy, and what it redirects to at the target."""
    if call.method != "GET":
        raise ApiError(405, "wrong method", plain="Method Not Allowed\n", headers={"Allow": "GET"})
    parts = [part for part in rest.split("/") if part]
    if call.node.kind == "target":
        return await _answer(call, parts)
    call.take_bucket(parts[0] if parts else "")
    asked = _parse(await call.body())
    coloc = call.query.get("coloc", "")
    if coloc not in ("", "0", "1", "2"):
        raise ApiError(400, f"invalid 'coloc={coloc}' (expecting 0, 1, or 2)")
    if call.bck.name:
        call.need_bucket()
    for entry in asked["in"]:
        _bucket_of(call, entry)
    cluster = call.cluster
    _need_targets(call, rest)
    work = f"{cluster.proxy.id[:7]}-{cluster.new_id(5)}"
    batches, number = cluster.batches, len(cluster.active)
    target = batches.random.choice(cluster.active)
    if batches.chosen is not None:
        target = cluster.targets[batches.chosen]
    if asked.get("mime") and asked["mime"] not in MIMES:
        place = f"/v1/ml/moss/{rest.strip('/')}/noxid/{work}/{number}"
        what = f'unknown mime type "{asked["mime"]}"'
        nodes = (call.node.title, target.title)
        raise ApiError(400, what, "errUnknownMime", caller=nodes[0], node=nodes[1], path=place, method="POST")
    job = batches.jobs.get(call.bck.name) or f"gbt-{cluster.new_id()}"
    batches.jobs[call.bck.name] = job
    batches.waiting.add(work)
    return call.redirect(target, "/".join(["/v1/ml/moss", *parts, job, work, str(number)]))


def _need_targets(call: Call, rest: str) -> None:
    for node in call.cluster.active:
        if node.is_down:
            place = (
                f"/v1/ml/moss/{rest.strip('/')}/noxid/{call.cluster.proxy.id[:7]}-{call.cluster.new_id(5)}"
            )
            number = len(call.cluster.active)
            asked = f"{node.url}{place}/{number}?{call.raw_query}&tid={node.id}"
            refused = f"dial tcp {node.host}:{node.port}: connect: connection refused"
            raise ApiError(400, f'Post "{asked}": {refused}', "Error")


def _parse(body: bytes) -> dict[str, Any]:
    """The request, checked as a proxy checks it."""
    try:
        asked = json.loads(body)
    except ValueError as error:
        raise ApiError(400, f"ReadObjectCB: expect {{ or n, but found {error}") from None
    entries = asked.get("in") if isinstance(asked, dict) else None
    if not entries:
        raise ApiError(400, "moss: empty input")
    for entry in entries:
        if not isinstance(entry, dict):
            raise ApiError(400, f"unmarshalerDecoder: expect {{ or n, but found {entry}")
        name, archpath = entry.get("objname", ""), entry.get("archpath", "")
        start, length = entry.get("start", 0), entry.get("length", 0)
        if name_fault(name):
            raise ApiError(400, f'unmarshalerDecoder: invalid object name "{name}"')
        if archpath and name_fault(archpath.lstrip("/")):
            raise ApiError(400, f'unmarshalerDecoder: invalid archpath "{archpath}" (oname: "{name}")')
        if start < 0 or length < -1 or (start and not length):
            span = f'[start={start},length={length} (oname: "{name}")]'
            raise ApiError(400, f"unmarshalerDecoder: not satisfiable range {span}")
        if "uname" in entry and entry["uname"].count("/") > 2:
            provider, _, bucket = entry["uname"].split("/", 2)
            what = f'parse-uname "{entry["uname"]}": not expecting object name (got "{provider}://{bucket}")'
            raise ApiError(400, what)
    found: dict[str, Any] = asked
    return found


def _bucket_of(call: Call, entry: dict[str, Any]) -> Bck:
    """The bucket of an entry: its own, or that of the path."""
    if "uname" in entry:
        provider, space, name = [*entry["uname"].split("/"), "", ""][:3]
        bck = Bck(name, usual_provider(provider), usual_namespace(space))
    elif entry.get("bucket"):
        bck = Bck(entry["bucket"], usual_provider(entry.get("provider", "")), call.bck.namespace)
    elif call.bck.name:
        bck = call.bck
    else:
        raise ApiError(400, f'missing bucket specification for object "{entry["objname"]}"')
    if not call.cluster.store.has_bucket(bck):
        raise bucket_missing(bck)
    return bck


async def _answer(call: Call, parts: list[str]) -> web.StreamResponse:
    """The archive; a redirect can be used once."""
    if len(parts) not in (3, 4) or not call.is_redirected:
        raise ApiError(401, "direct target access denied")
    work = parts[-2]
    call.take_bucket(parts[0] if len(parts) == 4 else "")
    if work not in call.cluster.batches.waiting:
        begun = f"{time.strftime('%H:%M:%S')}.{time.time_ns() % 10**6:06d}"
        job = f"x-get-batch[{parts[-3]}]-{call.bck.title}-{begun}"
        raise ApiError(404, f'{job}: wid="{work}" (prep-rx not done?) does not exist', "ErrNotFound")
    call.cluster.batches.waiting.discard(work)
    asked = _parse(await call.body())
    kind = MIMES[asked.get("mime") or ".tar"]
    if kind not in TYPES:
        raise ApiError(501, f"{kind}: this server writes no such archives", "ErrUnsupp")
    if asked.get("strm"):
        headers = CIMultiDict({"Content-Type": TYPES[kind]})
        return await send(call, headers, _archive(_streamed(call, asked), kind), size=None, flushed=True)
    pieces = [_piece(call, entry, asked) for entry in asked["in"]]
    return await _multipart(call, pieces, kind, parts[-3])


def _streamed(call: Call, asked: dict[str, Any]) -> Iterator[Piece]:
    """The members until one cannot be had: the headers are out, so a cluster ends in good order there."""
    missing = 0
    for entry in asked["in"]:
        try:
            piece = _piece(call, entry, asked)
        except ApiError:
            return
        missing += piece.name.startswith(MISSING)
        if missing > SOFT_ERRORS:
            return
        yield piece


def _piece(call: Call, entry: dict[str, Any], asked: dict[str, Any]) -> Piece:
    """A member; ApiError if it cannot be had and the chosen target would not go on.

    What another target holds comes with its faults turned into placeholders, whatever the request says, with
    another name in the metadata, and whole if its range cannot be satisfied: all this was recorded.
    """
    bck, name = _bucket_of(call, entry), entry["objname"]
    is_local = call.cluster.owner(bck, name) is call.node
    owner = call.cluster.owner(bck, name).title
    archpath = entry.get("archpath", "").lstrip("/")
    said: dict[str, Any] = {"objname": name}
    if archpath and is_local:
        said["archpath"] = archpath
    elif archpath:
        said["objname"] = f"{name}/{archpath}"
    said |= {"bucket": bck.name, "provider": bck.provider if is_local else entry.get("provider", "")}
    if "opaque" in entry:
        said["opaque"] = entry["opaque"]
    shown = name if asked.get("onob") else f"{bck.name}/{name}"
    content = call.contents.find(bck, name)
    try:
        shown = f"{shown}/{archpath}" if archpath and (content is not None or not is_local) else shown
        data = _cut(_data(call, bck, content, entry, owner), entry, is_local=is_local)
    except ApiError as error:
        if is_local and (not asked.get("coer") or error.status != 404):
            raise
        said |= {"err_msg": error.message, "size": 0}
        return Piece(MISSING + shown, b"", 0, said)
    if not is_local and entry.get("length", 0) > len(data) - entry.get("start", 0):
        said["provider"] = bck.provider
    is_whole = not archpath and not entry.get("start") and not entry.get("length")
    mtime = content.mtime_ns // 10**9 if content and is_local and is_whole else 0
    return Piece(shown, data, mtime, said | {"size": len(data)})


def _data(call: Call, bck: Bck, content: Content | None, entry: dict[str, Any], owner: str) -> bytes:
    archpath, name = entry.get("archpath", "").lstrip("/"), entry["objname"]
    title = f"{bck.title}/{name}"
    if content is None:
        raise object_missing(owner, bck, name)
    if not archpath:
        return content.whole()
    archive = call.cluster.archives.open(content, archive_kind(name, content), title)
    member = find_member(archive, archpath)
    if member is None:
        raise ApiError(404, f"{owner}: {archpath} in {title} does not exist", "ErrNotFound")
    return archive.read(member)


def _cut(data: bytes, entry: dict[str, Any], *, is_local: bool) -> bytes:
    start, length = entry.get("start", 0), entry.get("length", 0)
    if length in (0, -1):
        return data[start:]
    if start + length <= len(data):
        return data[start : start + length]
    if is_local:
        what = f"size={len(data)}: not satisfiable range [start={start},length={length}]"
        raise ApiError(400, what, "ErrRangeNotSatisfiable")
    return data


def _archive(pieces: Iterable[Piece], kind: str) -> Iterator[bytes]:
    if kind == "zip":
        yield _zip(pieces)
        return
    tar = (tar_entry(piece.name, piece.data, piece.mtime) for piece in pieces)
    if kind == "tgz":
        yield gzip.compress(b"".join([*tar, tar_end()]), 1, mtime=0)
        return
    waiting: list[bytes] = []
    size = 0
    for entry in tar:
        waiting.append(entry)
        size += len(entry)
        if size >= WRITTEN:
            yield b"".join(waiting)
            waiting, size = [], 0
    yield b"".join([*waiting, tar_end()])


class _Pipe(io.RawIOBase):
    """What cannot be sought in: zipfile writes the sizes after the data then, as AIStore does."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self.pieces.append(bytes(data))
        return len(data)


def _zip(pieces: Iterable[Piece]) -> bytes:
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:
        for piece in pieces:
            archive.NameToInfo.pop(piece.name, None)  # or a repeated name would be warned of
            archive.writestr(zipfile.ZipInfo(piece.name), piece.data)
    return b"".join(pipe.pieces)


async def _multipart(call: Call, pieces: list[Piece], kind: str, job: str) -> web.StreamResponse:
    """Two parts: metadata, then the archive."""
    mark = f"{call.cluster.batches.random.getrandbits(240):060x}"
    metadata = {"uuid": job, "out": [piece.said for piece in pieces]}
    text = json.dumps(metadata, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    name = f'name="archive"; filename="get-batch[{job}]"'
    head = f'--{mark}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'.encode()
    between = f"\r\n--{mark}\r\nContent-Disposition: form-data; {name}\r\n"
    middle = f"{between}Content-Type: application/octet-stream\r\n\r\n".encode()
    body = [head, text, middle, *_archive(pieces, kind), f"\r\n--{mark}--\r\n".encode()]
    headers = CIMultiDict({"Content-Type": f"multipart/mixed; boundary={mark}"})
    return await send(call, headers, [b"".join(body)], size=None)
