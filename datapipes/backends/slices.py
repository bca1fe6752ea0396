"""What a request asks for of a file whose bytes are at hand: the rules of reading, in plain Python."""

from __future__ import annotations

import errno

from datapipes.errors import SizeMismatchError
from datapipes.records import ReadRequest

__all__ = ["cut"]


def cut(data: bytes, request: ReadRequest, *, verify_size: bool) -> bytes:
    """The bytes that ``request`` asks for of a file that holds ``data``.

    Raises SizeMismatchError where the file is shorter than the request or its ``size`` says, and, with
    ``verify_size``, where it is longer than ``size``. Without it, bytes beyond ``size`` are not read.
    """
    _, offset, length, size = request
    end = offset + length if length >= 0 else max(size, offset)
    if len(data) < max(end, size):
        raise _mismatch(request, f"it ends at byte {len(data)} and should reach byte {max(end, size)}")
    if verify_size and 0 <= size < len(data):
        raise _mismatch(request, f"it holds {len(data)} bytes and was said to hold {size}")
    if length < 0 and size < 0:
        end = len(data)
    return data if end - offset == len(data) else data[offset:end]


def _mismatch(request: ReadRequest, reason: str) -> SizeMismatchError:
    return SizeMismatchError(
        f"read {request.url!r} failed: {reason} [ENODATA]. List the files again",
        url=request.url,
        operation="read",
        errno=errno.ENODATA,
    )
