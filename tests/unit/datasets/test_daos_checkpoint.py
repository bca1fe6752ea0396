"""Checkpoint: torch.save and torch.load on a container; whole, or not there."""

from __future__ import annotations

import io
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from datapipes.datasets.daos import Checkpoint, Dataset
from datapipes.errors import (
    ContainerMissingError,
    FileMissingError,
    IsDirectoryError,
    OptionError,
    UrlError,
)

STATE = {"weights": torch.arange(100_000, dtype=torch.float32), "step": 7}


def equal(one: Any, other: Any) -> bool:
    return torch.equal(one["weights"], other["weights"]) and one["step"] == other["step"]


@pytest.mark.parametrize("chunk", [0, 1, 4096, 64 << 20])
@pytest.mark.parametrize(("limit", "workers"), [(0, 4), (1, 4), (3, 4), (0, 1), (7, 2)])
def test_what_was_saved_is_loaded(daos_root: Path, chunk: int, limit: int, workers: int) -> None:
    data = os.urandom(2_000) if chunk == 1 else os.urandom(300_001)
    options = {"transfer_chunk_size": chunk, "chunks_limit": limit, "workers": workers}
    with Checkpoint("tank", "train", "/saved", **options) as checkpoint:  # type: ignore[arg-type]
        with checkpoint.writer("run/model.bin") as file:
            for start in range(0, len(data), 70_001):
                assert file.write(memoryview(data)[start : start + 70_001]) > 0
            assert file.tell() == len(data)
        assert (daos_root / "tank/train/saved/run/model.bin").read_bytes() == data
        stream = checkpoint.reader("run/model.bin")
        assert (stream.tell(), stream.read()) == (0, data)
        stream.seek(0, io.SEEK_END)
        stream.write(b"more")  # it is the caller's
        given = io.BytesIO()
        assert checkpoint.reader("run/model.bin", stream=given) is given
        assert (given.tell(), given.read()) == (0, data)


def test_checkpoint_whose_writer_is_never_closed_is_warned_of(daos_root: Path) -> None:
    checkpoint = Checkpoint("tank", "train", "/saved")
    with pytest.warns(RuntimeWarning, match="daos://tank/train/saved/last.pt' was not written"):
        torch.save(STATE, checkpoint.writer("last.pt"))
    assert os.listdir(daos_root / "tank/train/saved") == []


def test_torch_saves_and_loads(daos_root: Path, tmp_path: Path) -> None:
    checkpoint = pickle.loads(pickle.dumps(Checkpoint("tank", container="train", transfer_chunk_size=10_000)))
    with checkpoint.writer("/model.pt") as writer:
        torch.save(STATE, writer)
    with checkpoint.reader("model.pt") as reader:
        assert equal(torch.load(reader, weights_only=True), STATE)
    with (tmp_path / "local.pt").open("w+b") as local:
        assert equal(torch.load(checkpoint.reader("model.pt", local)), STATE)
    assert len(Dataset("tank", "train")) == 1


def test_an_absolute_file_stands_by_itself(daos_root: Path) -> None:
    checkpoint = Checkpoint("tank", "train", prefix="runs/one")  # a prefix begins at the root in any case
    for name in ("a", "/b", "odd #?%25"):
        with checkpoint.writer(name) as file:
            file.write(name.encode())
        assert checkpoint.reader(name).read() == name.encode()
    container = daos_root / "tank/train"
    found = sorted(str(path.relative_to(container)) for path in container.rglob("*") if path.is_file())
    assert found == ["b", "runs/one/a", "runs/one/odd #?%25"]


@pytest.mark.parametrize(
    ("mode", "permissions"), [({}, 0o644), ({"mode": 0o744}, 0o744), ({"mode": 0o600}, 0o600)]
)
def test_files_get_the_mode_that_was_asked_for(
    daos_root: Path, mode: dict[str, Any], permissions: int
) -> None:
    Checkpoint("tank", "train", class_name="OC_SX", file_chunk_size=1 << 20, **mode).writer("model").close()
    assert (daos_root / "tank/train/model").stat().st_mode & 0o7777 == permissions


def test_an_empty_checkpoint_is_empty(daos_root: Path) -> None:
    checkpoint = Checkpoint("tank", "train")
    checkpoint.writer("empty").close()
    assert checkpoint.reader("empty").read() == b""
    assert checkpoint.reader("empty", io.BytesIO()).read() == b""


def test_nothing_appears_before_the_close_or_after_an_error(daos_root: Path) -> None:
    checkpoint = Checkpoint("tank", "train")
    with checkpoint.writer("model") as file:
        file.write(b"the first, and longer")
    replacing = checkpoint.writer("model")
    replacing.write(b"second")
    replacing.flush()
    assert checkpoint.reader("model").read() == b"the first, and longer"
    replacing.close()
    assert checkpoint.reader("model").read() == b"second"
    for name in ("model", "new"):
        with pytest.raises(TypeError), checkpoint.writer(name) as file:
            file.write(b"third" + None)  # type: ignore[operator]  # as a bug would
    assert checkpoint.reader("model").read() == b"second"
    assert [path.name for path in (daos_root / "tank/train").iterdir()] == ["model"]
    with pytest.raises(ValueError, match="closed"):
        replacing.write(b"late")


def test_missing_directories_are_made_unless_told_otherwise(daos_root: Path) -> None:
    checkpoint = Checkpoint("tank", "train", "/ck")
    with pytest.raises(FileMissingError, match="daos://tank/train/ck/"):
        checkpoint.writer("model", ensure_path=False)
    assert not (daos_root / "tank/train/ck").exists()
    checkpoint.writer("model").close()
    with checkpoint.writer("other", False) as file:
        file.write(b"x")
    with Checkpoint("tank", "train").writer("top", ensure_path=False) as file:
        file.write(b"y")
    assert checkpoint.reader("other").read() + checkpoint.reader("/top").read() == b"xy"


def test_errors_name_the_file(daos_root: Path) -> None:
    checkpoint = Checkpoint("tank", "train", "/ck")
    (daos_root / "tank/train/ck/dir").mkdir(parents=True)
    with pytest.raises(FileMissingError, match="daos://tank/train/ck/none"):
        checkpoint.reader("none")
    with pytest.raises(IsDirectoryError, match="dir"):
        checkpoint.reader("dir")
    with pytest.raises(ContainerMissingError, match="nowhere"):
        Checkpoint("tank", "nowhere").reader("model")
    with pytest.raises(UrlError, match="leads out"):
        checkpoint.writer("../../../model")
    for file in (None, ""):
        with pytest.raises(OptionError, match="file is required"):
            checkpoint.reader(file)  # type: ignore[arg-type]  # what old code may have
        with pytest.raises(OptionError, match="file is required"):
            checkpoint.writer(file)  # type: ignore[arg-type]
    wrong: Any
    for wrong in (3, b"x", ["x"]):
        with pytest.raises(OptionError, match="file must be a str"):
            checkpoint.writer(wrong)
        with pytest.raises(OptionError, match="file must be a str"):
            checkpoint.reader(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pool": None}, "pool is required"),
        ({"container": "other"}, "two names"),
        ({"transfer_chunk_size": -1}, "transfer_chunk_size"),
        ({"chunks_limit": -1}, "chunks_limit"),
        ({"file_chunk_size": -1}, "file_chunk_size"),
        ({"workers": 0}, "workers"),
        ({"workers": 5000}, "workers"),
        ({"timeout_s": 0}, "timeout_s"),
        ({"timeout_s": float("inf")}, "timeout_s"),
        ({"transfer_chunk_size": 1 << 63}, "transfer_chunk_size"),
        ({"chunks_limit": 10**9}, "chunks_limit"),
        ({"file_chunk_size": (1 << 64) + 4096}, "file_chunk_size"),
        ({"file_chunk_size": 1 << 63}, "file_chunk_size"),
        ({"mode": 1 << 40}, "mode"),
        ({"open_flags": None}, "open_flags"),
        ({"prefix": None}, "prefix"),
        ({"prefix": b"/saved"}, "prefix"),
        ({"class_name": None}, "class_name"),
        ({"class_name": ""}, "class_name"),
        ({"class_name": "OC_"}, "class_name"),
        ({"class_name": "SX\0"}, "class_name"),
        ({"open_flags": os.O_RDWR}, "O_CREAT"),
        ({"open_flags": os.O_RDWR | os.O_CREAT | os.O_EXCL}, "open_flags"),
        ({"open_flags": os.O_RDWR | os.O_CREAT | os.O_APPEND}, "open_flags"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Checkpoint(**{"pool": "tank", "cont": "train", **arguments})
