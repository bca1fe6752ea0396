"""Listings of real directories by the native engine, held against os.walk."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datapipes._dfs import ListIterator, Session

Entry = tuple[str, int]
BLOCK = 4096


def flat(blocks: ListIterator) -> list[Entry]:
    return [entry for block in blocks for entry in block]


def listed(root: str | Path, path: str = "", **options: object) -> list[Entry]:
    session = Session("posix", os.fspath(root))
    try:
        return flat(session.list(path, **options))  # type: ignore[arg-type]
    finally:
        session.close()


def walked(root: str | Path, path: str = "") -> list[Entry]:
    """What a listing must say, the slow way: whole paths, sorted as bytes."""
    base, found = os.fsencode(root), []
    for folder, _, names in os.walk(os.path.join(base, os.fsencode(path))):
        for name in names:
            whole = os.path.join(folder, name)
            try:
                status = os.stat(whole)
            except OSError:
                found.append((os.path.relpath(whole, base), -1))
                continue
            if stat.S_ISREG(status.st_mode):
                found.append((os.path.relpath(whole, base), status.st_size))
    return [(os.fsdecode(name), size) for name, size in sorted(found)]


def assert_idle(session: Session) -> None:
    end = time.monotonic() + 5
    while any(session.stats()[name] for name in ("files_open", "listings_live")) and time.monotonic() < end:
        time.sleep(0.01)
    assert (session.stats()["files_open"], session.stats()["listings_live"]) == (0, 0)


def fill(root: Path, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x" * size)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    fill(tmp_path, {"b/z": 6, "b/c/1": 5, "a.txt": 1, "a/y": 4, "a/x": 3, "a-b": 2})
    (tmp_path / "empty" / "inner").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def session(tree: Path) -> Iterator[Session]:
    opened = Session("posix", str(tree))
    yield opened
    opened.close()


TREE = [("a-b", 2), ("a.txt", 1), ("a/x", 3), ("a/y", 4), ("b/c/1", 5), ("b/z", 6)]


# --- what is listed, and in which order


def test_list_directory_sorts_as_its_name_and_slash(session: Session) -> None:
    assert flat(session.list("")) == TREE


def test_list_subdirectory_keeps_paths_from_the_root(session: Session) -> None:
    assert flat(session.list("b")) == [("b/c/1", 5), ("b/z", 6)]
    assert flat(session.list("b/")) == [("b/c/1", 5), ("b/z", 6)]


def test_list_not_recursive_gives_own_files_only(session: Session) -> None:
    assert flat(session.list("", recursive=False)) == [("a-b", 2), ("a.txt", 1)]
    assert flat(session.list("b", recursive=False)) == [("b/z", 6)]


def test_list_file_gives_that_file(session: Session) -> None:
    assert flat(session.list("b/c/1")) == [("b/c/1", 5)]
    assert flat(session.list("b/c/1", start_after="b/c/1")) == []


@pytest.mark.parametrize("path", ["empty", "empty/inner"])
def test_list_empty_directory_gives_no_block(session: Session, path: str) -> None:
    assert list(session.list(path)) == []


def test_list_without_sizes_says_minus_one(session: Session) -> None:
    assert flat(session.list("", sizes=False)) == [(name, -1) for name, _ in TREE]


@pytest.mark.parametrize("depth", [1, 2, 16])
def test_list_depth_changes_nothing_but_the_threads(session: Session, depth: int) -> None:
    blocks = session.list("", depth=depth)
    assert flat(blocks) == TREE
    assert blocks.stats() == {"entries": 6, "directories": 6, "left_out": 0, "depth": depth}


def test_list_bad_option_is_refused(session: Session) -> None:
    with pytest.raises(ValueError, match="depth"):
        session.list("", depth=-1)
    with pytest.raises(TypeError):
        session.list("", False)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"(?i)null?"):
        session.list("a\0b")


NAME = st.binary(min_size=1, max_size=12).filter(
    lambda name: not {0, 0x2F} & set(name) and name not in {b".", b".."}
)
PATHS = st.lists(st.lists(NAME, min_size=1, max_size=5), max_size=25)


def build(root: bytes, paths: list[list[bytes]]) -> None:
    for parts in paths:
        try:
            os.makedirs(os.path.join(root, *parts[:-1]), exist_ok=True)
            with open(os.path.join(root, *parts), "wb") as file:
                file.write(b"x" * (len(parts[-1]) % 5))
        except OSError:
            continue  # a file where another path wants a directory, or the other way round


@given(PATHS)
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=60)
def test_list_any_names_equal_the_sorted_walk(paths: list[list[bytes]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        build(os.fsencode(root), paths)
        want = walked(root)
        opened = Session("posix", root)
        assert flat(opened.list("")) == want
        assert flat(opened.list("", sizes=False)) == [(name, -1) for name, _ in want]
        for at, (name, _) in enumerate(want):
            assert flat(opened.list("", start_after=name)) == want[at + 1 :]
        for path in {name.split("/")[0] for name, _ in want}:
            assert flat(opened.list(path)) == [
                entry for entry in want if (entry[0] + "/").startswith(path + "/")
            ]
        opened.close()


@given(PATHS, st.text(alphabet="ab/.-\udcff\x00é", max_size=6).filter(lambda text: "\0" not in text))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=40)
def test_list_start_after_any_text_is_a_comparison_of_bytes(paths: list[list[bytes]], after: str) -> None:
    with tempfile.TemporaryDirectory() as root:
        close = [[bytes(b"ab.-\xff"[byte % 5] for byte in part) for part in parts] for parts in paths]
        build(os.fsencode(root), close)
        bound = os.fsencode(after)
        want = [entry for entry in walked(root) if os.fsencode(entry[0]) > bound]
        assert listed(root, start_after=after) == want


def test_list_names_that_are_not_utf8_survive(tmp_path: Path) -> None:
    raw = [b"\xff", b"caf\xe9.png", "né/ü".encode(), b"\x80dir/\xfe"]
    for name in raw:
        whole = os.path.join(os.fsencode(tmp_path), name)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        Path(os.fsdecode(whole)).touch()
    assert [name.encode("utf-8", "surrogateescape") for name, _ in listed(tmp_path)] == sorted(raw)


# --- links and special files


def test_list_links_to_files_are_files_and_links_to_directories_are_not_followed(tree: Path) -> None:
    (tree / "to_file").symlink_to("a/y")
    (tree / "to_dir").symlink_to("b")
    (tree / "to_nothing").symlink_to("nowhere")
    (tree / "to_itself").symlink_to("to_itself")
    (tree / "a" / "up").symlink_to("..")
    session = Session("posix", str(tree))
    blocks = session.list("")
    assert flat(blocks) == [*TREE, ("to_file", 4), ("to_itself", -1), ("to_nothing", -1)]
    assert blocks.stats()["left_out"] == 2
    assert flat(session.list("to_dir")) == [("to_dir/c/1", 5), ("to_dir/z", 6)]
    assert flat(session.list("to_file")) == [("to_file", 4)]
    with pytest.raises(FileNotFoundError):
        flat(session.list("to_nothing"))
    session.close()


def test_list_special_files_are_left_out_and_counted(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tree)  # the name of a socket may not be long
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        session = Session("posix", str(tree))
        blocks = session.list("")
        assert flat(blocks) == TREE
        assert blocks.stats()["left_out"] == 2
        with pytest.raises(NotADirectoryError):
            flat(session.list("pipe"))
        session.close()


# --- bad input and faults


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("nope", errno.ENOENT),
        ("a/nope/x", errno.ENOENT),
        ("a/x/y", errno.ENOTDIR),
        ("a/x/", errno.ENOTDIR),
        ("../..", errno.EINVAL),
        ("a/../b", errno.EINVAL),
        ("n" * 300, errno.ENAMETOOLONG),
    ],
)
def test_list_bad_path_is_an_error_with_the_path(session: Session, path: str, code: int) -> None:
    with pytest.raises(OSError, match=re.escape(os.strerror(code))) as caught:
        flat(session.list(path))
    assert caught.value.errno == code
    assert caught.value.filename.rstrip("/") == path.rstrip("/")


def test_list_error_stays_and_is_not_an_end(session: Session) -> None:
    blocks = session.list("nope")
    for _ in range(2):
        with pytest.raises(FileNotFoundError):
            next(blocks)


DENIED = """
    import os, sys
    from datapipes._dfs import Session
    session = Session("posix", sys.argv[1])
    if os.getuid() == 0:
        os.setgroups([]); os.setgid(65534); os.setuid(65534)
    got = []
    try:
        for block in session.list(""):
            got += [name for name, _ in block]
    except PermissionError as error:
        print(got, error.filename, error.errno)
    print([name for block in session.list("b") for name, _ in block])
"""


@pytest.mark.parametrize("mode", [0o000, 0o400, 0o300])
def test_list_directory_without_permission_is_an_error_at_its_place(mode: int) -> None:
    # Not below pytest's own folder, which nobody else may enter: root has to become somebody else here.
    with tempfile.TemporaryDirectory() as root:
        Path(root).chmod(0o755)
        fill(Path(root), {"a": 1, "b/1": 1, "locked/x": 1, "z": 1})
        if os.getuid() == 0:
            os.chown(os.path.join(root, "locked"), 65534, 65534)
        Path(root, "locked").chmod(mode)
        try:
            out = run(DENIED, root)
        finally:
            Path(root, "locked").chmod(0o755)
    failing = "locked/x" if mode == 0o400 else "locked"
    assert out == f"['a', 'b/1'] {failing} 13\n['b/1']\n"


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# --- large and deep


def test_list_wide_directory_comes_in_bounded_blocks(tmp_path: Path) -> None:
    names = [f"{(i * 7919) % 20000:05d}" for i in range(20000)]
    for name in names:
        (tmp_path / name).touch()
    session = Session("posix", str(tmp_path))
    blocks = list(session.list(""))
    assert max(map(len, blocks)) <= BLOCK
    assert [name for block in blocks for name, _ in block] == sorted(names)
    assert flat(session.list("", start_after="12345"))[0] == ("12346", 0)
    session.close()


def test_list_deep_tree_beyond_the_longest_path(tmp_path: Path) -> None:
    depth, part = 2000, "dir"
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for level in range(depth):
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
        os.mkdir(part, dir_fd=descriptor)
        below = os.open(part, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
        assert level < depth
    os.close(descriptor)
    try:
        got = [name for name, _ in listed(tmp_path)]
    finally:
        subprocess.run(["rm", "-rf", tmp_path], check=True)  # shutil.rmtree recurses
    assert got == sorted(f"{part}/" * level + "f" for level in range(depth))


# --- while directories change


CHURN = """
    import os, select, sys
    root, old, new, count = *sys.argv[1:4], int(sys.argv[4])
    os.chdir(root)
    print("ready", flush=True)
    turn = 0
    while turn % 64 or not select.select([0], [], [], 0)[0]:
        turn += 1
        names = [f"{prefix}{turn * 7 % count:04d}" for prefix in (old, new)]
        if not os.path.exists(names[0]):
            names.reverse()
        os.rename(*names)
        if turn % 8 == 0:
            extra = f"{'amz'[turn % 3]}new{turn % 20}"
            os.unlink(extra) if os.path.exists(extra) else os.close(os.open(extra, os.O_CREAT))
"""


@contextlib.contextmanager
def churning(root: Path, old: str, new: str, count: int) -> Iterator[None]:
    """A process of its own (a thread would wait for our GIL) renames entries to and fro."""
    command = [sys.executable, "-c", textwrap.dedent(CHURN), str(root), old, new, str(count)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        child.stdout.readline()
        try:
            yield
            assert child.poll() is None
        finally:
            child.stdin.close()


def listings(root: Path, seconds: float, *, sizes: bool = True) -> Iterator[list[str]]:
    session, end = Session("posix", str(root)), time.monotonic() + seconds
    while time.monotonic() < end:
        names = [name for name, _ in flat(session.list("", sizes=sizes))]
        assert names == sorted(set(names))
        yield [name for name in names if "new" not in name]
    assert_idle(session)
    session.close()


@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("count", [50, 2000])
def test_list_directory_that_changes_loses_and_repeats_nothing(
    tmp_path: Path, count: int, sizes: bool
) -> None:
    still = [f"still{i:04d}" for i in range(count)]
    fill(tmp_path, dict.fromkeys(still, 0) | {f"move{i:04d}": 0 for i in range(count)})
    with churning(tmp_path, "move", "amove", count):
        for names in listings(tmp_path, 2, sizes=sizes):
            assert [name for name in names if name.startswith("still")] == still
            moved = sorted(name.removeprefix("a") for name in names if "move" in name)
            assert moved == [f"move{i:04d}" for i in range(count)]


def test_list_directories_that_are_renamed_keep_their_files(tmp_path: Path) -> None:
    want = [f"d{i:04d}/sub/f{j}" for i in range(60) for j in range(3)]
    fill(tmp_path, dict.fromkeys(want, 1))
    with churning(tmp_path, "d", "e", 60):
        for names in listings(tmp_path, 2):
            assert sorted("d" + name[1:] for name in names) == want


def remove(folders: list[Path]) -> None:
    for folder in folders:
        shutil.rmtree(folder)


def test_list_trees_that_are_removed_are_no_error(tmp_path: Path) -> None:
    session = Session("posix", str(tmp_path))
    for turn in range(20):
        fill(tmp_path, {f"d{i:02d}/{j}": j for i in range(30) for j in range(3)} | {"keep/x": 1})
        thread = threading.Thread(target=remove, args=([tmp_path / f"d{i:02d}" for i in range(30)],))
        thread.start()
        got = flat(session.list(""))
        thread.join()
        assert ("keep/x", 1) in got
        assert flat(session.list("")) == [("keep/x", 1)], turn
    session.close()


# --- stopping, threads, processes


MANY = 24 * 250  # more than a block


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("many")
    for folder in range(24):
        (root / f"d{folder:04d}").mkdir()
        for file in range(250):
            os.close(os.open(root / f"d{folder:04d}" / f"{file:04d}", os.O_CREAT | os.O_WRONLY))
    return root


@pytest.mark.parametrize("taken", [0, 1])
@pytest.mark.parametrize("how", ["close", "drop", "end"])
def test_list_stopped_early_leaves_nothing_open(many: Path, taken: int, how: str) -> None:
    session = Session("posix", str(many))
    blocks = session.list("")
    for _ in range(taken):
        next(blocks)
    if how == "close":
        blocks.close()
        blocks.close()
        assert list(blocks) == []
    elif how == "drop":
        del blocks
    else:
        flat(blocks)
    assert_idle(session)
    session.close()


SLOW_US = 1_500_000


def test_list_close_from_another_thread_ends_a_next_that_waits(tree: Path) -> None:
    session = Session("posix", str(tree), open_delay_us=SLOW_US)
    blocks, got = session.list(""), []
    thread = threading.Thread(target=lambda: got.append(list(blocks)))
    thread.start()
    time.sleep(0.2)
    start = time.monotonic()
    blocks.close()
    thread.join()
    assert got == [[]]
    assert time.monotonic() - start < 2
    assert_idle(session)
    session.close()


def test_list_from_two_threads_at_once_is_refused(tree: Path) -> None:
    session = Session("posix", str(tree), open_delay_us=SLOW_US)
    blocks, got = session.list(""), []
    thread = threading.Thread(target=lambda: got.extend(flat(blocks)))
    thread.start()
    time.sleep(0.2)
    with pytest.raises(ValueError, match="another thread"):
        next(blocks)
    blocks.close()
    thread.join()
    assert got == []
    session.close()


def test_list_two_listings_share_a_session(many: Path) -> None:
    want, session = walked(many), Session("posix", str(many))
    got: list[list[Entry]] = []
    threads = [threading.Thread(target=lambda: got.append(flat(session.list("")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [want] * 4
    session.close()


def test_list_of_a_closed_session_is_an_error(many: Path) -> None:
    session = Session("posix", str(many))
    blocks = session.list("")
    next(blocks)
    session.close()
    with pytest.raises(ValueError, match="closed"):
        flat(blocks)
    with pytest.raises(ValueError, match="closed"):
        session.list("")


CTRL_C = """
    import sys, time
    from datapipes._dfs import Session
    session = Session("posix", sys.argv[1], open_delay_us=20_000_000)
    blocks = session.list("")
    print("ready", flush=True)
    try:
        next(blocks)
    except KeyboardInterrupt:
        blocks.close()  # waits for nothing then
        print(time.monotonic(), flush=True)
    import os
    os._exit(0)
"""


def test_list_ctrl_c_is_heard_while_the_store_hangs(tree: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(CTRL_C), str(tree)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.3)
        start = time.monotonic()
        child.send_signal(signal.SIGINT)
        heard = float(child.stdout.readline())
        assert child.wait(timeout=10) == 0
    assert heard - start < 0.5  # 50 ms slices, on a machine that may be busy


HANGING_EXIT = """
    import sys, time
    from datapipes._dfs import Session
    session = Session("posix", sys.argv[1], open_delay_us=30_000_000)
    blocks = session.list("")
    start = time.monotonic()
    import threading
    threading.Timer(0.2, blocks.close).start()
    print(list(blocks), time.monotonic() - start < 5)
"""


def test_list_exit_does_not_wait_for_a_store_that_hangs(tree: Path) -> None:
    start = time.monotonic()
    assert run(HANGING_EXIT, str(tree)) == "[] True\n"
    assert time.monotonic() - start < 20


def test_list_forked_while_it_lists_is_refused_in_the_child_and_the_parent_goes_on(many: Path) -> None:
    script = """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        from datapipes._dfs import Session
        session = Session("posix", sys.argv[1])
        blocks = session.list("")
        first = next(blocks)
        child = os.fork()
        if child == 0:
            try:
                next(blocks)
            except RuntimeError:
                blocks.close()
                del blocks
                fresh = Session("posix", sys.argv[1])
                os._exit(0 if sum(map(len, fresh.list(""))) == 6000 else 2)
            os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(first) + sum(map(len, blocks)))
    """
    assert run(script, str(many)) == "0 6000\n"
