"""The layout of an index file: what the writer and the reader agree on.

All numbers are little-endian::

    header   64 bytes: magic, version, file length, place and CRC-32 of the description, own CRC-32
    blocks   one for each 65,536 names (the last one shorter), each at a multiple of 8 bytes
        starts     uint32 * (names + 1)   where each name begins, in bytes; the last: where they end
        sizes      uint32 * names         the file's size in bytes (its lower half in a wide block)
        sizes_high uint32 * names         its upper half; in wide blocks, which have a file of 4 GiB or more
        names      URLs without the block's root, UTF-8 or as the store has them, NUL-ended
    description  JSON: number of names, place, root and CRC-32 of every block, source, options, fingerprint

An unknown size is all ones. The header is written last: a file whose builder was killed has none. The layout
of the header is the same in every version.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from datapipes.errors import IndexFileError, OptionError

__all__ = [
    "BLOCK_NAMES",
    "HEADER_BYTES",
    "LONGEST_NAME",
    "UNKNOWN_U32",
    "Block",
    "Description",
    "Fingerprint",
    "absolute_path",
    "describe",
    "pack_header",
    "parse_description",
    "parse_header",
]

BLOCK_NAMES = 1 << 16
HEADER_BYTES = 64
LONGEST_NAME = (1 << 16) - 2
"""In bytes; with the NUL bytes a whole block of such names still fits 32-bit offsets."""
UNKNOWN_U32 = (1 << 32) - 1

_MAGIC = b"\x89dpidx\r\n"
_VERSION = 1
_HEADER = struct.Struct("<8sIIQQQI16xI")  # ..., description's CRC, padding, CRC of the 60 bytes before
_AGAIN = "Remove it and build the index again."


class Block(NamedTuple):
    """One block: where it begins in the file, what its names begin with, and its checksum."""

    offset: int
    name_bytes: int
    root: str
    wide: bool
    crc: int


class Description(NamedTuple):
    """What the end of the file says about the rest."""

    names: int
    blocks: list[Block]
    source: str
    options: dict[str, Any]
    fingerprint: str


class Fingerprint:
    """Digest of names, sizes and order: the same however they were cut into blocks and wherever they lie."""

    def __init__(self) -> None:
        self._names = hashlib.sha256()
        self._sizes = hashlib.sha256()
        self._count = 0

    def add(self, names: bytes, sizes: NDArray[np.int64]) -> None:
        """Full URLs, each ended by a NUL byte, and their sizes."""
        self._names.update(names)
        self._sizes.update(np.ascontiguousarray(sizes, "<i8").data)
        self._count += len(sizes)

    def hexdigest(self) -> str:
        """32 hexadecimal digits."""
        text = f"{self._count} {self._names.hexdigest()} {self._sizes.hexdigest()}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def absolute_path(path: str | os.PathLike[str], name: str = "the path of an index") -> Path:
    """Where the file is or is to be; OptionError, about ``name``, for what no file can be called."""
    if isinstance(path, (str, os.PathLike)):
        with contextlib.suppress(UnicodeEncodeError, TypeError):
            text = os.fspath(path)
            if text and b"\0" not in os.fsencode(text):
                return Path(os.path.abspath(text))
    raise OptionError(f"{name} must be the path of a file, not {path!r:.200}")


def pack_header(file_bytes: int, description_offset: int, description: bytes) -> bytes:
    """The header of a complete file."""
    fields = (_MAGIC, _VERSION, 0, file_bytes, description_offset, len(description), zlib.crc32(description))
    return _HEADER.pack(*fields, zlib.crc32(_HEADER.pack(*fields, 0)[:-4]))


def parse_header(header: bytes, file_bytes: int, path: str) -> tuple[int, int, int]:
    """(offset, length, CRC) of the description. Raises IndexFileError, which says what is wrong."""
    if header[: len(_MAGIC)] != _MAGIC[: len(header)]:
        raise _unfit(path, "is no index of datapipes", "Check the path; FileIndex.build() makes an index.")
    if len(header) < HEADER_BYTES:
        raise _unfit(path, f"is cut off: it has {file_bytes} bytes, less than a header", _AGAIN)
    _, version, _, length, offset, description_bytes, crc, header_crc = _HEADER.unpack(header)
    if zlib.crc32(header[:-4]) != header_crc:
        raise damaged(path, "its header's checksum is wrong")
    if version != _VERSION:
        raise _unfit(path, f"is of version {version}, and this release reads version {_VERSION}", _AGAIN)
    if length != file_bytes:
        wrong = "is cut off" if file_bytes < length else "has grown"
        raise _unfit(path, f"{wrong}: it has {file_bytes} bytes and should have {length}", _AGAIN)
    if offset + description_bytes != length:
        raise damaged(path, "its description does not lie at its end")
    return offset, description_bytes, crc


def describe(description: Description) -> bytes:
    """The description as it stands in the file."""
    fields = description._asdict()
    fields["blocks"] = [list(block) for block in description.blocks]
    return json.dumps(fields, separators=(",", ":"), sort_keys=True).encode("ascii")


def parse_description(text: bytes, crc: int, path: str) -> Description:
    """The inverse of ``describe``. Raises IndexFileError."""
    if zlib.crc32(text) != crc:
        raise damaged(path, "its description's checksum is wrong")
    try:
        fields: Mapping[str, Any] = json.loads(text)
        blocks = [Block(*block) for block in fields["blocks"]]
        description = Description(**{**fields, "blocks": blocks})
        _check_types(description)
    except (ValueError, TypeError, KeyError) as error:
        raise damaged(path, f"its description cannot be read ({error})") from None
    return description


def _check_types(description: Description) -> None:
    """Raise TypeError where another program wrote what passes for a description, checksum and all."""
    names, blocks, source, options, fingerprint = description
    numbers = [names, *(n for block in blocks for n in (block.offset, block.name_bytes, block.crc))]
    if not all(type(number) is int and 0 <= number < 1 << 62 for number in numbers):
        raise TypeError("a count or a place is none")
    texts = [source, fingerprint, *(block.root for block in blocks)]
    if not all(type(text) is str for text in texts) or type(options) is not dict:
        raise TypeError("a text or the options are none")
    if not all(type(block.wide) is bool for block in blocks):
        raise TypeError("a block is neither wide nor narrow")


def damaged(path: str, what: str) -> IndexFileError:
    """The error for an index whose bytes are not those that were written."""
    return _unfit(path, f"is damaged: {what}", _AGAIN)


def _unfit(path: str, what: str, advice: str) -> IndexFileError:
    return IndexFileError(f"index file {path!r} {what}. {advice}", url=path, operation="open index")
