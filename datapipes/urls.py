"""URLs, one function each way.

Names go in raw, as torchdata's users write them, except that ``%``, ``?`` and ``#`` inside a name are
written ``%25``, ``%3F`` and ``%23``; only these three are decoded, a stray ``%`` is an error, and a ``?``
separates options (``?archpath=``). Names that are not UTF-8 travel as surrogate escapes (PEP 383).

============  ==================================  =======================  ===================
scheme        example                             container                path
============  ==================================  =======================  ===================
``daos``      ``daos://pool/cont/dir/a.png``      ``pool/cont``            ``dir/a.png``
``file``      ``file:///data/a.png``              ````                     ``/data/a.png``
(none)        ``data/a.png`` (a plain path, raw)  ````                     absolute path
``memory``    ``memory://name/dir/a.png``         ``name``                 ``dir/a.png``
``ais`` ...   ``ais://bucket/dir/a.png``          ``bucket``               ``dir/a.png``
``ais`` ...   ``ais://@uuid#ns/bucket/a.png``     ``@uuid#ns/bucket``      ``a.png``
``https``     ``https://host/v1/a%20b.png``       ``host``                 ``v1/a%20b.png``
============  ==================================  =======================  ===================

``ais`` stands for all schemes of AIStore (see ``_NAMESPACED``); ``#`` is raw in a namespace, and only there.
``http`` and ``https`` have a grammar of their own (RFC 3986): they are percent-encoded already, and stay so.
"""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from datapipes.errors import UrlError

__all__ = ["Url", "format_url", "normalize_path", "parse_url", "quote_name", "scheme_of", "unquote_name"]

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_BAD_ESCAPE = re.compile(r"%(?!25|3F|3f|23)")
_CONTAINER_PARTS = {"daos": 2, "file": 0}
"""How many leading path parts name the container; every scheme not listed has one (its authority)."""
_NAMESPACED = {"ais", "aws", "az", "azure", "gcp", "gs", "ht", "oci", "s3"}
"""Schemes whose container may be ``@uuid#namespace/bucket``."""
_ENCODED = {"http", "https"}
"""Schemes whose URLs are left as they are: nothing is decoded in them, and nothing escaped."""


class Url(NamedTuple):
    """A URL taken apart; ``path`` is decoded. ``options`` is what followed ``?``, undecoded, or None."""

    scheme: str
    container: str
    path: str
    options: str | None = None


def quote_name(name: str) -> str:
    """``name`` as it stands in a URL: ``%``, ``?`` and ``#`` escaped, all else raw."""
    if "%" in name or "?" in name or "#" in name:
        return name.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    return name


def unquote_name(text: str) -> str:
    """The inverse of :func:`quote_name`. Raises UrlError for a ``%`` that starts no known escape."""
    return _unquote(text, text)


def _unquote(text: str, url: str) -> str:
    """:func:`unquote_name` for a part of ``url``, which an error names whole."""
    if "%" not in text:
        return text
    bad = _BAD_ESCAPE.search(text)
    if bad:
        start = url.rfind(text) + bad.start()
        raise UrlError(
            f"{url!r} has a '%' at position {start} that is none of %25, %3F, %23; write '%' as %25",
            url=url,
            operation="parse",
        )
    return text.replace("%23", "#").replace("%3F", "?").replace("%3f", "?").replace("%25", "%")


def scheme_of(url: str) -> str:
    """The scheme in lower case; ``"file"`` for a plain path."""
    match = _SCHEME.match(url)
    return match.group(1).lower() if match else "file"


def parse_url(url: str) -> Url:
    """Take ``url`` apart. Raises UrlError for what cannot be a URL; asks no store."""
    if not isinstance(url, str):
        raise UrlError(f"a URL is a str, not {type(url).__name__}: {url!r}", operation="parse")
    if not url:
        raise UrlError("a URL cannot be empty", url=url, operation="parse")
    if "\0" in url:
        raise UrlError(f"{url!r} holds a NUL byte", url=url, operation="parse")
    if not url.isascii():
        _check_text(url)
    match = _SCHEME.match(url)
    if match is None:
        return Url("file", "", os.path.abspath(url) + ("/" if url.endswith("/") and url.strip("/") else ""))
    return _parse_after_scheme(match.group(1).lower(), url[match.end() :], url)


def _parse_after_scheme(scheme: str, rest: str, url: str) -> Url:
    space = _namespace(scheme, rest)
    if "#" in rest[len(space) :]:
        raise UrlError(f"{url!r} holds a '#'; inside a name write it as %23", url=url, operation="parse")
    rest, separator, tail = rest.partition("?")
    options = tail if separator else None
    parts = 2 if space else _CONTAINER_PARTS.get(scheme, 1)
    if scheme == "file":
        if not rest.startswith("/"):
            raise UrlError(f"{url!r}: a file URL is file:///absolute/path", url=url, operation="parse")
        return Url(scheme, "", _unquote(rest, url), options)
    names = rest.split("/", parts)
    if len(names) < parts or not all(names[:parts]):
        form = "daos://pool/container/path" if scheme == "daos" else f"{scheme}://container/path"
        raise UrlError(f"{url!r} names no container; the form is {form}", url=url, operation="parse")
    path = names[parts] if len(names) > parts else ""
    if scheme not in _ENCODED:
        path = _unquote(path, url)
    return Url(scheme, "/".join(names[:parts]), path, options)


def _namespace(scheme: str, rest: str) -> str:
    """``@uuid#name`` at the start of ``rest``, the URL without its scheme; ``""`` where there is none."""
    if scheme in _NAMESPACED and rest.startswith(("@", "#")):
        return rest.partition("?")[0].partition("/")[0]
    return ""


def _check_text(url: str) -> None:
    try:
        url.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise UrlError(
            f"{url!r} holds half of a surrogate pair at position {error.start}, which no file name can hold",
            url=url,
            operation="parse",
        ) from None


def format_url(scheme: str, container: str, path: str, options: str | None = None) -> str:
    """The URL of a decoded ``path``: the inverse of :func:`parse_url`."""
    tail = "" if options is None else f"?{options}"
    if scheme == "file":
        return f"file://{quote_name(path)}{tail}"
    return f"{scheme}://{container}/{path if scheme in _ENCODED else quote_name(path)}{tail}"


def normalize_path(path: str, url: str) -> str:
    """A decoded ``path`` of a file store with ``//``, ``.`` and ``..`` resolved by the text alone.

    A leading ``/`` is kept, and one trailing ``/`` (also for a last ``.`` or ``..``), because it asks for a
    directory. A ``..`` that leads above the root or out of the container raises UrlError, naming ``url``.
    """
    if "//" not in path and "/." not in path and not path.startswith("."):
        return path
    parts: list[str] = []
    names = path.split("/")
    for name in names:
        if name == "..":
            if not parts:
                raise UrlError(f"{url!r}: '..' leads out of the container", url=url, operation="parse")
            parts.pop()
        elif name not in ("", "."):
            parts.append(name)
    head = "/" if path.startswith("/") else ""
    tail = "/" if parts and names[-1] in ("", ".", "..") else ""
    return head + "/".join(parts) + tail
