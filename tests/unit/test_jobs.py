"""Job: its directory, its shared index, its epochs and counters, within one process."""

from __future__ import annotations

import os
import pickle
import shutil
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from datapipes.errors import AccessDeniedError, BackendIOError, OptionError, StoreTimeoutError
from datapipes.index import FileIndex
from datapipes.jobs import Job

HOST = os.uname().nodename


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place where nobody has had a job yet."""
    monkeypatch.setenv("DATAPIPES_JOB_DIR", str(tmp_path / "jobs"))
    return tmp_path / "jobs" / f"datapipes-{os.geteuid()}"


@pytest.fixture
def job(root: Path) -> Any:
    job = Job.at(root / "run@elsewhere")
    yield job
    job.close()


def builder(built: list[Path], names: list[str]) -> Callable[[Path], FileIndex]:
    def build(path: Path) -> FileIndex:
        built.append(path)
        return FileIndex.from_entries(names, path)

    return build


def test_current_job_is_one_and_its_directory_is_there() -> None:
    job = Job.current()
    assert Job.current() is job
    assert job.path.is_dir()
    assert job.path.is_absolute()
    assert job.path.name.endswith(f"@{HOST}")
    assert str(job.path).startswith(os.environ["DATAPIPES_JOB_DIR"])


def test_directory_is_the_users_alone(job: Job, root: Path) -> None:
    assert job.path == root / f"run@{HOST}"  # a job from another host has a directory of its own here
    for path in (job.path, job.path.parent):
        assert stat.S_IMODE(path.stat().st_mode) == 0o700


def test_directory_goes_with_its_last_owner(job: Job) -> None:
    path = job.path
    job.close()
    assert not path.exists()
    assert os.listdir(path.parent) == []
    job.close()
    assert job.path.is_dir()  # met again, it starts empty


def test_job_travels_as_its_path(job: Job) -> None:
    pickled = pickle.dumps(job)
    assert len(pickled) < 300
    assert pickle.loads(pickled) is job
    assert Job.at(job.path) is job
    assert repr(job) == f"Job({str(job.path)!r})"


def test_pickling_makes_sure_of_the_directory(job: Job, root: Path) -> None:
    # Whoever receives it must not be its only owner.
    assert not root.exists()
    pickle.dumps(job)
    assert (root / f"run@{HOST}").is_dir()


def test_ordinals_count(job: Job) -> None:
    assert [job.next_ordinal() for _ in range(3)] == [0, 1, 2]
    assert pickle.loads(pickle.dumps(job)).next_ordinal() == 3


def test_directory_removed_by_a_cleaner_is_made_anew(job: Job) -> None:
    path = job.path
    (path / "owners.lock").unlink()
    path.rmdir()
    built: list[Path] = []
    assert len(job.shared_index("k", builder(built, ["a"]))) == 1
    assert job.path == path
    assert job.counters("k", ["n"]).total() == {"n": 0.0}


@pytest.mark.parametrize("kind", ["link", "writable", "file", "dangling"])
def test_directory_of_a_stranger_is_refused(root: Path, tmp_path: Path, kind: str) -> None:
    root.parent.mkdir()
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        root.symlink_to(tmp_path / "elsewhere")
    elif kind == "dangling":
        root.symlink_to(tmp_path / "nowhere")
    elif kind == "writable":
        root.mkdir()
        root.chmod(0o777)
    else:
        root.touch()
    with pytest.raises(AccessDeniedError, match=r"you own.*DATAPIPES_JOB_DIR") as caught:
        Job.at(root / "run").path  # noqa: B018
    assert caught.value.url == str(root)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_directory_of_another_user_is_refused(root: Path) -> None:
    root.mkdir(parents=True)
    os.chown(root, 12345, 12345)
    with pytest.raises(AccessDeniedError, match="you own"):
        Job.at(root / "run").path  # noqa: B018


def test_place_that_is_no_directory_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DATAPIPES_JOB_DIR", str(tmp_path / "file"))
    with pytest.raises(BackendIOError, match="DATAPIPES_JOB_DIR"):
        Job.at(tmp_path / "file" / f"datapipes-{os.geteuid()}" / "run").path  # noqa: B018


NOWHERE = """
import resource
from datapipes.errors import BackendIOError
from datapipes.jobs import Job

resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
try:
    Job.current()
except BackendIOError as error:
    print(error.operation, error)
"""


def test_machine_without_a_temporary_directory_is_told_what_to_set() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DATAPIPES_JOB_DIR"}
    done = subprocess.run(
        [sys.executable, "-c", NOWHERE],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("open job ")
    assert "Set DATAPIPES_JOB_DIR" in done.stdout


def test_job_from_a_place_that_cannot_be_used_here_lives_in_our_own(root: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    job = Job.at(tmp_path / "file" / "datapipes-99999" / f"run@{HOST}")
    assert job.path == root / f"run@{HOST}"
    assert job.path.is_dir()
    job.close()


def test_index_is_built_once_for_each_key(job: Job) -> None:
    built: list[Path] = []
    first = job.shared_index("list a", builder(built, ["a"]))
    again = job.shared_index("list a", builder(built, ["never"]))
    other = job.shared_index("list b \udcff", builder(built, ["b"]))
    assert first == again
    assert [index.urls([0]) for index in (first, other)] == [["a"], ["b"]]
    assert len(built) == 2
    assert {path.parent for path in built} == {job.path}


def test_error_of_the_builder_is_raised_and_the_next_one_builds(job: Job) -> None:
    def fail(path: Path) -> FileIndex:
        raise PermissionError("of the store")

    for _ in range(2):
        with pytest.raises(PermissionError, match="of the store"):
            job.shared_index("k", fail)
    assert len(job.shared_index("k", builder([], ["a", "b"]))) == 2


def test_index_that_cannot_be_read_is_built_anew(job: Job) -> None:
    built: list[Path] = []
    path = job.shared_index("k", builder(built, ["a"])).path
    path.write_bytes(b"noise")
    assert job.shared_index("k", builder(built, ["a"])).urls([0]) == ["a"]
    assert len(built) == 2


def test_index_of_an_epoch_before_the_last_is_built_anew_and_its_readers_go_on(job: Job) -> None:
    whole = job.shared_index("k", builder([], ["whole"]))
    first = job.shared_index("k", builder([], ["a"]), epoch=0)
    assert first[0] == ("a", -1)  # from now on it is mapped
    job.shared_index("other", builder([], ["c"]), epoch=0)
    for epoch in (9, 10):  # as numbers, not as names
        job.shared_index("k", builder([], ["b"]), epoch=epoch)
    assert job.shared_index("k", builder([], ["x"]), epoch=9)[0] == ("b", -1)
    assert job.shared_index("k", builder([], ["x"]), epoch=0)[0] == ("x", -1)
    assert job.shared_index("other", builder([], ["x"]), epoch=0)[0] == ("c", -1)
    assert job.shared_index("k", builder([], ["x"]))[0] == ("whole", -1)
    assert (first[0], whole[0]) == (("a", -1), ("whole", -1))


def test_threads_that_ask_at_once_build_once(job: Job) -> None:
    built: list[Path] = []
    slow = threading.Event()

    def build(path: Path) -> FileIndex:
        slow.wait(0.2)
        return builder(built, ["a"])(path)

    found: list[int] = []
    threads = [
        threading.Thread(target=lambda: found.append(len(job.shared_index("k", build)))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [1] * 8
    assert len(built) == 1


def test_waiting_for_a_builder_has_a_bound(job: Job) -> None:
    building, finish = threading.Event(), threading.Event()

    def build(path: Path) -> FileIndex:
        building.set()
        finish.wait(30)
        return FileIndex.from_entries(["a"], path)

    thread = threading.Thread(target=lambda: job.shared_index("k", build))
    thread.start()
    assert building.wait(30)
    with pytest.raises(StoreTimeoutError, match=r"waited 0\.2 s for another process that lists the names"):
        job.shared_index("k", build, timeout_s=0.2)
    finish.set()
    thread.join()
    assert len(job.shared_index("k", build, timeout_s=0.2)) == 1


def test_counters_are_apart_by_key_and_rank(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    job.counters("one", ["n"]).add(0, {"n": 4})
    assert job.counters("other", ["n"]).total() == {"n": 0.0}
    assert job.counters("one", ["n"]).total() == {"n": 4.0}
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert job.counters("one", ["n"]).total() == {"n": 0.0}


def test_counters_travel(job: Job) -> None:
    counters = job.counters("pipe", ["items"])
    again = pickle.loads(pickle.dumps(counters))
    counters.add(0, {"items": 2})
    assert again.total() == {"items": 2}


@pytest.mark.parametrize("slot", [-1, 4096, 1.5, None, False])
def test_absurd_slot_is_refused(job: Job, slot: Any) -> None:
    with pytest.raises(OptionError, match="slot"):
        job.counters("p", ["n"]).of_slot(slot)


def test_counters_add_up_over_slots(job: Job) -> None:
    counters = job.counters("pipe", ("items", "wait_s"))
    assert counters.total() == {"items": 0.0, "wait_s": 0.0}
    counters.add(0, {"items": 3, "wait_s": 0.5})
    counters.add(0, {"items": 4})
    counters.add(4095, {"wait_s": 0.25})
    assert counters.total() == {"items": 7.0, "wait_s": 0.75}
    assert counters.of_slot(0) == {"items": 7.0, "wait_s": 0.5}
    assert job.counters("pipe", ("items", "wait_s")).total() == counters.total()
    assert job.counters("pipe", ("items",)).total() == {"items": 0.0}
    with pytest.raises(OptionError, match="bytes"):
        counters.add(0, {"bytes": 1})


def test_counters_of_any_number_of_pipes_keep_no_files_open(job: Job) -> None:
    def open_files() -> int:
        return len(os.listdir("/proc/self/fd"))

    held = job.counters("pipe 0", ["n"])
    before = open_files()
    for i in range(30):
        job.counters(f"pipe {i}", ["n"]).add(0, {"n": 1})
    assert open_files() == before
    assert held.total() == {"n": 1.0}
    assert job.counters("pipe 7", ["n"]).total() == {"n": 1.0}


def test_counters_take_the_room_that_they_need(job: Job) -> None:
    """Programs that make pipes all day long fill no disk."""
    for i in range(50):
        job.counters(f"pipe {i}", ["a", "b", "c", "d", "e", "f"]).add(i % 8, {"a": 1})
    assert sum(path.stat().st_size for path in job.path.iterdir()) <= 50 * 4096


def test_counters_in_use_survive_a_directory_that_is_gone(job: Job) -> None:
    counters = job.counters("pipe", ["n"])
    shutil.rmtree(job.path)
    counters.add(0, {"n": 2})
    assert counters.total() == {"n": 2.0}
    assert job.counters("pipe", ["n"]).total() == {"n": 0.0}


def test_threads_lose_no_counts(job: Job) -> None:
    counters = job.counters("pipe", ["n"])

    def add() -> None:
        for _ in range(300):
            counters.add(1, {"n": 1})

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counters.total() == {"n": 1200.0}
