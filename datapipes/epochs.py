"""Which epoch an iteration of a pipe is: one answer for all the workers that share the iteration.

A pipe lives in many copies: DataLoader forks or pickles it into workers, anew for each epoch or not,
DataLoader2 clones the graph. All copies share one small file in the job's directory. Workers cannot simply
count what they have done: a loop that breaks early may leave one worker of an iteration unstarted, and its
count would then lag behind the others' for good, so that samples get lost and repeated. So iterations are
told apart by a token that every worker of one iteration computes alike and that no other iteration has:
the seed that DataLoader draws for each of its iterators, and how often this worker has iterated before.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import uuid
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch.utils.data import get_worker_info

from datapipes.errors import error_from_os
from datapipes.job_locks import exclusive
from datapipes.jobs import Job
from datapipes.stages.state import check_count

__all__ = ["Epochs"]

_REMEMBERED = 16
"""Iterations kept in the file: as many loaders as may run over one pipe at the same time."""

_TIMEOUT_S = 30.0

_AMBIGUOUS = (
    "this pipe cannot tell its iterations apart: the same random seed was set before each of them, so that "
    "DataLoader gave them all the same seed. Epochs go on counting, but a loop that breaks early may leave "
    "the workers in different ones. Call set_epoch(epoch) before each epoch."
)


class Epochs:
    """The epochs of one pipe and all its copies; picklable by the path of the job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.key = uuid.uuid4().hex
        self._started = 0  # iterations of this copy in this process; a forked worker goes on from it

    def set_epoch(self, epoch: int) -> None:
        """The next iteration, started from this process or its workers, is this epoch."""
        epoch = check_count("epoch", epoch, least=0)
        with self._record(os.getpid()) as record:
            record.update(next=epoch, set_to=epoch, generation=record["generation"] + 1, iterations={})

    def begin(self) -> int:
        """Start an iteration and return its epoch."""
        owner, token, slot = self._start()
        with self._record(owner) as record:
            if owner == os.getpid():
                self._heed_parent(record)
            joined = record["iterations"].get(token)
            if joined is not None and slot not in joined["slots"]:
                joined["slots"].append(slot)
                return int(joined["epoch"])
            if joined is not None and owner != os.getpid() and not record["warned"]:
                record["warned"] = True
                warnings.warn(_AMBIGUOUS, RuntimeWarning, stacklevel=2)
            return self._open(record, token, slot, int(record["next"]))

    def resume(self, epoch: int) -> None:
        """Start an iteration that goes on with ``epoch``; the one after it is the next epoch."""
        owner, token, slot = self._start()
        with self._record(owner) as record:
            if owner == os.getpid():
                self._heed_parent(record)
            joined = record["iterations"].get(token)
            again = joined is not None and slot in joined["slots"]
            if joined is None or again or joined["epoch"] != epoch or record["next"] != epoch + 1:
                if again:
                    self._forget_namesakes(record, token)
                self._open(record, token, slot, epoch)
            else:
                joined["slots"].append(slot)

    def _forget_namesakes(self, record: dict[str, Any], token: str) -> None:
        """Make room for workers that start with the seed of earlier ones: StatefulDataLoader gives those of a
        loaded state the seed that was saved, and where that was in this process, their later iterations
        would be taken for those of the earlier workers."""
        beginning = token.rpartition(".")[0] + "."
        kept = {
            name: joined for name, joined in record["iterations"].items() if not name.startswith(beginning)
        }
        record["iterations"] = kept

    def _open(self, record: dict[str, Any], token: str, slot: int, epoch: int) -> int:
        iterations = record["iterations"]
        iterations.pop(token, None)  # so that the youngest stands last
        iterations[token] = {"epoch": epoch, "slots": [slot]}
        for oldest in list(iterations)[:-_REMEMBERED]:
            del iterations[oldest]
        record["next"] = epoch + 1
        return epoch

    def _start(self) -> tuple[int, str, int]:
        """(process whose iterations are counted, token of this one, slot of this worker)."""
        self._started += 1
        info = get_worker_info()
        if info is None:
            # The main process, or a worker of DataLoader2, which lives as long as its loader.
            return os.getpid(), f"{os.getpid()}.{self._started}", 0
        parent = multiprocessing.parent_process()
        owner = os.getppid() if parent is None or parent.pid is None else parent.pid
        return owner, f"{info.seed - info.id}.{self._started}", info.id

    def _heed_parent(self, record: dict[str, Any]) -> None:
        """Take over what ``set_epoch`` said in the process that made this one: DataLoader2's main one."""
        parent = multiprocessing.parent_process()
        if parent is None or parent.pid is None or not self._path(parent.pid).exists():
            return
        with self._record(parent.pid) as theirs:
            generation, epoch = theirs["generation"], theirs["set_to"]
        if generation > record["heeded"]:
            record.update(next=epoch, heeded=generation, iterations={})

    def _path(self, owner: int) -> Path:
        return Path(self._job.path) / f"epochs-{self.key}-{owner}.json"

    @contextlib.contextmanager
    def _record(self, owner: int) -> Iterator[dict[str, Any]]:
        """The record of ``owner``, locked; written back when the block is left without an error."""
        path = self._path(owner)
        with exclusive(path.with_suffix(".lock"), timeout_s=_TIMEOUT_S, waiting_for="the epochs of a pipe"):
            try:
                record = json.loads(path.read_bytes())
            except FileNotFoundError:
                record = {
                    "next": 0,
                    "set_to": None,
                    "generation": 0,
                    "heeded": 0,
                    "warned": False,
                    "iterations": {},
                }
            before = json.dumps(record)
            yield record
            after = json.dumps(record)
            if after != before:
                # Replaced, not rewritten: a process killed half-way leaves the old record.
                _replace(path, after)


def _replace(path: Path, text: str) -> None:
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        partial.write_text(text)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        hint = "Make room there, or set DATAPIPES_JOB_DIR to another directory of your own"
        raise error_from_os(error, url=str(path), operation="write epoch", hint=hint) from error
