"""The names of a DAOS container as ``pydaos.torch`` shows them: (path, size) pairs, over a ``FileIndex``."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from datapipes.errors import OptionError, UrlError
from datapipes.index import FileIndex
from datapipes.records import UNKNOWN_SIZE, FileEntry
from datapipes.urls import format_url, parse_url, unquote_name

__all__ = ["ContainerNames", "Objects", "absolute", "container_of", "text_of", "url_in"]

_BLOCK = 4096


def container_of(pool: str | None, cont: str | None, container: str | None) -> str:
    """``pool/cont``. OptionError where one is missing or ``container`` says another, UrlError for a label
    that no URL can hold."""
    if cont is not None and container is not None and cont != container:
        raise OptionError(f"cont={cont!r} and container={container!r} are two names for one thing: give one")
    cont = cont if container is None else container
    for name, label in (("pool", pool), ("cont", cont)):
        if not isinstance(label, str) or not label:
            raise OptionError(f"{name} is required, as a label or UUID; it is {label!r}")
    both = f"{pool}/{cont}"
    url = format_url("daos", both, "")
    if parse_url(url).container != both or both.count("/") != 1:
        raise UrlError(f"{url!r} names no pool and container", url=url, operation="parse")
    return both


def url_in(container: str, path: str) -> str:
    """The URL of an absolute ``path`` of a container."""
    return format_url("daos", container, path.lstrip("/"))


class Objects(Sequence[tuple[str, int]]):
    """(absolute path, size in bytes) of files, as a list has them; decoded when they are asked for.

    It is read-only; a slice is a list. Equal to any sequence of the same pairs.
    """

    def __init__(self, index: FileIndex, rows: range | npt.NDArray[np.int64], container: str) -> None:
        self._index, self._rows, self._container = index, rows, container

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, at: int) -> tuple[str, int]: ...

    @overload
    def __getitem__(self, at: slice) -> list[tuple[str, int]]: ...

    def __getitem__(self, at: int | slice) -> tuple[str, int] | list[tuple[str, int]]:
        if isinstance(at, slice):
            return self._pairs(self._rows[at])
        at = operator.index(at)
        if not -len(self) <= at < len(self):
            raise IndexError(f"object {at} of {len(self)}")
        return self._pairs([int(self._rows[at])])[0]

    def __iter__(self) -> Iterator[tuple[str, int]]:
        for start in range(0, len(self), _BLOCK):
            yield from self._pairs(self._rows[start : start + _BLOCK])

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence):
            return NotImplemented
        return len(self) == len(other) and all(map(operator.eq, self, other))

    __hash__ = None  # type: ignore[assignment]  # a list has none either

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"<{len(self)} objects: {shown}{', ...' if len(self) > 3 else ''}>"

    def _pairs(self, rows: Any) -> list[tuple[str, int]]:
        urls, sizes = self._index.urls_and_sizes(rows)
        start = len(url_in(self._container, "")) - 1  # the slash between container and path stays
        return [(unquote_name(url[start:]), size) for url, size in zip(urls, sizes, strict=True)]


class ContainerNames:
    """What the drop-ins for ``pydaos.torch``'s datasets share: the names, and what is no longer needed."""

    _container: str
    _index: FileIndex | None

    def index(self) -> FileIndex:
        """The names and sizes, in path order: for pipes, nodes and samplers."""
        raise NotImplementedError

    @property
    def objects(self) -> Sequence[tuple[str, int]]:
        """(absolute path in the container, size in bytes) of every sample, by position.

        The size of a link that leads nowhere is -1. A list of such pairs may be assigned: it is then the
        dataset, in its order; a size of -1 is one that is not known.
        """
        index = self.index()
        return Objects(index, range(len(index)), self._container)

    @objects.setter
    def objects(self, pairs: Iterable[tuple[str, int]]) -> None:
        self._index = self._index_of(pairs)

    def _index_of(self, pairs: Iterable[tuple[str, int]]) -> FileIndex:
        if not isinstance(pairs, Iterable):
            raise OptionError(f"objects must be pairs of (path, size in bytes), not {pairs!r:.200}")
        entries = (FileEntry(url_in(self._container, path), size) for path, size in map(_checked, pairs))
        return FileIndex.from_entries(entries, source=f"objects of {self._container}")

    def worker_init(self, worker_id: int | None) -> None:
        """Nothing is left to do here: each process opens its own connection. For old DataLoader lines."""

    def close(self) -> None:
        """Let go of the names; a later use opens them again. Connections belong to the process."""
        if self._index is not None:
            self._index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def text_of(name: str, path: object) -> str:
    """``path`` as a str; OptionError about ``name`` for what is neither that nor an ``os.PathLike`` of it."""
    text = os.fspath(path) if isinstance(path, os.PathLike) else path
    if not isinstance(text, str):
        raise OptionError(f"{name} must be a str, not {path!r:.200}")
    return text


def absolute(name: str, path: object) -> str:
    """``path`` as a str, if it is absolute; OptionError about ``name`` otherwise."""
    text = text_of(name, path)
    if not text.startswith("/"):
        raise OptionError(
            f"{name} must be absolute, as paths in a container are ('/training/samples'), not {text!r}"
        )
    return text


def _checked(pair: Any) -> tuple[str, int]:
    """(path, size) of objects that were assigned; OptionError where it is something else."""
    try:
        path, size = pair
        size = operator.index(size)
    except (TypeError, ValueError):
        raise OptionError(f"objects must be pairs of (path, size in bytes), not {pair!r:.200}") from None
    if not UNKNOWN_SIZE <= size < 1 << 63:
        raise OptionError(f"the size of an object must be that of a file in bytes, or -1, not {size}")
    return absolute("a path of objects", path), size
