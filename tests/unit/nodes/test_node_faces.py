"""Our nodes: torchdata's protocol over the stages, and nothing else."""

from __future__ import annotations

import gc
import json
import pickle
import weakref
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torchdata.nodes")

from torchdata.nodes import BaseNode, IterableWrapper, Mapper, SamplerWrapper

from datapipes.backends.memory import MemoryBackend
from datapipes.datasets import ResumableSampler
from datapipes.errors import FileMissingError, OptionError, StateError, UrlError
from datapipes.index import FileIndex
from datapipes.nodes import FileLister, FileLoader, FileSharder, FileShuffler, StageNode
from datapipes.records import FileEntry
from datapipes.stages import LoadFiles, ShardFiles, ShuffleFiles

N = 23
ROOT = "memory://nodes-unit/data"
NAMES = sorted(f"{ROOT}/{'ab'[i % 2]}/{i:02}.bin" for i in range(N))


def content(url: str) -> bytes:
    return url[-8:].encode() * 3


@pytest.fixture(autouse=True)
def store() -> Iterator[MemoryBackend]:
    backend = MemoryBackend("nodes-unit")
    for name in NAMES:
        backend.write(name, content(name))
    yield backend
    backend.delete()


def take(node: Iterator[Any], count: int) -> list[Any]:
    return [next(node) for _ in range(count)]


def test_lister_yields_every_name_in_path_order() -> None:
    assert list(FileLister(ROOT)) == NAMES
    assert list(FileLister([f"{ROOT}/b", f"{ROOT}/a"])) == [*NAMES[12:], *NAMES[:12]]
    assert list(FileLister(IterableWrapper([ROOT]))) == NAMES
    assert list(FileLister(ROOT, masks="*1.bin")) == [name for name in NAMES if name.endswith("1.bin")]
    assert list(FileLister(ROOT, entries=True)) == [FileEntry(name, 24) for name in NAMES]
    quick = FileLister(ROOT, entries=True, sizes=False, types=False, handle_cache_bytes=0)
    assert list(quick) == [FileEntry(name, -1) for name in NAMES]
    assert list(FileLister(ROOT, recursive=False)) == []
    with pytest.raises(FileMissingError):
        list(FileLister(f"{ROOT}/nowhere"))


def test_lister_lists_once_unless_told_otherwise(store: MemoryBackend) -> None:
    once, anew = FileLister(ROOT), FileLister(ROOT, relist="epoch")
    assert list(once) == list(anew) == NAMES
    store.write(f"{ROOT}/c", b"new")
    once.reset()
    anew.reset()
    assert list(once) == NAMES
    assert list(anew) == [*NAMES, f"{ROOT}/c"]


def test_epochs_follow_each_other_at_each_reset() -> None:
    node = FileShuffler(FileLister(ROOT), seed=4)
    stage = ShuffleFiles(FileIndex.from_entries(NAMES), seed=4)
    for _ in range(3):
        node.reset()
        stage.reset()
        assert list(node) == list(stage)


def test_epoch_of_which_nothing_was_taken_is_not_counted() -> None:
    node = FileShuffler(NAMES, seed=4)
    first = list(FileShuffler(NAMES, seed=4))
    assert node.state_dict()["epoch"] == 0
    node.reset()
    node.reset()
    assert list(node) == first
    node.reset()
    second = take(node, 1)
    assert node.get_state()["epoch"] == 1
    node.reset()
    assert node.get_state()["epoch"] == 2
    assert second[0] != first[0] or N == 1


def test_set_epoch_names_the_next_reset() -> None:
    epochs = []
    node = FileShuffler(NAMES)
    for _ in range(4):
        node.reset()
        epochs.append(list(node))
    loader = FileLoader(FileSharder(FileShuffler(NAMES), rank=0, world_size=1))
    loader.set_epoch(3)
    loader.reset()
    assert [url for url, _ in loader] == epochs[3]
    loader.set_epoch(1)
    loader.reset()
    assert [url for url, _ in loader] == epochs[1]
    loader.reset()
    assert [url for url, _ in loader] == epochs[2]


def test_set_epoch_counts_though_the_node_has_been_reset_for_its_state() -> None:
    third = FileShuffler(NAMES)
    third.set_epoch(3)
    wanted = list(third)
    node = FileShuffler(NAMES)
    node.state_dict()
    node.set_epoch(3)
    node.reset()
    assert list(node) == wanted


def test_state_is_the_stages_and_resumes_either() -> None:
    node = FileLoader(FileShuffler(NAMES))
    assert isinstance(node.source, FileShuffler)
    head = take(node, 5)
    state = json.loads(json.dumps(node.state_dict()))
    stage = LoadFiles(ShuffleFiles(FileIndex.from_entries(NAMES)))
    stage.reset(state)
    assert [*head, *stage] == [*head, *node]
    assert stage.get_state() == node.get_state()


def test_nodes_are_torchdatas_and_pickle_by_specification() -> None:
    node = FileLoader(FileShuffler(FileLister(ROOT), seed=2))
    assert isinstance(node, BaseNode)
    assert isinstance(node, StageNode)
    wanted = list(FileLoader(FileShuffler(FileLister(ROOT), seed=2)))
    take(node, 3)
    assert list(pickle.loads(pickle.dumps(node))) == wanted


def test_loader_takes_any_source_of_names() -> None:
    wanted = [(name, content(name)) for name in NAMES]
    for source in (
        NAMES,
        tuple(NAMES),
        FileIndex.from_entries(NAMES),
        FileLister(ROOT),
        FileLister(ROOT, entries=True),
        FileSharder(NAMES, rank=0, world_size=1),
        IterableWrapper(NAMES),
        Mapper(SamplerWrapper(ResumableSampler(N, shuffle=False)), NAMES.__getitem__),
    ):
        node = FileLoader(source)
        for _ in range(2):
            node.reset()
            assert list(node) == wanted
    assert list(FileLoader(NAMES[0])) == wanted[:1]


def test_loader_resumes_over_torchdatas_nodes() -> None:
    def make() -> FileLoader:
        return FileLoader(Mapper(SamplerWrapper(ResumableSampler(N, seed=9)), NAMES.__getitem__))

    reference = make()
    epochs = []
    for _ in range(3):
        reference.reset()
        epochs.append(list(reference))
    assert epochs[0] != epochs[1]
    for epoch in (0, 1):
        for count in range(N + 1):
            node = make()
            for _ in range(epoch + 1):
                node.reset()
                head = take(node, count if _ == epoch else N)
            resumed = make()
            resumed.reset(json.loads(json.dumps(node.state_dict())))
            assert head + list(resumed) == epochs[epoch]
            resumed.reset()
            assert list(resumed) == epochs[epoch + 1]


def test_sharder_takes_ranks_from_the_launcher_when_an_epoch_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    node = FileSharder(FileLister(ROOT))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert list(node) == NAMES[1::4]
    explicit = FileSharder(FileLister(ROOT), rank=3, world_size=4)
    assert list(explicit) == NAMES[3::4]
    state = FileSharder(NAMES, rank=1, world_size=4).state_dict()
    assert state == FileSharder(NAMES).state_dict()


@pytest.mark.parametrize("uneven", ["keep", "pad", "drop"])
def test_shards_are_the_stages(uneven: Any) -> None:
    for rank in range(3):
        node = FileSharder(FileShuffler(NAMES), rank=rank, world_size=3, uneven=uneven)
        stage = ShardFiles(
            ShuffleFiles(FileIndex.from_entries(NAMES)), rank=rank, world_size=3, uneven=uneven
        )
        assert list(node) == list(stage)


def test_on_error_and_stats(store: MemoryBackend) -> None:
    store.remove(NAMES[4])
    good = [(name, content(name)) for name in NAMES if name != NAMES[4]]
    skipping = FileLoader(NAMES, on_error="skip")
    assert list(skipping) == good
    assert skipping.stats()["skipped"] == 1
    assert skipping.stats()["items"] == N - 1
    strict = FileLoader(NAMES)
    assert take(strict, 4) == good[:4]
    with pytest.raises(FileMissingError, match=NAMES[4]):
        next(strict)
    replaced = list(FileLoader(NAMES, on_error=lambda url, error: (url, type(error).__name__)))
    assert replaced[4] == (NAMES[4], "FileMissingError")


def test_state_of_another_pipeline_is_refused() -> None:
    state = FileLoader(FileShuffler(NAMES, seed=1)).state_dict()
    for other in (
        FileLoader(FileShuffler(NAMES, seed=2)),
        FileLoader(FileShuffler(NAMES[1:], seed=1)),
        FileLoader(FileSharder(NAMES, rank=0, world_size=1)),
        FileLoader(NAMES),
        FileShuffler(NAMES, seed=1),
    ):
        with pytest.raises(StateError):
            other.reset(state)
        other.reset()
        assert len(list(other)) in (N, N - 1)


@pytest.mark.parametrize("state", [3, "finished", b"x", [1, 2], object()])
def test_what_is_no_state_is_refused(state: Any) -> None:
    for node in (FileLoader(NAMES), FileShuffler(NAMES), FileLister(ROOT)):
        with pytest.raises(StateError):
            node.reset(state)


@pytest.mark.parametrize("change", [{"source": None}, {"source": {}}, {"source": 3}])
def test_state_without_its_source_never_starts_from_the_beginning(change: dict[str, Any]) -> None:
    for source in (NAMES, IterableWrapper(NAMES)):
        node = FileLoader(source)
        take(node, 3)
        with pytest.raises(StateError):
            FileLoader(source).reset({**node.state_dict(), **change})


def test_source_that_cannot_take_up_its_state_is_a_state_error() -> None:
    node = FileLoader(IterableWrapper(NAMES))
    take(node, 3)
    state = node.state_dict()
    state["source"]["snapshot"]["_num_yielded"] = N + 5  # torchdata says ValueError
    with pytest.raises(StateError, match="cannot take up"):
        FileLoader(IterableWrapper(NAMES)).reset(state)


def test_close_ends_the_iteration_and_reset_starts_anew() -> None:
    node = FileLoader(NAMES)
    take(node, 3)
    node.close()
    node.shutdown()
    assert list(node) == []
    node.reset()
    assert len(list(node)) == N


def test_dropped_node_is_freed_at_once() -> None:
    gc.collect()
    gc.disable()
    try:
        node = FileLoader(FileShuffler(NAMES))
        take(node, 3)
        gone = weakref.ref(node.stage)
        del node
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("face", "options", "error"),
    [
        pytest.param(face, options, error, id=f"{face.__name__}-{options}")
        for face, options, error in [
            (FileLister, {"source": "daos://pool"}, UrlError),
            (FileLister, {"source": 3}, UrlError),
            (FileLister, {"source": ROOT, "masks": 3}, OptionError),
            (FileLister, {"source": ROOT, "relist": "daily"}, OptionError),
            (FileShuffler, {"source": NAMES[:1], "seed": -1}, OptionError),
            (FileShuffler, {"source": 7}, OptionError),
            (FileSharder, {"source": NAMES[:1], "rank": 1}, OptionError),
            (FileSharder, {"source": NAMES[:1], "rank": 2, "world_size": 2}, OptionError),
            (FileSharder, {"source": NAMES[:1], "uneven": "never"}, OptionError),
            (FileLoader, {"source": NAMES[:1], "max_in_flight": 0}, OptionError),
            (FileLoader, {"source": NAMES[:1], "max_buffer_bytes": 0}, OptionError),
            (FileLoader, {"source": NAMES[:1], "timeout_s": -1}, OptionError),
            (FileLoader, {"source": NAMES[:1], "on_error": "ignore"}, OptionError),
            (FileLoader, {"source": NAMES[:1], "verify": "all"}, OptionError),
        ]
    ],
)
def test_absurd_options_are_refused_when_the_node_is_made(
    face: Any, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        face(**options)


def test_the_letters_of_a_url_are_no_source() -> None:
    with pytest.raises(OptionError, match="list"):
        FileLoader(IterableWrapper(NAMES[0]))
