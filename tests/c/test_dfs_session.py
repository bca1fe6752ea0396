"""A session on a container, from Python, through the stand-in for DAOS."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PRELUDE = """
    import os, sys
    from collections import namedtuple
    from datapipes._dfs import Session
    Result = namedtuple("Result", "position tag data error")
    NEEDED = {"result": Result, "error": lambda tag, op, code: OSError(code, op, tag), "max_in_flight": 32}

    def read(session, names, sizes=None):
        requests = [(name, 0, -1, sizes[name] if sizes else -1, name) for name in names]
        found = session.read_many(requests, max_buffer_bytes=1 << 22, **NEEDED)
        return {one.tag: one.error or one.data for one in found}

    def right(found):
        return all(data == name[-1:].encode() * len(data) and data for name, data in found.items())
"""


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("standin")
    subprocess.run([HERE / "standin" / "build", folder], check=True)
    return folder


@pytest.fixture
def pools(tmp_path: Path) -> Path:
    folder = tmp_path / "pool" / "cont" / "d"
    folder.mkdir(parents=True)
    for i in range(200):
        (folder / f"{i:03d}").write_bytes(str(i % 10).encode() * (1 + i * 700))
    return tmp_path


def run(standin: Path, pools: Path, program: str, **variables: str) -> str:
    """Run in an interpreter of its own: libraries stay loaded."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PRELUDE) + textwrap.dedent(program)],
        env={**os.environ, "DATAPIPES_LIBDFS_DIR": str(standin), "STANDIN_ROOT": str(pools), **variables},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_lists_reads_and_writes(standin: Path, pools: Path) -> None:
    run(
        standin,
        pools,
        """
        session = Session("dfs", "pool/cont")
        sizes = dict(entry for block in session.list("") for entry in block)
        assert len(sizes) == 200 and sizes["d/003"] == 2101
        for told in (sizes, None):
            found = read(session, sizes, told)
            assert {name: len(data) for name, data in found.items()} == sizes and right(found)
        session.write("new/file", b"written")
        assert session.stat("new/file")[:2] == ("file", 7)
        assert isinstance(read(session, ["d/none"])["d/none"], FileNotFoundError)
        session.close()
        """,
    )
    assert (pools / "pool/cont/new/file").read_bytes() == b"written"


def test_children_read_their_own(standin: Path, pools: Path) -> None:
    run(
        standin,
        pools,
        """
        session = Session("dfs", "pool/cont")
        names = [f"d/{i:03d}" for i in range(200)]
        assert right(read(session, names))
        children = []
        for _ in range(3):
            child = os.fork()
            if child == 0:
                os._exit(0 if right(read(Session("dfs", "pool/cont"), names)) else 1)
            children.append(child)
        assert right(read(session, names))
        assert all(os.waitpid(child, 0)[1] == 0 for child in children)
        """,
    )


CONNECTING = """
    import ctypes, signal, threading, time
    count = ctypes.CDLL(os.environ["DATAPIPES_LIBDFS_DIR"] + "/libdaos.so.2").standin_count
    connected = count(b"daos_pool_connect")
    other = threading.Thread(target=Session, args=("dfs", "pool/cont"), daemon=True)
    other.start()
    while count(b"daos_pool_connect") == connected:
        time.sleep(0.01)
    time.sleep(0.05)  # it has begun to connect: now it holds what it holds meanwhile
    child = os.fork()
"""


def test_child_that_is_forked_while_a_thread_connects_reads_its_own(standin: Path, pools: Path) -> None:
    run(
        standin,
        pools,
        """
    session = Session("dfs", "pool/cont")
    """
        + CONNECTING
        + """
    if child == 0:
        signal.alarm(20)
        os._exit(0 if right(read(Session("dfs", "pool/cont"), ["d/001", "d/002"])) else 1)
    assert os.waitpid(child, 0)[1] == 0
    other.join()
    """,
        STANDIN_COST="sleep",
        STANDIN_CONNECT_US="400000",
    )


def test_connecting_that_takes_long_does_not_keep_others_from_forking(standin: Path, pools: Path) -> None:
    run(
        standin,
        pools,
        CONNECTING
        + """
    if child == 0:
        os._exit(7)
    assert os.waitpid(child, 0)[1] == 7 << 8
    assert other.is_alive()
    os._exit(0)
    """,
        STANDIN_COST="sleep",
        STANDIN_CONNECT_US="30000000",
    )


@pytest.mark.parametrize(
    ("variables", "root", "code", "words"),
    [
        ({"DATAPIPES_LIBDFS_DIR": "/nowhere"}, "pool/cont", errno.ELIBACC, "libdaos.so.2"),
        ({"STANDIN_VERSION": "1.2.3"}, "pool/cont", errno.ELIBACC, "1.2.3"),
        ({"STANDIN_AGENT": "none"}, "pool/cont", errno.EIO, "daos_agent"),
        ({}, "pool/none", errno.ENOENT, "no such"),
        ({}, "pool", errno.EINVAL, "not a name"),
    ],
    ids=["library", "version", "agent", "container", "name"],
)
def test_what_is_amiss(
    standin: Path, pools: Path, variables: dict[str, str], root: str, code: int, words: str
) -> None:
    said = run(
        standin,
        pools,
        f"""
        try:
            Session("dfs", {root!r})
        except OSError as error:
            print(error.errno, error.strerror, error.filename)
        """,
        **variables,
    )
    assert said.startswith(f"{code} ")
    assert words in said
    assert said.strip().endswith(root)
