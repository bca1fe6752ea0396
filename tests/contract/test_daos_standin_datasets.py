"""The drop-ins for pydaos.torch on DAOS: every start method, exact resume, samples of their own."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("torch")

from torch.utils.data import DataLoader

from datapipes.backends.registry import backend_for
from datapipes.datasets import ResumableSampler
from datapipes.datasets.daos import Dataset, IterableDataset

from .standin import StandIn, available

pytestmark = [
    *available,
    pytest.mark.timeout(180),
    pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning"),  # torchdata's call
]

FILES = 50
BATCH = 4

_containers = itertools.count()


@pytest.fixture
def container(standin: StandIn, fresh_forkserver: None) -> Iterator[str]:
    name = f"datasets{next(_containers)}"
    for number in range(FILES):
        file = standin.root / "tank" / name / "samples" / f"{number % 3}" / f"{number:03}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"%d " % number * (1 + number % 7 * 3000))
    Dataset("tank", name)  # loads the libraries
    standin.reset()
    yield name
    standin.forget()
    assert not standin.left()


IN_PATH_ORDER = sorted(range(FILES), key=lambda number: (number % 3, number))


def stamped(sample: bytearray) -> int:
    """The number that a sample is full of; the sample is written to."""
    assert type(sample) is bytearray
    (number,) = set(map(int, sample.split()))
    sample[:1] = b"!"
    sample.extend(b"grows")
    return number


def as_it_is(batch: Any) -> Any:
    return batch


def numbers(batches: Any) -> list[int]:
    return [int(number) for batch in batches for number in batch]


@pytest.mark.parametrize("context", ["fork", "forkserver", "spawn"])
@pytest.mark.parametrize("kind", [Dataset, IterableDataset])
def test_workers_of_every_start_method_read_every_sample_once(
    container: str, kind: Any, context: str
) -> None:
    dataset = kind("tank", container, "/samples", transform_fn=stamped)
    assert numbers([[*dataset]]) == IN_PATH_ORDER  # the parent has connected
    loader = DataLoader(
        dataset,
        batch_size=BATCH,
        num_workers=2,
        multiprocessing_context=context,
        persistent_workers=True,
        worker_init_fn=dataset.worker_init,
        collate_fn=as_it_is,
    )
    for _ in range(2):
        delivered = numbers(loader)
        assert sorted(delivered) == list(range(FILES))
        assert kind is IterableDataset or delivered == IN_PATH_ORDER
    assert numbers([[*dataset]]) == IN_PATH_ORDER  # and goes on


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("taken", [0, 1, 6, 13])
def test_both_go_on_exactly_where_they_were(container: str, workers: int, taken: int) -> None:
    stateful = pytest.importorskip("torchdata.stateful_dataloader").StatefulDataLoader

    def mapped() -> Any:
        dataset = Dataset("tank", container, "/samples", transform_fn=stamped)
        return stateful(dataset, BATCH, num_workers=workers, sampler=ResumableSampler(dataset, seed=2))

    def iterated() -> Any:
        dataset = IterableDataset("tank", container, "/samples", transform_fn=stamped, seed=5)
        return stateful(dataset, BATCH, num_workers=workers)

    for make in (mapped, iterated):
        whole = make()
        first, second = numbers(whole), numbers(whole)
        assert sorted(first) == sorted(second) == list(range(FILES))
        loader = make()
        iterator = iter(loader)
        before = numbers(next(iterator) for _ in range(taken))
        resumed = make()
        resumed.load_state_dict(loader.state_dict())
        assert before + numbers(resumed) == first
        assert numbers(resumed) == second


def test_samples_are_read_whole_by_path_and_by_handle(standin: StandIn, container: str) -> None:
    dataset = Dataset("tank", container, "/samples")
    expected = [(standin.root / "tank" / container / path[1:]).read_bytes() for path, _ in dataset.objects]
    assert [size for _, size in dataset.objects] == [len(content) for content in expected]
    for _ in range(2):  # the second time by handles
        samples = dataset.__getitems__(range(FILES))
        assert samples == expected
        for sample in samples:
            sample[:] = b"changed"
    assert [dataset[position] for position in range(FILES)] == expected
    assert list(IterableDataset("tank", container, "/samples", batch_size=7)) == expected
    assert backend_for(f"daos://tank/{container}/").stats()["handle_hits"] >= 2 * FILES
