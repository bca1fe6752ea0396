"""Which back end serves a URL."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from datapipes.backends.base import Backend
from datapipes.errors import UrlError
from datapipes.urls import parse_url

__all__ = ["backend_for", "known_schemes", "register_backend"]

_BUILT_IN = {
    "daos": "datapipes.backends.daos",
    "file": "datapipes.backends.local",
    "memory": "datapipes.backends.memory",
}
"""Modules with a ``from_url``: a store's code is loaded by its first URL."""

_factories: dict[str, Callable[[str], Backend]] = {}
_made: dict[tuple[str, str], Backend] = {}


def backend_for(url: str) -> Backend:
    """The back end that serves ``url``: one for each container in a process, made at its first URL.

    Opens nothing. Raises UrlError for a malformed URL and for an unknown scheme (naming those known).
    """
    parsed = parse_url(url)
    key = (parsed.scheme, parsed.container)
    backend = _made.get(key)
    if backend is None:
        backend = _made.setdefault(key, _factory(parsed.scheme, url)(url))
    return backend


def register_backend(scheme: str, factory: Callable[[str], Backend]) -> None:
    """Let ``factory(url)`` make the back ends of ``scheme``; what was registered before is replaced.

    The factory is called with the first URL of a container and what it returns serves that whole container.
    Processes that start afresh (``spawn``, ``forkserver``) know only what they register themselves.
    """
    _factories[scheme] = factory
    for key in [key for key in _made if key[0] == scheme]:
        _made.pop(key, None)


def known_schemes() -> list[str]:
    """Every scheme that :func:`backend_for` knows, sorted."""
    return sorted({*_BUILT_IN, *_factories})


def _factory(scheme: str, url: str) -> Callable[[str], Backend]:
    if scheme not in _factories and scheme in _BUILT_IN:
        module = importlib.import_module(_BUILT_IN[scheme])
        _factories.setdefault(scheme, module.from_url)
    try:
        return _factories[scheme]
    except KeyError:
        known = ", ".join(f"{name}://" for name in known_schemes())
        raise UrlError(
            f"{url!r}: no back end serves {scheme!r} URLs; known are {known} and plain paths",
            url=url,
            operation="parse",
        ) from None
