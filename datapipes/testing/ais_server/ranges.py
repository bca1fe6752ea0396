"""Byte ranges as a target understands them, and as it refuses them."""

from __future__ import annotations

from datapipes.testing.ais_server.errors import ApiError

__all__ = ["parse_range"]


def parse_range(text: str, size: int, title: str) -> tuple[int, int] | None:
    """Begin and end of the bytes that a ``Range`` header asks for; None for the whole object.

    Args:
        text: the header's value.
        size: bytes of the object.
        title: the object, for messages.
    """
    if not text:
        return None
    if not text.startswith("bytes="):
        raise ApiError(416, f'read range "{text}" is invalid (prefix)')
    asked = [part.strip() for part in text.removeprefix("bytes=").split(",")]
    asked = [part for part in asked if part]
    if not asked:
        raise ApiError(400, f'read range "{text}" is empty: a cluster drops the connection')
    spans = [_span(part, size) for part in asked]
    if len(spans) > 1:
        what = f"cannot multi-range read {title} - operation not supported"
        raise ApiError(416, what, "ErrUnsupp")
    return spans[0]


def _span(text: str, size: int) -> tuple[int, int]:
    first, dash, last = text.partition("-")
    first, last = first.strip(), last.strip()
    if not dash or (not first and not last):
        raise ApiError(416, f'read range "{text}" is invalid as per RFC 7233 Section 2.1')
    if not first:
        if not last.isascii() or not last.isdigit():
            raise ApiError(416, f'read range "{text}" is invalid as per RFC 7233 Section 2.1')
        return max(0, size - int(last)), size
    if not first.isascii() or not first.isdigit():
        raise ApiError(416, f'read range "{text}" is invalid (start)')
    begin = int(first)
    if begin >= size:
        what = f"size={size}: not satisfiable range [{text}]"
        headers = {"Content-Range": f"bytes */{size}"}
        raise ApiError(416, what, "ErrRangeNotSatisfiable", headers=headers)
    if not last:
        return begin, size
    if not last.isascii() or not last.isdigit() or int(last) < begin:
        raise ApiError(416, f'read range "{text}" is invalid (end)')
    return begin, min(int(last) + 1, size)
