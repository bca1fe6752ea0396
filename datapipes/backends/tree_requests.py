"""Requests as the engine takes them: URLs cut to paths. This runs once for every file read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import repeat

from datapipes import _dfs
from datapipes.backends.slices import MOST_BYTES, impossible
from datapipes.errors import DatapipesError
from datapipes.records import UNKNOWN_SIZE, WHOLE, ReadRequest

__all__ = ["Refused", "plain_paths", "translated", "translated_with_care"]

_NOT_PLAIN = ("%", "?", "#", "\0", "/.", "//")

_NO_SUCH_PATH = "x" * 256
"""A name that no file system takes: what the engine is asked for in place of a URL that names nothing."""


class Refused(ReadRequest):
    """A request at fault: it takes its place among the others, and its error with it."""

    reason: DatapipesError


def translated(
    requests: Iterable[ReadRequest], beginning: str, raw: str | None, path_of: Callable[[str], str]
) -> Iterator[_dfs.Request]:
    """Each request with its path in place of its URL, and itself as the tag.

    What is plain is cut behind ``beginning`` (of the store's URLs) or ``raw`` (of paths taken as they are)
    here; what has an escape, a dot or a slash too many, or asks for a part, goes the long way through
    ``path_of``.
    """
    n, whole, unknown, most = len(beginning), WHOLE, UNKNOWN_SIZE, MOST_BYTES
    for request in requests:
        url, offset, length, size = request
        if (
            length == whole
            and offset == 0
            and unknown <= size <= most
            and url[:n] == beginning
            and not ("%" in url or "?" in url or "#" in url or "\0" in url or "/." in url)
            and url.isascii()
            and "//" not in url[n - 1 :]
        ):
            yield url[n:], 0, whole, size, request
        elif (
            url[:1] == raw
            and length == whole
            and offset == 0
            and unknown <= size <= most
            and not ("//" in url or "/." in url or "\0" in url)
            and url.isascii()
        ):
            yield url[1:], 0, whole, size, request
        else:
            yield translated_with_care(request, path_of)


def plain_paths(urls: Sequence[str], beginning: str) -> list[str] | None:
    """The paths behind ``beginning``, looked through together at a third of the price; None where one of
    ``urls`` needs care."""
    if not all(map(str.startswith, urls, repeat(beginning))):
        return None
    n = len(beginning)
    paths = [url[n:] for url in urls]
    text = "/" + "\n/".join(paths)
    return paths if text.isascii() and not any(map(text.__contains__, _NOT_PLAIN)) else None


def translated_with_care(request: ReadRequest, path_of: Callable[[str], str]) -> _dfs.Request:
    """One request, whatever it is: a fault in it makes it :class:`Refused`."""
    reason: DatapipesError | None = impossible(request)
    if reason is None:
        url, offset, length, size = request
        try:
            return path_of(url), offset, length, size, request
        except DatapipesError as error:
            reason = error.with_traceback(None)  # it would hold this frame, and so itself
    refused = Refused(*request)
    refused.reason = reason
    return _NO_SUCH_PATH, 0, WHOLE, UNKNOWN_SIZE, refused
