"""``.resumable()`` iterated directly: states at every place, what is refused, what is said about it."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any, cast

import pytest
from torch.utils.data import IterDataPipe

from datapipes.errors import FileMissingError, OptionError, StateError
from datapipes.iter import IterableWrapper, Resumable
from datapipes.testing.state_contract import through_json


@pytest.fixture
def root(tmp_path: Path) -> str:
    directory = tmp_path / "set"
    directory.mkdir()
    for i in range(13):
        (directory / f"{i:02}").write_bytes(b"%d" % i)
    return str(directory)


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS", "PMI_RANK", "PMI_SIZE"):
        monkeypatch.delenv(name, raising=False)


def lister(root: str) -> Any:
    return IterableWrapper([root]).list_files_by_local()


def load(names: Any, **options: Any) -> Any:
    return names.load_files_by_local(max_in_flight=3, output="bytes", **options).map(itemgetter(0))


class Doubled(IterDataPipe[Any]):
    """A user's pipe that keeps nothing between two inputs, but a sample between two outputs."""

    def __init__(self, source: IterDataPipe[Any]) -> None:
        self.source = source

    def __iter__(self) -> Iterator[Any]:
        for item in self.source:
            yield (item, item)


GRAPHS: dict[str, Any] = {
    "ours": lambda root: load(lister(root).shuffle_files(seed=3).shard_files()).batch(2).resumable(),
    "ours, sample by sample": lambda root: load(lister(root).shuffle_files(seed=3).shard_files()).resumable(),
    "streams": lambda root: lister(root).shuffle_files().load_files_by_local().read_from_stream().resumable(),
    "torch's": lambda root: load(lister(root).shuffle().sharding_filter()).batch(2).resumable(),
    "torch's, then ours": lambda root: load(lister(root).shuffle().shard_files()).batch(2).resumable(),
    "ours, then torch's": lambda root: (
        load(lister(root).shuffle_files().sharding_filter()).batch(2).resumable()
    ),
    "a filter between": lambda root: load(lister(root).filter(is_even).shuffle_files()).batch(2).resumable(),
    "a filter after": lambda root: load(lister(root).shuffle_files()).filter(is_even).batch(2).resumable(),
    "names of ours": lambda root: lister(root).shuffle_files().shard_files().map(str).resumable(),
    "names of torch's": lambda root: lister(root).shuffle().sharding_filter().map(str).batch(3).resumable(),
    "a list": lambda root: load(IterableWrapper([f"{root}/{i:02}" for i in range(13)])).batch(2).resumable(),
    "a list, shuffled": lambda root: load(
        IterableWrapper([f"{root}/{i:02}" for i in range(13)]).shuffle_files()
    ).resumable(),
    "out of order": lambda root: load(lister(root).shuffle_files(), ordered=False).batch(2).resumable(),
    "a pipe of the user's": lambda root: Doubled(load(lister(root).shuffle_files())).resumable(
        stateless=[Doubled]
    ),
}


def is_even(url: str) -> bool:
    return int(url[-1]) % 2 == 0


@pytest.mark.parametrize("name", GRAPHS)
def test_a_state_taken_anywhere_delivers_exactly_the_rest_in_every_epoch(root: str, name: str) -> None:
    make = GRAPHS[name]
    whole = [list(make(root))]
    data = make(root)
    for epoch in range(2):
        iterator = iter(data)
        states = [iterator.state_dict()]
        items = []
        for item in iterator:
            items.append(item)
            states.append(iterator.state_dict())
        if name != "out of order":
            assert epoch > 0 or items == whole[0]
        for place, state in enumerate(states):
            resumed = iter(make(root))
            resumed.load_state_dict(pickle.loads(pickle.dumps(through_json(state))))
            rest = list(resumed)
            if name == "out of order":
                assert sorted(chain.from_iterable(items[:place] + rest)) == sorted(chain.from_iterable(items))
            else:
                assert rest == items[place:], (epoch, place)


@pytest.mark.parametrize("name", ["ours", "torch's"])
def test_after_the_end_of_a_resumed_epoch_comes_the_next(root: str, name: str) -> None:
    data = GRAPHS[name](root)
    epochs = [list(data) for _ in range(3)]
    assert len({str(epoch) for epoch in epochs}) == 3
    data = GRAPHS[name](root)
    list(data)
    iterator = iter(data)
    next(iterator)
    state = iterator.state_dict()
    list(iterator)
    finished = iterator.state_dict()

    resumed = GRAPHS[name](root)
    again = iter(resumed)
    again.load_state_dict(state)
    assert list(again) == epochs[1][1:]
    assert list(resumed) == epochs[2]

    resumed = GRAPHS[name](root)
    again = iter(resumed)
    again.load_state_dict(finished)
    assert list(again) == epochs[2]


def test_iterators_do_not_disturb_each_other_or_the_pipes(root: str) -> None:
    dp = load(lister(root).shuffle_files())
    data = dp.resumable()
    first, second = iter(data), iter(data)
    got = [(next(first), next(second)) for _ in range(5)]
    assert len({url for url, _ in got}) == len({url for _, url in got}) == 5
    assert len(list(dp)) == 13
    assert len(list(first)) == len(list(second)) == 8


def test_a_failed_batch_is_tried_again_from_its_state(root: str) -> None:
    urls, gone = [f"{root}/{i:02}" for i in range(13)], Path(root) / "05"
    gone.rename(root + "/../away")
    iterator = iter(load(IterableWrapper(urls)).batch(4).resumable())
    assert next(iterator) == urls[:4]
    with pytest.raises(FileMissingError, match="05"):
        next(iterator)
    state = through_json(iterator.state_dict())
    with pytest.raises(StopIteration):
        next(iterator)
    assert iterator.state_dict() == state
    (Path(root) / "../away").rename(gone)
    resumed = iter(load(IterableWrapper(urls)).batch(4).resumable())
    resumed.load_state_dict(state)
    assert list(chain.from_iterable(resumed)) == urls[4:]


def test_a_closed_iterator_gives_nothing_but_its_state(root: str) -> None:
    data = GRAPHS["ours"](root)
    iterator = iter(data)
    first = next(iterator)
    iterator.close()
    iterator.close()
    assert list(iterator) == []
    resumed = iter(GRAPHS["ours"](root))
    resumed.load_state_dict(iterator.state_dict())
    assert sorted(chain.from_iterable([first, *resumed])) == sorted(chain.from_iterable(GRAPHS["ours"](root)))


@pytest.mark.filterwarnings("ignore:Local function is not supported by pickle")
def test_a_failing_function_of_the_users_loses_nothing(root: str) -> None:
    failing = {"now": True}

    def fails(url: str) -> str:
        if failing["now"] and url.endswith("06"):
            raise ValueError("cannot decode this")
        return url

    def make() -> Resumable[Any]:
        data: Resumable[Any] = load(lister(root)).map(fails).batch(4).resumable()
        return data

    iterator = iter(make())
    first = next(iterator)
    with pytest.raises(ValueError, match="cannot decode"):
        next(iterator)
    failing["now"] = False
    resumed = iter(make())
    resumed.load_state_dict(iterator.state_dict())
    assert list(chain.from_iterable([first, *resumed])) == list(lister(root))


REFUSED: dict[str, Any] = {
    "Shuffler": lambda names: load(names).shuffle(),
    "UnBatcher": lambda names: load(names).batch(2).unbatch(),
    "Zipper": lambda names: load(names).zip(load(IterableWrapper([]))),
    "Grouper": lambda names: load(names).groupby(len),
    "Forker": lambda names: load(names).fork(2)[0],
    "Demultiplexer": lambda names: load(names).demux(2, len)[0],
    "Concater": lambda names: load(names).concat(load(IterableWrapper([]))),
    "Doubled": lambda names: Doubled(load(names)),
    "StreamReader": lambda names: names.load_files_by_local().read_from_stream(chunk=1),
    "LocalFileLoader": lambda names: load(names).load_files_by_local(),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_restored_is_refused_by_name_when_the_graph_is_built(root: str, name: str) -> None:
    graph = REFUSED[name](lister(root))
    with pytest.raises(OptionError, match=name) as refused:
        graph.resumable()
    assert "nstead" in str(refused.value) or "second loader" in str(refused.value)


@pytest.mark.parametrize("name", ["Forker", "Demultiplexer"])
def test_a_branch_is_refused_with_what_to_do_and_not_to_be_declared(root: str, name: str) -> None:
    with pytest.raises(OptionError, match="one pipeline for each branch") as refused:
        REFUSED[name](lister(root)).resumable()
    assert "_ChildDataPipe" not in str(refused.value)
    assert "stateless" not in str(refused.value)


def test_a_pipe_of_the_users_between_lister_and_loader_must_be_declared_too(root: str) -> None:
    with pytest.raises(OptionError, match="Doubled"):
        load(Doubled(lister(root)).map(itemgetter(0))).resumable()
    data = load(Doubled(lister(root)).map(itemgetter(0))).resumable(stateless=[Doubled])
    assert len(list(data)) == 13


@pytest.mark.parametrize(
    "bad", [{"seed": -1}, {"seed": "0"}, {"stateless": 3}, {"stateless": "Doubled"}, {"stateless": [3]}]
)
def test_bad_options_are_refused(root: str, bad: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        lister(root).resumable(**bad)


def test_len_is_a_type_error(root: str) -> None:
    with pytest.raises(TypeError):
        len(load(IterableWrapper([f"{root}/00"])).resumable())


def test_states_that_do_not_fit_are_refused_and_say_why(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    iterator = iter(GRAPHS["torch's"](root))
    next(iterator)
    state = through_json(iterator.state_dict())

    def refused(data: Resumable[Any], changed: dict[str, Any], match: str) -> None:
        with pytest.raises(StateError, match=match):
            iter(data).load_state_dict(changed)

    same = GRAPHS["torch's"](root)
    refused(same, {}, "not a state of .resumable")
    for junk in (None, 3, "kind", [state]):
        refused(same, cast("Any", junk), "not a state of .resumable")
    refused(same, {**state, "version": 2}, "version")
    refused(same, {**state, "kind": "load_files"}, "not a state of .resumable")
    refused(same, {**state, "workers": [1, 2]}, "worker")
    refused(same, {key: value for key, value in state.items() if key != "pivot"}, "pivot")
    refused(same, {**state, "epoch": -1}, "epoch")
    refused(load(lister(root).shuffle().sharding_filter()).resumable(seed=1), state, "seed")
    refused(GRAPHS["ours"](root), state, "pipes")
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    refused(same, state, "world size")
    monkeypatch.undo()
    (Path(root) / "zz").write_bytes(b"")
    refused(GRAPHS["torch's"](root), state, "names")


def test_a_graph_that_shards_nothing_says_so_where_it_matters(
    root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(lister(root)).resumable()
    assert len(list(data)) == 13
    monkeypatch.setenv("SLURM_PROCID", "0")
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.warns(RuntimeWarning, match="shard_files"):
        list(data)


def test_set_epoch_and_stats(root: str) -> None:
    data = GRAPHS["ours"](root)
    epochs = [list(data) for _ in range(3)]
    data.set_epoch(1)
    assert list(data) == epochs[1]
    assert list(data) == epochs[2]
    assert data.stats()["items"] == 5 * 13


IN_THREADS = """
import sys, threading
from datapipes.iter import IterableWrapper

def make():
    names = IterableWrapper([sys.argv[1]]).list_files_by_local().shuffle_files().shard_files()
    return names.load_files_by_local(output="bytes").batch(4).resumable()

def work(data):
    try:
        for _ in range(6):
            delivered.append(len([item for batch in data for item in batch]))
            make()
    except Exception as error:
        delivered.append(repr(error))

sys.setswitchinterval(1e-5)
delivered = []
threads = [threading.Thread(target=work, args=(make(),)) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(set(delivered), len(delivered))
"""


@pytest.mark.timeout(240)
def test_pipelines_may_be_made_and_started_in_several_threads(root: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_THREADS, root],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert done.stdout.split() == ["{13}", "24"], done.stdout + done.stderr


IN_FORKED_CHILDREN = """
import os, sys, threading
from datapipes.iter import IterableWrapper

def make():
    names = IterableWrapper([sys.argv[1]]).list_files_by_local()
    return names.load_files_by_local(output="bytes").resumable()

def work():
    while not stop.is_set():
        make()

sys.setswitchinterval(1e-5)
stop = threading.Event()
thread = threading.Thread(target=work)
thread.start()
ended = []
for _ in range(8):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if len(list(make())) == 13 else 2
        finally:
            os._exit(code)
    ended.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
stop.set()
thread.join()
print(set(ended))
"""


@pytest.mark.timeout(240)
def test_child_forked_while_another_thread_makes_pipelines_makes_its_own(root: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_FORKED_CHILDREN, root],
        capture_output=True,
        text=True,
        timeout=200,
        check=True,
    )
    assert done.stdout.split() == ["{0}"], done.stdout + done.stderr


def test_an_iterator_shared_by_threads_gives_each_output_once(root: str, shared_by_threads: Any) -> None:
    data = GRAPHS["ours, sample by sample"](root)
    batches = GRAPHS["ours"](root)
    for _ in range(5):
        assert sorted(shared_by_threads(iter(data))) == sorted(lister(root))
        assert sorted(chain.from_iterable(shared_by_threads(iter(batches)))) == sorted(lister(root))


def test_an_iterator_not_begun_can_be_pickled(root: str) -> None:
    iterator = iter(load(lister(root)).resumable())
    assert list(pickle.loads(pickle.dumps(iterator))) == list(iterator) == list(lister(root))


@pytest.mark.filterwarnings("ignore:Local function is not supported by pickle")
def test_child_forked_while_another_thread_waits_for_an_output_can_ask_for_the_state(root: str) -> None:
    waits, goes_on = threading.Event(), threading.Event()

    def slow(url: str) -> str:
        waits.set()
        assert goes_on.wait(50)
        return url

    iterator = iter(load(lister(root)).map(slow).resumable())
    thread = threading.Thread(target=next, args=(iterator,))
    thread.start()
    assert waits.wait(50)
    pid = os.fork()
    if pid == 0:
        signal.alarm(40)  # a lock that nobody gives back would wait for ever
        try:
            os._exit(0 if iterator.state_dict()["pivot"] is not None else 1)
        finally:
            os._exit(2)
    try:
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    finally:
        goes_on.set()
        thread.join()
    assert len(list(iterator)) == 12
