"""Starting and stopping: a thread, a process, addresses, what is left behind."""

from __future__ import annotations

import functools
import gc
import http.client
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from datapipes.testing.ais_server import AisServer
from datapipes.testing.ais_server.__main__ import main


def read(url: str | urllib.request.Request) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("process", [False, True], ids=["thread", "process"])
def test_server_serves_what_was_put_round_it_and_ends_without_a_trace(tmp_path: Path, process: bool) -> None:
    before = threading.active_count()
    with AisServer(tmp_path, process=process, targets=3) as server:
        server.store.put("b", "dir/x", b"round")
        assert read(f"{server.url}/v1/objects/b/dir/x?provider=ais") == b"round"
        assert len(server.target_urls) == 3
        url = server.url
    gc.collect()
    assert threading.active_count() == before
    with pytest.raises(urllib.error.URLError):
        read(f"{url}/v1/health")
    with AisServer(tmp_path, process=process) as server:
        assert read(f"{server.url}/v1/objects/b/dir/x") == b"round"


def test_a_directory_of_its_own_goes_away_with_the_server() -> None:
    with AisServer() as server:
        directory = Path(server.store.directory)
        server.store.put("b", "x", b"")
        assert (directory / "b/x").exists()
    assert not directory.exists()


def test_a_client_that_goes_away_is_no_fault_of_the_server(caplog: pytest.LogCaptureFixture) -> None:
    with AisServer() as server:
        for i in range(40):
            server.store.put("b", f"x{i}", bytes(200_000))
        asked = json.dumps({"in": [{"objname": f"x{i}"} for i in range(40)], "mime": ".tar", "strm": True})
        for _ in range(8):
            first = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=10)
            first.request("GET", "/v1/ml/moss/b?provider=ais", body=asked)
            to = urlsplit(first.getresponse().headers["Location"])
            first.close()
            line = http.client.HTTPConnection(to.netloc, timeout=10)
            line.request("GET", f"{to.path}?{to.query}", body=asked)
            line.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            line.close()
        read(f"{server.url}/v1/health")
    assert [record.getMessage() for record in caplog.records] == []


def test_a_server_that_is_not_running_says_so(tmp_path: Path) -> None:
    server = AisServer(tmp_path)
    with pytest.raises(RuntimeError, match="with AisServer"):
        _ = server.url


def test_a_taken_port_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    with AisServer(tmp_path) as server:
        taken = int(server.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            AisServer(tmp_path, port=taken).start()
        with pytest.raises(RuntimeError, match="status 1"):
            AisServer(tmp_path, port=taken, process=True).start()


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_a_directory_until_it_is_told_to_end(
    tmp_path: Path, ending: signal.Signals
) -> None:
    (tmp_path / "bucket/dir").mkdir(parents=True)
    (tmp_path / "bucket/dir/file").write_bytes(b"as it lay")
    command = [
        sys.executable,
        "-m",
        "datapipes.testing.ais_server",
        str(tmp_path),
        "--port",
        "0",
        "--targets",
        "1",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        said = re.search(r"AIS_ENDPOINT=(\S+)", child.stdout.readline())
        assert said is not None
        assert read(f"{said.group(1)}/v1/objects/bucket/dir/file") == b"as it lay"
        child.send_signal(ending)
        assert child.wait(10) == 0


def test_the_command_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert "--targets" in capsys.readouterr().out


@pytest.mark.parametrize("wrong", [["--targets", "0"], ["--port", "70000"], ["--port", "-1"]])
def test_the_command_refuses_what_cannot_be(
    tmp_path: Path, wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(tmp_path), *wrong])
    assert caught.value.code == 2
    assert f"{wrong[0]} must be" in capsys.readouterr().err


def test_the_command_says_what_is_in_its_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with AisServer() as server:
        taken = server.url.rpartition(":")[2]
        assert main([str(tmp_path), "--port", taken]) == 1
    said = capsys.readouterr().err
    assert f"port {taken}" in said
    assert "in use" in said
    file = tmp_path / "file"
    file.touch()
    assert main([str(file), "--port", "0"]) == 1
    assert str(file) in capsys.readouterr().err


@pytest.mark.parametrize("process", [False, True], ids=["thread", "process"])
def test_writes_that_follow_each_other_at_once_are_told_apart(tmp_path: Path, process: bool) -> None:
    with AisServer(tmp_path, process=process, targets=1) as server:
        for i in range(200):
            for _ in range(1 + i % 3):
                server.store.put("b", "x", b"%03d" % i)
            assert read(f"{server.target_urls[0]}/v1/objects/b/x") == b"%03d" % i


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_server_in_a_process_stops_while_a_forked_child_lives() -> None:
    with AisServer(process=True) as server:
        assert read(f"{server.url}/v1/health") == b""
        with subprocess.Popen(["sleep", "30"], close_fds=False, pass_fds=()) as child:
            server.stop()
            child.kill()


@pytest.mark.parametrize("allowed", [True, False])
def test_names_below_each_other_exclude_each_other_as_in_a_cluster_or_not(
    tmp_path: Path, allowed: bool
) -> None:
    with AisServer(tmp_path, targets=1, name_conflicts=not allowed) as server:
        server.store.put("b", "a", b"")
        url = f"{server.target_urls[0]}/v1/objects/b/a/b?pid=x&utm=y"
        request = urllib.request.Request(url, data=b"below", method="PUT")
        if allowed:
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.status == 200
        else:
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(request, timeout=10)
            caught.value.close()
        assert server.store.names("b") == (["a", "a/b"] if allowed else ["a"])


def test_a_name_that_is_not_utf8_is_named_by_the_error_of_a_listing(tmp_path: Path) -> None:
    with AisServer(tmp_path) as server:
        server.store.put("b", "x", b"1")
        asked = json.dumps({"action": "list", "value": {}}).encode()
        for accept in ("application/json", "application/msgpack"):
            url = f"{server.url}/v1/buckets/b?provider=ais"
            headers = {"Accept": accept, "Content-Type": "application/json"}
            request = urllib.request.Request(url, data=asked, headers=headers, method="GET")
            assert b"x" in read(request)
            odd = os.fsencode(tmp_path) + b"/b/caf\xe9"
            Path(os.fsdecode(odd)).write_bytes(b"2")
            with pytest.raises(urllib.error.HTTPError) as raised:
                read(request)
            assert raised.value.code == 400
            assert "b'caf\\xe9' is not" in json.loads(raised.value.read())["message"]
            os.unlink(odd)


def test_methods_of_built_in_types_are_functions_of_a_module_too() -> None:
    with AisServer(process=True) as server:
        server.store.put("b", "x", b"loud")
        server.register_etl("shouts", bytes.upper)
        assert read(f"{server.url}/v1/objects/b/x?provider=ais&etl_name=shouts") == b"LOUD"
        for function in (functools.partial(bytes.upper), b"".upper, lambda data: data):
            with pytest.raises(ValueError, match="a function of an importable module"):
                server.register_etl("others", function)
