"""What AIStore's datasets find and read: names where the SDK's own classes are used, else users' objects.

The only room of the datasets that knows the aistore SDK's classes and AIStore's back end: sources are the
SDK's objects, and the client that each of them holds says where its cluster is and how it is reached.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from datapipes.backends.ais import AisBackend
from datapipes.backends.ais_batches import GetBatch
from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_errors import client
from datapipes.backends.ais_names import AisName, format_ais_url
from datapipes.errors import OptionError
from datapipes.records import UNKNOWN_SIZE
from datapipes.urls import quote_name, unquote_name

__all__ = [
    "Found",
    "GetBatch",
    "Place",
    "Places",
    "as_prefix_map",
    "as_sources",
    "found_in",
    "object_of",
    "overridden",
    "place_of_bucket",
    "prefixes_of",
    "sdk_etl",
]


class Place:
    """A bucket that is read by names. Travels as the SDK's bucket, or client, that it was made of."""

    __slots__ = ("bucket", "head", "request_client")

    def __init__(self, request_client: Any, head: str, bucket: Any = None) -> None:
        self.request_client = request_client
        self.head = head
        self.bucket = bucket

    def backend(self, etl_name: str | None, get_batch: GetBatch | None = None) -> AisBackend:
        """Reads this bucket; one for each cluster and way to read in a process."""
        own = self.request_client
        session, cert, timeout = own.session_manager, own.session_manager.client_cert, own.timeout
        return _backend(
            own.base_url.removesuffix("/v1"),
            own.token or None,
            session.ca_cert,
            tuple(cert) if isinstance(cert, list) else cert,
            session.skip_verify,
            tuple(timeout) if isinstance(timeout, list) else timeout,
            etl_name or None,
            get_batch,
        )

    def url(self, name: str) -> str:
        """The URL of an object of the bucket."""
        return self.head + quote_name(name)


@functools.lru_cache(maxsize=64)
def _backend(
    endpoint: str,
    token: Any,
    ca: Any,
    cert: Any,
    skip: Any,
    timeout: Any,
    etl_name: str | None,
    get_batch: GetBatch | None,
) -> AisBackend:
    cluster = AisCluster(
        endpoint, token=token, ca_cert=ca, client_cert=cert, skip_verify=bool(skip), timeout_s=timeout
    )
    return AisBackend(cluster, etl_name, get_batch)


class Found(NamedTuple):
    """One object: by name in a ``place``, or ``thing``, which is read through its own ``get_reader()``."""

    name: str
    url: str
    size: int = UNKNOWN_SIZE
    place: Place | None = None
    thing: Any = None


class Places:
    """Objects of the SDK as names; anything else is left as it is."""

    def __init__(self) -> None:
        self._known: dict[Any, Place] = {}
        self._exact = client("aistore.sdk.obj.object").Object

    def found(self, thing: Any) -> Found:
        """``thing`` by its name where it is exactly the SDK's ``Object``, with a bucket's options only."""
        if type(thing) is self._exact:
            own = thing._client  # noqa: SLF001 - the SDK has no public way to it
            query = thing.query_params
            key = (id(own), thing.bucket_name, *query.items())
            place = self._known.get(key)
            if place is None and _is_sdk_client(own) and query.keys() <= {"provider", "namespace"}:
                head = _head(query.get("provider", "ais"), query.get("namespace", ""), thing.bucket_name)
                place = self._known.setdefault(key, Place(own, head))
            if place is not None:
                props = thing.props_cached
                size = UNKNOWN_SIZE if props is None else props.size
                return Found(thing.name, place.url(thing.name), size or UNKNOWN_SIZE, place, thing)
        return Found(getattr(thing, "name", ""), "", UNKNOWN_SIZE, None, thing)


def place_of_bucket(bucket: Any) -> Place | None:
    """Where ``bucket`` is, if it is exactly the SDK's ``Bucket``."""
    if type(bucket) is not client("aistore.sdk").Bucket or not _is_sdk_client(bucket.client):
        return None
    query = bucket.qparam
    head = _head(query.get("provider", "ais"), query.get("namespace", ""), bucket.name)
    return Place(bucket.client, head, bucket)


def found_in(source: Any, prefix: str, places: Places) -> Iterator[Found]:
    """The objects of ``source`` whose names begin with ``prefix``, in the order in which it lists them.

    Of the SDK's own buckets and groups names alone are asked for: of a group nothing at all, so an object
    that is not there is noticed when it is read.
    """
    group = type(source) is client("aistore.sdk.multiobj").ObjectGroup
    place = place_of_bucket(source.bck if group else source)
    if place is None:
        yield from map(places.found, source.list_all_objects_iter(prefix=prefix))
    elif group:
        for name in source._obj_collection:  # noqa: SLF001 - its public listing asks HEAD of each object
            if name.startswith(prefix):
                yield Found(name, place.url(name), UNKNOWN_SIZE, place)
    else:
        cut = len(place.head)
        for url, size in place.backend(None).list(place.url(prefix)):
            name = url[cut:]
            yield Found(unquote_name(name) if "%" in name else name, url, size, place)


def object_of(found: Found) -> Any:
    """``found`` as the SDK's object, or the user's. Its size is asked for where no listing has said it."""
    if found.thing is not None or found.place is None:
        return found.thing
    bucket = found.place.bucket
    if found.size == UNKNOWN_SIZE:
        made = bucket.object(found.name)
        made.head("name,size")
        return made
    entry = client("aistore.sdk.types").BucketEntry(n=found.name, s=found.size)
    return bucket.object(found.name, entry.generate_object_props())


def as_prefix_map(given: Any) -> Any:
    """``given`` by source, empty for None. OptionError for what says no prefixes."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise OptionError(f"prefix_map must map sources to prefixes, not be {given!r:.200}")
    for prefixes in given.values():
        if prefixes is None or isinstance(prefixes, str):
            continue
        if not isinstance(prefixes, Collection) or not all(isinstance(prefix, str) for prefix in prefixes):
            raise OptionError(f"prefix_map must have a prefix or a list of them, not {prefixes!r:.200}")
    return given


def prefixes_of(source: Any, prefix_map: dict[Any, Any]) -> list[str]:
    """The prefixes that ``prefix_map`` allows in ``source``; one that is empty where it says nothing."""
    prefixes = prefix_map.get(source)
    if prefixes is None:
        return [""]
    return [prefixes] if isinstance(prefixes, str) else list(prefixes)


def as_sources(given: Any, owner: object) -> list[Any]:
    """A source, or a list of them, as a list. ValueError where there is none, as in aistore.pytorch."""
    if not given:
        raise ValueError(f"<{type(owner).__name__}> ais_source_list must be provided")
    if isinstance(given, client("aistore.sdk").AISSource):
        return [given]
    return given if isinstance(given, list) else list(given)


def overridden(thing: object, base: type, names: Iterable[str]) -> bool:
    """Whether a subclass, or ``thing`` itself, has its own of one of the methods ``names`` of ``base``."""
    own = vars(thing)
    return any(name in own or getattr(type(thing), name) is not getattr(base, name) for name in names)


def sdk_etl(etl_name: str | None) -> Any:
    """The SDK's ``ETLConfig``, as users' own ``get_reader()`` is given it."""
    return client("aistore.sdk.etl.etl_config").ETLConfig(etl_name)


def _is_sdk_client(own: Any) -> bool:
    return type(own) is client("aistore.sdk.request_client").RequestClient


def _head(provider: str, namespace: str, bucket: str) -> str:
    return format_ais_url(AisName(provider, namespace, bucket, "")).rstrip("/") + "/"
