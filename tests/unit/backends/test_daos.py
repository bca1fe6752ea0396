from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from datapipes.backends.daos import ROOT_VARIABLE, DaosBackend
from datapipes.errors import ContainerMissingError, FileMissingError, UrlError
from datapipes.records import ReadRequest

URL = "daos://tank/train/a"


def make(root: Path, content: str, container: str = "train") -> None:
    (root / "tank" / container).mkdir(parents=True)
    (root / "tank" / container / "a").write_text(content)


WITHOUT_LIBRARIES = """
from datapipes.backends.daos import DaosBackend
from datapipes.errors import BackendUnavailableError
from datapipes.records import ReadRequest

url = "daos://tank/train/a"
backend = DaosBackend("tank", "train")  # making one is no work, and no error
for call in (
    lambda: backend.read(url),
    lambda: list(backend.list("daos://tank/train/")),
    lambda: backend.read_many([ReadRequest(url)]),
    lambda: backend.read_batch([ReadRequest(url)]),
    lambda: backend.read_files([url], [1]),
    lambda: backend.stat(url),
    lambda: backend.write(url, b""),
    lambda: backend.remove(url),
):
    try:
        call()
    except BackendUnavailableError as error:
        said = str(error)
        assert isinstance(error, ImportError)
        ways = ("daos-client", "DATAPIPES_LIBDFS_DIR", "DATAPIPES_DAOS_ROOT=/dir,", "/dir/tank/train")
        for words in ("libdaos", *ways):
            assert words in said, said
        print("told")
"""


def test_without_libraries_and_variable_every_call_names_both_ways_out() -> None:
    """In a process of its own: libraries stay loaded."""
    variables = {name: value for name, value in os.environ.items() if name != ROOT_VARIABLE}
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_LIBRARIES],
        env={**variables, "DATAPIPES_LIBDFS_DIR": "/nowhere"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert told.stdout.split() == ["told"] * 8, told.stderr


def test_variable_is_read_when_work_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = DaosBackend("tank", "train")
    for name in ("one", "two"):
        make(tmp_path / name, name)
        monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / name))
        assert backend.read(URL) == name.encode()
        assert [entry.url for entry in backend.list("daos://tank/train")] == [URL]


def read_and_send(backend: DaosBackend, pipe: Connection) -> None:
    with pipe:
        pipe.send(backend.read(URL))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_variable_of_the_moment_travels_to_workers(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context: Any = multiprocessing.get_context(method)
    backend = DaosBackend("tank", "train")
    for name in ("one", "two"):  # a forkserver has the variables of the time of the first
        make(tmp_path / name, name)
        monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / name))
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=read_and_send, args=(backend, send))
        child.start()
        send.close()
        with receive:
            assert receive.poll(30)
            assert receive.recv() == name.encode()
        child.join(30)


def test_pickled_back_end_of_another_day_goes_by_the_variable_of_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "then", "then")
    make(tmp_path / "now", "now")
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "then"))
    saved = pickle.dumps(DaosBackend("tank", "train"))
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "now"))
    code = f"import pickle, sys; sys.stdout.buffer.write(pickle.loads({saved!r}).read({URL!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    assert done.stdout == b"now"
    assert pickle.loads(saved).read(URL) == b"now"


def test_missing_container_is_named_with_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    make(tmp_path, "", container="other")
    with pytest.raises(ContainerMissingError, match=r"tank/train.*is no directory"):
        list(DaosBackend("tank", "train").list("daos://tank/train/"))
    (tmp_path / "tank/train").write_text("a file")
    with pytest.raises(ContainerMissingError):
        DaosBackend("tank", "train").read(URL)


def test_container_made_after_the_first_try_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    backend = DaosBackend("tank", "train")
    with pytest.raises(ContainerMissingError):
        backend.read(URL)
    make(tmp_path, "there")
    assert backend.read(URL) == b"there"


def test_container_removed_while_open_is_missing_and_made_anew_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    make(tmp_path, "first")
    backend = DaosBackend("tank", "train")
    assert backend.read(URL) == b"first"
    shutil.rmtree(tmp_path / "tank/train")
    with pytest.raises(ContainerMissingError):
        backend.read(URL)
    make(tmp_path, "second")
    assert backend.read(URL) == b"second"
    with pytest.raises(FileMissingError):
        backend.read("daos://tank/train/b")


@pytest.mark.parametrize("url", ["daos://tank/train/../train2/a", "daos://tank/train/x/../../a"])
def test_dots_do_not_lead_out_of_the_container(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    make(tmp_path, "ours")
    make(tmp_path, "not ours", container="train2")
    backend = DaosBackend("tank", "train")
    results = list(backend.read_many([ReadRequest(URL), ReadRequest(url), ReadRequest(URL)]))
    assert [result.data for result in results] == [b"ours", None, b"ours"]
    assert type(results[1].error) is UrlError
    for call in (backend.stat, backend.list, backend.remove, backend.open_write):
        with pytest.raises(UrlError, match="leads out"):
            call(url)


def test_leading_slashes_do_not_lead_to_the_machines_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path))
    make(tmp_path, "ours")
    with pytest.raises(FileMissingError):
        DaosBackend("tank", "train").read("daos://tank/train//etc/passwd")


@pytest.mark.parametrize("label", ["", ".", "..", "a/b", "a b", "x" * 128, "ä"])
def test_label_that_daos_would_not_take_raises_url_error(label: str) -> None:
    with pytest.raises(UrlError, match="label"):
        DaosBackend(label, "train")
    with pytest.raises(UrlError, match="label"):
        DaosBackend("tank", label)
    DaosBackend("tank_1.x-y:z", "0f3c7a2e-1111-2222-3333-444455556666")
