"""What a request asks for of a file whose bytes are at hand: the rules of reading, in plain Python."""

from __future__ import annotations

import errno

from datapipes.errors import OptionError, SizeMismatchError
from datapipes.records import UNKNOWN_SIZE, WHOLE, ReadRequest

__all__ = ["MOST_BYTES", "cut", "impossible", "span"]

MOST_BYTES = 1 << 62
"""Beyond this no offset, length or size can be meant."""


def impossible(request: ReadRequest) -> OptionError | None:
    """The error of a request whose numbers ask for what cannot be, or None."""
    url, offset, length, size = request
    bounds = ((offset, 0), (length, WHOLE), (size, UNKNOWN_SIZE))
    if all(least <= number <= MOST_BYTES for number, least in bounds):
        return None
    return OptionError(
        f"read {url!r} failed: offset {offset}, length {length} and size {size} are no part of a file "
        f"(length {WHOLE}: to the end; size {UNKNOWN_SIZE}: not known)",
        url=url,
        operation="read",
    )


def cut(data: bytes, request: ReadRequest, *, verify_size: bool) -> bytes:
    """The bytes that ``request`` asks for of a file that holds ``data``; see :func:`span`."""
    start, end = span(len(data), request, verify_size=verify_size)
    return data if end - start == len(data) else data[start:end]


def span(held: int, request: ReadRequest, *, verify_size: bool) -> tuple[int, int]:
    """Where the bytes that ``request`` asks for begin and end in a file of ``held`` bytes.

    Raises OptionError for an impossible request, and SizeMismatchError where the file ends before the request
    does (to the end: before ``size``) or, with ``verify_size``, where it is not ``size`` bytes long. Without
    that, a file longer than ``size`` is read up to there.
    """
    error = impossible(request)
    if error is not None:
        raise error
    _, offset, length, size = request
    to_the_end = held if size < 0 else size
    end = offset + length if length >= 0 else to_the_end
    if held < max(offset, end):
        raise _mismatch(request, f"it ends at byte {held} and should reach byte {max(offset, end)}")
    if verify_size and 0 <= size != held:
        raise _mismatch(request, f"it holds {held} bytes and was said to hold {size}")
    return offset, max(offset, end)


def _mismatch(request: ReadRequest, reason: str) -> SizeMismatchError:
    return SizeMismatchError(
        f"read {request.url!r} failed: {reason} [ENODATA]. List the files again",
        url=request.url,
        operation="read",
        errno=errno.ENODATA,
    )
