"""Payload reads written down, so that a reread shows, even one of a process that was killed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Unpack

from datapipes.backends.base import (
    ReadIterator,
    ReadOptions,
)
from datapipes.backends.wrapping import ReadsWrapper
from datapipes.records import ReadRequest

__all__ = ["CountingBackend"]


class _Log:
    """A file opened for appending; each line is one write, which the system keeps whole and in order, also
    among processes, and keeps when this one is killed."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)

    def add(self, request: ReadRequest) -> None:
        line = {"url": request.url, "offset": request.offset, "length": request.length, "pid": os.getpid()}
        os.write(self._fd, json.dumps(line).encode() + b"\n")

    def __del__(self) -> None:
        if hasattr(self, "_fd"):
            os.close(self._fd)


@dataclass(frozen=True)
class CountingBackend(ReadsWrapper):
    """Adds one line of JSON (``url``, ``offset``, ``length``, ``pid``) to the file ``path`` for each payload
    read, before it begins: what was read ahead and never delivered counts as well.
    """

    path: str

    def read_many(self, requests: Iterable[ReadRequest], **options: Unpack[ReadOptions]) -> ReadIterator:
        return self.inner.read_many(self._noted(requests), **options)

    def counted(self) -> list[ReadRequest]:
        """Every read noted so far, by whatever process, in order."""
        with open(self.path, encoding="utf-8") as file:
            lines = [json.loads(line) for line in file]
        return [ReadRequest(line["url"], line["offset"], line["length"]) for line in lines]

    def _noted(self, requests: Iterable[ReadRequest]) -> Iterator[ReadRequest]:
        log = self._log()
        for request in requests:
            log.add(request)
            yield request

    def _log(self) -> _Log:
        # A forked child may go on with it: what it adds goes to the end of the same file.
        log: _Log | None = self.__dict__.get("_open_log")
        if log is None:
            log = _Log(self.path)
            object.__setattr__(self, "_open_log", log)
        return log

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_open_log"}
