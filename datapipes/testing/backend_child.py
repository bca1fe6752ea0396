"""What ``BackendContract`` does in other processes. Apart, so that these load no test library."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection

from datapipes.backends.base import Backend
from datapipes.records import ReadRequest

__all__ = ["report", "use"]


def use(backend: Backend, prefix: str, contents: Mapping[str, bytes]) -> str:
    """Everything a worker does with a back end; what went wrong in words, or ``""``."""
    results = list(backend.read_many([ReadRequest(url) for url in contents], max_in_flight=8))
    if [bytes(result.unwrap()) for result in results] != list(contents.values()):
        return "read_many gave wrong data"
    if [entry.url for entry in backend.list(prefix)] != list(contents):
        return "list gave wrong names"
    batch = backend.read_batch([ReadRequest(url) for url in contents])
    if [bytes(result.unwrap()) for result in batch] != list(contents.values()):
        return "read_batch gave wrong data"
    first = next(iter(contents))
    with backend.open(first) as file:
        if file.read() != contents[first]:
            return "open gave wrong data"
    backend.write(first + ".copy", contents[first])
    copy = backend.read(first + ".copy")
    backend.remove(first + ".copy")
    return "" if copy == contents[first] else "write and read gave wrong data"


def report(
    pipe: Connection,
    setup: Callable[[], object],
    backend: Backend,
    prefix: str,
    contents: Mapping[str, bytes],
) -> None:
    """Do all of :func:`use` in this process and send its word."""
    try:
        setup()
        pipe.send(use(backend, prefix, contents))
    except BaseException as error:  # noqa: BLE001 - the parent says it
        pipe.send(f"{type(error).__name__}: {error}")
    finally:
        pipe.close()
