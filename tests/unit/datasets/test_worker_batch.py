"""Batches that DataLoader's workers send: what arrives, and which way it takes."""

from __future__ import annotations

import copy
import errno
import os
import pickle
from collections.abc import Iterator
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import Any

import pytest
import torch.multiprocessing
from torch.utils.data import DataLoader, Subset

from datapipes.datasets import FileDataset
from datapipes.datasets.worker_batch import WorkerBatch

FILES = 24
CONTENTS = [bytes([number]) * (number * 8000) for number in range(FILES)]

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="Linux alone has memfd_create")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, content in enumerate(CONTENTS):
        (tmp_path / f"class_{number % 2}").mkdir(exist_ok=True)
        (tmp_path / f"class_{number % 2}" / f"{number:03}").write_bytes(content)
    return tmp_path


def in_path_order() -> list[bytes]:
    return CONTENTS[::2] + CONTENTS[1::2]


def as_it_is(batch: list[Any]) -> list[Any]:
    return batch


def backwards(batch: list[Any]) -> list[Any]:
    batch.reverse()
    batch[0] += b"more"
    return batch


def another(batch: list[Any]) -> list[Any]:
    return list(batch)


@pytest.mark.parametrize("start", ["fork", "spawn"])
@pytest.mark.parametrize("output", ["bytes", "bytearray"])
def test_samples_arrive_as_they_were_sent(folder: Path, output: Any, start: str) -> None:
    data = FileDataset(str(folder), output=output)
    options: dict[str, Any] = {"num_workers": 2, "collate_fn": as_it_is, "multiprocessing_context": start}
    batches = list(DataLoader(data, batch_size=10, **options))
    assert [type(batch) for batch in batches] == [list] * 3
    assert [sample for batch in batches for sample in batch] == in_path_order()
    assert {type(sample) for batch in batches for sample in batch} == {type(data[0])}


def test_labels_and_urls_arrive_with_their_samples(folder: Path) -> None:
    data = FileDataset(str(folder), labels="folder", with_url=True)
    here = data.__getitems__(range(FILES))
    (there,) = DataLoader(data, batch_size=FILES, num_workers=1, collate_fn=as_it_is)
    assert there == here
    assert {type(sample) for sample in there} == {tuple}


@pytest.mark.parametrize("collate", [backwards, another])
def test_what_collating_has_made_of_it_is_sent(folder: Path, collate: Any) -> None:
    data = FileDataset(str(folder), output="bytearray")
    here = collate(data.__getitems__(range(FILES)))
    (there,) = DataLoader(data, batch_size=FILES, num_workers=1, collate_fn=collate)
    assert there == here


def test_a_subset_is_no_other(folder: Path) -> None:
    rows = [20, 3, 11]
    loader = DataLoader(Subset(FileDataset(str(folder)), rows), 3, num_workers=1, collate_fn=as_it_is)
    assert list(loader) == [[in_path_order()[row] for row in rows]]


@pytest.fixture
def sharing() -> Iterator[None]:
    """Is as it was, afterwards."""
    before = torch.multiprocessing.get_sharing_strategy()  # type: ignore[no-untyped-call]
    yield
    torch.multiprocessing.set_sharing_strategy(before)  # type: ignore[no-untyped-call]


BATCH = WorkerBatch([bytearray(content) for content in CONTENTS] + [("url", b"x" * 70_000, 3), None])


def test_contents_go_round_the_pipe() -> None:
    pickled = bytes(ForkingPickler.dumps(BATCH))
    assert len(pickled) < 4_000
    assert pickle.loads(pickled) == list(BATCH)


def test_small_batches_go_by_the_pipe() -> None:
    small = WorkerBatch([b"a" * 1000])
    assert pickle.loads(bytes(ForkingPickler.dumps(small))) == list(small)
    assert len(bytes(ForkingPickler.dumps(small))) > 1000


def test_who_shares_no_descriptors_gets_all_by_the_pipe(sharing: None) -> None:
    torch.multiprocessing.set_sharing_strategy("file_system")  # type: ignore[no-untyped-call]
    pickled = bytes(ForkingPickler.dumps(BATCH))
    assert len(pickled) > sum(map(len, CONTENTS))
    assert pickle.loads(pickled) == list(BATCH)


def test_without_a_descriptor_to_be_had_all_goes_by_the_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, flags: int = 0) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "memfd_create", refuse)
    pickled = bytes(ForkingPickler.dumps(BATCH))
    assert len(pickled) > sum(map(len, CONTENTS))
    assert pickle.loads(pickled) == list(BATCH)


def test_elsewhere_it_is_a_list() -> None:
    assert pickle.loads(pickle.dumps(BATCH)) == list(BATCH)
    assert type(copy.deepcopy(BATCH)) is list


def test_nothing_stays_open(folder: Path) -> None:
    data = FileDataset(str(folder))
    loader = DataLoader(data, batch_size=8, num_workers=2, collate_fn=as_it_is, persistent_workers=True)
    list(loader)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        list(loader)
    assert len(os.listdir("/proc/self/fd")) <= before
