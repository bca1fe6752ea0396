"""FileDataset: batches read at once, labels from folders, every form of output, and clear errors."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Subset

from datapipes.backends.memory import MemoryBackend
from datapipes.datasets import FileDataset
from datapipes.errors import (
    FileMissingError,
    IndexFileError,
    OptionError,
    SizeMismatchError,
    UrlError,
)
from datapipes.index import FileIndex

ROOT = "memory://dataset-unit/train"
NAMES = [f"{ROOT}/{folder}/{i}.bin" for folder in ("cat", "dog", "eel") for i in range(4)]


FORMS = {"bytes": "bytes", "bytearray": "bytearray", "view": "memoryview", "tensor": "Tensor"}


def content(url: str) -> bytes:
    folder, name = url.split("/")[-2:]
    return folder.encode() * int(name[0])


@pytest.fixture(autouse=True)
def store() -> Iterator[MemoryBackend]:
    backend, other = MemoryBackend("dataset-unit"), MemoryBackend("dataset-other")
    for name in NAMES:
        backend.write(name, content(name))
    other.write("memory://dataset-other/x/1.bin", b"other")
    yield backend
    backend.delete()
    other.delete()


def test_samples_are_the_files_in_path_order() -> None:
    dataset = FileDataset(ROOT)
    assert len(dataset) == len(NAMES)
    assert [dataset[i] for i in range(len(NAMES))] == [content(name) for name in NAMES]
    assert dataset[-1] == content(NAMES[-1])
    assert dataset[np.int64(3)] == content(NAMES[3])  # type: ignore[index]
    assert dataset.fingerprint == FileIndex.build(ROOT).fingerprint


@pytest.mark.parametrize("position", [12, -13, 10**9, 1 << 63, 1 << 70])
def test_position_out_of_range_is_an_index_error(position: int) -> None:
    dataset = FileDataset(ROOT)
    with pytest.raises(IndexError):
        dataset[position]
    with pytest.raises(IndexError):
        dataset.__getitems__([0, position])


@pytest.mark.parametrize("position", [-13, 12, np.int64(-13), np.int8(12), np.uint64(1 << 63), -(1 << 63)])
def test_a_position_out_of_range_is_named_as_it_was_given(position: Any) -> None:
    with pytest.raises(IndexError, match=rf"(?<![-\d]){position}(?!\d).* 12 names"):
        FileDataset(ROOT).__getitems__([position])


@pytest.mark.parametrize("positions", [[2.5], ["1"], [None], [float("nan")], [[1]], 3, [True, "x"]])
def test_positions_that_are_no_integers_are_an_index_error(positions: Any) -> None:
    with pytest.raises(IndexError, match="integers"):
        FileDataset(ROOT).__getitems__(positions)


def test_iteration_over_the_dataset_ends() -> None:
    assert list(FileDataset(ROOT)) == [content(name) for name in NAMES]  # type: ignore[call-overload]


def test_batch_comes_in_the_order_asked_for_with_repeats() -> None:
    positions = [5, 0, 5, -1, 7]
    dataset = FileDataset(ROOT)
    wanted = [content(NAMES[position]) for position in positions]
    assert dataset.__getitems__(positions) == wanted
    assert dataset.__getitems__(np.array(positions)) == wanted
    assert dataset.__getitems__([]) == []
    assert Subset(dataset, positions).__getitems__([0, 4]) == [wanted[0], wanted[4]]


def test_folder_labels_are_those_of_image_folder() -> None:
    dataset = FileDataset(ROOT, labels="folder")
    assert dataset.classes == ["cat", "dog", "eel"]
    assert dataset.class_to_idx == {"cat": 0, "dog": 1, "eel": 2}
    assert dataset.__getitems__([0, 5, 11]) == [
        (content(NAMES[0]), 0),
        (content(NAMES[5]), 1),
        (content(NAMES[11]), 2),
    ]


def test_folder_labels_take_the_first_folder_below_the_root(store: MemoryBackend) -> None:
    store.write(f"{ROOT}/ant/deep/er/9.bin", b"deep")
    dataset = FileDataset(ROOT, labels="folder")
    assert dataset.classes == ["ant", "cat", "dog", "eel"]
    assert dataset[0] == (b"deep", 0)
    above = FileDataset("memory://dataset-unit", labels="folder")
    assert above.classes == ["train"]


def test_folder_labels_of_several_roots_share_their_classes(store: MemoryBackend) -> None:
    store.write("memory://dataset-unit/more/dog/1.bin", b"dog")
    store.write("memory://dataset-unit/more/ape/1.bin", b"ape")
    dataset = FileDataset([ROOT, "memory://dataset-unit/more/"], labels="folder")
    assert dataset.classes == ["ape", "cat", "dog", "eel"]
    assert [label for _, label in dataset.__getitems__([0, 4, 12, 13])] == [1, 2, 0, 2]


def test_folder_labels_of_an_index_start_below_what_all_names_share() -> None:
    assert FileDataset(FileIndex.from_entries(NAMES), labels="folder").classes == ["cat", "dog", "eel"]
    shuffled = FileIndex.from_entries([*NAMES[::2], *NAMES[1::2]])
    assert FileDataset(shuffled, labels="folder").classes == ["cat", "dog", "eel"]
    one = FileDataset(FileIndex.from_entries(NAMES[:4]), labels="folder")
    assert one.classes == ["cat"]
    assert one[3] == (content(NAMES[3]), 0)


def test_folder_names_are_shown_decoded(store: MemoryBackend) -> None:
    store.write(f"{ROOT}/100%25/1.bin", b"x")
    dataset = FileDataset(ROOT, labels="folder")
    assert dataset.classes[0] == "100%"
    assert dataset[0] == (b"x", 0)


def test_file_outside_every_folder_is_refused_by_name(store: MemoryBackend) -> None:
    store.write(f"{ROOT}/stray.bin", b"x")
    with pytest.raises(OptionError, match=r"train/stray\.bin"):
        len(FileDataset(ROOT, labels="folder"))
    assert len(FileDataset(ROOT, labels="folder", masks="[0-9].bin")) == len(NAMES)


def test_label_callable_transform_and_url() -> None:
    def label(url: str) -> str:
        return url[-5]

    dataset = FileDataset(ROOT, labels=label, transform=len, with_url=True)
    assert dataset[2] == (NAMES[2], 6, "2")
    assert FileDataset(ROOT, with_url=True)[2] == (NAMES[2], content(NAMES[2]))
    with pytest.raises(OptionError, match="classes"):
        dataset.classes  # noqa: B018 - reading it raises


def test_views_and_tensors_share_one_piece_of_memory() -> None:
    positions = [1, 4, 9, 0]
    wanted = [content(NAMES[position]) for position in positions]
    views = FileDataset(ROOT, output="view").__getitems__(positions)
    assert [bytes(view) for view in views] == wanted
    tensors = FileDataset(ROOT, output="tensor").__getitems__(positions)
    assert [bytes(tensor.tolist()) for tensor in tensors] == wanted
    assert all(tensor.dtype == torch.uint8 and tensor.dim() == 1 for tensor in tensors)
    assert len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == 1


@pytest.mark.parametrize("output", ["bytes", "bytearray", "view", "tensor"])
def test_unknown_sizes_and_several_stores(output: Any) -> None:
    names = [*NAMES[1:3], "memory://dataset-other/x/1.bin", NAMES[7]]
    wanted = [content(NAMES[1]), content(NAMES[2]), b"other", content(NAMES[7])]
    for index in (FileIndex.from_entries(names), FileIndex.from_entries(NAMES), FileIndex.build(names)):
        dataset = FileDataset(index, output=output)
        expected = wanted if len(dataset) == 4 else [content(name) for name in NAMES[:4]]
        got = dataset.__getitems__(range(4))
        assert {type(x).__name__ for x in got} == {FORMS[output]}
        assert [bytes(x.tolist() if output == "tensor" else x) for x in got] == expected
        room = bytearray(100)
        spans = dataset.read_into(range(4), room)
        assert [bytes(room[start:end]) for start, end in spans] == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: bytearray(64),
        lambda: np.zeros(16, np.float32),
        lambda: torch.zeros(64, dtype=torch.uint8),
        lambda: torch.zeros(4, 4, dtype=torch.float32, requires_grad=True),
    ],
    ids=["bytearray", "numpy", "bytes tensor", "float tensor"],
)
def test_read_into_fills_the_callers_memory(make: Any) -> None:
    out = make()
    spans = FileDataset(ROOT).read_into([3, 0, 5], out)
    assert spans == [(0, 9), (9, 9), (9, 12)]
    raw = bytes(
        out.detach().numpy().tobytes() if isinstance(out, torch.Tensor) else memoryview(out).tobytes()
    )
    assert raw[:12] == content(NAMES[3]) + content(NAMES[5])
    assert raw[12:] == bytes(len(raw) - 12)
    assert FileDataset(ROOT).read_into([], out) == []


@pytest.mark.parametrize(
    "out",
    [bytearray(11), b"x" * 64, torch.zeros(8, 8, dtype=torch.uint8).t(), memoryview(bytearray(64))[::2]],
    ids=["too small", "read-only", "transposed", "strided"],
)
def test_read_into_refuses_memory_that_does_not_do(out: Any) -> None:
    with pytest.raises(OptionError):
        FileDataset(ROOT).read_into([3, 5], out)


def test_nothing_is_listed_before_the_first_use_and_then_once(store: MemoryBackend) -> None:
    dataset = FileDataset(ROOT)
    store.write(f"{ROOT}/cat/4.bin", b"late")
    assert len(dataset) == 13
    store.write(f"{ROOT}/cat/5.bin", b"too late")
    assert len(dataset) == len(pickle.loads(pickle.dumps(dataset))) == 13
    missing = FileDataset("memory://dataset-unit/nowhere")
    with pytest.raises(FileMissingError):
        len(missing)


def test_file_that_vanished_or_shrank_raises(store: MemoryBackend) -> None:
    dataset = FileDataset(ROOT)
    len(dataset)
    store.remove(NAMES[2])
    store.write(NAMES[3], b"c")
    assert dataset.__getitems__([1, 4]) == [content(NAMES[1]), content(NAMES[4])]
    with pytest.raises(FileMissingError, match=r"cat/2\.bin"):
        dataset.__getitems__([1, 2])
    with pytest.raises(SizeMismatchError, match=r"cat/3\.bin"):
        dataset[3]


def test_file_that_grew_is_noticed_when_asked_for(store: MemoryBackend) -> None:
    strict, lenient = FileDataset(ROOT, verify="size"), FileDataset(ROOT)
    len(strict), len(lenient)
    store.write(NAMES[1], b"catcat")
    assert lenient[1] == b"cat"
    with pytest.raises(SizeMismatchError):
        strict[1]


def test_index_path_keeps_the_listing(store: MemoryBackend, tmp_path: Path) -> None:
    path = tmp_path / "names"
    assert len(FileDataset(ROOT, index_path=path)) == 12
    store.write(f"{ROOT}/cat/4.bin", b"late")
    assert len(FileDataset(ROOT, index_path=path)) == 12
    assert len(FileDataset(FileIndex.open(path))) == 12
    for other in (
        FileDataset("memory://dataset-unit", index_path=path),
        FileDataset(ROOT, index_path=path, masks="1*"),
        FileDataset(ROOT, index_path=path, recursive=False),
    ):
        with pytest.raises(IndexFileError, match="index_path"):
            len(other)
    many = tmp_path / "many"
    for _ in range(2):
        assert len(FileDataset(NAMES, index_path=many)) == 12
    with pytest.raises(IndexFileError, match="index_path"):
        len(FileDataset(NAMES[:-1], index_path=many))
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(IndexFileError):
        len(FileDataset(ROOT, index_path=path))


def test_stats_count_what_was_read() -> None:
    dataset = FileDataset(ROOT)
    dataset.__getitems__([1, 2, 3])
    dataset[1]
    stats = dataset.stats()
    assert (stats["samples"], stats["batches"], stats["bytes"]) == (4, 2, 21)
    assert stats["wait_s"] > 0


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"output": "array"}, OptionError),
        ({"labels": "folders"}, OptionError),
        ({"transform": 3}, OptionError),
        ({"verify": "sizes"}, OptionError),
        ({"max_in_flight": 0}, OptionError),
        ({"timeout_s": -1}, OptionError),
        ({"masks": 3}, OptionError),
        ({"source": 5}, UrlError),
        ({"source": "daos://pool"}, UrlError),
    ],
    ids=str,
)
def test_absurd_options_are_refused_at_once(options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        FileDataset(**{"source": ROOT, **options})
    if "source" not in options and "masks" not in options:
        with pytest.raises(error):
            FileDataset(**{"source": FileIndex.from_entries(NAMES), **options})


def test_listing_options_do_not_go_with_an_index(tmp_path: Path) -> None:
    index = FileIndex.from_entries(NAMES)
    for options in ({"masks": "*"}, {"recursive": False}, {"index_path": tmp_path / "x"}):
        with pytest.raises(OptionError, match="index"):
            FileDataset(index, **options)


def exhausted(_: Any) -> Any:
    return next(iter(()))


@pytest.mark.parametrize("options", [{"transform": exhausted}, {"labels": exhausted}, {"resolve": exhausted}])
@pytest.mark.parametrize("batch_size", [None, 5])
def test_a_function_that_raises_stop_iteration_loses_no_samples(
    options: dict[str, Any], batch_size: int | None
) -> None:
    loader: Any = DataLoader(FileDataset(ROOT, **options), batch_size=batch_size, collate_fn=list)
    with pytest.raises(RuntimeError, match="exhausted raised StopIteration") as raised:
        list(loader)
    assert isinstance(raised.value.__cause__, StopIteration)
