"""A directory of files whose content follows from their names, and what the engine's tests do with it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypedDict

import pytest

from datapipes._dfs import ReadIterator, Session

if TYPE_CHECKING:
    from datapipes._dfs import Request

MIB = 1 << 20
LIVE = ("files_open", "buffers_live", "readers_live", "graveyard")


class Result(NamedTuple):
    position: int
    tag: Any
    data: Any
    error: BaseException | None


def failure(tag: Any, operation: str, code: int) -> OSError:
    return OSError(code, operation, str(tag))


class Needed(TypedDict):
    result: type[Result]
    error: Callable[[Any, str, int], OSError]
    max_in_flight: int


NEEDED: Needed = {"result": Result, "error": failure, "max_in_flight": 8}
"""What both readers must be told."""


def content(name: str, size: int) -> bytes:
    seed = sum(name.encode("utf-8", "surrogateescape"))
    return (bytes((seed + i) % 251 for i in range(251)) * (size // 251 + 1))[:size]


class Tree:
    """Files below ``root``, and a session on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sizes: dict[str, int] = {}
        self.session = Session("posix", str(root))

    def add(self, name: str, size: int) -> str:
        path = os.path.join(os.fsencode(self.root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content(name, size))
        self.sizes[name] = size
        return name

    def data(self, name: str) -> bytes:
        return content(name, self.sizes[name])

    def requests(self, *, known: bool = False) -> list[Request]:
        return [(name, 0, -1, size if known else -1, name) for name, size in self.sizes.items()]

    def read(self, requests: Iterable[Request], **options: Any) -> ReadIterator:
        merged = {**NEEDED, "max_in_flight": 16, "max_buffer_bytes": 8 * MIB, **options}
        return self.session.read_many(requests, **merged)

    def batch(self, requests: Iterable[Request], **options: Any) -> list[Result]:
        return self.session.read_batch(list(requests), **{**NEEDED, "max_in_flight": 16, **options})

    def one(self, name: str, offset: int, length: int, size: int, **options: Any) -> Result:
        """The answer to one request, the same from both readers."""
        request: Request = (name, offset, length, size, "tag")
        many, batch = list(self.read([request], **options)), self.batch([request], **options)
        assert len(many) == len(batch) == 1
        assert repr(many[0]) == repr(batch[0])
        result: Result = many[0]
        return result


def live(session: Session) -> dict[str, int]:
    stats = session.stats()
    return {name: stats[name] for name in LIVE if stats[name]}


def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.002)


@contextlib.contextmanager
def held_back(path: Path) -> Iterator[Callable[[], None]]:
    """While this lasts, or until the yielded function is called, opening the file blocks: another process has
    a lease on it and does not give it up."""
    program = """
        import fcntl, os, signal, sys
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        fd = os.open(sys.argv[1], os.O_RDWR)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
        print("held", flush=True)
        sys.stdin.read()
    """
    arguments = [sys.executable, "-c", textwrap.dedent(program), str(path)]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None

        def let_go() -> None:
            holder.kill()
            holder.wait()

        try:
            if not holder.stdout.readline():
                pytest.skip("this file system has no leases")
            yield let_go
        finally:
            let_go()


def run_python(program: str, *arguments: str, timeout: float = 50) -> str:
    """What a program prints that has a Session, OPTIONS and BOUND; it must end well."""
    prelude = """
        import os, resource, signal, sys, threading, time
        from collections import namedtuple
        from datapipes._dfs import Session
        Result = namedtuple("Result", "position tag data error")
        OPTIONS = {"result": Result, "error": lambda tag, op, code: OSError(code, op), "max_in_flight": 16}
        BOUND = {"max_buffer_bytes": 64 << 20}
    """
    code = textwrap.dedent(prelude) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
