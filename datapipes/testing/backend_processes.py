"""The part of ``BackendContract`` about processes and threads."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import select
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any

import pytest

from datapipes.testing.backend_child import report, use
from datapipes.testing.backend_hooks import BackendHooks, in_thread, requests_of

__all__ = ["ProcessesContract"]

CHILD_S = 30.0
"""Longest that a child may take; one that hangs is killed, and the test fails."""


def _in_forked_child(work: Callable[[], str]) -> str:
    """What ``work`` returns in a forked child."""
    receive, send = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is what is tested
        pid = os.fork()
    if pid == 0:
        try:
            word = work()
        except BaseException as error:  # noqa: BLE001 - the parent says it
            word = f"{type(error).__name__}: {error}"
        os.write(send, (word or "fine").encode()[:4000])
        os._exit(0)
    os.close(send)
    try:
        poll = select.poll()  # takes any descriptor, however many are open
        poll.register(receive, select.POLLIN)
        if not poll.poll(CHILD_S * 1000):
            os.kill(pid, signal.SIGKILL)
            return "the child hangs"
        return os.read(receive, 4096).decode()
    finally:
        os.close(receive)
        os.waitpid(pid, 0)


class ProcessesContract(BackendHooks):
    def test_back_ends_of_one_specification_are_equal_before_and_after_use(self) -> None:
        _, contents = self.seeded(3)
        one, other = self.make(), self.make()
        assert one == other
        assert hash(one) == hash(other)
        one.read(next(iter(contents)))
        assert one == other
        assert hash(one) == hash(other)
        assert repr(one) == repr(other)
        assert one != object()

    def test_pickle_after_use_is_the_specification_alone(self) -> None:
        prefix, contents = self.seeded(5)
        backend = self.make()
        unused = pickle.dumps(backend)
        assert use(backend, prefix, contents) == ""
        assert pickle.dumps(backend) == unused
        copy = pickle.loads(unused)  # noqa: S301 - our own bytes
        assert copy == backend
        assert copy.scheme == backend.scheme
        assert use(copy, prefix, contents) == ""

    @pytest.mark.parametrize("used", [False, True], ids=["unused", "used before"])
    def test_forked_child_reads_right(self, *, used: bool) -> None:
        prefix, contents = self.seeded(100)
        backend = self.make()
        if used:
            assert use(backend, prefix, contents) == ""
        assert _in_forked_child(lambda: use(backend, prefix, contents)) == "fine"
        assert use(backend, prefix, contents) == ""

    def test_forked_while_it_reads_the_child_reads_right_and_so_does_the_parent(self) -> None:
        prefix, contents = self.seeded(300)
        backend = self.make()
        reads = backend.read_many(requests_of(contents), max_in_flight=32)
        listing = backend.list(prefix)
        results = [next(reads) for _ in range(10)]
        urls = [next(listing).url]

        def work() -> str:
            word = use(backend, prefix, contents)
            reads.close()  # inherited: closing it in the child must leave the parent's alone
            return word

        for _ in range(3):
            assert _in_forked_child(work) == "fine"
            results += [next(reads) for _ in range(10)]
        results += list(reads)
        assert [bytes(result.unwrap()) for result in results] == list(contents.values())
        assert urls + [entry.url for entry in listing] == list(contents)

    def test_forked_while_threads_use_it_the_child_reads_right(self) -> None:
        prefix, contents = self.seeded(50)
        backend, stop, words = self.make(), threading.Event(), []

        def work() -> None:
            while not stop.is_set():
                results = list(backend.read_many(requests_of(contents)))
                words.append([bytes(r.unwrap()) for r in results] == list(contents.values()))

        threads = [in_thread(work) for _ in range(2)]
        try:
            for _ in range(5):
                assert _in_forked_child(lambda: use(backend, prefix, contents)) == "fine"
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
        assert words
        assert all(words)

    @pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
    @pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
    def test_worker_process_needs_no_set_up_of_its_own(self, method: str) -> None:
        prefix, contents = self.seeded(60)
        backend = self.make()
        assert use(backend, prefix, contents) == ""
        context: Any = multiprocessing.get_context(method)
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=report, args=(send, self.child_setup(), backend, prefix, contents))
        child.start()
        send.close()
        try:
            assert receive.poll(CHILD_S), "the worker hangs"
            assert receive.recv() == ""
            child.join(CHILD_S)
            assert child.exitcode == 0
        finally:
            if child.is_alive():
                child.kill()
            child.join()
            receive.close()

    def test_threads_may_share_one_back_end_from_its_first_use_on(self) -> None:
        prefix, contents = self.seeded(150)
        backend, start, words = self.make(), threading.Barrier(6), []

        def work(number: int) -> None:
            start.wait(10)
            results = list(backend.read_many(requests_of(contents), max_in_flight=8, ordered=number % 2 == 0))
            results.sort(key=lambda result: result.position)
            words.append([bytes(r.unwrap()) for r in results] == list(contents.values()))
            words.append([entry.url for entry in backend.list(prefix)] == list(contents))

        threads = [in_thread(lambda number=number: work(number)) for number in range(6)]  # type: ignore[misc]
        for thread in threads:
            thread.join(30)
        assert words == [True] * 12
