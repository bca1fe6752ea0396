"""The head of an HTTP answer, and what in it proves that two answers are of one object."""

from __future__ import annotations

import re
from typing import NamedTuple

from datapipes.transport.options import HttpOptions

__all__ = ["Head", "Identity", "checksum_of", "content_range", "identity_of", "parse_head"]

_CONTENT_RANGE = re.compile(rb"bytes +(?:(\d+)-(\d+)|\*)/(\d+|\*)", re.IGNORECASE)


class Head(NamedTuple):
    """Status and fields (names in lower case) of one answer."""

    status: int
    fields: dict[bytes, bytes]

    def text(self, name: bytes) -> str:
        """The value of a field as text; empty where there is none."""
        return self.fields.get(name, b"").decode("utf-8", "replace")

    @property
    def length(self) -> int:
        """``Content-Length``, or -1."""
        value = self.fields.get(b"content-length", b"")
        return int(value) if value.isdigit() else -1

    @property
    def delimited(self) -> bool:
        """Whether the end of the body can be told from the end of the connection."""
        return b"content-length" in self.fields or b"transfer-encoding" in self.fields


class Identity(NamedTuple):
    """What must repeat in every answer from which one object is put together."""

    proof: bytes
    """A checksum of the whole content with its type, or a strong ETag; empty where there is neither."""
    version: bytes
    total: int


def parse_head(lines: list[bytes]) -> Head:
    """The last head among ``lines``: those before it were interim answers."""
    begin = len(lines) - 1
    while begin > 0 and lines[begin][:5] != b"HTTP/":
        begin -= 1
    words = lines[begin].split(None, 2) if lines else []
    status = int(words[1]) if len(words) > 1 and words[1].isdigit() else 0
    fields = {}
    for line in lines[begin + 1 :]:
        field = _known_lines.get(line)
        if field is None:
            field = _field(line)
        fields[field[0]] = field[1]
    return Head(status, fields)


_known_lines: dict[bytes, tuple[bytes, bytes]] = {}
"""Lines met before, taken apart: most are the same in every answer of a server."""
_MOST_KNOWN = 1024


def _field(line: bytes) -> tuple[bytes, bytes]:
    name, _, value = line.partition(b":")
    field = (name.strip().lower(), value.strip())
    if len(_known_lines) >= _MOST_KNOWN:
        _known_lines.clear()
    _known_lines[line] = field
    return field


def content_range(head: Head) -> tuple[int, int, int] | None:
    """(first byte, one past the last, total) of ``Content-Range``; (0, 0, total) where no range was given,
    and None where the field is missing or makes no sense."""
    match = _CONTENT_RANGE.fullmatch(head.fields.get(b"content-range", b""))
    if match is None or match.group(3) == b"*":
        return None
    total = int(match.group(3))
    if match.group(1) is None:
        return 0, 0, total
    first, end = int(match.group(1)), int(match.group(2)) + 1
    return (first, end, total) if first < end <= total else None


def identity_of(head: Head, total: int, options: HttpOptions) -> Identity:
    """The identity of the object that an answer is from."""
    kind, value = checksum_of(head, options)
    if value:
        proof = kind + b":" + value
    else:
        etag = head.fields.get(b"etag", b"")
        proof = etag if etag.startswith(b'"') and len(etag) > 2 else b""
    return Identity(proof, head.fields.get(options.version_header, b""), total)


def checksum_of(head: Head, options: HttpOptions) -> tuple[bytes, bytes]:
    """(type, value) of the content's checksum; empty where the answer has none."""
    kind, value = options.checksum_headers
    return head.fields.get(kind, b""), head.fields.get(value, b"")
