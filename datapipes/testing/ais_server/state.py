"""What nodes remember between requests: uploads, batches, transformations."""

from __future__ import annotations

import importlib
import inspect
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from datapipes.testing.ais_server.names import Bck

__all__ = ["Batches", "Etl", "EtlFunction", "Etls", "Upload", "Uploads", "function_at", "place_of"]


@dataclass(slots=True)
class Upload:
    """A multipart upload that has begun: its parts by number."""

    bck: Bck
    name: str
    parts: dict[int, bytes] = field(default_factory=dict)


class Uploads:
    """What clients are in the middle of writing."""

    def __init__(self) -> None:
        self.multipart: dict[str, Upload] = {}
        self.appended: dict[str, tuple[Bck, str]] = {}


class Batches:
    """The batches that a proxy has begun and no target has answered yet, and the job of each bucket."""

    def __init__(self) -> None:
        self.waiting: set[str] = set()
        self.jobs: dict[str, str] = {}
        self.random = random.Random(0)  # noqa: S311 -- which target answers
        self.chosen: int | None = None


EtlFunction = Callable[..., bytes]
"""``fn(data)``, or ``fn(data, args)`` with the request's ``etl_args``, a string."""


@dataclass(slots=True)
class Etl:
    """A transformation and what it has done."""

    function: EtlFunction
    takes_args: bool
    job: str
    is_running: bool = True
    objects: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def place_of(function: EtlFunction) -> str:
    """Where another process finds the function: ``module:name``. ValueError if it has no such place."""
    owner = getattr(function, "__objclass__", function)  # bytes.upper has no module, its class has
    module, name = getattr(owner, "__module__", None), getattr(function, "__qualname__", None)
    place = f"{module}:{name}"
    if not module or not name or "<" in place or module == "__main__":
        raise ValueError(
            f"{function!r}: a server in a process of its own needs a function of an importable module"
        )
    return place


def function_at(place: str) -> EtlFunction:
    """The function that ``module:name`` names."""
    module, _, name = place.partition(":")
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)
    if not callable(found):
        raise TypeError(f"{place} is no function")
    return found  # type: ignore[no-any-return] # checked just now


class Etls:
    """The transformations that there are, by name."""

    def __init__(self, *, supported: bool) -> None:
        self.supported = supported
        self.known: dict[str, Etl] = {}

    def register(self, name: str, function: EtlFunction, job: str) -> None:
        """Makes a function an ETL that runs."""
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:  # some builtins have none: bytes.upper
            parameters = []
        positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        needed = [one for one in parameters if one.default is one.empty and one.kind in positional]
        self.known[name] = Etl(function, len(needed) > 1, job)
