"""A server of HTTP/2 over TLS, which says exactly what a test tells it to, right or wrong."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import ConnectionTerminated, PingAckReceived, RequestReceived, StreamReset
from hyperframe.frame import GoAwayFrame

from .raw_server import Asked, Speaker

Answer = Callable[[Asked, "Stream"], None]


class Stream(Speaker):
    """One request and its answer, seen from the server; answered by the thread of its connection only."""

    def __init__(self, line: H2Line, number: int) -> None:
        self.line = line
        self.number = number

    def answer(
        self, status: int, body: bytes = b"", *headers: str, length: int | None = -1, end: bool | None = None
    ) -> None:
        """Ended when the body is as long as it is said to be, unless ``end`` says otherwise."""
        fields = [(":status", str(status))]
        for header in headers:
            name, _, value = header.partition(":")
            fields.append((name.lower(), value.strip()))
        if length is not None:
            fields.append(("content-length", str(len(body) if length < 0 else length)))
        self.line.http.send_headers(self.number, fields)
        complete = length is None or length <= len(body)
        self.line.bodies[self.number] = (memoryview(body), complete if end is None else end)

    def tell(self, body: bytes, *, begun: bool) -> None:
        """All the rest at once, as far as one record of TLS can hold; it must fit in the client's windows."""
        line, size = self.line, self.line.http.max_outbound_frame_size
        if not begun:
            line.http.send_headers(self.number, [(":status", "200"), ("content-length", str(len(body)))])
        for at in range(0, len(body), size):
            line.http.send_data(self.number, body[at : at + size])
        line.http.end_stream(self.number)
        line.flush()
        line.ended(self.number)

    def reset(self, code: ErrorCodes = ErrorCodes.INTERNAL_ERROR) -> None:
        """Cut the stream off once the client has met all that was said before."""

        def cut() -> None:
            if self.number in self.line.open:
                self.line.http.reset_stream(self.number, code)
                self.line.ended(self.number)

        self.line.when_met(cut)


class H2Line:
    """One connection, seen from the server."""

    def __init__(self, server: H2Server, sock: ssl.SSLSocket) -> None:
        self.server = server
        self.sock = sock
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.bodies: dict[int, tuple[memoryview, bool]] = {}
        self.open: set[int] = set()
        self.asked = 0
        self._met: list[Callable[[], None]] = []
        self._leaving = False

    def when_met(self, then: Callable[[], None]) -> None:
        """Do ``then`` when the client has met all that was said before: it has answered a ping."""
        self._met.append(then)

    def go_away(self, last: int, code: ErrorCodes = ErrorCodes.NO_ERROR) -> None:
        """Streams above ``last`` are not answered; those up to it are, while the connection stands."""
        self._send(GoAwayFrame(0, last_stream_id=last, error_code=code).serialize())

    def end(self) -> None:
        self.bodies.clear()
        self._leaving = True

    def ended(self, number: int) -> None:
        self.bodies.pop(number, None)
        if number in self.open:
            self.open.discard(number)
            self.server.count(-1)

    def run(self) -> None:
        self.http.initiate_connection()
        self.flush()
        try:
            while not self._leaving and (data := self.sock.recv(1 << 16)):
                events = self.http.receive_data(data)
                cut = {event.stream_id for event in events if isinstance(event, StreamReset)}
                for number in cut:
                    self.ended(number)
                for event in events:
                    if isinstance(event, RequestReceived) and event.stream_id not in cut:
                        self._request(event)
                    elif isinstance(event, PingAckReceived):
                        self._met.pop(0)()
                    elif isinstance(event, ConnectionTerminated):
                        return
                self._speak()
        finally:
            for number in list(self.open):
                self.ended(number)

    def _request(self, event: RequestReceived) -> None:
        fields = {str(name): str(value) for name, value in event.headers}
        self.asked += 1
        self.open.add(event.stream_id)
        self.server.count(+1)
        waiting = len(self._met)
        self.server.answer(self.server.note(fields), Stream(self, event.stream_id))
        if len(self._met) > waiting:
            self._speak()
            self.http.ping(b"are you?")
            self.flush()

    def _speak(self) -> None:
        """All that the client's windows let through, a frame of each stream in turn."""
        moved = True
        while moved:
            moved = False
            for number, (body, end) in list(self.bodies.items()):
                room = max(
                    0, min(self.http.local_flow_control_window(number), self.http.max_outbound_frame_size)
                )
                piece, rest = body[:room], body[room:]
                if piece:
                    self.http.send_data(number, bytes(piece))
                    moved = True
                if rest:
                    self.bodies[number] = (rest, end)
                    continue
                del self.bodies[number]
                if end:
                    self.http.end_stream(number)
                    self.ended(number)
            self.flush()

    def flush(self) -> None:
        self._send(self.http.data_to_send())

    def _send(self, data: bytes) -> None:
        if data:
            self.sock.sendall(data)


class H2Server:
    """Closed by its ``close``."""

    def __init__(self, answer: Answer, context: ssl.SSLContext) -> None:
        self.answer = answer
        self.asked: list[Asked] = []
        self.connections = self.most_at_once = 0
        self._context = context
        context.set_alpn_protocols(["h2"])
        self._at_once = 0
        self._lock = threading.Lock()
        self._open: set[ssl.SSLSocket] = set()
        self.before_connecting: Callable[[int], object] = lambda number: None
        """Called before the handshake of each connection with its number, from one."""
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def counts(self, target: str) -> int:
        return sum(asked.target == target for asked in self.asked)

    def note(self, fields: dict[str, str]) -> Asked:
        with self._lock:
            target = fields[":path"]
            self.asked.append(Asked(target, fields, self.counts(target)))
            return self.asked[-1]

    def count(self, more: int) -> None:
        with self._lock:
            self._at_once += more
            self.most_at_once = max(self.most_at_once, self._at_once)

    def close(self) -> None:
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
            threading.Thread(target=self._talk, args=(sock, self.connections), daemon=True).start()

    def _talk(self, plain: socket.socket, number: int) -> None:
        self.before_connecting(number)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError), self._context.wrap_socket(plain, server_side=True) as sock:
            with self._lock:
                self._open.add(sock)
            try:
                H2Line(self, sock).run()
            finally:
                with self._lock:
                    self._open.discard(sock)
