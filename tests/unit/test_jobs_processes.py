"""Job among processes: one build, whoever is killed; the last one out deletes; the dead are never read."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from datapipes.index import FileIndex
from datapipes.jobs import Job

HELPERS = """
import multiprocessing, os, pickle, signal, sys, time
from pathlib import Path
from datapipes.index import FileIndex
from datapipes.jobs import Job

LOG = Path(os.environ["TEST_LOG"])

def say(*words):
    with open(LOG, "a") as log:
        log.write(" ".join(map(str, words)) + "\\n")

def build(path, pause=0.3):
    say("build", os.getpid())
    time.sleep(pause)
    return FileIndex.from_entries([f"d/{os.getpid()}", "d/b"], path)
"""


class Machine:
    """Runs programs with a job directory of their own and gathers what they say."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.log = folder, folder / "log"
        self.environment = {
            **environment,
            "DATAPIPES_JOB_DIR": str(folder / "jobs"),
            "TEST_LOG": str(self.log),
        }
        self.children: list[subprocess.Popen[str]] = []

    def start(self, program: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        script = self.folder / f"program{len(self.children)}.py"
        script.write_text(HELPERS + program)
        child = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            env={**self.environment, **environment},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def run(self, program: str, *arguments: object, **environment: str) -> str:
        return self.finish(self.start(program, *arguments, **environment))

    def finish(self, child: subprocess.Popen[str], line: str = "") -> str:
        out, err = child.communicate(line, timeout=50)
        assert child.returncode == 0, err
        return out

    def said(self, word: str) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [line for line in lines if line.startswith(word)]

    def jobs(self) -> list[str]:
        base = self.folder / "jobs" / f"datapipes-{os.geteuid()}"
        return sorted(os.listdir(base)) if base.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path, dict(os.environ))
    yield machine
    for child in machine.children:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # with what it has started
        child.communicate()


def read_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    line = child.stdout.readline()
    if not line:
        assert child.stderr is not None
        raise AssertionError(child.stderr.read())
    return line.strip()


def until(condition: Callable[[], Any], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


EIGHT = """
def work(job, start):
    start.wait(30)
    index = job.shared_index("names", build)
    say("index", index.fingerprint, len(index), index.path)

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    job, start = Job.current(), context.Event()
    workers = [context.Process(target=work, args=(job, start)) for _ in range(8)]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    print(job.shared_index("names", build).fingerprint)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_eight_workers_build_once(machine: Machine, method: str) -> None:
    fingerprint = machine.run(EIGHT, method).strip()
    assert len(machine.said("build")) == 1
    assert len(machine.said("index")) == 8
    assert {line.split()[1] for line in machine.said("index")} == {fingerprint}
    assert machine.jobs() == []  # everyone is out


RANK = """
index = Job.current().shared_index("names", build)
say("index", index.fingerprint)
print(Job.current().path, flush=True)
sys.stdin.readline()
"""


def test_ranks_of_a_launcher_find_each_other(machine: Machine) -> None:
    run = {"TORCHELASTIC_RUN_ID": "r/1", "MASTER_ADDR": "here", "MASTER_PORT": "1", "WORLD_SIZE": "4"}
    ranks = [machine.start(RANK, **run, RANK=str(rank)) for rank in range(4)]
    other = machine.start(RANK, **{**run, "MASTER_PORT": "2"}, RANK="0")
    paths = {read_line(rank) for rank in ranks}
    assert len(paths) == 1
    assert read_line(other) not in paths
    assert len(machine.said("build")) == 2  # one for each run
    for rank in [*ranks, other]:
        machine.finish(rank, "\n")
    assert machine.jobs() == []


def test_processes_without_a_launcher_share_nothing(machine: Machine) -> None:
    children = [machine.start(RANK) for _ in range(2)]
    assert len({read_line(child) for child in children}) == 2
    assert len(machine.said("build")) == 2


BUILDER = """
def slow(path):
    if sys.argv[1] == "fork" and os.fork() == 0:
        time.sleep(60)  # a child that outlives the builder, and inherited all its files
        os._exit(0)
    say("building")
    for i in range(600):
        time.sleep(0.1)
    return build(path)

Job.current().shared_index("names", slow)
"""


@pytest.mark.parametrize("child", ["alone", "fork"])
def test_next_process_builds_when_the_builder_is_killed(machine: Machine, child: str) -> None:
    run = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    doomed = machine.start(BUILDER, child, **run)
    until(lambda: machine.said("building"))
    waiting = [machine.start(RANK, **run) for _ in range(2)]
    time.sleep(0.5)
    assert machine.said("build ") == []  # they wait
    doomed.kill()
    paths = {read_line(other) for other in waiting}
    assert len(paths) == 1
    assert len(machine.said("build ")) == 1
    for other in waiting:
        machine.finish(other, "\n")


def test_waiting_is_interrupted_by_ctrl_c(machine: Machine) -> None:
    run = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    machine.start(BUILDER, "alone", **run)
    until(lambda: machine.said("building"))
    waiting = machine.start("print('waiting', flush=True)\n" + RANK, **run)
    assert read_line(waiting) == "waiting"
    time.sleep(0.5)
    waiting.send_signal(signal.SIGINT)
    before = time.monotonic()
    assert "KeyboardInterrupt" in waiting.communicate(timeout=20)[1]
    assert time.monotonic() - before < 5


HOLDER = """
print(Job.current().path, flush=True)
sys.stdin.readline()
"""


def test_killed_jobs_are_swept_and_live_ones_are_not(machine: Machine) -> None:
    dead, live = machine.start(RANK), machine.start(RANK)
    dead_path, live_path = Path(read_line(dead)), Path(read_line(live))
    dead.kill()
    dead.wait()
    assert dead_path.is_dir()
    assert len(machine.jobs()) == 2
    machine.run("Job.current()")
    assert machine.jobs() == [live_path.name]
    assert any(path.name.startswith("index") for path in live_path.iterdir())
    machine.finish(live, "\n")
    assert machine.jobs() == []


def test_directories_of_other_hosts_and_strange_files_are_left(machine: Machine) -> None:
    machine.run("Job.current()")
    base = machine.folder / "jobs" / f"datapipes-{os.geteuid()}"
    (base / "abc@another-host").mkdir()
    (base / "notes").write_text("mine")
    (base / f".dead-1@{os.uname().nodename}").mkdir()  # the sweeper itself was killed
    (base / f"moving-in@{os.uname().nodename}").mkdir()
    machine.run("Job.current()")
    assert machine.jobs() == ["abc@another-host", "notes"]


def test_restarted_job_of_the_same_id_reads_nothing_of_the_dead_one(machine: Machine) -> None:
    run = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    dead = machine.start(RANK, **run)
    path = read_line(dead)
    dead.kill()
    dead.wait()
    assert any(name.startswith("index") for name in os.listdir(path))
    again = machine.start(RANK, **run)
    assert read_line(again) == path
    assert len(machine.said("build ")) == 2
    assert len({line.split()[1] for line in machine.said("index")}) == 2


@pytest.mark.parametrize("end", ["exit", "kill"])
def test_pickle_of_a_dead_job_lists_anew(machine: Machine, end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A graph that was pickled in a job that has ended served its list of files: they may be others now.
    maker = machine.start("print(pickle.dumps(Job.current()).hex(), flush=True)\n" + RANK)
    pickled = bytes.fromhex(read_line(maker))
    read_line(maker)
    if end == "kill":
        maker.kill()
        maker.wait()
    else:
        machine.finish(maker, "\n")
    monkeypatch.setenv("DATAPIPES_JOB_DIR", str(machine.folder / "jobs"))
    job: Job = pickle.loads(pickled)
    index = job.shared_index("names", lambda path: FileIndex.from_entries(["other/name"], path))
    assert index.urls(slice(None)) == ["other/name"]
    job.close()
    assert machine.jobs() == []


PARENT = """
def work(job):
    print(job.path, flush=True)
    sys.stdin = open(0)
    sys.stdin.readline()

if __name__ == "__main__":
    job = Job.current()
    worker = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(job,))
    worker.start()
    say("worker", worker.pid)
    if sys.argv[2] == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    worker.join()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_worker_that_ends_leaves_the_directory_to_its_parent(machine: Machine, method: str) -> None:
    program = """
def work(job):
    say("worker", job.shared_index("names", build).fingerprint)

if __name__ == "__main__":
    job = Job.current()
    for epoch in range(2):
        worker = multiprocessing.get_context(sys.argv[1]).Process(target=work, args=(job,))
        worker.start()
        worker.join()
    print(len(os.listdir(job.path)))
"""
    assert int(machine.run(program, method)) > 1
    assert len(machine.said("build")) == 1  # the second epoch's worker maps what the first one's built
    assert len(machine.said("worker")) == 2
    assert machine.jobs() == []


def test_directory_of_a_killed_parent_stays_while_its_worker_lives(machine: Machine) -> None:
    parent = machine.start(PARENT, "fork", "kill")
    path = Path(read_line(parent))
    parent.wait()
    machine.run("Job.current()")
    assert path.is_dir()
    os.kill(int(machine.said("worker")[0].split()[1]), signal.SIGKILL)
    until(lambda: machine.run("Job.current()") == "" and not path.exists())


COMING_AND_GOING = """
job = Job.at(Path(sys.argv[1]) / f"datapipes-{os.geteuid()}" / "shared")
for turn in range(40):
    index = job.shared_index("names", lambda path: FileIndex.from_entries(["a/b", "a/c"], path))
    assert index.urls(slice(None)) == ["a/b", "a/c"]
    mine = job.path / f"mine-{os.getpid()}"
    mine.touch()
    counters = job.counters("c", ["n"])
    counters.add(0, {"n": 1})
    assert counters.total()["n"] >= 1
    assert mine.exists(), "the directory went while I held it"
    job.close()
"""


def test_coming_and_going_at_once_deletes_nothing_that_is_held(machine: Machine) -> None:
    children = [machine.start(COMING_AND_GOING, machine.folder / "jobs") for _ in range(4)]
    sweepers = [
        machine.start("for _ in range(40):\n    Job.current().path; Job.current().close()") for _ in range(2)
    ]
    for child in children + sweepers:
        machine.finish(child)
    assert machine.jobs() == []


COUNTERS = """
def work(job, slot):
    counters = job.counters("pipe", ["n"])
    for _ in range(100):
        counters.add(slot, {"n": 1})

if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    job = Job.current()
    early = job.counters("pipe", ["n"])
    workers = [context.Process(target=work, args=(job, slot % 2 * 3000)) for slot in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    print(early.total()["n"])
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_counters_are_one_for_all_processes(machine: Machine, method: str) -> None:
    assert float(machine.run(COUNTERS, method)) == 400


def test_process_killed_with_the_lock_of_a_table_blocks_nobody(machine: Machine) -> None:
    program = """
counters = Job.current().counters("pipe", ["n"])
print("counting", flush=True)
while True:
    counters.add(0, {"n": 1})
"""
    run = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0"}
    holder = machine.start(HOLDER, **run)
    read_line(holder)
    for _ in range(3):
        child = machine.start(program, **run)
        assert read_line(child) == "counting"
        time.sleep(0.05)
        child.kill()
        child.wait()
    count = "n = Job.current().counters('pipe', ['n'])\nn.add(1, {'n': 1})\nprint(n.total()['n'])"
    assert float(machine.run(count, **run)) > 1
