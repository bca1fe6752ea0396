"""Sends a recorded request again, byte for byte, and holds the answer against the recorded one."""

from __future__ import annotations

import http.client
import json
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from datapipes.testing.ais_server import AisServer

from .exchanges import Names, body_bytes, body_differs

NOT_SENT = {"host", "content-length", "accept-encoding", "connection", "user-agent"}
"""Headers of the client's own making, and those that say again what the body says."""

NOT_EXTRA = (
    "ais-",
    "accept-ranges",
    "content-range",
    "etag",
    "last-modified",
    "location",
    "allow",
    "hdr-error",
)
"""Headers that an answer may not have where none was recorded."""

VARIABLE = {
    "Ais-Bucket-Props": ("bid", "created"),
    "Ais-Bucket-Summ": ("TotalSize", "used_pct"),
}
"""Headers that are JSON, and what in them is the machine's own."""

PROXY_DIGEST = "5082254460920274955"
"""That of the recorded proxy's id."""


def names_of(server: AisServer) -> Names:
    """What the placeholders stand for with this server."""
    urls = {"PROXY": server.url, "TARGET_A": server.target_urls[0], "TARGET_B": server.target_urls[1]}
    known = {"NODE_IP": "127.0.0.1"}
    for token, url in urls.items():
        for net in ("", "_INTRA_CONTROL", "_INTRA_DATA"):
            known[f"http://{token}{net}"] = url
            known[f"{token}{net}"] = url.removeprefix("http://")
            known[f"{token}{net}_PORT"] = url.rpartition(":")[2]
    ids = http_get(server.url, "/v1/daemon?what=smap")
    known["PROXY_ID"] = next(iter(ids["pmap"]))
    known[PROXY_DIGEST] = str(ids["proxy_si"]["id_digest"])
    for node, entry in ids["tmap"].items():
        letter = "AB"[server.target_urls.index(entry["public_net"]["direct_url"])]
        known[f"TARGET_{letter}_ID"] = known[f"TGT_{letter}_ID"] = node
    return Names(known)


def http_get(url: str, path: str) -> Any:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
    try:
        connection.request("GET", path)
        return json.loads(connection.getresponse().read())
    finally:
        connection.close()


class Player:
    """Replays exchanges on one server."""

    def __init__(self, server: AisServer) -> None:
        self.server = server
        self.names = names_of(server)
        self.urls = {
            "proxy": server.url,
            "target-A": server.target_urls[0],
            "target-B": server.target_urls[1],
        }
        self._open: dict[str, http.client.HTTPConnection] = {}

    def close(self) -> None:
        for connection in self._open.values():
            connection.close()

    def play(self, line: dict[str, Any]) -> str:
        """What of the answer is not as recorded, or ""."""
        request, response = line["request"], line["response"]
        self._choose_target(request, response)
        if request["method"] == "RAW":
            return self._play_raw(request, response)
        try:
            status, headers, data = self._send(request)
        except ConnectionRefusedError:
            return "" if response["status"] == 0 else "connection refused"
        if response["status"] == 0:
            # The cluster dropped the connection, or died: this server must refuse.
            return "" if status == 400 else f"status {status}, not the 400 of a dangerous request"
        if status != response["status"]:
            return f"status {status}, not {response['status']}: {data[:300]!r} {headers}"
        different = self._headers_differ(response["headers"], headers, data, line)
        content_type = dict(headers).get("Content-Type", "")
        return different or body_differs(self.names, response["body"], data, content_type)

    def _choose_target(self, request: dict[str, Any], response: dict[str, Any]) -> None:
        """A batch goes to a target at random: to the recorded one here."""
        if request["to"] != "proxy" or not request["path"].startswith("/v1/ml/moss"):
            return
        told = json.dumps([response["headers"], response["body"]])
        found = re.search(r"http://TARGET_([AB])|t\[TARGET_([AB])", told)
        if found:
            self.server.choose_batch_target("AB".index(found.group(1) or found.group(2)))

    def _send(self, request: dict[str, Any]) -> tuple[int, list[tuple[str, str]], bytes]:
        url = self.urls[request["to"]]
        connection = self._open.get(url)
        if connection is None:
            address = url.removeprefix("http://")
            connection = self._open[url] = http.client.HTTPConnection(address, timeout=20)
        query = urlencode(self.names.fill(request["query"]), doseq=True)
        path = quote(self.names.fill(request["path"]), safe="%/:;=@&+,$~!*'()[]")
        connection.putrequest(
            request["method"], f"{path}?{query}" if query else path, skip_accept_encoding=True
        )
        for key, value in self.names.fill(request["headers"]).items():
            if key.lower() not in NOT_SENT:
                connection.putheader(key, value)
        body = body_bytes(self.names.fill(request.get("body")))
        if body or request["method"] in ("PUT", "POST"):
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        try:
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except (http.client.HTTPException, OSError):
            connection.close()
            raise

    def _headers_differ(
        self, recorded: dict[str, Any], actual: list[tuple[str, str]], data: bytes, line: dict[str, Any]
    ) -> str:
        found: dict[str, Any] = {}
        for key, value in actual:
            before = found.get(key)
            found[key] = (
                value if before is None else [*before, value] if isinstance(before, list) else [before, value]
            )
        lower = {key.lower() for key in recorded}
        for key, value in found.items():
            if key.lower().startswith(NOT_EXTRA) and key.lower() not in lower:
                return f"header {key}: {value!r} was not there"
        for key, value in recorded.items():
            different = self._header_differs(key, value, found.get(key), data, line)
            if different:
                return f"header {different}"
        return ""

    def _header_differs(self, key: str, recorded: Any, actual: Any, data: bytes, line: dict[str, Any]) -> str:
        if key in ("Date", "Connection"):
            return ""
        if key in VARIABLE or key == "Hdr-Error":
            return self._json_differs(key, recorded, actual)
        if key == "Ais-Append-Handle":
            self.names.learn_handle(recorded, actual or "")
            return "" if actual and actual.count("|") == 3 else f"{key}: {actual}"
        if key == "Content-Length":
            return self._length_differs(recorded, actual, data, line)
        if key == "Content-Type" and str(recorded).startswith("multipart"):
            return "" if str(actual).startswith("multipart/mixed; boundary=") else f"{key}: {actual}"
        return self.names.differs(recorded, actual, key)

    def _json_differs(self, key: str, recorded: str, actual: Any) -> str:
        if not isinstance(actual, str):
            return f"{key} is missing"
        then, now = json.loads(recorded), json.loads(actual)
        for part in VARIABLE.get(key, ()):
            if (part in then) != (part in now):
                return f"{key}.{part}: there or not"
            then.pop(part, None)
            now.pop(part, None)
        return self.names.differs(then, now, key)

    def _length_differs(self, recorded: str, actual: Any, data: bytes, line: dict[str, Any]) -> str:
        if line["request"]["method"] == "HEAD":
            return "" if recorded == actual else f"Content-Length: {actual}, not {recorded}"
        # The recorded length is that of ids and addresses of another cluster.
        return "" if actual == str(len(data)) else f"Content-Length: {actual} for {len(data)} bytes"

    def _play_raw(self, request: dict[str, Any], response: dict[str, Any]) -> str:
        host, _, port = self.urls[request["to"]].removeprefix("http://").partition(":")
        if not isinstance(request["body"], list):
            return "no text to send"
        recorded = [
            text for body in response["body"] for text in re.split(r"(?=HTTP/1\.[01] )", body) if text
        ]
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            answers = self._raw_answers(connection, request["body"], len(recorded))
            for then, now in zip(recorded, answers, strict=True):
                if different := self._raw_differs(then, now):
                    return different
        return ""

    def _raw_answers(self, connection: socket.socket, texts: list[str], count: int) -> Iterator[str]:
        reader = connection.makefile("rb")
        waiting = list(texts)
        with reader:
            for _ in range(count):
                if waiting:
                    connection.sendall(self.names.fill(waiting.pop(0)).encode())
                head = ""
                while (line := reader.readline().decode("latin-1")) not in ("\r\n", ""):
                    head += line
                length = head.lower().partition("content-length: ")[2].partition("\r\n")[0]
                body = reader.read(int(length or 0)).decode("latin-1")
                yield f"{head}\r\n{body}"

    def _raw_differs(self, recorded: str, actual: str) -> str:
        then, now = recorded.partition("\r\n\r\n"), actual.partition("\r\n\r\n")
        if then[0].split()[:2] != now[0].split()[:2]:
            return f"{now[0]!r} is not {then[0]!r}"
        wanted = dict(text.split(": ", 1) for text in then[0].split("\r\n")[1:])
        found = dict(text.split(": ", 1) for text in now[0].split("\r\n")[1:] if text)
        for key, value in wanted.items():
            if key not in ("Date", "Content-Length"):
                different = self.names.differs(value, found.get(key), key)
                if different:
                    return different
        if "Connection" in found and "Connection" not in wanted:
            return f"Connection: {found['Connection']}"
        return body_differs(self.names, then[2] or None, now[2].encode("latin-1"), "")
