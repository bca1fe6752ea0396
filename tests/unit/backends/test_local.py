from __future__ import annotations

import errno
import gc
import os
import pickle
import resource
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from datapipes.backends.local import LocalBackend
from datapipes.errors import AccessDeniedError, BackendIOError, FileMissingError, OptionError, UrlError
from datapipes.records import ReadRequest


def names(root: Path) -> list[str]:
    return [entry.url.removeprefix(f"file://{root}/") for entry in LocalBackend().list(str(root))]


def test_plain_paths_are_read_and_listed_as_file_urls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "50%?#.txt").write_bytes(b"raw")
    monkeypatch.chdir(tmp_path)
    backend = LocalBackend()
    for path in ("50%?#.txt", f"{tmp_path}/50%?#.txt", "./50%?#.txt"):
        assert backend.read(path) == b"raw"
        assert backend.stat(path) == (f"file://{tmp_path}/50%25%3F%23.txt", 3)
    for prefix in (str(tmp_path), f"{tmp_path}/", ".", f"file://{tmp_path}"):
        assert list(backend.list(prefix)) == [(f"file://{tmp_path}/50%25%3F%23.txt", 3)]


def test_unordered_results_do_not_wait_for_a_large_file_in_front(tmp_path: Path) -> None:
    with open(tmp_path / "large", "wb") as file:
        file.truncate(256 << 20)
    for i in range(30):
        (tmp_path / f"{i}").write_bytes(b"small")
    requests = [ReadRequest(f"{tmp_path}/large"), *(ReadRequest(f"{tmp_path}/{i}") for i in range(30))]
    for ordered in (True, False):
        reads = LocalBackend().read_many(requests, ordered=ordered, max_buffer_bytes=1 << 30)
        assert (next(reads).position == 0) is ordered
        reads.close()


def test_negative_delay_raises_option_error() -> None:
    with pytest.raises(OptionError, match="open_delay_us"):
        LocalBackend(open_delay_us=-1)


def test_relative_path_follows_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = LocalBackend()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
        monkeypatch.chdir(tmp_path / name)
        assert backend.read("file") == name.encode()


def test_links_to_files_are_files_and_links_to_directories_are_not_walked(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("d/file")
    (tmp_path / "around").symlink_to(".")
    (tmp_path / "other").symlink_to("d")
    assert names(tmp_path) == ["d/file", "link"]
    backend = LocalBackend()
    assert [entry.size for entry in backend.list(str(tmp_path))] == [5, 5]
    assert backend.read(f"{tmp_path}/link") == backend.read(f"{tmp_path}/other/file") == b"12345"
    assert names(tmp_path / "other") == ["file"]  # a prefix may be a link: the user named it
    backend.remove(f"{tmp_path}/link")
    assert (tmp_path / "d/file").exists()


def test_dangling_link_is_listed_missing_when_read_and_can_be_removed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    backend = LocalBackend()
    assert list(backend.list(str(tmp_path))) == [(f"file://{tmp_path}/link", -1)]
    with pytest.raises(FileMissingError):
        backend.read(f"{tmp_path}/link")
    backend.remove(f"{tmp_path}/link")
    assert names(tmp_path) == []


@pytest.mark.timeout(20)
def test_special_files_are_left_out_and_reading_one_never_waits(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        assert names(tmp_path) == ["file"]
        for path in (f"{tmp_path}/pipe", f"{tmp_path}/socket", "/dev/zero"):
            with pytest.raises(BackendIOError):
                LocalBackend().read(path)


def test_no_permission_is_access_denied_naming_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open/secret").write_bytes(b"")
    (tmp_path / "open/secret").chmod(0)
    (tmp_path / "closed").mkdir()
    (tmp_path / "closed").chmod(0)
    for directory in (tmp_path, *tmp_path.parents):
        if directory.stat().st_uid == os.getuid() and directory != Path("/"):
            directory.chmod(directory.stat().st_mode | 0o011 if directory != tmp_path else 0o755)
    receive, send = os.pipe()
    pid = os.fork()
    if pid == 0:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)  # nobody: root may read everything
        backend = LocalBackend()
        words: list[Any] = []
        for call in (
            lambda: backend.read(f"{tmp_path}/open/secret"),
            lambda: list(backend.list(f"{tmp_path}/closed")),
            lambda: list(backend.list(f"{tmp_path}")),
            lambda: backend.stat(f"{tmp_path}/closed/x"),
        ):
            try:
                call()
                words.append("nothing raised")
            except Exception as error:  # noqa: BLE001 - the parent looks at it
                words.append(error)
        os.write(send, pickle.dumps(words))
        os._exit(0)
    os.close(send)
    with os.fdopen(receive, "rb") as pipe:
        words = pickle.loads(pipe.read())
    os.waitpid(pid, 0)
    assert [type(word) for word in words] == [AccessDeniedError] * 4, words
    assert words[2].url == f"file://{tmp_path}/closed"
    assert words[2].operation == "list"


def test_dots_above_the_root_raise_url_error() -> None:
    with pytest.raises(UrlError, match="leads out"):
        LocalBackend().read("file:///a/../../etc/passwd")


def test_name_too_long_is_an_error_of_that_item_alone(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    requests = [ReadRequest(f"file://{tmp_path}/{'x' * 300}"), ReadRequest(f"file://{tmp_path}/a")]
    long, good = LocalBackend().read_many(requests)
    assert type(long.error) is BackendIOError
    assert "255" in str(long.error)
    assert good.data == b"1"


def test_too_many_open_files_says_what_to_raise(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    backend = LocalBackend()
    backend.read(f"{tmp_path}/a")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        (result,) = backend.read_batch([ReadRequest(f"{tmp_path}/a")])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ulimit" in str(result.error)


NO_THREADS = """
import os, resource
from datapipes.backends.local import LocalBackend
from datapipes.errors import BackendIOError
from datapipes.records import ReadRequest

url = "file:///etc/passwd"  # which every user may read
if os.geteuid() == 0:  # whom no limit binds
    os.setuid(54321)
resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
backend = LocalBackend()
for read in (
    lambda: backend.read(url),
    lambda: backend.read_files([url], [-1]),
    lambda: list(backend.read_many([ReadRequest(url)])),
):
    try:
        read()
    except BackendIOError as error:
        print(error.operation, error.errno, "ulimit -u" in str(error))
"""


def test_reading_where_no_thread_may_be_started_says_what_to_raise() -> None:
    done = subprocess.run(
        [sys.executable, "-c", NO_THREADS], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.splitlines() == [f"open {errno.ENOMEM} True"] * 3


def test_writer_given_up_leaves_nothing_on_the_disk(tmp_path: Path) -> None:
    backend = LocalBackend()
    with pytest.warns(RuntimeWarning, match="/a' was not written"):
        backend.open_write(f"{tmp_path}/a").write(bytes(3 << 20))
    assert os.listdir(tmp_path) == []


def test_writer_that_cannot_be_opened_is_an_error_and_no_warning(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with pytest.raises(BackendIOError):
            LocalBackend().open_write(f"{tmp_path}/file/a")
        gc.collect()
    assert seen == []


def test_files_being_written_are_left_out_of_listings_alone(tmp_path: Path) -> None:
    for name in (".datapipes-part-1", ".datapipes-part", "x.datapipes-part-1"):
        (tmp_path / name).write_bytes(b"")
    assert names(tmp_path) == [".datapipes-part", "x.datapipes-part-1"]


def test_killed_writer_leaves_nothing_that_is_listed(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        file = LocalBackend().open_write(f"{tmp_path}/a")
        file.write(bytes(3 << 20))
        os._exit(9)
    os.waitpid(pid, 0)
    assert len(os.listdir(tmp_path)) == 1  # what the killed one left, under a name of its own
    assert names(tmp_path) == []


def test_write_that_the_system_refuses_half_way_leaves_all_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    backend = LocalBackend()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, hard))  # as a full disk would: some of it fits
    try:
        for name in ("old", "new/a"):
            with pytest.raises(BackendIOError) as caught:
                backend.write(f"{tmp_path}/{name}", bytes(5 << 20))
            assert type(caught.value) is BackendIOError
            assert (caught.value.operation, caught.value.errno) == ("write", errno.EFBIG)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (tmp_path / "old").read_bytes() == b"old"
    assert os.listdir(tmp_path / "new") == []
    assert sorted(os.listdir(tmp_path)) == ["new", "old"]


def test_directory_that_cannot_be_made_is_an_error_of_write() -> None:
    with pytest.raises(BackendIOError) as caught:
        LocalBackend().write("file:///proc/nothing/a", b"x")
    assert caught.value.operation == "write"
