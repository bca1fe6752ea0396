"""ResumableSampler: every sample once, the same order for the same seed, exact resume in every loader."""

from __future__ import annotations

import collections
import json
import pickle
from collections.abc import Iterable, Iterator
from importlib import metadata
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, ConcatDataset, DataLoader, Dataset, Subset, random_split

from datapipes.datasets.samplers import ResumableSampler
from datapipes.errors import OptionError, StateError

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")  # torchdata's call

N = 103


class Numbers(Dataset[int]):
    """Delivers the index itself."""

    def __init__(self, count: int = N) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def as_list(batch: Any) -> list[int]:
    return batch.tolist() if isinstance(batch, torch.Tensor) else list(batch)


def flatten(batches: Iterable[Any]) -> list[int]:
    return [index for batch in batches for index in as_list(batch)]


@pytest.mark.parametrize("count", [0, 1, 2, 7, N, 20_001])
def test_one_epoch_gives_every_sample_once(count: int) -> None:
    order = list(ResumableSampler(count))
    assert sorted(order) == list(range(count))
    assert len(ResumableSampler(count)) == count


def test_order_is_shuffled_and_depends_on_seed_and_epoch_alone() -> None:
    sampler = ResumableSampler(N, seed=3)
    epochs = [list(sampler) for _ in range(3)]
    torch.manual_seed(99)
    again = ResumableSampler(Numbers(), seed=3)
    assert [list(again) for _ in range(3)] == epochs
    assert len({tuple(epoch) for epoch in [*epochs, range(N)]}) == 4
    assert list(ResumableSampler(N, seed=4)) != epochs[0]


def test_set_epoch_names_the_next_iteration() -> None:
    epochs = ResumableSampler(N, seed=1)
    wanted = [list(epochs) for _ in range(5)]
    sampler = ResumableSampler(N, seed=1)
    sampler.set_epoch(3)
    assert [list(sampler), list(sampler)] == wanted[3:5]
    sampler.set_epoch(0)
    assert list(sampler) == wanted[0]


def test_iterators_never_asked_for_an_item_take_no_epoch() -> None:
    sampler, reference = ResumableSampler(N), ResumableSampler(N)
    iter(sampler), iter(sampler)
    assert list(sampler) == list(reference)
    iter(sampler)
    assert list(sampler) == list(reference)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8, 200])
@pytest.mark.parametrize("shuffle", [True, False])
def test_ranks_share_the_samples_out(world_size: int, shuffle: bool) -> None:
    whole = list(ResumableSampler(N, shuffle=shuffle))
    for uneven in ("keep", "pad", "drop"):
        samplers = [
            ResumableSampler(N, rank=rank, world_size=world_size, uneven=uneven, shuffle=shuffle)
            for rank in range(world_size)
        ]
        shares = [list(sampler) for sampler in samplers]
        lengths = [len(sampler) for sampler in samplers]
        assert lengths == [len(share) for share in shares]
        counts = collections.Counter(index for share in shares for index in share)
        if uneven == "keep":
            assert counts == collections.Counter(range(N))
            assert max(lengths) - min(lengths) <= 1
            assert all(share == whole[rank::world_size] for rank, share in enumerate(shares))
        elif uneven == "pad":
            assert set(counts) == set(range(N))
            assert set(lengths) == {-(-N // world_size)}
        else:
            assert set(counts.values()) <= {1}
            assert set(lengths) == {N // world_size}


def test_rank_comes_from_the_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = list(ResumableSampler(N))
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert list(ResumableSampler(N)) == whole[1::3]


def test_rank_comes_from_torch_distributed_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("SLURM_PROCID", "1")
    monkeypatch.setenv("SLURM_NTASKS", "3")
    sampler = ResumableSampler(N, shuffle=False)
    assert len(sampler) == 34
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        assert len(sampler) == N
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.parametrize("batch_size", [None, 1, 10, 64, 1000])
def test_state_at_every_item_resumes_exactly(batch_size: int | None) -> None:
    options: dict[str, Any] = {"seed": 5, "rank": 1, "world_size": 2, "batch_size": batch_size}
    sampler: ResumableSampler[Any] = ResumableSampler(N, **options)
    reference: ResumableSampler[Any] = ResumableSampler(N, **options)
    epochs = [list(reference) for _ in range(3)]
    for epoch in range(2):
        walk = iter(sampler)
        states = [sampler.state_dict()]
        for _ in epochs[epoch]:
            next(walk)
            states.append(sampler.state_dict())
        for position, state in enumerate(states):
            resumed: ResumableSampler[Any] = ResumableSampler(N, **options)
            resumed.load_state_dict(json.loads(json.dumps(pickle.loads(pickle.dumps(state)))))
            assert resumed.state_dict() == state
            assert list(resumed) == epochs[epoch][position:]
            assert list(resumed) == epochs[epoch + 1]


def test_state_size_does_not_grow() -> None:
    sampler = ResumableSampler(1_000_000)
    walk = iter(sampler)
    first = len(json.dumps(sampler.state_dict()))
    for _ in range(10_000):
        next(walk)
    assert len(json.dumps(sampler.state_dict())) < first + 16


def test_state_is_a_copy() -> None:
    sampler = ResumableSampler(N)
    walk = iter(sampler)
    next(walk)
    state = sampler.state_dict()
    state["shape"]["seed"] = 7
    state["position"] = 50
    assert sampler.state_dict()["position"] == 1
    assert sampler.state_dict()["shape"]["seed"] == 0


def test_state_wins_over_set_epoch_for_the_epoch_it_resumes() -> None:
    reference = ResumableSampler(N)
    epochs = [list(reference) for _ in range(3)]
    sampler = ResumableSampler(N)
    list(sampler)
    walk = iter(sampler)
    for _ in range(10):
        next(walk)
    resumed = ResumableSampler(N)
    resumed.load_state_dict(sampler.state_dict())
    resumed.set_epoch(0)
    assert list(resumed) == epochs[1][10:]
    assert list(resumed) == epochs[2]


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"data_source": N + 1}, "count"),
        ({"seed": 1}, "seed"),
        ({"world_size": 3}, "world_size"),
        ({"uneven": "pad"}, "uneven"),
        ({"shuffle": False}, "seed"),
    ],
)
def test_state_of_another_sampler_is_refused(other: dict[str, Any], named: str) -> None:
    options: dict[str, Any] = {"data_source": N, "rank": 0, "world_size": 2}
    state = ResumableSampler(**options).state_dict()
    with pytest.raises(StateError, match=named):
        ResumableSampler(**{**options, **other}).load_state_dict(state)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kind": "something"},
        {"shape": None},
        {"shape": 3},
        {"shape": "count"},
        {"epoch": -1},
        {"position": -1},
        {"position": N + 1},
        {"position": "3"},
    ],
)
def test_damaged_state_is_refused(change: dict[str, Any]) -> None:
    sampler = ResumableSampler(N)
    with pytest.raises(StateError):
        sampler.load_state_dict({**sampler.state_dict(), **change})
    with pytest.raises(StateError):
        sampler.load_state_dict({})
    assert len(list(sampler)) == N


def test_data_of_another_fingerprint_is_refused() -> None:
    class Marked(Numbers):
        fingerprint = "a"

    class Other(Numbers):
        fingerprint = "b"

    with pytest.raises(StateError, match="fingerprint"):
        ResumableSampler(Other()).load_state_dict(ResumableSampler(Marked()).state_dict())


class Marked(Numbers):
    def __init__(self, fingerprint: Any, count: int = 10) -> None:
        super().__init__(count)
        self.fingerprint = fingerprint


def split(seed: int, data: Any) -> Any:
    return random_split(data, [7, 3], generator=torch.Generator().manual_seed(seed))[0]


WRAPPED: dict[str, tuple[Any, Any]] = {
    "split": (split(1, Marked("a")), split(2, Marked("a"))),
    "split without a fingerprint": (split(1, Numbers(10)), split(2, Numbers(10))),
    "order of indices": (Subset(Marked("a"), [1, 2]), Subset(Marked("a"), [2, 1])),
    "data of a subset": (Subset(Marked("a"), [1, 2]), Subset(Marked("b"), [1, 2])),
    "order of parts": (
        ConcatDataset([Marked("a"), Marked("b")]),
        ConcatDataset([Marked("b"), Marked("a")]),
    ),
    "lengths of parts": (
        ConcatDataset([Numbers(3), Numbers(4)]),
        ConcatDataset([Numbers(4), Numbers(3)]),
    ),
    "nested": (
        ConcatDataset([Subset(split(1, Marked("a")), [0, 1]), Numbers(5)]),
        ConcatDataset([Subset(split(2, Marked("a")), [0, 1]), Numbers(5)]),
    ),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_state_over_another_subset_or_concatenation_is_refused(name: str) -> None:
    one, other = WRAPPED[name]
    assert len(one) == len(other)
    sampler = ResumableSampler(one)
    iterator = iter(sampler)
    first = next(iterator)
    state = json.loads(json.dumps(sampler.state_dict()))
    with pytest.raises(StateError, match=r"fingerprint.*other data"):
        ResumableSampler(other).load_state_dict(state)
    again = ResumableSampler(pickle.loads(pickle.dumps(one)))
    again.load_state_dict(state)
    assert sorted([first, *again]) == list(range(len(one)))


def test_indices_may_be_a_list_a_tensor_or_an_array() -> None:
    state = ResumableSampler(Subset(Numbers(), [3, 1, 2])).state_dict()
    for indices in (torch.tensor([3, 1, 2]), np.array([3, 1, 2], dtype=np.int32), (3, 1, 2)):
        ResumableSampler(Subset(Numbers(), indices)).load_state_dict(state)  # type: ignore[arg-type]


def test_state_that_says_nothing_of_its_data_is_refused_where_they_are_known() -> None:
    state = ResumableSampler(10).state_dict()
    ResumableSampler(Numbers(10)).load_state_dict(state)
    others: list[Any] = [Marked("a"), Subset(Marked("a"), range(10)), ConcatDataset([Numbers(4), Numbers(6)])]
    for data in others:
        with pytest.raises(StateError, match="does not say which data"):
            ResumableSampler(data).load_state_dict(state)


@pytest.mark.parametrize(
    "options",
    [
        {"data_source": -1},
        {"data_source": True},
        {"data_source": iter([])},
        {"seed": -1},
        {"seed": 1.5},
        {"rank": 1},
        {"world_size": 2},
        {"rank": 2, "world_size": 2},
        {"rank": -1, "world_size": 2},
        {"rank": 0, "world_size": 1 << 63},
        {"data_source": 1 << 63},
        {"uneven": "sometimes"},
        {"batch_size": 0},
        {"drop_last": True},
    ],
)
def test_absurd_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError):
        ResumableSampler(**{"data_source": N, **options})


def test_batches_and_drop_last() -> None:
    flat = list(ResumableSampler(N))
    batches = list(ResumableSampler(N, batch_size=10))
    assert [len(batch) for batch in batches] == [10] * 10 + [3]
    assert flatten(batches) == flat
    assert len(ResumableSampler(N, batch_size=10)) == 11
    dropped: ResumableSampler[list[int]] = ResumableSampler(N, batch_size=10, drop_last=True)
    assert len(dropped) == 10
    assert list(dropped) == batches[:10]
    assert len(list(dropped)) == 10


@pytest.mark.parametrize("workers", [0, 2])
def test_dataloader_delivers_each_epoch_in_order(workers: int) -> None:
    reference = ResumableSampler(N)
    loader = DataLoader(Numbers(), sampler=ResumableSampler(N), batch_size=10, num_workers=workers)
    for _ in range(2):
        assert flatten(loader) == list(reference)


def test_torch_batch_sampler_takes_it() -> None:
    sampler = BatchSampler(ResumableSampler(N), 10, drop_last=False)
    assert flatten(sampler) == list(ResumableSampler(N))


def make_loader(workers: int, how: str, **options: Any) -> Any:
    stateful = pytest.importorskip("torchdata.stateful_dataloader")
    sampler: ResumableSampler[Any]
    if how == "sampler":
        sampler = ResumableSampler(N, seed=2)
        options |= {"sampler": sampler, "batch_size": 10}
    elif how == "batch_sampler":
        sampler = ResumableSampler(N, seed=2, batch_size=10)
        options |= {"batch_sampler": sampler}
    else:
        sampler = ResumableSampler(N, seed=2)
        options |= {"sampler": sampler, "batch_size": None}
    return stateful.StatefulDataLoader(Numbers(), num_workers=workers, **options)


def epochs_of(count: int) -> list[list[int]]:
    reference = ResumableSampler(N, seed=2)
    return [list(reference) for _ in range(count)]


def items_of(batches: Iterable[Any]) -> Iterator[int]:
    for batch in batches:
        yield from (
            as_list(batch) if isinstance(batch, (list, torch.Tensor)) and batch_dim(batch) else [int(batch)]
        )


def batch_dim(batch: Any) -> int:
    return batch.dim() if isinstance(batch, torch.Tensor) else 1


def empty_pass_is_upstreams(how: str) -> bool:
    """torchdata 0.9 remembers a used-up sampler: its state at an epoch's end starts with an empty pass."""
    return how == "sampler" and metadata.version("torchdata").startswith("0.9")


def passes(loader: Any, count: int, how: str) -> list[list[int]]:
    found = [list(items_of(loader)) for _ in range(count)]
    if empty_pass_is_upstreams(how) and not found[0]:
        return [*found[1:], list(items_of(loader))]
    return found


@pytest.mark.parametrize("how", ["sampler", "batch_sampler", "unbatched"])
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_dataloader_resumes_exactly(workers: int, how: str) -> None:
    epochs = epochs_of(4)
    for epoch in (0, 1):
        for stop in [0, 1, 5, 10] if how != "unbatched" else [0, 1, 50, N - 1]:
            loader = make_loader(workers, how)
            for earlier in epochs[:epoch]:
                assert list(items_of(loader)) == earlier
            iterator = iter(loader)
            got = list(items_of(next(iterator) for _ in range(stop)))
            state = pickle.loads(pickle.dumps(loader.state_dict()))
            del iterator, loader
            torch.manual_seed(stop)
            resumed = make_loader(workers, how)
            resumed.load_state_dict(state)
            first, second, third = passes(resumed, 3, how)
            assert [got + first, second, third] == epochs[epoch : epoch + 3]


@pytest.mark.parametrize("how", ["sampler", "batch_sampler", "unbatched"])
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_dataloader_state_after_the_last_batch_leaves_nothing(workers: int, how: str) -> None:
    epochs = epochs_of(3)
    loader = make_loader(workers, how)
    iterator = iter(loader)
    assert list(items_of(next(iterator) for _ in range(len(loader)))) == epochs[0]
    resumed = make_loader(workers, how)
    resumed.load_state_dict(loader.state_dict())
    assert [list(items_of(resumed)) for _ in range(3)] == [[], *epochs[1:]]


@pytest.mark.parametrize("how", ["sampler", "batch_sampler", "unbatched"])
@pytest.mark.parametrize("workers", [0, 2])
def test_stateful_dataloader_state_of_a_finished_epoch_starts_the_next(workers: int, how: str) -> None:
    epochs = epochs_of(3)
    loader = make_loader(workers, how)
    assert list(items_of(loader)) == epochs[0]
    resumed = make_loader(workers, how)
    resumed.load_state_dict(loader.state_dict())
    assert passes(resumed, 2, how) == epochs[1:]


def test_stateful_dataloader_with_persistent_workers_counts_epochs() -> None:
    loader = make_loader(2, "sampler", persistent_workers=True)
    assert [list(items_of(loader)) for _ in range(3)] == epochs_of(3)


def test_counts_may_be_numpys_integers() -> None:
    make: Any = ResumableSampler
    odd: Any = {
        "seed": np.int64(3),
        "batch_size": np.uint8(4),
        "rank": np.int32(1),
        "world_size": np.int64(2),
    }
    sampler = make(Numbers(), **odd)
    sampler.set_epoch(np.int64(2))
    walk = iter(sampler)
    next(walk)
    plain = make(Numbers(), **{key: int(value) for key, value in odd.items()})
    plain.load_state_dict(json.loads(json.dumps(sampler.state_dict())))
    assert list(plain) == list(walk)
    for wrong in ({"seed": each} for each in (True, np.bool_(True), 1.0, np.float64(1), "1", None)):
        with pytest.raises(OptionError, match="seed must be an integer of at least 0"):
            make(Numbers(), **wrong)
    odd["batch_size"] = np.int64(0)
    with pytest.raises(OptionError, match="batch_size must be an integer of at least 1"):
        make(Numbers(), **odd)
