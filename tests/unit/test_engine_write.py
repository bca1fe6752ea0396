"""Sessions of the native engine: opening, single calls, writing."""

from __future__ import annotations

import array
import errno
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from datapipes._dfs import Session

from .engine_tree import Tree, run_python

if TYPE_CHECKING:
    pass


def test_session_that_cannot_be_opened_names_its_root(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name, exception in (("missing", FileNotFoundError), ("file", NotADirectoryError)):
        with pytest.raises(exception) as caught:
            Session("posix", str(tmp_path / name))
        assert caught.value.filename == str(tmp_path / name)
    with pytest.raises(ValueError, match="posix"):
        Session("unheard-of", str(tmp_path))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="open_delay_us"):
        Session("posix", str(tmp_path), open_delay_us=-1)


def test_written_file_is_there_at_once_with_its_parents(tree: Tree) -> None:
    tree.session.write("a/b/c", b"one")
    tree.session.write("a/b/c", bytearray(b"other"))
    assert (tree.root / "a/b/c").read_bytes() == b"other"
    assert os.listdir(tree.root / "a/b") == ["c"]
    kind, size, mtime_ns = tree.session.stat("a/b/c")
    assert (kind, size) == ("file", 5)
    assert abs(mtime_ns / 1e9 - time.time()) < 60
    assert tree.session.stat("a")[0] == tree.session.stat("")[0] == "dir"


def test_file_that_cannot_be_written_leaves_nothing(tree: Tree) -> None:
    (tree.root / "dir").mkdir()
    with pytest.raises(IsADirectoryError):
        tree.session.write("dir", b"x")
    assert os.listdir(tree.root) == ["dir"]
    with pytest.raises(OSError, match="Invalid argument"):
        tree.session.write("../x", b"x")


def test_created_file_takes_what_is_written(tree: Tree) -> None:
    file = tree.session.create("new")
    assert file.write(array.array("h", [1, 2]), 3) == 4
    assert file.write(b"abc", 0) == 3
    assert file.write(b"", 7) == 0
    with pytest.raises(ValueError, match="-1"):
        file.write(b"x", -1)
    file.sync()
    assert tree.session.stats()["files_open"] == 1
    file.close()
    file.close()
    assert tree.session.stats()["files_open"] == 0
    assert (tree.root / "new").read_bytes() == b"abc\1\0\2\0"
    with pytest.raises(ValueError, match="closed"):
        file.write(b"more", 7)
    with pytest.raises(FileNotFoundError):
        tree.session.create("no/parent")


def test_created_file_takes_writes_of_several_threads(tree: Tree) -> None:
    file = tree.session.create("new")
    pieces = [bytes([i]) * 70_001 for i in range(64)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(file.write, pieces, range(0, 64 * 70_001, 70_001)))
    file.close()
    assert (tree.root / "new").read_bytes() == b"".join(pieces)


def test_names_are_moved_made_and_removed(tree: Tree) -> None:
    tree.add("a", 3)
    tree.session.mkdir("x/y")
    tree.session.mkdir("x/y")
    tree.session.rename("a", "x/y/z")
    assert tree.session.stat("x/y/z")[1] == 3
    with pytest.raises(FileNotFoundError) as caught:
        tree.session.stat("a")
    assert caught.value.filename == "a"
    with pytest.raises(OSError, match="not empty"):
        tree.session.remove("x/y")
    tree.session.remove("x/y/z")
    tree.session.remove("x/y")
    tree.session.write("f", b"")
    with pytest.raises(FileExistsError):
        tree.session.mkdir("f")


def test_full_disk_leaves_nothing(tree: Tree) -> None:
    """Written under a limit on the size of files: the system refuses in the middle."""
    program = """
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        session = Session("posix", sys.argv[1])
        try:
            session.write("a", bytes(5000))
        except OSError as error:
            print(error.errno, os.listdir(sys.argv[1]), session.stats()["files_open"])
    """
    assert run_python(program, str(tree.root)) == f"{errno.EFBIG} [] 0\n"


def test_module_says_how_it_was_built() -> None:
    from datapipes import _dfs

    assert _dfs.build_type in ("release", "debug")
