"""Calling functions that users have given: a transform, labels, ``on_error``, ``resolve``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["call"]

_T = TypeVar("_T")


def call(function: Callable[..., _T], *given: Any) -> _T:
    """``function(*given)``. A StopIteration out of it is a RuntimeError, as in generators (PEP 479): from a
    ``__next__`` it would end the iteration, and what is left would be lost without a word."""
    try:
        return function(*given)
    except StopIteration as error:
        name = getattr(function, "__qualname__", None) or repr(function)
        raise RuntimeError(f"{name} raised StopIteration") from error
