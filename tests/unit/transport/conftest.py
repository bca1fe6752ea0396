"""Servers that end with their test, and what certifies them."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import signal
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pycurl")

from datapipes.transport.http import HttpReads, HttpRequest, HttpResult
from datapipes.transport.options import HttpOptions

from .raw_server import Answer, RawServer, raw_server

Serve = Callable[..., RawServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with contextlib.ExitStack() as stack:

        def start(answer: Answer, context: ssl.SSLContext | None = None) -> RawServer:
            return stack.enter_context(raw_server(answer, context))

        yield start
        gc.collect()


class Reader:
    """Reads with short waits, unless a test says otherwise."""

    def reads(self, requests: Any, *, options: HttpOptions | None = None, **how: Any) -> HttpReads:
        how = {"max_in_flight": 8, "max_buffer_bytes": 1 << 24, "timeout_s": 20.0} | how
        return HttpReads(requests, options or self.options(), **how)

    @staticmethod
    def options(**changes: Any) -> HttpOptions:
        return HttpOptions(**{"retry_budget_s": 5.0, "first_wait_s": 0.01, "stall_timeout_s": 1.0} | changes)

    def get(self, url: str, *, options: HttpOptions | None = None, **request: Any) -> HttpResult:
        (result,) = self.reads([HttpRequest(url, "store://object", **request)], options=options)
        return result


@pytest.fixture
def reader() -> Reader:
    return Reader()


class RungError(Exception):
    """Raised by a handler of signals."""


def taken_under_signals(reads: Iterator[HttpResult], rings: int) -> tuple[list[HttpResult], int]:
    """All of ``reads``, while up to ``rings`` handlers of signals raise at any moment; and how many did.

    One rings only while the loop below is within its ``try``, and not again before it is there again.
    """
    main, armed = threading.get_ident(), threading.Event()
    results: list[HttpResult] = []
    heard, ended = 0, False

    def handler(*_: object) -> None:
        nonlocal heard
        if not ended:
            heard += 1
            armed.clear()
            raise RungError

    def ring() -> None:
        for at in range(rings):
            while not armed.wait(0.05):
                if ended:
                    return
            time.sleep(0.002 + at % 7 * 0.003)
            signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, handler)
    ringer = threading.Thread(target=ring)
    ringer.start()
    while not ended:
        try:
            armed.set()
            for result in reads:
                results.append(result)  # noqa: PERF402 - one by one: a handler may raise in between
            ended = True
        except RungError:
            continue
    ringer.join()
    signal.signal(signal.SIGUSR1, before)
    return results, heard


def in_child(work: Callable[[], bool]) -> bool:
    """Whether a forked child says so."""
    child = os.fork()
    if child == 0:
        code = 1
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(40)  # a child that hangs is no success
        try:
            code = 0 if work() else 2
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def allow_descriptors(more: int) -> None:
    """This process may open so many more; those that it has may have any numbers."""
    limit = len(os.listdir("/dev/fd")) + more
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An authority, and certificates of a server and a client that it has signed."""
    folder = tmp_path_factory.mktemp("keys")

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    new = ["-newkey", "rsa:2048", "-nodes"]
    openssl("req", "-x509", *new, "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=ca")
    (folder / "san").write_text("subjectAltName=IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", *new, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ["x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"]
        openssl(*sign, "-out", f"{name}.pem", "-days", "2", "-extfile", "san")
    return folder


def context(keys: Path, *, wants_client: bool = False) -> ssl.SSLContext:
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    made.load_cert_chain(keys / "server.pem", keys / "server.key")
    if wants_client:
        made.load_verify_locations(keys / "ca.pem")
        made.verify_mode = ssl.CERT_REQUIRED
    return made
