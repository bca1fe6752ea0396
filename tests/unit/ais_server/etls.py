"""Functions that a server in a process of its own can import as ETLs."""

from __future__ import annotations

import sys


def upper(data: bytes) -> bytes:
    return data.upper()


def repeat(data: bytes, args: str) -> bytes:
    return data * int(args)


def refuse(data: bytes) -> bytes:
    raise ValueError(f"cannot take {len(data)} bytes on {sys.platform}")
