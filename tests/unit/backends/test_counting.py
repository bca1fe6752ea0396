from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

from datapipes.backends.counting import CountingBackend
from datapipes.backends.memory import MemoryBackend
from datapipes.records import ReadRequest

URL = "memory://counted/\udc80 a\nb%3F"


def counting(path: Path) -> CountingBackend:
    inner = MemoryBackend("counted")
    inner.write(URL, bytes(100))
    return CountingBackend(inner, str(path))


def test_every_payload_read_is_one_line_whatever_the_call(tmp_path: Path) -> None:
    backend = counting(tmp_path / "reads")
    ranged = ReadRequest(URL, 10, 5)
    list(backend.read_many([ReadRequest(URL), ranged]))
    backend.read_batch([ReadRequest(URL)])
    backend.read(URL)
    with backend.open(URL) as file:
        assert len(file.read()) == 100
    backend.stat(URL)
    list(backend.list("memory://counted/"))
    assert backend.counted() == [
        ReadRequest(URL),
        ranged,
        ReadRequest(URL),
        ReadRequest(URL),
        ReadRequest(URL, 0, 100),
    ]
    assert len((tmp_path / "reads").read_bytes().splitlines()) == 5


def test_reads_of_a_forked_child_and_of_another_instance_are_added(tmp_path: Path) -> None:
    backend = counting(tmp_path / "reads")
    backend.read(URL)
    pid = os.fork()
    if pid == 0:
        backend.read(URL)
        os._exit(0)
    os.waitpid(pid, 0)
    counting(tmp_path / "reads").read(URL)
    lines = [json.loads(line) for line in (tmp_path / "reads").read_text().splitlines()]
    assert [line["pid"] for line in lines] == [os.getpid(), pid, os.getpid()]


def test_reads_of_a_killed_process_are_on_record_with_what_it_read_ahead(tmp_path: Path) -> None:
    code = """
import os, signal, sys
from datapipes.backends.counting import CountingBackend
from datapipes.backends.latency import LatencyBackend
from datapipes.backends.memory import MemoryBackend
from datapipes.records import ReadRequest
inner = MemoryBackend("m")
inner.write("memory://m/a", b"1")
backend = CountingBackend(LatencyBackend(inner, read_s=0.001), sys.argv[1])
reads = backend.read_many([ReadRequest("memory://m/a")] * 100, max_in_flight=8)
for _ in range(10):
    next(reads)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "reads")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert 10 <= len((tmp_path / "reads").read_text().splitlines()) <= 18
