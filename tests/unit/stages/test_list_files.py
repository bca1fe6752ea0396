"""``ListFiles``: what is listed, how often, and what stops it."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from datapipes.backends.base import Backend
from datapipes.backends.registry import backend_for
from datapipes.errors import ContainerMissingError, FileMissingError, OptionError, StateError, UrlError
from datapipes.jobs import Job
from datapipes.records import FileEntry
from datapipes.stages import IndexRows, ListFiles, ShuffleFiles

LISTED: list[str] = []


def noted(url: str) -> Backend:
    """A resolver that can be pickled and notes who asks; only listings resolve."""
    LISTED.append(url)
    return backend_for(url)


@pytest.fixture(autouse=True)
def _nothing_listed() -> None:
    LISTED.clear()


def test_sources_follow_each_other_in_path_order(store: Any) -> None:
    b, a = store.fill(3, "b"), store.fill(2, "a/x")
    assert list(ListFiles([f"{store.root}/b", f"{store.root}/a"])) == b + a
    assert list(ListFiles(store.root)) == [*a, *b, f"{store.root}/empty"]


@pytest.mark.parametrize("wrap", [tuple, iter, lambda urls: (u for u in urls), IndexRows])
def test_any_iterable_of_urls_is_a_source(store: Any, wrap: Any) -> None:
    urls = store.fill(2)
    assert list(ListFiles(wrap([f"{store.root}/d"]))) == urls
    assert list(ListFiles(wrap([FileEntry(f"{store.root}/d", 3)]))) == urls


def test_masks_and_recursive_reach_the_listing(store: Any) -> None:
    store.fill(12)
    store.fill(1, "d/below")
    lister = ListFiles(f"{store.root}/d", masks="*1?", recursive=False)
    assert [url[-2:] for url in lister] == ["10", "11"]
    assert len(ListFiles(f"{store.root}/d", masks=["*10", "*00"])) == 3


def test_one_job_lists_once(store: Any) -> None:
    urls = store.fill(3)
    job = Job.current()
    ordinal = job.next_ordinal()

    def make() -> ListFiles:
        return ListFiles(f"{store.root}/d", resolve=noted, job=job, ordinal=ordinal)

    first = make()
    for stage in (first, make(), pickle.loads(pickle.dumps(first)), ShuffleFiles(make())):
        for _ in range(2):
            stage.reset()
            assert sorted(stage) == urls
    assert len(LISTED) == 1
    other = ListFiles(f"{store.root}/d", resolve=noted, job=job, ordinal=ordinal, masks="*0")
    assert len(list(other)) == 1  # other options are another listing, at the same place too
    assert len(LISTED) == 2


def test_relist_epoch_lists_once_an_epoch_and_sees_new_files(store: Any) -> None:
    urls = store.fill(3)
    job = Job.current()
    ordinal = job.next_ordinal()
    stages = [
        ListFiles(f"{store.root}/d", relist="epoch", resolve=noted, job=job, ordinal=ordinal)
        for _ in range(2)
    ]
    for stage in stages:
        assert list(stage) == urls
    assert len(LISTED) == 1
    more = store.fill(4)
    for stage in stages:
        stage.reset()
        assert list(stage) == more
    assert len(LISTED) == 2


def test_relisted_epochs_before_the_last_leave_nothing_in_the_job(store: Any) -> None:
    store.fill(3)
    stage = ListFiles(f"{store.root}/d", relist="epoch")
    other = ListFiles(f"{store.root}/d", relist="epoch")
    assert len(list(other)) == 3

    def files() -> set[str]:
        return {path.name for path in Job.current().path.glob("index-*")}

    left = files()
    seen = [files() - left]
    for _ in range(5):
        stage.reset()
        assert len(list(stage)) == 3
        seen.append(files() - left)
    assert [len(names) for names in seen] == [0, *[len(seen[1]) * k for k in (1, 2, 2, 2, 2)]]
    assert left <= files()  # of others nothing is deleted
    assert seen[3].isdisjoint(seen[5])


def test_relist_job_keeps_its_names(store: Any) -> None:
    urls = store.fill(3)
    stage = ListFiles(f"{store.root}/d")
    assert list(stage) == urls
    store.fill(4)
    stage.reset()
    assert list(stage) == urls


def test_relisted_epoch_of_changed_data_resumes_at_its_end_only(store: Any) -> None:
    store.fill(3)

    def make() -> ListFiles:
        return ListFiles(f"{store.root}/d", relist="epoch")

    stage = make()
    next(stage)
    middle = stage.get_state()
    list(stage)
    end = stage.get_state()
    more = store.fill(4)
    with pytest.raises(StateError, match="other data"):
        make().reset(middle)
    resumed = make()
    resumed.reset(end)
    assert list(resumed) == more
    fixed = ListFiles(f"{store.root}/d")
    with pytest.raises(StateError, match="other data"):
        fixed.reset(end)


def test_empty_directory_is_an_empty_epoch(store: Any) -> None:
    urls = store.fill(1)
    store.backend.remove(urls[0])
    stage = ListFiles(f"{store.root}/d")
    assert list(stage) == []
    assert list(ListFiles([])) == []
    stage.reset(stage.get_state())
    assert list(stage) == []


def test_missing_source_is_an_error_with_its_url(store: Any) -> None:
    with pytest.raises(FileMissingError) as caught:
        next(ListFiles([f"{store.root}/empty", f"{store.root}/nowhere"]))
    assert caught.value.url == f"{store.root}/nowhere"
    with pytest.raises(ContainerMissingError):
        ListFiles("memory://no-such-store-at-all/d").reset()


def test_listing_that_failed_is_tried_again(store: Any) -> None:
    stage = ListFiles(f"{store.root}/late")
    with pytest.raises(FileMissingError):
        next(stage)
    urls = store.fill(2, "late")
    assert list(stage) == urls
    stage.reset()
    assert stage.get_state()["epoch"] == 1  # the attempt that failed was no epoch


def test_unknown_scheme_names_the_known_ones() -> None:
    with pytest.raises(UrlError, match="memory"):
        next(ListFiles("gopher://x/y"))


@pytest.mark.parametrize("sources", ["", "daos://x", ["memory://a/b", ""], 5, None, [5], ("a", b"b")])
def test_malformed_sources_are_refused_when_made(sources: Any) -> None:
    with pytest.raises(UrlError):
        ListFiles(sources)


def test_malformed_source_of_a_pipe_is_refused_when_read() -> None:
    with pytest.raises(UrlError, match="position 0"):
        next(ListFiles(iter([5])))


@pytest.mark.parametrize("options", [{"masks": 5}, {"masks": [5]}, {"relist": "day"}, {"relist": None}])
def test_absurd_options_are_refused_when_made(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        ListFiles("memory://x/y", **options)


@pytest.mark.parametrize("masks", ["", [], None])
def test_no_mask_lets_every_name_through(store: Any, masks: Any) -> None:
    store.fill(3)
    assert len(ListFiles(f"{store.root}/d", masks=masks)) == 3


def test_iterator_cannot_be_relisted() -> None:
    with pytest.raises(OptionError, match="only once"):
        ListFiles(iter(["memory://x"]), relist="epoch")


def test_constructor_reads_and_lists_nothing() -> None:
    read: list[str] = []

    def sources() -> Iterator[str]:
        read.append("now")
        yield "memory://nowhere"

    ShuffleFiles(ListFiles(sources(), resolve=noted))
    assert LISTED + read == []
