"""The recorded exchanges of a real cluster, and how a value of today is held against a recorded one."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import io
import json
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus

import msgspec

DATA = Path(__file__).parents[2] / "data/ais_exchanges"

FILES = sorted(path.name.removesuffix(".jsonl.gz") for path in DATA.glob("*.jsonl.gz"))

TOKEN = re.compile(
    r"(?:http://)?(?:PROXY|TARGET_[AB])_INTRA_(?:CONTROL|DATA)\b|http://(?:PROXY|TARGET_[AB])\b|(?:PROXY|TARGET_[AB])(?:_INTRA_\w+)?_PORT"
    r"|PROXY_I-REQID|PROXY_ID|T(?:ARGE|G)T_([AB])_ID|UUID_\d{4}H?|CLUSTER_UUID|UTM|DATE|ATIME|TIME36|TIME"
    r"|CLIENT_ADDR|NODE_IP|NODE_DIR|MOUNTPATH_(?:A|B|ROOT)|DISK|FSID|HH:MM:SS\.uuuuuu|UPTIME_NS|KEY|MTIME|HTTP_DATE"
)
"""Placeholders of the recordings."""

SHAPES = {
    "UTM": r"[0-9a-z]{12}", "ATIME": r"\d+", "UPTIME_NS": r"\d+", "CLIENT_ADDR": r"127\.0\.0\.1:\d+",
    "MOUNTPATH_A": r"[^,\]]+?", "MOUNTPATH_B": r"[^,\]]+?", "TIME36": r"[0-9a-z]+",
}  # fmt: skip
"""What may stand in the place of one; of the others, anything may."""

MACHINE = ("size_on_disk", "total_disks_size", "used_pct")
"""What a summary says of the disk."""

DECODER = re.compile(
    r"(failed to unmarshal .*?, err: |ReadObjectCB: |error parsing regexp: ).*|, error found in .*", re.DOTALL
)
"""From here on an error text is that of the Go library that reads JSON or compiles a pattern."""


@functools.cache
def load(name: str) -> list[dict[str, Any]]:
    """The exchanges of one file, in order."""
    lines = gzip.decompress((DATA / f"{name}.jsonl.gz").read_bytes()).decode().splitlines()
    return [json.loads(line) for line in lines]


class Names:
    """What the placeholders stand for today: addresses and ids are known, other ids are learned when seen."""

    def __init__(self, known: Mapping[str, str]) -> None:
        self.known = dict(known)
        self.handles: dict[str, str] = {}

    def learn_handle(self, recorded: str, actual: str) -> None:
        """An append handle, as it stands in headers and as it stands in addresses."""
        self.handles[recorded] = actual
        self.handles[quote_plus(recorded)] = quote_plus(actual)

    def fill(self, value: Any) -> Any:
        """The value with every placeholder replaced: what to send."""
        if isinstance(value, str):
            for then, now in self.handles.items():
                value = value.replace(then, now)
            return TOKEN.sub(lambda found: self.known.get(found.group(), found.group()), value)
        if isinstance(value, list):
            return [self.fill(item) for item in value]
        if isinstance(value, dict):
            return {self.fill(key): self.fill(item) for key, item in value.items()}
        return value

    def differs(self, recorded: Any, actual: Any, where: str = "") -> str:
        """What of ``actual`` is not as recorded, or ""."""
        if isinstance(recorded, str) and isinstance(actual, str):
            return (
                ""
                if self._like(self._handled(recorded), actual)
                else f"{where}: {actual!r} is not like {recorded!r}"
            )
        if isinstance(recorded, dict) and isinstance(actual, dict):
            recorded = {self.fill(key): value for key, value in recorded.items()}
            wanted = {key: value for key, value in recorded.items() if key not in MACHINE}
            actual = {
                key: value for key, value in actual.items() if key not in MACHINE or key not in recorded
            }
            if wanted.keys() != actual.keys():
                return f"{where}: keys {sorted(actual)} are not {sorted(wanted)}"
            found = (self.differs(value, actual[key], f"{where}.{key}") for key, value in wanted.items())
            return next(filter(None, found), "")
        if isinstance(recorded, list) and isinstance(actual, list):
            if len(recorded) != len(actual):
                return f"{where}: {len(actual)} items, not {len(recorded)}"
            pairs = zip(recorded, actual, strict=True)
            return next(
                filter(None, (self.differs(a, b, f"{where}[{i}]") for i, (a, b) in enumerate(pairs))), ""
            )
        if isinstance(recorded, int) and str(recorded) in self.known:
            return "" if self.known[str(recorded)] == str(actual) else f"{where}: {actual} is another node's"
        if isinstance(recorded, str) and isinstance(actual, int) and TOKEN.fullmatch(recorded):
            return ""
        return (
            ""
            if recorded == actual and type(recorded) is type(actual)
            else f"{where}: {actual!r} is not {recorded!r}"
        )

    def _handled(self, text: str) -> str:
        for then, now in self.handles.items():
            text = text.replace(then, now)
        return text

    def _like(self, recorded: str, actual: str) -> bool:
        pattern, end, learned = "", 0, []
        for found in TOKEN.finditer(recorded):
            token = found.group()
            pattern += re.escape(recorded[end : found.start()])
            if token in self.known and token != "PROXY_I-REQID":
                pattern += re.escape(self.known[token])
            else:
                learned.append(token)
                pattern += f"({SHAPES.get(token, '.+?')})"
            end = found.end()
        matched = re.fullmatch(pattern + re.escape(recorded[end:]), actual, re.DOTALL)
        if matched is None:
            return False
        for token, value in zip(learned, matched.groups(), strict=True):
            if token.startswith("UUID") or token == "PROXY_I-REQID":
                self.known[token] = value
        return True


def body_bytes(body: Any) -> bytes:
    """A recorded request's body as it was sent."""
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, dict) and body.keys() == {"base64"}:
        return base64.b64decode(body["base64"])
    if isinstance(body, dict) and isinstance(body.get("in"), list) and isinstance(body["in"][-1:], list):
        body = body | {"in": _repeated(body["in"])}
    return json.dumps(body).encode()


def _repeated(entries: list[Any]) -> list[Any]:
    """A list that was shortened to a remark is made long again."""
    if not entries or not isinstance(entries[-1], str):
        return entries
    return (entries[:8] * 250)[:2000]


def members_of(data: bytes) -> list[dict[str, Any]]:
    """The members of a tar or tgz in the form of the recordings, and their bytes as ``data``."""
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    found: list[dict[str, Any]] = []
    if not data.strip(b"\0"):
        return found
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
        for info in tar:
            extracted = tar.extractfile(info) if info.isfile() else None
            facts = {"name": info.name, "size": info.size, "type": info.type.decode(), "mode": oct(info.mode)}
            owner = {"uid": info.uid, "gid": info.gid, "uname": info.uname, "gname": info.gname}
            content = extracted.read() if extracted else b""
            found.append({**facts, **owner, "mtime": int(info.mtime), "data": content})
    return found


def zip_members_of(data: bytes) -> list[dict[str, Any]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [
            {
                "name": info.filename,
                "size": info.file_size,
                "method": info.compress_type,
                "flag_bits": info.flag_bits & 8,
            }
            for info in archive.infolist()
        ]


def members_differ(names: Names, recorded: Any, kind: str, data: bytes) -> str:
    """Whether an archive's members are other than recorded: name, size, type, mode, owner, time or none."""
    if kind == "zip_members":
        return names.differs(recorded, zip_members_of(data), "members")
    found = members_of(data)
    if isinstance(recorded[-1], str):  # a remark: so it goes on
        recorded, found = recorded[:-1], found[: len(recorded) - 1]
    wanted = [{key: value for key, value in one.items() if key not in NOT_COMPARED} for one in recorded]
    kept = [{key: value for key, value in one.items() if key not in NOT_COMPARED} for one in found]
    for one in [*wanted, *kept]:
        one["mtime"] = one["mtime"] and 1
    return names.differs(wanted, kept, "members")


NOT_COMPARED = ("pax_headers", "header_offset", "data_offset", "data")


def body_differs(names: Names, recorded: Any, data: bytes, content_type: str) -> str:
    """What of a body is not as recorded, or ""."""
    if recorded is None:
        return f"body: {data[:80]!r} where none was" if data else ""
    if isinstance(recorded, str):
        then, now = DECODER.sub(r"\1", recorded), DECODER.sub(r"\1", data.decode("utf-8", "replace"))
        return names.differs(then, now, "body")
    if isinstance(recorded, dict):
        for key, compare in COMPARISONS.items():
            if recorded.get(key) is not None:
                return compare(names, recorded, data, content_type)
    try:
        return names.differs(_relaxed(recorded), _relaxed(json.loads(data)), "body")
    except ValueError:
        return f"body: {data[:80]!r} is no JSON"


def _bytes_differ(names: Names, recorded: dict[str, Any], data: bytes, content_type: str) -> str:
    return "" if base64.b64decode(recorded["base64"]) == data else "body: other bytes"


def _hash_differs(names: Names, recorded: dict[str, Any], data: bytes, content_type: str) -> str:
    same = hashlib.sha256(data).hexdigest() == recorded["sha256"]
    return "" if same else f"body: {len(data)} bytes, other than the {recorded['length']} recorded"


def _msgpack_differs(names: Names, recorded: dict[str, Any], data: bytes, content_type: str) -> str:
    return names.differs(recorded["msgpack_decoded"], msgspec.msgpack.decode(data), "body")


def _tar_differs(names: Names, recorded: dict[str, Any], data: bytes, content_type: str) -> str:
    if recorded.get("base64"):
        now, then = members_of(data), members_of(base64.b64decode(recorded["base64"]))
        if [one["data"] for one in now] != [one["data"] for one in then]:
            return "body: other bytes in the members"
    elif len(data) != recorded["length"]:
        return f"body: {len(data)} bytes, not {recorded['length']}"
    return members_differ(names, recorded["tar_members"], "tar_members", data)


def _zip_differs(names: Names, recorded: dict[str, Any], data: bytes, content_type: str) -> str:
    return members_differ(names, recorded["zip_members"], "zip_members", data)


def _relaxed(value: Any) -> Any:
    """An error whose text is the Go library's is compared up to there."""
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        return value | {"message": DECODER.sub(r"\1", value["message"])}
    return value


def _multipart_differs(names: Names, recorded: dict[str, Any], data: bytes, content_type: str) -> str:
    mark = content_type.partition("boundary=")[2].encode()
    parts = data.split(b"--" + mark)
    if parts[0] or parts[-1] != b"--\r\n" or len(parts) != 4:
        return "body: not two parts"
    for part, wanted in zip(parts[1:3], recorded["multipart_parts"], strict=False):
        head, _, content = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        content = content.removesuffix(b"\r\n")
        different = names.differs(wanted["raw_headers"], head.decode(), "part headers")
        if "json" in wanted:
            different = different or names.differs(wanted["json"], json.loads(content), "metadata")
        for kind in ("tar_members", "zip_members"):
            if kind in wanted:
                different = different or members_differ(names, wanted[kind], kind, content)
        if different:
            return different
    return ""


COMPARISONS = {
    "multipart_parts": _multipart_differs,
    "msgpack_decoded": _msgpack_differs,
    "tar_members": _tar_differs,
    "zip_members": _zip_differs,
    "sha256": _hash_differs,
    "base64": _bytes_differ,
}
"""By the key that a recorded body has; the first that is there says what it is."""
