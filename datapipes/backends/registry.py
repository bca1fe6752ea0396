"""Which back end serves a URL."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Hashable
from typing import Any

from datapipes.backends.base import Backend
from datapipes.errors import UrlError
from datapipes.urls import parse_url, scheme_of

__all__ = ["OneStore", "backend_for", "backend_with", "known_schemes", "register_backend"]

_BUILT_IN = {
    "ais": "datapipes.backends.ais",
    "daos": "datapipes.backends.daos",
    "file": "datapipes.backends.local",
    "memory": "datapipes.backends.memory",
}
"""Modules with a ``from_url``, and with ``from_options`` where there are any: a store's code is loaded by its
first URL."""

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


def backend_with(scheme: str, **options: Hashable) -> Backend:
    """The back end of ``scheme`` with options of its own, as its module's ``from_options`` takes them.

    One for each set of options in a process, so that whoever asks for the same shares what is open.
    """
    key = (scheme, repr(sorted(options.items())))
    backend = _made.get(key)
    if backend is None:
        module = importlib.import_module(_BUILT_IN[scheme])
        backend = _made.setdefault(key, module.from_options(**options))
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


class OneStore:
    """``backend_for`` that takes the URLs of one store only: what a store's own pipes and nodes resolve with.

    With ``backend``, that one serves them all, and says which URLs are its own.
    """

    def __init__(self, scheme: str, backend: Backend | None = None) -> None:
        self.scheme = scheme
        self.backend = backend

    def __call__(self, url: str) -> Backend:
        self.check(url)
        return backend_for(url) if self.backend is None else self.backend

    def check(self, url: str) -> None:
        """Raise UrlError when ``url`` is another store's."""
        if self.backend is not None:
            self.backend.check_scheme(url)
            return
        scheme = scheme_of(url)
        if scheme != self.scheme:
            raise UrlError(
                f"{url!r} is a {scheme!r} URL, and this pipe is for {self.scheme!r} URLs only",
                url=url,
                operation="parse",
            )

    def check_first(self, source: Any) -> None:
        """Raise UrlError at once where the first URL can be seen without iterating anything."""
        if isinstance(source, (list, tuple)) and source:
            source = source[0]
        if isinstance(source, str):
            self.check(source)
