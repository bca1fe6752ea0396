"""The drop-ins for pydaos.torch's datasets, without a loader: arguments, names, samples, states, errors."""

from __future__ import annotations

import inspect
import json
import os
import pickle
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from datapipes.datasets import FileDataset, ResumableSampler
from datapipes.datasets.daos import Checkpoint, Dataset, IterableDataset
from datapipes.errors import (
    ContainerMissingError,
    FileMissingError,
    OptionError,
    SizeMismatchError,
    StateError,
    UrlError,
)
from datapipes.index import FileIndex

PAIRS = [
    ("/data/a-b", 1),
    ("/data/a.bin", 2),
    ("/data/a/0", 3),
    ("/data/a/1", 0),
    ("/data/odd #?%25 é", 4),
    ("/data/z/deep/er/0", 200_000),
]
"""In the byte order of their paths."""

# Parameters with their defaults, in order, as recorded from the sources of DAOS. A default that is a function
# which leaves samples as they are stands as "identity".
FIRST = {"pool": None, "cont": None, "path": None, "transform_fn": "identity", "readdir_batch_size": 128}
SIGNATURES: list[tuple[str, type, str, dict[str, Any]]] = [
    ("master, November 2024", Dataset, "__init__", FIRST),
    ("master, November 2024", IterableDataset, "__init__", {**FIRST, "batch_size": 32}),
    ("2.8.0, google/2.6", Dataset, "__init__", {**FIRST, "dir_cache_size": 65536}),
    (
        "2.8.0, google/2.6",
        IterableDataset,
        "__init__",
        {**FIRST, "batch_size": 32, "dir_cache_size": 65536},
    ),
    (
        "release/2.8 after 2.8.0, master",
        Dataset,
        "__init__",
        {**FIRST, "dir_cache_size": 65536, "readdir_workers": 16},
    ),
    (
        "release/2.8 after 2.8.0, master",
        IterableDataset,
        "__init__",
        {**FIRST, "batch_size": 32, "dir_cache_size": 65536, "readdir_workers": 16},
    ),
    ("all", Dataset, "worker_init", {"worker_id": inspect.Parameter.empty}),
    ("all", IterableDataset, "worker_init", {"worker_id": inspect.Parameter.empty}),
    (
        "2.8.0, master",
        Checkpoint,
        "__init__",
        {
            "pool": inspect.Parameter.empty,
            "cont": inspect.Parameter.empty,
            "prefix": "/",
            "mode": 0o100644,
            "open_flags": 0o102,
            "class_name": "OC_UNKNOWN",
            "file_chunk_size": 0,
            "transfer_chunk_size": 64 << 20,
            "chunks_limit": 0,
            "workers": 4,
        },
    ),
    ("2.8.0, master", Checkpoint, "reader", {"file": inspect.Parameter.empty, "stream": None}),
    ("google/2.6", Checkpoint, "writer", {"file": inspect.Parameter.empty}),
    ("2.8.0, master", Checkpoint, "writer", {"file": inspect.Parameter.empty, "ensure_path": True}),
]
KEYWORDS: list[tuple[str, type, str]] = [
    ("the documentation of all releases", Dataset, "container"),
    ("before the first merge", Dataset, "in_flight_ops_max"),
    ("before the first merge", IterableDataset, "in_flight_ops_max"),
]


def content(path: str, size: int) -> bytes:
    return (path.encode() * (size // len(path) + 1))[:size]


def fill(root: Path) -> None:
    for path, size in PAIRS:
        file = root / "tank/train" / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content(path, size))


@pytest.fixture
def root(daos_root: Path) -> Path:
    fill(daos_root)
    return daos_root


@pytest.mark.parametrize(("release", "kind", "method", "wanted"), SIGNATURES, ids=str)
def test_a_call_written_for_any_release_means_the_same(
    release: str, kind: type, method: str, wanted: dict[str, Any]
) -> None:
    ours = [p for p in inspect.signature(getattr(kind, method)).parameters.values() if p.name != "self"]
    by_position = [p for p in ours if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD]
    assert [p.name for p in by_position[: len(wanted)]] == list(wanted)
    for parameter in by_position[: len(wanted)]:
        default = wanted[parameter.name]
        if default == "identity":
            assert parameter.default is None
        elif default is not inspect.Parameter.empty:
            assert parameter.default == default
    assert all(p.default is not inspect.Parameter.empty for p in ours[len(wanted) :])


@pytest.mark.parametrize(("release", "kind", "name"), KEYWORDS, ids=str)
def test_a_keyword_of_any_release_is_taken(release: str, kind: type, name: str) -> None:
    assert name in inspect.signature(kind).parameters


def test_samples_are_bytearrays_in_path_order(root: Path) -> None:
    dataset = Dataset("tank", "train", "/data")
    assert len(dataset) == len(PAIRS)
    assert list(dataset.objects) == PAIRS
    samples = dataset.__getitems__(range(len(PAIRS)))
    assert samples == [content(*pair) for pair in PAIRS]
    assert {type(sample) for sample in samples} == {bytearray}
    assert [dataset[i] for i in range(-6, 0)] == samples
    assert [*dataset] == samples  # type: ignore[misc]  # by __getitem__ and IndexError, as with the incumbent
    assert list(IterableDataset("tank", "train", "/data")) == samples


@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
def test_transform_fn_may_write_to_a_sample(root: Path, kind: Any) -> None:
    def stamp(sample: bytearray) -> bytearray:
        sample[:1] = b"!"
        return sample

    dataset = kind("tank", "train", "/data/a", transform_fn=stamp)
    assert [*dataset] == [b"!da", b"!"]
    assert [*dataset] == [b"!da", b"!"]  # each time a fresh one


@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
def test_a_sample_is_made_once(daos_root: Path, kind: Any) -> None:
    size = 8 << 20
    (daos_root / "tank/train/large").write_bytes(b"x" * size)
    dataset = kind("tank", "train", transform_fn=len)
    tracemalloc.start()
    assert [*dataset] == [size]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size < peak < 1.5 * size  # with a copy it would be twice as much


def test_path_may_be_everything_or_one_file(root: Path) -> None:
    assert list(Dataset(pool="tank", container="train").objects) == PAIRS
    assert list(Dataset("tank", "train", "/").objects) == PAIRS
    assert list(Dataset("tank", "train", "/data/a/0").objects) == [("/data/a/0", 3)]


def test_objects_are_like_a_list_of_pairs(root: Path) -> None:
    objects = Dataset("tank", "train").objects
    assert objects == PAIRS
    assert objects == PAIRS
    assert objects != PAIRS[1:]
    assert objects != [*PAIRS[1:], PAIRS[0]]
    assert (objects[0], objects[-1], objects[1:3], objects[::-2]) == (
        PAIRS[0],
        PAIRS[-1],
        PAIRS[1:3],
        PAIRS[::-2],
    )
    assert objects.index(PAIRS[2]) == 2
    assert PAIRS[3] in objects
    assert min(objects, key=lambda pair: pair[1]) == PAIRS[3]
    assert pickle.loads(pickle.dumps(objects)) == PAIRS
    assert "6 objects" in repr(objects)
    for at in (6, -7):
        with pytest.raises(IndexError):
            objects[at]


@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
def test_objects_may_be_assigned(root: Path, kind: Any) -> None:
    dataset = kind("tank", "train")
    dataset.objects = [pair for pair in reversed(dataset.objects) if pair[1]]
    wanted = [pair for pair in reversed(PAIRS) if pair[1]]
    assert dataset.objects == wanted
    assert [*dataset] == [content(*pair) for pair in wanted]
    with pytest.raises(OptionError, match="absolute"):
        dataset.objects = [("data/a/0", 3)]


@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
@pytest.mark.parametrize(
    "objects",
    [
        [(b"/x", 3)],
        [("/a",)],
        [("/a", None)],
        [("/a", 1.5)],
        [("/a", -2)],
        [("/a", 1 << 63)],
        [("data/a", 1)],
        ["/a"],
        [3],
        3,
    ],
    ids=str,
)
def test_objects_that_are_no_pairs_are_refused(root: Path, kind: Any, objects: Any) -> None:
    dataset = kind("tank", "train", Path("/data"))
    with pytest.raises(OptionError, match="object"):
        dataset.objects = objects
    assert dataset.objects == PAIRS


def test_workset_is_everything_outside_of_workers_and_may_be_assigned(root: Path) -> None:
    dataset = IterableDataset("tank", "train")
    assert dataset.workset == PAIRS
    dataset.workset = PAIRS[4:1:-1]
    assert dataset.workset == PAIRS[4:1:-1]
    assert list(dataset) == [content(*pair) for pair in PAIRS[4:1:-1]]
    assert dataset.objects == PAIRS
    with pytest.raises(OptionError, match="every epoch"):
        IterableDataset("tank", "train", seed=0).workset  # noqa: B018


def test_the_names_are_those_of_a_file_index(root: Path) -> None:
    url = "daos://tank/train/data"
    for dataset in (Dataset("tank", "train", "/data"), IterableDataset("tank", "train", "/data")):
        assert dataset.index() == FileIndex.build(url)
    sampler = ResumableSampler(Dataset("tank", "train", "/data"), seed=2)
    other = ResumableSampler(FileDataset(url), seed=2)
    assert list(sampler) == list(other)


def test_names_are_listed_once_and_kept_where_asked(root: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.index"
    dataset = Dataset("tank", "train", "/data", index_path=kept)
    late = root / "tank/train/data/late"
    late.write_bytes(b"late")
    assert dataset.objects == PAIRS
    assert Dataset("tank", "train", "/data", index_path=kept).objects == PAIRS
    assert IterableDataset("tank", "train", "/data", index_path=kept).objects == PAIRS
    assert len(Dataset("tank", "train", "/data")) == len(PAIRS) + 1


@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
def test_it_is_a_context_manager_that_may_be_closed_twice(root: Path, kind: Any) -> None:
    with kind("tank", "train") as dataset:
        dataset.worker_init(0)
        dataset.worker_init(None)
        assert len([*dataset]) == len(PAIRS)
    dataset.close()
    dataset.close()
    assert len([*dataset]) == len(PAIRS)
    again = pickle.loads(pickle.dumps(dataset))
    assert [*again] == [*dataset]
    assert again.objects == PAIRS


@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pool": None}, OptionError, "pool is required"),
        ({"cont": None}, OptionError, "cont is required"),
        ({"container": "other"}, OptionError, "two names for one thing"),
        ({"path": "data"}, OptionError, "absolute"),
        ({"path": ""}, OptionError, "absolute"),
        ({"readdir_batch_size": 0}, OptionError, "readdir_batch_size"),
        ({"readdir_workers": 0}, OptionError, "readdir_workers"),
        ({"dir_cache_size": -1}, OptionError, "dir_cache_size"),
        ({"path": 3}, OptionError, "path must"),
        ({"path": ["/data"]}, OptionError, "path must"),
        ({"path": b"/data"}, OptionError, "path must"),
        ({"path": Path("data")}, OptionError, "path must be absolute"),
        ({"in_flight_ops_max": 0}, OptionError, "in_flight_ops_max"),
        ({"in_flight_ops_max": 1.5}, OptionError, "in_flight_ops_max"),
        ({"in_flight_ops_max": 10**12}, OptionError, "in_flight_ops_max"),
        ({"handle_cache_bytes": 1.5}, OptionError, "handle_cache_bytes"),
        ({"handle_cache_bytes": 1e9}, OptionError, "handle_cache_bytes"),
        ({"handle_cache_bytes": 10**20}, OptionError, "handle_cache_bytes"),
        ({"index_path": ""}, OptionError, "index_path"),
        ({"index_path": 3}, OptionError, "index_path"),
        ({"timeout_s": 0}, OptionError, "timeout_s"),
        ({"timeout_s": float("inf")}, OptionError, "timeout_s"),
        ({"timeout_s": 1e12}, OptionError, "timeout_s"),
        ({"verify": "sizes"}, OptionError, "verify"),
        ({"transform_fn": 7}, OptionError, "transform_fn must"),
        ({"pool": "ta/nk"}, UrlError, "ta/nk"),
        ({"cont": "tra?in"}, UrlError, "tra"),
        ({"cont": "tra in"}, UrlError, "no label"),
        ({"path": "/data/../.."}, UrlError, "leads out"),
        ({"path": "/none"}, FileMissingError, "/none"),
        ({"cont": "nowhere"}, ContainerMissingError, "nowhere"),
        ({"pool": "nowhere"}, ContainerMissingError, "nowhere"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_by_the_constructor(
    root: Path, kind: Any, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as raised:
        kind(**{"pool": "tank", "cont": "train", **arguments})
    assert isinstance(raised.value, ValueError if error in (OptionError, UrlError) else OSError)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 10**12}, "batch_size"),
        ({"seed": -1}, "seed"),
        ({"rank": 1}, "world_size"),
        ({"rank": 2, "world_size": 2}, "below"),
        ({"uneven": "fair"}, "uneven"),
    ],
    ids=str,
)
def test_an_iterable_refuses_options_before_it_lists(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        IterableDataset("tank", "train", **arguments)  # no container is there to be listed


def test_without_any_daos_the_error_says_what_to_do() -> None:
    """In a process of its own: libraries stay loaded."""
    variables = {name: value for name, value in os.environ.items() if name != "DATAPIPES_DAOS_ROOT"}
    told = subprocess.run(
        [sys.executable, "-c", "from datapipes.datasets.daos import Dataset; Dataset('tank', 'train')"],
        env={**variables, "DATAPIPES_LIBDFS_DIR": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=55,
        check=False,
    )
    assert "BackendUnavailableError" in told.stderr
    assert "DATAPIPES_DAOS_ROOT=/dir" in told.stderr


def test_a_file_that_is_gone_or_shorter_is_named(root: Path) -> None:
    dataset = Dataset("tank", "train", "/data")
    iterable = IterableDataset("tank", "train", "/data")
    grown = Dataset("tank", "train", "/data", verify="size")
    (root / "tank/train/data/a/0").write_bytes(b"xx")
    (root / "tank/train/data/a-b").unlink()
    (root / "tank/train/data/a.bin").write_bytes(b"larger")
    with pytest.raises(SizeMismatchError, match="daos://tank/train/data/a/0"):
        dataset[2]
    with pytest.raises(FileMissingError, match="daos://tank/train/data/a-b"):
        dataset.__getitems__([3, 0])
    with pytest.raises(FileMissingError, match="daos://tank/train/data/a-b"):
        next(iter(iterable))
    assert dataset[1] == b"la"  # as many bytes as were listed
    with pytest.raises(OSError, match=r"a\.bin"):
        grown[1]


def test_a_batch_may_be_longer_than_what_is_in_flight(root: Path) -> None:
    dataset = Dataset("tank", "train", in_flight_ops_max=2)
    positions = list(range(len(PAIRS))) * 50
    assert dataset.__getitems__(positions) == [content(*PAIRS[i]) for i in positions]


def test_an_iterator_goes_on_from_any_state(root: Path) -> None:
    def make() -> Any:
        return iter(IterableDataset("tank", "train", batch_size=2))

    wanted = [content(*pair) for pair in PAIRS]
    walk = make()
    states = [walk.state_dict(), *(json.loads(json.dumps(walk.state_dict())) for _ in walk)]
    for taken, state in enumerate(states):
        again = make()
        again.load_state_dict(state)
        assert again.state_dict() == state
        assert list(again) == wanted[taken:]
    again = make()
    again.load_state_dict(walk.state_dict())
    assert list(again) == wanted  # the next epoch


def test_an_iterator_shared_by_threads_gives_each_sample_once(root: Path, shared_by_threads: Any) -> None:
    for seed in (None, 3):
        data = IterableDataset("tank", "train", seed=seed)
        whole = sorted(bytes(sample) for sample in data)
        for _ in range(20):
            assert sorted(bytes(sample) for sample in shared_by_threads(iter(data))) == whole


def test_an_iterator_can_be_pickled(root: Path) -> None:
    data = IterableDataset("tank", "train")
    assert list(pickle.loads(pickle.dumps(iter(data)))) == list(data)


def test_going_on_does_not_read_what_was_delivered(root: Path) -> None:
    walk = iter(IterableDataset("tank", "train"))
    for _ in range(3):
        next(walk)
    state = walk.state_dict()
    walk.close()
    assert list(walk) == []
    for path, _ in PAIRS[:3]:
        (root / "tank/train" / path[1:]).chmod(0)
        (root / "tank/train" / path[1:]).unlink()
    again = IterableDataset("tank", "train")
    again.objects = PAIRS
    resumed = iter(again)
    resumed.load_state_dict(state)
    assert list(resumed) == [content(*pair) for pair in PAIRS[3:]]


def test_an_exception_ends_the_iteration_and_its_state_is_the_one_before(root: Path) -> None:
    def choke(sample: bytearray) -> int:
        if len(sample) == 3:
            raise KeyError("three")
        return len(sample)

    walk = iter(IterableDataset("tank", "train", transform_fn=choke))
    assert [next(walk), next(walk)] == [1, 2]
    with pytest.raises(KeyError):
        next(walk)
    assert list(walk) == []
    again = iter(IterableDataset("tank", "train", transform_fn=len))
    again.load_state_dict(walk.state_dict())
    assert list(again) == [3, 0, 4, 200_000]

    def exhausted(sample: bytearray) -> int:
        return len(sample) if len(sample) < 3 else next(iter(()))

    walk = iter(IterableDataset("tank", "train", transform_fn=exhausted))
    assert [next(walk), next(walk)] == [1, 2]
    with pytest.raises(RuntimeError, match="exhausted raised StopIteration"):
        next(walk)
    assert (list(walk), walk.state_dict()["position"]) == ([], 2)

    (root / "tank/train/data/a/0").unlink()
    broken = IterableDataset("tank", "train", transform_fn=len)
    broken.objects = PAIRS
    walk = iter(broken)
    assert [next(walk), next(walk)] == [1, 2]
    with pytest.raises(FileMissingError):
        next(walk)
    assert (list(walk), walk.state_dict()["position"]) == ([], 2)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"path": "/data/a"}, "other data"),
        ({"seed": 1}, "another|damaged"),
        ({"rank": 0, "world_size": 2}, "number of ranks"),
    ],
    ids=str,
)
def test_a_state_that_does_not_fit_is_refused(root: Path, other: dict[str, Any], message: str) -> None:
    walk = iter(IterableDataset("tank", "train"))
    next(walk)
    again = iter(IterableDataset("tank", "train", **other))
    with pytest.raises(StateError, match=message):
        again.load_state_dict(walk.state_dict())
    assert list(again) == []
    no_state: Any
    for no_state in ({"position": 1}, None, 3):
        with pytest.raises(StateError):
            again.load_state_dict(no_state)


def test_a_seed_shuffles_every_epoch_anew_and_states_say_which(root: Path) -> None:
    def make() -> Any:
        return IterableDataset("tank", "train", seed=5, transform_fn=len)

    dataset = make()
    first, second, third = list(dataset), list(dataset), list(dataset)
    assert sorted(first) == sorted(second) == sorted(size for _, size in PAIRS)
    assert len({tuple(first), tuple(second), tuple(third)}) > 1
    again = make()
    again.set_epoch(1)
    walk = iter(again)
    assert [next(walk), next(walk)] == second[:2]
    other = make()
    resumed = iter(other)
    resumed.load_state_dict(walk.state_dict())
    assert list(resumed) == second[2:]
    assert list(other) == third
    finished = make()
    walk = iter(finished)
    walk.load_state_dict(resumed.state_dict())
    assert list(walk) == third  # the state after the end of the second epoch


def test_ranks_share_the_names(root: Path) -> None:
    ranks = [
        list(IterableDataset("tank", "train", transform_fn=len, rank=rank, world_size=4)) for rank in range(4)
    ]
    assert ranks == [[size for _, size in PAIRS[rank::4]] for rank in range(4)]
    equal = [
        [*IterableDataset("tank", "train", rank=rank, world_size=4, seed=1, uneven="drop")]
        for rank in range(4)
    ]
    assert [len(samples) for samples in equal] == [1] * 4
