"""What a forked child may do with the engine of its parent: nothing, without hanging; and start its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

PRELUDE = """
    import gc, os, signal, sys, threading, time, traceback
    from collections import namedtuple
    from datapipes._dfs import Session
    Result = namedtuple("Result", "position tag data error")
    OPTIONS = {"result": Result, "error": lambda tag, op, code: OSError(code, op), "max_in_flight": 8}
    BOUND = {"max_buffer_bytes": 1 << 20}

    def child(work):
        '''Run work in a forked child, which must end by itself within ten seconds.'''
        sys.stdout.flush()
        pid = os.fork()
        if pid == 0:
            try:
                signal.alarm(10)
                work()
                gc.collect()
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        status = os.waitpid(pid, 0)[1]
        assert status == 0, f"the child ended with {status}"

    def refused(call, words):
        try:
            call()
        except RuntimeError as error:
            assert words in str(error), error
        else:
            raise AssertionError("not refused")

    folder = sys.argv[1]
    names = sorted(os.listdir(folder))
    requests = [(name, 0, -1, -1, name) for name in names]
    want = {name: open(os.path.join(folder, name), "rb").read() for name in names}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i in range(40):
        (tmp_path / f"{i:02d}").write_bytes(bytes([i]) * (i * 300 + 1))
    return tmp_path


def run(folder: Path, program: str) -> None:
    code = textwrap.dedent(PRELUDE) + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(folder)],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        env={**os.environ, "PYTHONFAULTHANDLER": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_child_may_not_use_the_parents_session(folder: Path) -> None:
    run(
        folder,
        """
        session = Session("posix", folder)
        assert session.pid == os.getpid()
        def work():
            for call in (
                lambda: session.stat("00"),
                lambda: session.write("x", b""),
                lambda: session.list(""),
                lambda: session.create("x"),
                lambda: session.read_many(requests, **OPTIONS, **BOUND),
                lambda: session.read_batch(requests, **OPTIONS),
            ):
                refused(call, f"process {os.getppid()}")
            session.close()
            session.stats()
        child(work)
        assert session.stat("00")[1] == 1
        assert os.listdir(folder) == os.listdir(folder) and "x" not in os.listdir(folder)
        """,
    )


def test_child_forked_while_the_parent_reads_may_not_go_on_with_its_iterator(folder: Path) -> None:
    run(
        folder,
        """
        session = Session("posix", folder)
        results = session.read_many(requests, **OPTIONS, **BOUND)
        first = next(results)
        def work():
            refused(lambda: next(results), "after fork")
            results.close()
            results.stats()
        child(work)
        rest = list(results)
        assert [first.tag] + [result.tag for result in rest] == names
        """,
    )


def test_child_opens_a_session_of_its_own(folder: Path) -> None:
    run(
        folder,
        """
        session = Session("posix", folder)
        assert {result.tag: result.data for result in session.read_many(requests, **OPTIONS, **BOUND)} == want
        def work():
            own = Session("posix", folder)
            assert own.pid == os.getpid()
            for _ in range(3):
                streamed = own.read_many(requests, **OPTIONS, **BOUND)
                for results in (streamed, own.read_batch(requests, **OPTIONS)):
                    assert {result.tag: result.data for result in results} == want
            def grandchild():
                refused(lambda: own.stat(""), "after fork")
                assert len(Session("posix", folder).read_batch(requests, **OPTIONS)) == len(names)
            child(grandchild)
        child(work)
        """,
    )


def test_child_forked_while_threads_work_drops_what_it_inherited_without_hanging(folder: Path) -> None:
    """The parent's threads are at work, with locks held, while children are forked; each drops all it has."""
    run(
        folder,
        """
        session = Session("posix", folder)
        slow = Session("posix", folder, open_delay_us=2000)
        writing = session.create("written")
        stop = threading.Event()
        def load():
            while not stop.is_set():
                for result in session.read_many(requests, views=True, **OPTIONS, **BOUND):
                    pass
        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        held = [slow.read_many(requests, views=bool(i % 2), **OPTIONS, **BOUND) for i in range(6)]
        views = [next(results).data for results in held]
        listing = session.list("")
        def work():
            global session, slow, writing, held, views, listing
            assert all(bytes(view) == want[names[0]] for view in views)
            del session, slow, writing, held, views, listing
            gc.collect()
        for _ in range(30):
            child(work)
        stop.set()
        for thread in threads:
            thread.join()
        assert [result.tag for result in held[0]] == names[1:]
        assert views[1] == want[names[0]]
        writing.write(b"by the parent", 0)
        writing.close()
        assert open(os.path.join(folder, "written")).read() == "by the parent"
        """,
    )


def test_child_forked_while_the_parent_reads_ends_normally_and_leaves_it_alone(folder: Path) -> None:
    run(
        folder,
        """
        import multiprocessing
        session = Session("posix", folder)
        results = session.read_many(requests, **OPTIONS, **BOUND)
        next(results)
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=session.stats) for _ in range(3)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(20)
            assert worker.exitcode == 0, worker.exitcode
        assert len(list(results)) == len(names) - 1
        """,
    )
