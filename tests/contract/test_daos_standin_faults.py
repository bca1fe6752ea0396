"""What is amiss with a DAOS, as users of the back end see it, and what its data meet."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from .standin import StandIn, available, run

pytestmark = available

ALL_SAY = """
    for call in (
        lambda: backend.read(url + "d/000"),
        lambda: list(backend.list(url)),
        lambda: next(iter(backend.read_many([ReadRequest(url + "d/000")]))).unwrap(),
        lambda: backend.stat(url + "d/000"),
        lambda: backend.write(url + "new", b"x"),
        lambda: backend.remove(url + "d/000"),
    ):
        say(call)
"""


@pytest.fixture(scope="module")
def standin(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn(tmp_path_factory.mktemp("standin"))


@pytest.fixture
def container(standin: StandIn, tmp_path: Path) -> Path:
    standin.root = tmp_path / "pools"
    files = standin.root / "tank" / "train" / "d"
    files.mkdir(parents=True)
    for number in range(50):
        (files / f"{number:03}").write_bytes(bytes([number]) * (1000 + number))
    return files.parent


@pytest.mark.parametrize(
    ("variables", "kind", "words"),
    [
        ({"STANDIN_AGENT": "none"}, "StoreConnectionError", "daos_agent"),
        ({"STANDIN_ENGINE": "down", "STANDIN_ENGINE_US": "1000"}, "StoreTimeoutError", "no engine does"),
        ({"STANDIN_VERSION": "1.2.3"}, "BackendUnavailableError", "1.2.3"),
    ],
    ids=["no agent", "no engine", "version"],
)
def test_a_system_that_is_not_there_is_said_by_every_call(
    standin: StandIn, container: Path, variables: dict[str, str], kind: str, words: str
) -> None:
    said = run(standin, ALL_SAY, **variables)
    assert len(said) == 6
    assert all(line.startswith(f"{kind} |") and words in line for line in said), said


@pytest.mark.parametrize("fault", ["no pool", "no container", "not posix"])
def test_a_container_that_is_not_there_is_said_by_every_call(
    standin: StandIn, container: Path, fault: str
) -> None:
    pool, cont = ("none", "train") if fault == "no pool" else ("tank", "none")
    if fault == "not posix":
        (standin.root / "tank" / "none").write_text("of another kind")
    there = f"""
    backend = DaosBackend({pool!r}, {cont!r})
    url = "daos://{pool}/{cont}/"
    """
    said = run(standin, there + ALL_SAY)
    assert len(said) == 6
    assert all(line.startswith("ContainerMissingError |") for line in said), said
    assert all(("type POSIX" in line) == (fault == "not posix") for line in said)


def test_a_container_answers_to_uuids(standin: StandIn, container: Path) -> None:
    said = run(
        standin,
        """
        backend.read(url + "d/000")
        lib = ctypes.CDLL(os.path.join(os.environ["DATAPIPES_LIBDFS_DIR"], "libdaos.so.2"))
        names = []
        for label in (b"tank", b"train"):
            uuid = ctypes.create_string_buffer(37)
            lib.standin_uuid(label, uuid)
            names.append(uuid.value.decode())
        again = DaosBackend(*names)
        print(len(list(again.list("daos://" + "/".join(names) + "/"))))
        """,
    )
    assert said == ["50"]


def test_reading_and_writing_go_on_side_by_side_in_one_process(standin: StandIn, container: Path) -> None:
    """DAOS keeps what was connected under a name: reading first must not shut out writing."""
    said = run(
        standin,
        """
        reader, writer = DaosBackend("tank", "train"), DaosBackend("tank", "train")
        reader.read(url + "d/000")
        writer.write(url + "new", b"written")
        print(reader.read(url + "new"))
        """,
    )
    assert said == ["b'written'"]


@pytest.mark.parametrize("ours", ["first", "second"])
def test_writing_goes_on_beside_a_library_that_connects_for_reading_only(
    standin: StandIn, container: Path, ours: str
) -> None:
    """As pydaos does: what it has connected under the same names is what libdfs would give to us."""
    said = run(
        standin,
        f"""
        def theirs():
            dfs = ctypes.CDLL(os.path.join(os.environ["DATAPIPES_LIBDFS_DIR"], "libdfs.so"))
            mount = ctypes.c_void_p()
            assert dfs.dfs_init() == 0
            assert dfs.dfs_connect(b"tank", None, b"train", os.O_RDONLY, None, ctypes.byref(mount)) == 0

        steps = [theirs, lambda: backend.read(url + "d/001")]
        for step in reversed(steps) if {ours!r} == "first" else steps:
            step()
        backend.write(url + "new", b"written")
        with backend.open_write(url + "d/more") as file:
            file.write(b"and more")
        backend.remove(url + "d/000")
        print(backend.read(url + "new"), backend.read(url + "d/more"), len(list(backend.list(url))))
        """,
    )
    assert said == ["b'written' b'and more' 51"]


def test_a_balanced_container_is_listed_read_and_written(standin: StandIn, container: Path) -> None:
    """One made with ``--mode=balanced``: ``dfs_connect`` refuses it."""
    container.with_name("train.balanced").touch()
    said = run(
        standin,
        """
        backend.write(url + "new", b"written")
        backend.write(url + "new", b"anew")
        backend.remove(url + "d/000")
        print(backend.read(url + "new"), len(backend.read(url + "d/001")), len(list(backend.list(url))))
        """,
    )
    assert said == ["b'anew' 1001 50"]


@pytest.mark.parametrize("what", ["pool", "container"])
def test_a_user_who_may_not_connect_is_told_where_the_rights_are(
    standin: StandIn, container: Path, what: str
) -> None:
    said = run(standin, ALL_SAY, **{f"STANDIN_{what.upper()}": "none"})
    assert len(said) == 6
    words = {"pool": "dmg pool get-acl", "container": "daos container get-acl"}[what]
    assert all(line.startswith("AccessDeniedError |") and words in line for line in said), said


def stub(target: Path, source: str, *options: str) -> None:
    """A library of a few functions."""
    command = ["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(target), *options]
    subprocess.run(command, input=source, text=True, check=True)


VERSION = "int daos_version_get(int *a, int *b, int *c) { *a = 2; *b = 8; *c = 0; return 0; }"


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("nothing there", ["libdaos.so.2 cannot be loaded", "daos-client", "DATAPIPES_LIBDFS_DIR"]),
        ("one library", ["libdfs.so cannot be loaded", "daos-client", "DATAPIPES_LIBDFS_DIR"]),
        ("no library of DAOS", ["no function daos_version_get", "install that version", "2.8"]),
        ("a function less", ["libdfs.so has no function dfs_init", "install that version", "2.8"]),
        ("another version", ["has the interface 2.6.0", "install DAOS 2.8"]),
    ],
)
def test_libraries_that_are_of_no_use_are_named_with_what_to_install(
    standin: StandIn, container: Path, tmp_path: Path, fault: str, words: list[str]
) -> None:
    """By every call, and by the second as by the first."""
    folder = tmp_path / "libraries"
    folder.mkdir()
    if fault == "one library":
        shutil.copy(standin.libraries / "libdaos.so.2", folder)
        shutil.copy(standin.libraries / "libgurt.so.4", folder)
    elif fault in ("no library of DAOS", "a function less"):
        stub(folder / "libdaos.so.2", VERSION if fault == "a function less" else "int nothing;")
        stub(
            folder / "libdfs.so",
            "int dfs_fini(void) { return 0; }",
            f"-L{folder}",
            "-Wl,--no-as-needed",
            "-l:libdaos.so.2",
            "-Wl,-rpath,$ORIGIN",
        )
    elif fault == "another version":
        folder = standin.libraries
    variables = {"DATAPIPES_LIBDFS_DIR": str(folder), "STANDIN_VERSION": "2.6.0"}
    said = run(standin, ALL_SAY, **variables)
    assert len(said) == 6
    for line in said:
        assert line.startswith("BackendUnavailableError |"), said
        assert all(word in line for word in words), said


def test_a_user_who_may_only_read_reads_and_is_refused_writing(standin: StandIn, container: Path) -> None:
    said = run(
        standin,
        """
        print(len(backend.read(url + "d/001")))
        say(lambda: backend.write(url + "new", b"x"))
        """,
        STANDIN_CONTAINER="read",
    )
    assert said[0] == "1001"
    assert said[1].startswith("AccessDeniedError |")


def test_a_connection_that_dies_is_an_error_of_each_item_and_never_data(
    standin: StandIn, container: Path
) -> None:
    said = run(
        standin,
        """
        requests = [ReadRequest(entry.url, 0, -1, entry.size) for entry in backend.list(url)]
        for fault in ("dfs_read:20=dead", "dfs_open:7=dead", "any:90=dead"):
            lib = ctypes.CDLL(os.path.join(os.environ["DATAPIPES_LIBDFS_DIR"], "libdaos.so.2"))
            lib.standin_reset()
            lib.standin_set(b"STANDIN_FAIL", fault.encode())
            good = bad = 0
            for result in backend.read_many(requests, max_in_flight=8):
                if result.error is None:
                    number = int(result.request.url[-3:])
                    assert result.data == bytes([number]) * (1000 + number)
                    good += 1
                else:
                    assert isinstance(result.error, OSError), result.error
                    bad += 1
            assert good + bad == 50
            print(fault, bad > 0)
            lib.standin_reset()
        """,
    )
    assert [line.split()[0] for line in said] == ["dfs_read:20=dead", "dfs_open:7=dead", "any:90=dead"]
    assert any(line.endswith("True") for line in said)


def test_a_short_read_is_an_error_of_a_file_whose_size_is_not_known_too(
    standin: StandIn, container: Path
) -> None:
    (container / "large").write_bytes(bytes(300_000))
    said = run(
        standin,
        """
        lib = ctypes.CDLL(os.path.join(os.environ["DATAPIPES_LIBDFS_DIR"], "libdaos.so.2"))
        backend.stat(url + "large")
        lib.standin_reset()
        lib.standin_set(b"STANDIN_FAIL", b"dfs_read:2=short")
        say(lambda: backend.read(url + "large"))
        """,
    )
    assert said[0].startswith("SizeMismatchError |")


@pytest.mark.parametrize("parts", [5_000, 40_000])
def test_a_path_of_very_many_parts_is_an_error(standin: StandIn, container: Path, parts: int) -> None:
    said = run(
        standin,
        f"""
        say(lambda: backend.read(url + "a/" * {parts} + "b"))
        say(lambda: list(backend.list(url + "a/" * {parts})))
        """,
    )
    kind = "FileMissingError" if parts == 5_000 else "BackendIOError"  # ENAMETOOLONG
    assert [line.partition(" |")[0] for line in said] == [kind] * 2


def test_other_threads_go_on_while_a_container_is_let_go_of(standin: StandIn, container: Path) -> None:
    said = run(
        standin,
        """
        import threading, time
        from datapipes._dfs import Session

        session, seen = Session("dfs", "tank/train"), []
        lib = ctypes.CDLL(os.path.join(os.environ["DATAPIPES_LIBDFS_DIR"], "libdaos.so.2"))
        lib.standin_count.restype = ctypes.c_long

        def look():
            while not lib.standin_count(b"daos_pool_disconnect"):
                time.sleep(0.01)
            seen.append(time.monotonic())

        lib.standin_reset()
        lib.standin_set(b"STANDIN_COST", b"sleep")
        lib.standin_set(b"STANDIN_CONNECT_US", b"2000000")  # of disconnecting too
        looking = threading.Thread(target=look)
        looking.start()
        del session
        end = time.monotonic()
        looking.join()
        print(seen[0] < end - 1)
        """,
    )
    assert said == ["True"]


@pytest.mark.parametrize("call", ["read", "list", "write"])
def test_a_fault_of_any_call_is_an_error_or_harmless(standin: StandIn, container: Path, call: str) -> None:
    said = run(
        standin,
        f"""
        backend.read(url + "d/000")
        lib = ctypes.CDLL(os.path.join(os.environ["DATAPIPES_LIBDFS_DIR"], "libdaos.so.2"))
        lib.standin_count.restype = ctypes.c_long
        expected = {{f"{{url}}d/{{n:03}}": bytes([n]) * (1000 + n) for n in range(50)}}

        def read():
            results = list(backend.read_many([ReadRequest(u) for u in expected], max_in_flight=4))
            assert len(results) == 50
            assert all(r.error is not None or r.data == expected[r.request.url] for r in results)
            return sum(r.error is not None for r in results)

        def list_():
            try:
                found = [entry.url for entry in backend.list(url)]
            except OSError:
                return 1
            assert found == sorted(expected), found
            return 0

        def write():
            try:
                backend.write(url + "w", b"new" * 1000)
            except OSError:
                return 1
            lib.standin_reset()
            assert backend.read(url + "w") == b"new" * 1000
            return 0

        work = {{"read": read, "list": list_, "write": write}}[{call!r}]
        lib.standin_reset()
        if work is write:
            backend.write(url + "w", b"old")
        else:
            assert work() == 0
        calls, failed = lib.standin_count(b"calls"), 0
        for k in range(1, calls + 1):
            lib.standin_reset()
            lib.standin_set(b"STANDIN_FAIL", f"any:{{k}}=5".encode())
            failed += work() > 0
            lib.standin_reset()
            assert work() == 0, k
        print(calls, failed)
        """,
    )
    calls, failed = map(int, said[0].split())
    least = {"read": 50, "list": 2, "write": 2}[call]  # each file is opened or read by one call at least
    assert calls >= failed >= least  # others harm nobody: releasing, say
