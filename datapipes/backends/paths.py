"""The path that a URL names inside a file store."""

from __future__ import annotations

from datapipes.errors import UrlError
from datapipes.urls import Url, normalize_path, parse_url

__all__ = ["path_bytes", "path_in", "path_text"]


def path_in(url: str, *, scheme: str, container: str) -> str:
    """The path of ``url`` relative to its container, decoded, with ``//``, ``.`` and ``..`` resolved.

    It has no leading ``/``; a trailing one stays, because it asks for a directory. ``""`` is the container
    itself. Raises UrlError for a URL of another store or container, for one that leads out of its container,
    and for one with options, which no file store takes.
    """
    parsed = parse_url(url)
    if (parsed.scheme, parsed.container) != (scheme, container):
        raise UrlError(
            f"{url!r} belongs to {_store(parsed)}, and this reads {_store(Url(scheme, container, ''))} only",
            url=url,
            operation="parse",
        )
    if parsed.options is not None:
        raise UrlError(
            f"{url!r} has options ({parsed.options!r}) and a file store takes none; "
            "inside a name write '?' as %3F",
            url=url,
            operation="parse",
        )
    return normalize_path(parsed.path, url).lstrip("/")


def path_bytes(path: str) -> bytes:
    """The bytes of a path, by which listings are ordered."""
    return path.encode("utf-8", "surrogateescape")


def path_text(path: bytes) -> str:
    """The inverse of :func:`path_bytes`."""
    return path.decode("utf-8", "surrogateescape")


def _store(url: Url) -> str:
    return f"{url.scheme}://{url.container}"
