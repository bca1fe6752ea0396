"""Listings of AIStore: pages of names, the next one under way while this one is used; members of a shard."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from datapipes.backends.ais_cluster import AisCluster
from datapipes.backends.ais_errors import ais_error, client
from datapipes.backends.ais_map import is_elsewhere
from datapipes.backends.ais_names import AisName, bucket_text, check_prefix, format_ais_url, parse_ais_url
from datapipes.backends.ais_opened import Opened
from datapipes.errors import BackendIOError, FileMissingError, ShardError, UrlError
from datapipes.records import UNKNOWN_SIZE, FileEntry
from datapipes.urls import quote_name, scheme_of

__all__ = ["list_objects"]

_DIRECTORY, _MEMBER, _SHARD = 1 << 8, 1 << 7, 1 << 9
"""Flags of an entry: no object but a common beginning of names; a member of a shard; a shard."""


class _Page(NamedTuple):
    entries: Sequence[Any]
    token: str
    uuid: str


def list_objects(
    cluster: AisCluster,
    prefix: str,
    *,
    recursive: bool = True,
    start_after: str | None = None,
    sizes: bool = True,
    page_size: int = 0,
) -> Iterator[FileEntry]:
    """``Backend.list`` of AIStore: objects whose names begin with ``prefix``, or members of one shard.

    ``ais://bucket/shard.tar?archpath=`` lists the members that AIStore can serve, as URLs of members; what
    follows ``archpath=`` is the beginning of their paths. With ``recursive=False`` come the names that have
    no further ``/``, one right behind ``prefix`` apart. ``page_size`` 0 leaves it to the cluster (10,000).

    Where a part of a name is longer than 255 bytes, clusters of today lose names at the ends of pages, that
    one and others, whoever lists them.
    """
    name = check_prefix(parse_ais_url(prefix), prefix)
    after = _start(name, start_after)
    if name.archpath is not None:
        return _members(cluster, prefix, name, after, recursive=recursive, sizes=sizes)
    flat = not recursive and ("/" not in name.name or name.name.endswith("/"))
    # Asked for the beginning of a name inside a directory, AIStore gives nothing where it may not go deeper.
    flags = ["NO_RECURSION"] if flat else []
    listing = _Listing(cluster, prefix, name, page_size, flags, sizes=sizes)
    return _objects(listing, after, sizes=sizes, recursive=recursive)


def _start(name: AisName, start_after: str | None) -> str:
    if start_after is None:
        return ""
    start = parse_ais_url(start_after)
    if start[:3] != name[:3]:
        raise ais_error(
            UrlError,
            f"list cannot start after {start_after!r}: it is not in {bucket_text(name)}",
            url=start_after,
            operation="list",
        )
    if name.archpath is None:
        return start.name
    if start.name != name.name:
        return "" if start.name < name.name else "\U0010ffff"
    return start.archpath or ""


def _objects(listing: _Listing, after: str, *, sizes: bool, recursive: bool) -> Iterator[FileEntry]:
    name, head = listing.name, _head(listing.url, listing.name)
    # A token of a cloud is its own; that of AIStore is the last name given.
    skip, token = (after, "") if is_elsewhere(name) else ("", after)
    try:
        for page in listing.pages(token):
            entries: Sequence[Any] = page.entries
            if skip:
                entries = [entry for entry in entries if entry.n > skip]
            if not recursive:
                entries = _of_directory(entries, name.name)
            names = [entry.n for entry in entries]
            text = "".join(names)
            if "%" in text or "?" in text or "#" in text:
                names = [quote_name(each) for each in names]
            for each, entry in zip(names, entries, strict=True):
                yield FileEntry(head + each, entry.s if sizes else UNKNOWN_SIZE)
    finally:
        listing.close()


def _head(url: str, name: AisName) -> str:
    """What precedes the names in URLs: scheme and container as the caller has written them."""
    if scheme_of(url) in ("http", "https"):
        return format_ais_url(name._replace(name="", archpath=None, etl_name=None))
    text = url.partition("?")[0]
    parts = text.split("/", 4 if name.namespace else 3)
    return "/".join([parts[0].lower(), *parts[1 : 4 if name.namespace else 3], ""])


def _of_directory(entries: Sequence[Any], prefix: str) -> list[Any]:
    """Those whose names have no ``/`` behind the prefix, but for one right behind it."""
    cut = len(prefix)
    slash = bool(prefix) and not prefix.endswith("/")

    def inside(text: str) -> bool:
        rest = text[cut + 1 :] if slash and text[cut : cut + 1] == "/" else text[cut:]
        return "/" not in rest

    return [entry for entry in entries if not entry.f & _DIRECTORY and inside(entry.n)]


class _Listing:
    """The pages of one listing. While a page is in use, a thread fetches the next: it ends with its page."""

    def __init__(
        self, cluster: AisCluster, url: str, name: AisName, page_size: int, flags: list[str], *, sizes: bool
    ) -> None:
        self.url = url
        self.name = name
        self._cluster = cluster
        self._page_size = page_size
        self._props = "" if sizes else "name"
        self._flags = flags
        self._ended: threading.Event | None = None

    def pages(self, token: str) -> Iterator[_Page]:
        ended = self._ended = threading.Event()
        pid = os.getpid()
        page = self.fetch(token, "", ended)
        while True:
            following = None
            if page.token:
                if page.token == token:
                    raise self._stuck(token)
                token = page.token
                following = _Ahead(self.fetch, token, page.uuid, ended)
            yield page
            if following is None:
                return
            if os.getpid() != pid:  # a forked child has no such thread, and asks anew
                ended = self._ended = threading.Event()
                pid = os.getpid()
                page = self.fetch(token, "", ended)
            else:
                page = following.result()

    def fetch(self, token: str, uuid: str, ended: threading.Event | None = None) -> _Page:
        """A page, as the SDK's ``list_objects`` asks for it, without the ``Object`` that it makes for each
        name: that takes as long as the page itself."""
        types, flags = client("aistore.sdk.types"), client("aistore.sdk.list_object_flag").ListObjectFlag
        message = types.ListObjectsMsg(
            prefix=self.name.name,
            props=self._props,
            page_size=self._page_size,
            uuid=uuid,
            continuation_token=token,
            flags=[flags[flag] for flag in self._flags],
            target="",
        )

        def ask(opened: Opened) -> _Page:
            bucket = opened.sdk_bucket(self.name)
            found = bucket.client.request_deserialize(
                "get",
                path=f"buckets/{self.name.bucket}",
                headers={"Accept": "application/msgpack"},
                res_model=types.BucketList,
                json=types.ActionMsg(action="list", value=message.as_dict()).model_dump(),
                params=bucket.qparam,
            )
            return _Page(found.entries, found.continuation_token, found.uuid)

        return self._cluster.call(ask, url=self.url, operation="list", ended=ended)

    def close(self) -> None:
        """Nothing more is fetched; a request under way ends by itself, unheard."""
        if self._ended is not None:
            self._ended.set()

    def _stuck(self, token: str) -> BaseException:
        return ais_error(
            BackendIOError,
            f"list {self.url!r} failed: after {token!r} the cluster gave the same page again [EPROTO]",
            url=self.url,
            operation="list",
            number=errno.EPROTO,
        )


class _Ahead:
    """A page that a thread fetches."""

    def __init__(self, fetch: Callable[..., _Page], token: str, uuid: str, ended: threading.Event) -> None:
        self._done = threading.Event()
        self._found: _Page | BaseException | None = None

        def work() -> None:
            try:
                self._found = fetch(token, uuid, ended)
            except BaseException as error:  # noqa: BLE001 - it is raised where the page is wanted
                self._found = error.with_traceback(None)
            finally:
                self._done.set()

        threading.Thread(target=work, name="datapipes-ais-list", daemon=True).start()

    def result(self) -> _Page:
        while not self._done.wait(0.1):  # in slices, so that Ctrl-C is heard
            pass
        if isinstance(self._found, BaseException):
            raise self._found
        assert self._found is not None  # noqa: S101 - it is done
        return self._found


def _members(
    cluster: AisCluster, url: str, name: AisName, after: str, *, recursive: bool, sizes: bool
) -> Iterator[FileEntry]:
    """Members of a shard, all in one page: AIStore loses some where a page ends inside a shard."""
    page = _Listing(cluster, url, name, 0, ["ARCH_DIR"], sizes=True).fetch("", "")
    shard = next((entry for entry in page.entries if entry.n == name.name), None)
    if shard is None:
        raise ais_error(
            FileMissingError,
            f"list {url!r} failed: no object {name.name!r} in {bucket_text(name)} [ENOENT]",
            url=url,
            operation="list",
            number=errno.ENOENT,
        )
    if page.token or not shard.f & _SHARD:
        reason = "it has more members than a page" if page.token else "it is no archive that AIStore can open"
        hint = "Read the shard itself instead"
        raise ShardError(f"list {url!r} failed: {reason}. {hint}", url=url, operation="list")
    prefix, head = name.archpath or "", f"{_head(url, name)}{quote_name(name.name)}?archpath="
    for path, size in _unique(page.entries, name.name + "/", prefix):
        rest = path[len(prefix) :]
        if path > after and (recursive or "/" not in rest.removeprefix("/")):
            yield FileEntry(head + quote_name(path), size if sizes else UNKNOWN_SIZE)


def _unique(entries: Sequence[Any], shard: str, prefix: str) -> list[tuple[str, int]]:
    """Paths of members, in order, each once.

    Two members of one path are listed in no certain order and the first in the shard is the one that is
    read, so which size is meant is not known. Names outside the shard (``../x``) cannot be read: left out.
    """
    found: dict[str, int] = {}
    for entry in entries:
        if entry.f & _MEMBER and entry.n.startswith(shard):
            path = entry.n[len(shard) :]
            if path.startswith(prefix):
                found[path] = UNKNOWN_SIZE if path in found else entry.s
    return sorted(found.items())
