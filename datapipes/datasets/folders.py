"""Labels from folders: the first folder below the root is the class, as in torchvision's ImageFolder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile

from datapipes.errors import OptionError
from datapipes.index import FileIndex
from datapipes.urls import format_url, parse_url, unquote_name

__all__ = ["FolderLabels"]

_BLOCK = 8192
"""Names decoded at a time: no Python object of a file outlives its block."""


class FolderLabels:
    """The classes of an index, and the class of a URL. One pass over the names; it keeps the classes only.

    Args:
        index: the names.
        sources: what was listed: each is a root. Without any, the root is the deepest folder that all files
            have in common (or the one above it, where all of them lie in one folder).
    """

    def __init__(self, index: FileIndex, sources: Iterable[str] = ()) -> None:
        self._roots = _roots_of(sources) or [_common_folder(index)]
        raw = sorted(self._scan(index), key=unquote_name)
        self.classes = [unquote_name(folder) for folder in raw]
        self._number_of = {folder: number for number, folder in enumerate(raw)}

    def of(self, urls: Sequence[str]) -> list[int]:
        """The class number of each of ``urls``, which are names of the index."""
        if len(self._roots) > 1:
            return [self._number_of[self._folder(url)] for url in urls]
        numbers, start = self._number_of, len(self._roots[0])
        return [numbers[url[start : url.find("/", start)]] for url in urls]

    def _scan(self, index: FileIndex) -> set[str]:
        folders: set[str] = set()
        known = "\0"  # what the names of the present folder begin with: listings keep a folder together
        for url in _names(index):
            if not url.startswith(known):
                folder = self._folder(url)
                folders.add(folder)
                known = url[: url.index("/", len(self._root(url))) + 1]
        return folders

    def _folder(self, url: str) -> str:
        start = len(self._root(url))
        end = url.find("/", start)
        if end < 0:
            raise OptionError(
                f"labels='folder': {url!r} lies in no folder below {url[:start]!r}. Move it into one, leave "
                "it out with masks, or give labels a callable",
                url=url,
            )
        return url[start:end]

    def _root(self, url: str) -> str:
        for root in self._roots:
            if url.startswith(root):
                return root
        raise OptionError(f"labels='folder': {url!r} lies below none of {self._roots}", url=url)


def _roots_of(sources: Iterable[str]) -> list[str]:
    """The sources as their files' names may begin, longest first: with their scheme, or as plain paths."""
    roots = set()
    for source in sources:
        scheme, container, path, _ = parse_url(source)
        for root in (format_url(scheme, container, path), source, path if scheme == "file" else source):
            roots.add(root.rstrip("/") + "/")
    return sorted(roots, key=len, reverse=True)


def _common_folder(index: FileIndex) -> str:
    least = most = index[0].url if len(index) else ""
    for start in range(0, len(index), _BLOCK):
        urls = index.urls(slice(start, start + _BLOCK))
        least, most = min(least, *urls), max(most, *urls)
    same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(least, most, strict=False)))
    folder = least[: least.rfind("/", 0, same) + 1]
    if any("/" in url[len(folder) :] for url in _names(index)):
        return folder
    return folder[: folder.rfind("/", 0, -1) + 1]


def _names(index: FileIndex) -> Iterator[str]:
    for start in range(0, len(index), _BLOCK):
        yield from index.urls(slice(start, start + _BLOCK))
