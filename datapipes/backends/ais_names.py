"""Names of AIStore: our URLs, the SDK's URLs, and the exact request on the wire.

=======================================  ==========================================================
``ais://bucket/dir/a.png``               an object; names are byte for byte, with ``%25 %3F %23``
``s3://bucket/a`` (``aws``)              of a remote bucket; also ``gs`` (``gcp``), ``az`` (``azure``),
                                         ``oci``, ``ht``
``ais://@uuid#ns/bucket/a``              in a namespace; also ``@#ns``, ``#ns``, ``@uuid``
``ais://bucket/shard.tar?archpath=a.b``  a member of a shard, its path quoted like a name
``http://proxy/v1/objects/bucket/a``     the SDK's own form, percent-encoded, with ``?provider=ais``,
                                         ``namespace``, ``archpath`` and ``etl_name``
=======================================  ==========================================================
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, quote_from_bytes, unquote_to_bytes, urlsplit

from datapipes.backends.ais_errors import ais_error
from datapipes.errors import DatapipesError, FileMissingError, UrlError
from datapipes.urls import format_url, parse_url, quote_name, scheme_of, unquote_name

__all__ = [
    "PROVIDERS",
    "AisName",
    "bucket_query",
    "bucket_text",
    "check_object",
    "check_prefix",
    "format_ais_url",
    "object_path",
    "object_paths",
    "parse_ais_url",
    "quote_path",
    "redirected",
    "unames",
]

PROVIDERS = {
    "ais": "ais",
    "aws": "aws",
    "az": "azure",
    "azure": "azure",
    "gcp": "gcp",
    "gs": "gcp",
    "ht": "ht",
    "oci": "oci",
    "s3": "aws",
}
"""AIStore's provider by the scheme of our URLs."""

_ODD = re.compile(r'[^ -"$&->@-~]')  # all but printable ASCII; and the three that a URL escapes
_UNSAFE = re.compile(r"[^A-Za-z0-9/._~-]")
_BUCKET = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_NAMESPACE = re.compile(r"(?:@([A-Za-z0-9_-]*))?(?:#([A-Za-z0-9_-]*))?")
_REFUSED = re.compile(r"(?:^|/)\.\.?(?:/|$)|^~/|/$|^$")
_REFUSED_PREFIX = re.compile(r"(?:^|/)\.\.?/|^~/")
_DOUBTFUL_FIRST = ("", ".", "~")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MEMBER = "archpath="
_OBJECTS = "/v1/objects/"


class AisName(NamedTuple):
    """An object, a bucket (``name`` is empty), or a member of a shard (``archpath`` is not None).

    ``provider`` is AIStore's word (``aws`` for ``s3``); ``namespace`` is ``""`` or ``@uuid#name``. An empty
    ``archpath`` stands for all members. ``etl_name`` comes with URLs of the SDK only.
    """

    provider: str
    namespace: str
    bucket: str
    name: str
    archpath: str | None = None
    etl_name: str | None = None


def _refuse(message: str, url: str, operation: str = "parse") -> DatapipesError:
    return ais_error(UrlError, message, url=url, operation=operation)


def parse_ais_url(url: str) -> AisName:
    """Take one of our URLs, or of the SDK's, apart. Raises UrlError; asks no store.

    Whether an object can bear the name, or a listing the prefix, is for :func:`check_object` and
    :func:`check_prefix` to say.
    """
    if type(url) is str and _ODD.search(url) is None:
        scheme, found, rest = url.partition("://")
        provider = PROVIDERS.get(scheme)
        if found and provider is not None and not rest.startswith("@"):
            bucket, _, name = rest.partition("/")
            return AisName(provider, "", _bucket(bucket, url) if bucket not in _seen else bucket, name)
    return _parse(url)


_seen: set[str] = set()
"""Names of buckets found good, so that the next object costs a look-up; never many."""


def _bucket(bucket: str, url: str) -> str:
    if _BUCKET.fullmatch(bucket) is None:
        raise _refuse(
            f"{url!r} names no bucket: {bucket!r} is not made of letters, digits, '-', '_' and '.'", url
        )
    if len(_seen) < 1000:
        _seen.add(bucket)
    return bucket


def _parse(url: str) -> AisName:
    if scheme_of(str(url)) in ("http", "https"):
        return _parse_http(url)
    try:
        parsed = parse_url(url)
    except UrlError as error:
        raise _refuse(str(error), str(url)) from None
    provider = PROVIDERS.get(parsed.scheme)
    if provider is None:
        known = ", ".join(f"{name}://" for name in PROVIDERS)
        raise _refuse(f"{url!r} is a {parsed.scheme!r} URL, and AIStore serves {known} only", url)
    space, _, bucket = parsed.container.rpartition("/")
    namespace = _namespace(space, url)
    _bucket(bucket, url)
    if parsed.options is None:
        return AisName(provider, namespace, bucket, parsed.path)
    if not parsed.options.startswith(_MEMBER):
        raise _refuse(
            f"{url!r} has options {parsed.options!r}; AIStore's take ?archpath= only. "
            "Inside a name write '?' as %3F",
            url,
        )
    try:
        archpath = unquote_name(parsed.options[len(_MEMBER) :])
    except UrlError as error:
        raise _refuse(f"{url!r}: {error}", url) from None
    if not parsed.path:
        raise _refuse(f"{url!r} names no object before ?archpath=", url)
    return AisName(provider, namespace, bucket, parsed.path, archpath)


def _namespace(text: str, url: str) -> str:
    """``@uuid#name``; ``""`` for the global one."""
    match = _NAMESPACE.fullmatch(text)
    if match is None:
        raise _refuse(f"{url!r}: {text!r} is no namespace; the form is @uuid#name", url)
    uuid, name = match.group(1) or "", match.group(2) or ""
    return f"@{uuid}#{name}" if uuid or name else ""


def _parse_http(url: str) -> AisName:
    """The SDK's form: everything percent-encoded, as ``Object.get_url`` of the SDK gives it."""
    if _CONTROL.search(url):
        raise _refuse(f"{url!r} holds a control character; percent-encode it", url)
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, errors="surrogateescape"))
        raw = unquote_to_bytes(parts.path.encode("utf-8", "surrogateescape"))
    except ValueError as error:
        raise _refuse(f"{url!r} is no URL: {error}", url) from None
    path = raw.decode("utf-8", "surrogateescape")
    _, found, rest = path.partition(_OBJECTS)
    if not parts.netloc or not found or parts.fragment:
        raise _refuse(f"{url!r} is no object's URL; the form is http://proxy{_OBJECTS}bucket/name", url)
    unknown = options.keys() - {"provider", "namespace", "archpath", "etl_name"}
    if unknown:
        raise _refuse(f"{url!r} has options that we do not know: {', '.join(sorted(unknown))}", url)
    provider = PROVIDERS.get(options.get("provider", "ais").lower())
    if provider is None:
        raise _refuse(f"{url!r}: unknown provider {options['provider']!r}", url)
    bucket, _, name = rest.partition("/")
    if "\0" in path or "\0" in options.get("archpath", ""):
        raise _refuse(f"{url!r} holds a NUL byte", url)
    namespace = _namespace(options.get("namespace", ""), url)
    archpath = options.get("archpath") or None
    return AisName(provider, namespace, _bucket(bucket, url), name, archpath, options.get("etl_name") or None)


def format_ais_url(name: AisName, scheme: str | None = None) -> str:
    """Our URL of ``name``; ``scheme`` is another spelling of its provider (``s3``). Knows no ETL."""
    container = f"{name.namespace}/{name.bucket}" if name.namespace else name.bucket
    options = None if name.archpath is None else _MEMBER + quote_name(name.archpath)
    return format_url(scheme or name.provider, container, name.name, options)


def check_object(name: AisName, url: str, operation: str) -> AisName:
    """``name``, if an object can bear it. UrlError where AIStore would refuse it; for reading a name that
    ends with ``/``, which none can have, FileMissingError."""
    path, archpath = name.name, name.archpath
    if archpath is None and "/." not in path and path[:1] not in _DOUBTFUL_FIRST and path[-1] != "/":
        return name
    refused = path if _REFUSED.search(path) else ""
    if refused and path.endswith("/") and operation != "write" and _REFUSED.search(path.rstrip("/")) is None:
        raise ais_error(
            FileMissingError,
            f"{operation} {url!r} failed: no object's name ends with '/' [ENOENT]. List it instead",
            url=url,
            operation=operation,
            number=2,
        )
    if not refused and archpath is not None and _REFUSED.search(archpath.lstrip("/")):
        refused = archpath or "(no member)"
    if not path:
        hint = "" if operation == "write" else ". List it instead"
        raise _refuse(f"{operation} {url!r} failed: it names a bucket and no object{hint}", url, operation)
    if refused:
        raise _refuse(f"{operation} {url!r} failed: AIStore has no objects named {refused!r}", url, operation)
    return name


def check_prefix(name: AisName, url: str) -> AisName:
    """``name``, if it can be a listing's prefix; else UrlError."""
    if _REFUSED_PREFIX.search(name.name) or (name.archpath and _REFUSED_PREFIX.search(name.archpath)):
        raise _refuse(f"list {url!r} failed: '.' and '..' lead nowhere in AIStore", url, "list")
    return name


def quote_path(name: str) -> str:
    """``name`` percent-encoded for a request's path or query: what reaches exactly this object."""
    if _UNSAFE.search(name) is None:
        return name
    if name.isascii():
        return quote(name, safe="/~")
    return quote_from_bytes(name.encode("utf-8", "surrogateescape"), safe="/~")


@functools.lru_cache(maxsize=256)
def bucket_query(provider: str, namespace: str, etl_name: str | None = None) -> str:
    """The part of a request's query that says which bucket, and which ETL, if any."""
    query = f"provider={provider}"
    if namespace:
        query += f"&namespace={quote(namespace, safe='')}"
    return query + (f"&etl_name={quote(etl_name, safe='')}" if etl_name else "")


def object_path(name: AisName) -> str:
    """Path and query of the request for ``name``: ``/v1/objects/bucket/name?provider=ais``."""
    query = bucket_query(name.provider, name.namespace, name.etl_name)
    if name.archpath is not None:
        query += f"&archpath={quote_path(name.archpath)}"
    return f"{_OBJECTS}{name.bucket}/{quote_path(name.name)}?{query}"


def object_paths(bucket: AisName, names: Sequence[str]) -> list[str]:
    """:func:`object_path` of many objects of one bucket (and the ETL of ``bucket``, if it has one)."""
    head = f"{_OBJECTS}{bucket.bucket}/"
    tail = "?" + bucket_query(bucket.provider, bucket.namespace, bucket.etl_name)
    if _UNSAFE.search("".join(names)) is None:
        return [head + name + tail for name in names]
    return [head + quote_path(name) + tail for name in names]


def bucket_text(name: AisName) -> str:
    """The bucket as AIStore's messages name it: ``ais://@uuid#ns/bucket``."""
    return f"{name.provider}://{name.namespace + '/' if name.namespace else ''}{name.bucket}"


def unames(bucket: AisName, names: Iterable[str]) -> list[bytes]:
    """What AIStore hashes to place an object: provider, namespace, bucket and name."""
    head = f"{bucket.provider}/{bucket.namespace or '@#'}/{bucket.bucket}/"
    return [(head + name).encode("utf-8", "surrogateescape") for name in names]


def redirected(location: str, path: str) -> str:
    """Where to go on after a redirect to ``location`` of a request for ``path``, or for a URL of that path.

    Host and query are the redirect's; the path stays our own, because AIStore writes some names into
    ``Location`` so that they mean another object (a newline becomes a space).
    """
    parts = re.match(r"([A-Za-z]+://[^/?#]*)(/[^?]*)\?(.*)\Z", location, re.DOTALL)
    if parts is None or not parts.group(2).startswith(_OBJECTS):
        return location
    own = path.partition("?")[0]
    return f"{parts.group(1)}{own[own.find(_OBJECTS) :]}?{parts.group(3)}"
