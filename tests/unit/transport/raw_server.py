"""A server of raw sockets, which says exactly what a test tells it to, right or wrong."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO, NamedTuple


class Asked(NamedTuple):
    target: str
    headers: dict[str, str]
    before: int
    """How often this target was asked before."""
    body: bytes = b""

    def span(self, total: int) -> tuple[int, int] | None:
        said = self.headers.get("range")
        if said is None:
            return None
        first, _, last = said.removeprefix("bytes=").partition("-")
        return int(first), min(int(last) + 1 if last else total, total)


class Speaker:
    """How a server answers one request."""

    def answer(self, status: int, body: bytes = b"", *headers: str, length: int | None = -1) -> None:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError

    def serve(self, asked: Asked, data: bytes, *headers: str, cut: int | None = None) -> None:
        """``data`` or the range of it that was asked for; with ``cut``, so many bytes and then a reset."""
        span = asked.span(len(data))
        if span is None:
            head, body, status = headers, data, 200
        elif span[0] >= len(data):
            self.answer(416, b"", f"Content-Range: bytes */{len(data)}")
            return
        else:
            head = (*headers, f"Content-Range: bytes {span[0]}-{span[1] - 1}/{len(data)}")
            body, status = data[span[0] : span[1]], 206
        self.answer(status, body if cut is None else body[:cut], *head, length=len(body))
        if cut is not None:
            self.reset()


class Line(Speaker):
    """One connection, seen from the server."""

    def __init__(self, server: RawServer, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, status: int, body: bytes = b"", *headers: str, length: int | None = -1) -> None:
        lines = [f"HTTP/1.1 {status} said", *headers]
        if length is not None:
            lines.append(f"Content-Length: {len(body) if length < 0 else length}")
        head = "\r\n".join([*lines, "", ""]).encode()
        if len(body) < 1 << 16:
            self.send(head + body)
        else:
            self.send(head)
            self.send(body)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        socket.close(self.sock.detach())  # at once, whoever else holds the object

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_RDWR)

    def wait(self, seconds: float = 30.0) -> None:
        """Say nothing for so long, or until the server is closed."""
        self.server.closing.wait(seconds)


Answer = Callable[[Asked, Line], None]


@dataclass
class RawServer:
    answer: Answer
    context: ssl.SSLContext | None = None
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.closing = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    def counts(self, target: str) -> int:
        return sum(asked.target == target for asked in self.asked)

    def close(self) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for sock in self._open:
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._talk, args=(sock,), daemon=True).start()

    def _talk(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            sock = plain if self.context is None else self.context.wrap_socket(plain, server_side=True)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.add(sock)
            try:
                with sock.makefile("rb") as lines:
                    while self._one(lines, sock):
                        pass
            finally:
                with self._lock:
                    self._open.discard(sock)
                sock.close()

    def _one(self, lines: BinaryIO, sock: socket.socket) -> bool:
        first = next(lines, b"").split()
        if not first or self.closing.is_set():
            return False
        headers = {}
        for line in lines:
            name, _, value = line.decode("latin-1").partition(":")
            if not value:
                break
            headers[name.lower()] = value.strip()
        target = first[1].decode("latin-1")
        body = lines.read(int(headers.get("content-length", 0)))
        with self._lock:
            asked = Asked(target, headers, self.counts(target), body)
            self.asked.append(asked)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            self.answer(asked, Line(self, sock))
        finally:
            with self._lock:
                self._at_once -= 1
        return True


@contextmanager
def raw_server(answer: Answer, context: ssl.SSLContext | None = None) -> Iterator[RawServer]:
    server = RawServer(answer, context)
    try:
        yield server
    finally:
        server.close()


def closed_port() -> int:
    """A port where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])
