"""AISMapDataset, its base and AISParallelMapDataset on the embedded AIStore."""

from __future__ import annotations

import contextlib
import gc
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DataLoader

from datapipes.errors import FileMissingError

sdk = pytest.importorskip("aistore.sdk")
pytest.importorskip("aiohttp", reason="the embedded AIStore needs it")

from datapipes.datasets.ais import AISBaseMapDataset, AISMapDataset, AISParallelMapDataset  # noqa: E402
from datapipes.testing.ais_server import AisServer  # noqa: E402

OBJECTS = {f"train/ü {i:02}?#%.x": b"content %d" % i * i for i in range(20)}
NAMES = list(OBJECTS)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AisServer]:
    with AisServer(tmp_path_factory.mktemp("ais")) as server:
        for name, data in OBJECTS.items():
            server.store.put("b", name, data)
        server.store.put("c", "val/0", b"other")
        yield server


def test_indices_are_those_of_a_list(client: Any) -> None:
    dataset = AISMapDataset(client.bucket("b"))
    assert len(dataset) == 20
    assert dataset[-1] == (NAMES[-1], OBJECTS[NAMES[-1]])
    for outside in (20, -21):
        with pytest.raises(IndexError, match="<AISMapDataset> index must be in bounds of dataset"):
            dataset[outside]


def test_a_batch_is_read_at_once_and_in_its_order(client: Any, server: AisServer) -> None:
    dataset = AISMapDataset([client.bucket("b"), client.bucket("c")])
    dataset[0]
    server.delay(300)
    began = time.monotonic()
    batch = dataset.__getitems__([20, 3, 1, 3, *range(4, 12)])
    assert time.monotonic() - began < 2
    assert batch[:3] == [("val/0", b"other"), (NAMES[3], OBJECTS[NAMES[3]]), (NAMES[1], OBJECTS[NAMES[1]])]
    assert batch[3] == batch[1]


def test_nothing_given_is_refused_as_before() -> None:
    empty: tuple[Any, ...] = ([], (), None)
    for nothing in empty:
        with pytest.raises(ValueError, match="<AISMapDataset> ais_source_list must be provided"):
            AISMapDataset(nothing)
    with pytest.raises(ValueError, match="ais_source_list must be provided"):
        AISMapDataset()


def test_a_missing_bucket_raises_the_sdks_error_when_the_dataset_is_made(client: Any) -> None:
    with pytest.raises(sdk.errors.ErrBckNotFound):
        AISMapDataset(client.bucket("nowhere"))


def test_prefixes_choose_objects_and_none_means_all(client: Any) -> None:
    b, c = client.bucket("b"), client.bucket("c")
    dataset = AISMapDataset([b, c], {b: ["train/ü 1", "train/ü 03"], c: None})
    assert [dataset[i][0] for i in range(len(dataset))] == [*NAMES[10:], NAMES[3], "val/0"]


def test_where_nothing_is_overridden_no_object_of_the_sdk_is_made(
    client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("an Object was made")

    monkeypatch.setattr(sdk.obj.object.Object, "__init__", fail)
    dataset = AISMapDataset([client.bucket("b")])
    assert dataset.__getitems__([1, 2]) == [(name, OBJECTS[name]) for name in NAMES[1:3]]


def test_the_list_of_objects_is_the_sdks_and_what_counts_once_it_was_asked_for(client: Any) -> None:
    dataset = AISMapDataset(client.bucket("b"))
    objects = dataset.get_obj_list()
    assert [type(thing) for thing in objects] == [sdk.obj.object.Object] * 20
    assert [thing.props_cached.size for thing in objects] == [len(data) for data in OBJECTS.values()]
    del objects[1:]
    assert len(dataset) == 1
    assert dataset[0] == (NAMES[0], OBJECTS[NAMES[0]])


def test_objects_of_a_group_have_sizes_in_the_list(client: Any) -> None:
    dataset = AISMapDataset(client.bucket("b").objects(obj_names=NAMES[2:4]))
    assert dataset[0] == (NAMES[2], OBJECTS[NAMES[2]])
    assert dataset.get_obj_list()[0].props_cached.size == len(OBJECTS[NAMES[2]])


class Filtered(AISMapDataset):
    def _create_objects_list(self) -> list[Any]:
        return [thing for thing in super()._create_objects_list() if "1" in thing.name]


class OwnObject:
    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Any] = []

    def get_reader(self, etl: Any = None, **more: Any) -> OwnObject:
        self.asked.append((etl.name if etl else None, more))
        return self

    def read_all(self) -> bytes:
        return b"own " + self.name.encode()


class WithOwn(AISMapDataset):
    def _create_objects_list(self) -> list[Any]:
        return [OwnObject("x"), *super()._create_objects_list(), OwnObject("y")]


def test_an_overridden_list_is_what_is_read(client: Any) -> None:
    dataset = Filtered(client.bucket("b"))
    wanted = [name for name in NAMES if "1" in name]
    assert dataset.__getitems__(range(len(dataset))) == [(name, OBJECTS[name]) for name in wanted]  # type: ignore[arg-type]


def test_users_objects_are_read_through_their_own_reader(client: Any) -> None:
    dataset = WithOwn(client.bucket("b"), etl_name=None)
    assert dataset.__getitems__([0, 1, 21]) == [
        ("x", b"own x"),
        (NAMES[0], OBJECTS[NAMES[0]]),
        ("y", b"own y"),
    ]
    assert dataset.get_obj_list()[0].asked == [(None, {})]


class Decoded(AISMapDataset):
    def __getitem__(self, index: int) -> Any:
        try:
            name, data = super().__getitem__(index)
        except FileMissingError:
            return None
        return name, len(data)


def test_an_overridden_getitem_is_called_and_the_batch_still_read_at_once(
    client: Any, server: AisServer
) -> None:
    dataset = Decoded(client.bucket("b"))
    assert dataset.__getitems__([5, 5, 7]) == [(NAMES[i], len(OBJECTS[NAMES[i]])) for i in (5, 5, 7)]


class OwnLengths(AISMapDataset):
    def _create_objects_list(self) -> list[Any]:
        return [OwnObject(str(number)) for number in range(100)]

    def __getitem__(self, index: int) -> Any:
        name, data = super().__getitem__(index)
        return name, len(data)


def test_threads_with_batches_of_an_overridden_getitem_keep_apart(client: Any) -> None:
    dataset = OwnLengths(client.bucket("b"))

    def work(first: int) -> None:
        for start in range(60):
            wanted = [(first * 7 + start + 3 * step) % 100 for step in range(8)]
            expected = [(str(index), len(f"own {index}")) for index in wanted]
            assert dataset.__getitems__(wanted) == expected

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(work, range(3)))
    finally:
        sys.setswitchinterval(interval)
    assert pickle.loads(pickle.dumps(dataset)).__getitems__([1]) == [("1", 5)]


def test_in_a_batch_of_an_overridden_getitem_each_sample_meets_its_own_error(client: Any) -> None:
    group = client.bucket("b").objects(obj_names=[NAMES[1], "gone", NAMES[2]])
    assert Decoded(group).__getitems__([0, 1, 2]) == [(NAMES[1], 9), None, (NAMES[2], 18)]


def test_a_missing_object_raises_an_error_that_is_the_sdks_too(client: Any) -> None:
    dataset = AISMapDataset(client.bucket("b").objects(obj_names=[NAMES[0], "gone"]))
    with pytest.raises(FileMissingError, match="gone") as raised:
        dataset.__getitems__([0, 1])
    assert isinstance(raised.value, sdk.errors.AISError)


class Lengths(AISBaseMapDataset):
    def __len__(self) -> int:
        return len(self._obj_list)

    def __getitem__(self, index: int) -> int:
        return len(self._obj_list[index].get_reader().read_all())


def test_the_base_is_extended_as_before(client: Any) -> None:
    dataset = Lengths([client.bucket("b")], prefix_map={})
    assert dataset.__getitems__(list(range(len(dataset)))) == [len(data) for data in OBJECTS.values()]


class Exhausted(AISMapDataset):
    def __getitem__(self, index: int) -> Any:
        return super().__getitem__(index) if index < 3 else next(iter(()))


def test_a_subclass_that_raises_stop_iteration_loses_no_samples(client: Any) -> None:
    with pytest.raises(RuntimeError, match=r"Exhausted\.__getitem__ raised StopIteration"):
        list(DataLoader(Exhausted(client.bucket("b")), batch_size=2, collate_fn=list))


def test_a_pickled_dataset_lists_nothing_again(client: Any, server: AisServer) -> None:
    dataset = AISMapDataset(client.bucket("b"))
    packed = pickle.dumps(dataset)
    server.clear()
    before = len([request for request in server.requests() if "/v1/buckets" in request.path])
    copy = pickle.loads(packed)
    assert copy[4] == dataset[4]
    after = len([request for request in server.requests() if "/v1/buckets" in request.path])
    assert len(copy) == 20
    assert after - before <= 1  # the bucket's properties, asked for once by the process


def test_parallel_buffers_have_the_interface_of_the_sdks(client: Any) -> None:
    from aistore.sdk.obj.content_iterator.buffer import ParallelBuffer

    dataset = AISParallelMapDataset(client.bucket("b"))
    assert len(dataset) == 20
    assert dataset.num_workers == 16
    name, buffer = dataset[3]
    with buffer:
        public = {each for each in dir(ParallelBuffer) if not each.startswith("_")}
        assert all(hasattr(buffer, each) for each in public)
        assert name == NAMES[3]
        assert Path("/dev/shm", buffer.name).exists()
        assert (bytes(buffer.buf), buffer.tobytes(), len(buffer)) == (OBJECTS[name], OBJECTS[name], 27)
        copy = pickle.loads(pickle.dumps(buffer))
        assert copy.tobytes() == OBJECTS[name]
        assert copy.name != buffer.name
    copy.close()
    assert not Path("/dev/shm", buffer.name).exists()
    buffer.close()
    assert dataset[0][1].tobytes() == b""  # an empty object


def held(name: str) -> list[str]:
    """Where this process still holds the segment ``name``: its mappings and descriptors."""
    found = [line for line in Path("/proc/self/maps").read_text().splitlines() if name in line]
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(link.readlink()))
    return [each for each in found if name in each]


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="needs /dev/shm")
@pytest.mark.parametrize("way", ["closed", "dropped"])
def test_memory_goes_with_the_last_view_of_it(client: Any, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", noise.append)
    name, buffer = AISParallelMapDataset(client.bucket("b"))[3]
    segment = buffer.name
    array: Any = np.frombuffer(buffer.buf, np.uint8)
    if way == "closed":
        buffer.close()
    else:
        del buffer
        gc.collect()
    assert not Path("/dev/shm", segment).exists()
    assert array.tobytes() == OBJECTS[name]
    assert held(segment)
    del array
    gc.collect()
    if way == "closed":
        buffer.close()
    assert held(segment) == []
    assert noise == []


@pytest.mark.skipif(not Path("/dev/shm").exists(), reason="needs /dev/shm")
def test_a_process_that_ends_with_a_view_leaves_nothing_and_says_nothing() -> None:
    code = """
import numpy as np
from datapipes.datasets.ais_parallel import SharedBuffer
buffer = SharedBuffer(8)
array = np.frombuffer(buffer.buf, np.uint8)
closed = SharedBuffer(8)
other = np.frombuffer(closed.buf, np.uint8)
closed.close()
print(buffer.name, closed.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stderr == ""
    assert len(done.stdout.split()) == 2
    assert not any(Path("/dev/shm", name).exists() for name in done.stdout.split())


def test_parallel_reads_leave_no_memory_behind_when_they_fail(client: Any) -> None:
    dataset = AISParallelMapDataset(client.bucket("b").objects(obj_names=["gone"]))
    before = set(Path("/dev/shm").glob("psm_*"))
    with pytest.raises(FileMissingError):
        dataset[0]
    assert set(Path("/dev/shm").glob("psm_*")) - before == set()
    with pytest.raises(ValueError, match="`num_workers` must be at least 2"):
        AISParallelMapDataset(client.bucket("b"), num_workers=1)[0]
