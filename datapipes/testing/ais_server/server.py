"""The embedded AIStore as Python sees it: started, switched and stopped."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from datapipes.testing.ais_server.cluster import Cluster
from datapipes.testing.ais_server.control import KEY_HEADER, apply
from datapipes.testing.ais_server.core import Core
from datapipes.testing.ais_server.state import EtlFunction, place_of
from datapipes.testing.ais_server.store import Store
from datapipes.testing.ais_server.switches import Switches

__all__ = ["KEY_VARIABLE", "TOKEN_VARIABLE", "AisServer"]

TOKEN_VARIABLE = "AIS_AUTHN_TOKEN"  # noqa: S105 -- the variable's name
"""Where a server in a process of its own finds the token it asks for: the SDK's own variable."""

KEY_VARIABLE = "AIS_SERVER_CONTROL_KEY"
"""Where it finds the key that its switches are turned with."""

START_S = 30.0
"""How long a server may take to start; usually it is ready in a third of a second."""


class _Thread:
    """A server in a thread of this process."""

    def __init__(self, cluster: Cluster, port: int) -> None:
        self.core = Core(cluster, port=port)
        self.urls = [node.url for node in cluster.nodes]
        self._failure: BaseException | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="ais-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(START_S) or self._failure is not None:
            self.core.close()
            raise RuntimeError("the embedded AIStore did not start") from self._failure

    def _serve(self) -> None:
        try:
            asyncio.run(self.core.run(self._ready.set))
        except BaseException as error:  # noqa: BLE001 -- told in the thread that started it
            self._failure = error
        finally:
            self._ready.set()

    def control(self, **asked: Any) -> Any:
        assert self.core.loop is not None
        done = asyncio.run_coroutine_threadsafe(apply(self.core.cluster, **asked), self.core.loop)
        return done.result(START_S)

    def stop(self) -> None:
        self.core.stop()
        self._thread.join(START_S)
        if self._thread.is_alive() or self._failure is not None:
            raise RuntimeError("the embedded AIStore did not stop in order") from self._failure


class _Process:
    """A server in a process of its own, which ends when this one does."""

    def __init__(
        self, directory: str, port: int, targets: int, token: str | None, options: list[str]
    ) -> None:
        command = [sys.executable, "-m", "datapipes.testing.ais_server", directory, "--managed", *options]
        command += ["--port", str(port), "--targets", str(targets)]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)}
        environment.pop(TOKEN_VARIABLE, None)
        self._key = environment[KEY_VARIABLE] = secrets.token_hex(16)
        if token is not None:
            environment[TOKEN_VARIABLE] = token
        self._child = subprocess.Popen(  # noqa: S603 -- this very Python
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        assert self._child.stdout is not None
        said = self._child.stdout.readline()
        if not said:
            self._end()
            raise RuntimeError(f"the embedded AIStore ended with status {self._child.returncode}")
        self.urls: list[str] = json.loads(said)

    def control(self, **asked: Any) -> Any:
        address = self.urls[0].removeprefix("http://")
        with contextlib.closing(http.client.HTTPConnection(address, timeout=START_S)) as connection:
            connection.request("POST", "/_control", json.dumps(asked), {KEY_HEADER: self._key})
            said = json.loads(connection.getresponse().read())
        if "error" in said:
            raise ValueError(said["error"])
        return said["value"]

    def stop(self) -> None:
        if status := self._end():
            raise RuntimeError(f"the embedded AIStore ended with status {status}")

    def _end(self) -> int:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        try:
            self._child.terminate()  # closing the pipe is not enough: a forked worker may hold an end of it
            return self._child.wait(START_S)
        except subprocess.TimeoutExpired:
            self._child.kill()
            return self._child.wait()
        finally:
            self._child.stdin.close()
            self._child.stdout.close()


class AisServer(Switches):
    """An AIStore of one proxy and ``targets`` targets on 127.0.0.1, over a directory.

    A context manager; also :meth:`start` and :meth:`stop`. A stopped server can be started again: its data
    stays, unless the directory was its own, and its ports change.

    Args:
        directory: where buckets lie; None makes one that goes away with the server.
        targets: how many.
        token: if given, every request but health must carry ``Authorization: Bearer TOKEN``.
        process: run in a process of its own, so that it shares no GIL with the client under test, and
            nothing is inherited by workers that fork. Otherwise it is a thread of this process.
        port: of the proxy; 0 takes a free one.
        name_conflicts: refuse ``a/b`` beside ``a`` where one target would keep both, as a cluster does.
        target_digests: the targets' digests for rendezvous hashing, instead of those of their ids.
        etl: False answers as a cluster that was built without ETL.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        targets: int = 2,
        token: str | None = None,
        process: bool = False,
        port: int = 0,
        name_conflicts: bool = True,
        target_digests: Sequence[int] | None = None,
        etl: bool = True,
    ) -> None:
        if targets < 1:
            raise ValueError(f"targets={targets}: a cluster has at least one")
        self.token = token
        self._options = (targets, port, process, name_conflicts, target_digests, etl)
        self._own: tempfile.TemporaryDirectory[str] | None = None
        self._directory = directory
        self._host: _Thread | _Process | None = None
        self._store: Store | None = None

    @property
    def store(self) -> Store:
        """The data, reached without HTTP; other processes may use a ``Store`` of the same directory."""
        if self._store is None:
            if self._directory is None:
                self._own = tempfile.TemporaryDirectory(prefix="ais-server-")
            self._store = Store(self._own.name if self._own else self._directory or "")
        return self._store

    @property
    def url(self) -> str:
        """The proxy's address: the endpoint for clients."""
        return self._running().urls[0]

    @property
    def target_urls(self) -> list[str]:
        """The targets' addresses, also of those that are down or not in the map."""
        return list(self._running().urls[1:])

    def start(self) -> Self:
        """Starts the server; it answers when this returns."""
        if self._host is None:
            targets, port, process, name_conflicts, digests, etl = self._options
            if process:
                options = [] if name_conflicts else ["--no-name-conflicts"]
                options += ["--target-digests", ",".join(map(str, digests))] if digests else []
                options += [] if etl else ["--no-etl"]
                self._host = _Process(self.store.directory, port, targets, self.token, options)
            else:
                cluster = Cluster(
                    self.store,
                    targets=targets,
                    token=self.token,
                    name_conflicts=name_conflicts,
                    target_digests=digests,
                    etl=etl,
                )
                self._host = _Thread(cluster, port)
        return self

    def stop(self) -> None:
        """Stops the server: closes every connection, waits for its thread or process."""
        host, self._host = self._host, None
        try:
            if host is not None:
                host.stop()
        finally:
            if self._own is not None:
                self._own.cleanup()
                self._own = self._store = None

    def register_etl(self, name: str, function: EtlFunction) -> None:
        """Makes ``function`` an ETL that objects can be read through.

        Args:
            name: 6 to 32 lower-case letters, digits and dashes, as the SDK wants it.
            function: ``fn(data)``, or ``fn(data, args)`` with the request's ``etl_args``, gives bytes. It
                runs in a thread. A server in a process of its own imports it, so it must be a module's own.
        """
        if isinstance(self._running(), _Process):
            self.control(do="etl", name=name, place=place_of(function))
        else:
            self.control(do="etl", name=name, function=function)

    def control(self, **asked: Any) -> Any:
        """Asks the running server for something; the methods of :class:`Switches` say what."""
        return self._running().control(**asked)

    def _running(self) -> _Thread | _Process:
        if self._host is None:
            raise RuntimeError("the embedded AIStore is not running: use `with AisServer() as server`")
        return self._host

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
