from __future__ import annotations

import gc
import io
import os
import subprocess
import sys
import warnings
from typing import Any

import pytest

from datapipes.backends.atomic_writer import AtomicWriter
from datapipes.errors import BackendIOError


class Recording(AtomicWriter):
    """Puts chunks into ``log``; fails where it is told to."""

    def __init__(self, log: list[Any], fail_at: str = "") -> None:
        super().__init__("memory://a/b")
        self._log, self._fail_at = log, fail_at

    def _do(self, word: str, item: Any) -> None:
        self._log.append(item)
        if self._fail_at == word:
            raise BackendIOError(f"{word} failed", url=self.name, operation="write")

    def put(self, data: bytearray | memoryview) -> None:
        self._do("put", bytes(data))

    def commit(self) -> None:
        self._do("commit", "commit")

    def abandon(self) -> None:
        self._log.append("abandon")


def test_small_writes_are_collected_and_large_ones_passed_on() -> None:
    log: list[Any] = []
    with Recording(log) as file:
        for _ in range(1000):
            file.write(b"12345")
        file.write(bytes(2 << 20))
        file.write(b"end")
    assert [len(item) for item in log[:-1]] == [5000, 2 << 20, 3]
    assert log[-1] == "commit"


def test_any_buffer_can_be_written_and_text_cannot() -> None:
    log: list[Any] = []
    with Recording(log) as file:
        assert file.write(memoryview(bytearray(8)).cast("I")) == 8
        with pytest.raises(TypeError):
            file.write("text")  # type: ignore[arg-type]
    assert log == [bytes(8), "commit"]


def test_write_that_fails_makes_close_fail_and_no_file() -> None:
    log: list[Any] = []
    file = Recording(log, fail_at="put")
    with pytest.raises(BackendIOError, match="put failed"):
        file.write(bytes(2 << 20))
    with pytest.raises(BackendIOError, match="put failed"):
        file.write(bytes(2 << 20))
    with pytest.raises(BackendIOError, match="put failed"):
        file.close()
    assert file.closed
    file.close()
    assert log == [bytes(2 << 20), "abandon"]


def test_write_that_is_interrupted_makes_close_fail_and_no_file() -> None:
    class Interrupted(Recording):
        def put(self, data: bytearray | memoryview) -> None:
            super().put(data)
            raise KeyboardInterrupt

    log: list[Any] = []
    file = Interrupted(log)
    with pytest.raises(KeyboardInterrupt):
        file.write(bytes(2 << 20))
    with pytest.raises(BackendIOError, match=r"memory://a/b.*KeyboardInterrupt"):
        file.close()
    assert log == [bytes(2 << 20), "abandon"]


@pytest.mark.parametrize("chunk", [1, 10, 64])
def test_chunks_are_no_larger_than_asked_for(chunk: int) -> None:
    class Small(AtomicWriter):
        def put(self, data: bytearray | memoryview) -> None:
            parts.append(bytes(data))
            assert len(data) <= chunk or isinstance(data, memoryview)

        def commit(self) -> None: ...

        def abandon(self) -> None: ...

    parts: list[bytes] = []
    with Small("memory://a/b", chunk) as file:
        for size in (3, 9, 1, 10, 11, 0, 63, 64, 65, 2):
            file.write(bytes([size]) * size)
    assert b"".join(parts) == b"".join(bytes([s]) * s for s in (3, 9, 1, 10, 11, 0, 63, 64, 65, 2))


def test_commit_that_fails_abandons() -> None:
    log: list[Any] = []
    with pytest.raises(BackendIOError, match="commit failed"), Recording(log, fail_at="commit"):
        pass
    assert log == ["commit", "abandon"]


def test_forked_child_neither_makes_nor_removes_the_file_of_its_parent() -> None:
    log: list[Any] = []
    file = Recording(log)
    file.write(b"abc")
    pid = os.fork()
    if pid == 0:
        try:
            file.close()
        except io.UnsupportedOperation:
            os._exit(5 if "abandon" not in log and "commit" not in log else 6)
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    file.close()
    assert log == [b"abc", "commit"]


def test_writer_that_is_dropped_says_that_nothing_was_written() -> None:
    log: list[Any] = []
    with pytest.warns(RuntimeWarning, match=r"'memory://a/b' was not written.*close") as seen:
        Recording(log).write(b"abc")
    assert log == ["abandon"]
    assert seen[0].filename == __file__


def test_writer_that_was_closed_or_that_an_error_ended_is_dropped_in_silence() -> None:
    def raise_within() -> None:
        with Recording([]) as file:
            file.write(b"abc")
            raise ZeroDivisionError

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        Recording([]).close()
        Recording([]).discard()
        with pytest.raises(ZeroDivisionError):
            raise_within()
        with pytest.raises(BackendIOError):
            Recording([], fail_at="put").write(bytes(2 << 20))
        with pytest.raises(BackendIOError):
            Recording([], fail_at="commit").close()
        gc.collect()
    assert seen == []


def test_forked_child_says_nothing_of_the_writer_of_its_parent() -> None:
    log: list[Any] = []
    file = Recording(log)
    file.write(b"abc")
    pid = os.fork()
    if pid == 0:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            del file
            gc.collect()
        os._exit(5 if seen == log == [] else 6)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 5
    file.close()
    assert log == [b"abc", "commit"]


LEFT_OPEN = """
from datapipes.backends.memory import MemoryBackend

file = MemoryBackend("a").open_write("memory://a/left-open")
file.write(b"abc")
"""


def test_writer_left_open_when_the_program_ends_is_warned_of() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LEFT_OPEN], capture_output=True, text=True, timeout=50, check=True
    )
    assert "RuntimeWarning: 'memory://a/left-open' was not written" in done.stderr
    assert "Traceback" not in done.stderr
