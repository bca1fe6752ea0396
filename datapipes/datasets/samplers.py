"""``ResumableSampler``: shuffles, shards over ranks, and goes on exactly where a saved state says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sized
from typing import Any, Final, TypeVar, overload

from torch.utils.data import Sampler

from datapipes.datasets.fingerprints import fingerprint_of
from datapipes.datasets.rank_order import RankOrder, Uneven
from datapipes.errors import OptionError, StateError
from datapipes.ranks import check_rank, current_rank
from datapipes.stages.shard_files import rank_length
from datapipes.stages.state import (
    EPOCH_KEY,
    FINGERPRINT_KEY,
    KIND_KEY,
    POSITION_KEY,
    VERSION_KEY,
    check_count,
    check_kind,
    match_identity,
    stored_count,
)

__all__ = ["ResumableSampler"]

T_co = TypeVar("T_co", covariant=True)

BLOCK = 8192
"""Indices drawn at a time: numpy's cost per call vanishes, memory does not show."""

VERSION: Final = 1
KIND: Final = "resumable_sampler"
SHAPE_KEY: Final = "shape"


class ResumableSampler(Sampler[T_co]):
    """Indices of a map-style dataset: each exactly once an epoch, in an order that is never stored.

    The order is that of ``shuffle_files`` and ``shard_files`` for the same seed, epoch and ranks: a keyed
    permutation, computed where it is needed, so that resuming costs the same at any position. Each new
    iteration is the next epoch; ``set_epoch`` says which one the next iteration is.

    Use it as ``sampler=`` of a ``StatefulDataLoader`` (whose state is exact with prefetching workers too), or
    of ``torchdata.nodes.SamplerWrapper``. Under a plain ``DataLoader`` the sampler's own state runs ahead of
    what was delivered by what the workers prefetch. With ``batch_size`` it yields lists, for
    ``batch_sampler=``; torch's own ``BatchSampler`` object in that place has no state and loses the epoch.

    A state holds the epoch and the position in samples of this rank; ranks that run in step may share one. It
    belongs to the data: to their ``fingerprint`` where the dataset has one, to what torch's ``Subset`` and
    ``ConcatDataset`` hold, else to their number alone.
    A state taken at the end of an epoch has nothing left: the iteration that loads it is empty (the loaders
    skip it where they know that the epoch was finished) and the next one is the next epoch.

    Args:
        data_source: the dataset, or its length. A dataset is asked for its length when an epoch starts.
        rank, world_size: of this process; both or neither. By default those of ``torch.distributed`` where it
            is initialised, else of the launcher, read when an epoch starts.
        seed: of the permutation; never drawn, never taken from torch.
        shuffle: False keeps the dataset's order.
        uneven: ``"keep"`` gives every sample exactly once, ranks may differ by one sample; ``"pad"`` repeats
            samples from the start of the order, ``"drop"`` leaves the last ones out, so that ranks are equal.
        batch_size: yield lists of so many indices, the last one shorter unless ``drop_last``.
    """

    @overload
    def __init__(
        self: ResumableSampler[int],
        data_source: Sized | int,
        *,
        rank: int | None = ...,
        world_size: int | None = ...,
        seed: int = ...,
        shuffle: bool = ...,
        uneven: Uneven = ...,
    ) -> None: ...

    @overload
    def __init__(
        self: ResumableSampler[list[int]],
        data_source: Sized | int,
        *,
        rank: int | None = ...,
        world_size: int | None = ...,
        seed: int = ...,
        shuffle: bool = ...,
        uneven: Uneven = ...,
        batch_size: int,
        drop_last: bool = ...,
    ) -> None: ...

    def __init__(
        self,
        data_source: Sized | int,
        *,
        rank: int | None = None,
        world_size: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        uneven: Uneven = "keep",
        batch_size: int | None = None,
        drop_last: bool = False,
    ) -> None:
        check_rank(rank, world_size)
        if isinstance(data_source, int):
            check_count("data_source", data_source, least=0, most=sys.maxsize)
        elif not isinstance(data_source, Sized):
            raise OptionError(
                f"data_source must be a dataset with a length, or a length, not {data_source!r}"
            )
        if uneven not in ("keep", "pad", "drop"):
            raise OptionError(f"uneven must be 'keep', 'pad' or 'drop', not {uneven!r}")
        if batch_size is not None:
            batch_size = check_count("batch_size", batch_size, least=1)
        elif drop_last:
            raise OptionError(
                "drop_last needs a batch_size: a DataLoader that batches has a drop_last of its own"
            )
        seed = check_count("seed", seed, least=0)
        self.data_source = data_source
        self.seed = seed
        self.shuffle = shuffle
        self.uneven: Uneven = uneven
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._ranks = rank, world_size
        self._course = _Course(self.order)

    def __iter__(self) -> Iterator[T_co]:
        return self._course.new_walk(self.batch_size, drop_last=self.drop_last)

    def __len__(self) -> int:
        """Samples (with ``batch_size``: batches) of this rank in one epoch."""
        samples = rank_length(self._samples(), *current_rank(*self._ranks), self.uneven)
        if self.batch_size is None:
            return samples
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def order(self, epoch: int) -> RankOrder:
        """What this rank gets in ``epoch``."""
        rank, world_size = current_rank(*self._ranks)
        return RankOrder(
            epoch=epoch,
            samples=self._samples(),
            fingerprint=fingerprint_of(self.data_source),
            rank=rank,
            world_size=world_size,
            seed=self.seed if self.shuffle else None,
            uneven=self.uneven,
        )

    def _samples(self) -> int:
        return self.data_source if isinstance(self.data_source, int) else len(self.data_source)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is ``epoch``, and the ones after it count on; a loaded state goes first."""
        epoch = check_count("epoch", epoch, least=0)
        self._course.next_epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The state of the latest iteration, after what it returned last; small, JSON-able, a fresh copy."""
        return self._course.state()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The next iteration goes on from the state. Raises StateError where it does not fit this sampler."""
        self._course.load(state_dict, None)


class _Course:
    """Which epoch comes next, and where the latest iteration is."""

    def __init__(self, order: Callable[[int], RankOrder]) -> None:
        self.order = order
        self.next_epoch = 0
        self._loaded: tuple[int, int] | None = None  # epoch and position of a state, until it is taken up
        self._walk: _Walk | None = None

    def new_walk(self, batch_size: int | None, *, drop_last: bool) -> _Walk:
        self._walk = _Walk(self, batch_size, drop_last=drop_last)
        return self._walk

    def upcoming(self) -> tuple[int, int]:
        """Epoch and position of the next iteration."""
        return self._loaded or (self.next_epoch, 0)

    def take(self) -> tuple[RankOrder, int]:
        """Start an iteration: its order, and the position to start at."""
        epoch, position = self.upcoming()
        order = self.order(epoch)
        self._loaded, self.next_epoch = None, epoch + 1
        return order, position

    def load(self, state: dict[str, Any], walk: _Walk | None) -> None:
        self._loaded = _checked(state, self.order(0))
        self._walk = walk

    def state(self) -> dict[str, Any]:
        return (self._walk or _Walk(self, None, drop_last=False)).state_dict()


class _Walk(Iterator[Any]):
    """One iteration over one epoch.

    It takes its epoch when the first item is asked for and not before: DataLoader makes two iterators for
    each epoch and StatefulDataLoader up to three, of which one is used.
    """

    def __init__(self, course: _Course, batch_size: int | None, *, drop_last: bool) -> None:
        self._course = course
        self._batch_size = batch_size
        self._drop_last = drop_last
        self._order: RankOrder | None = None
        self._block: list[int] = []
        self._start = 0  # position of the block
        self._at = 0  # next item within the block

    def __next__(self) -> Any:
        size = self._batch_size
        if size is None:
            try:
                index = self._block[self._at]
            except IndexError:
                index = self._refill(1)[0]
            self._at += 1
            return index
        batch = self._block[self._at : self._at + size]
        if len(batch) < size:
            batch = self._refill(size)[:size]
            if len(batch) < size and self._drop_last:
                raise StopIteration
        self._at += len(batch)
        return batch

    def state_dict(self) -> dict[str, Any]:
        if self._order is None:
            epoch, position = self._course.upcoming()
            order = self._course.order(epoch)
        else:
            order, position = self._order, self._start + self._at
        return {
            VERSION_KEY: VERSION,
            KIND_KEY: KIND,
            EPOCH_KEY: order.epoch,
            POSITION_KEY: position,
            SHAPE_KEY: order.shape(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """StatefulDataLoader loads the sampler first, then its iterator: the same state, taken up here."""
        self._course.load(state_dict, self)
        self._take_up()

    def _take_up(self) -> RankOrder:
        self._order, self._start = self._course.take()
        self._block, self._at = [], 0
        return self._order

    def _refill(self, least: int) -> list[int]:
        """The block from the present position on: ``least`` indices or more, fewer only at the end."""
        order = self._order or self._take_up()
        start = self._start + self._at
        stop = min(start + max(least, BLOCK), order.length)
        if start >= stop:
            raise StopIteration
        self._block, self._start, self._at = order.block(start, stop), start, 0
        return self._block


def _checked(state: Any, order: RankOrder) -> tuple[int, int]:
    """Epoch and position of ``state``; StateError unless it is of a sampler with the shape of ``order``."""
    check_kind(state, KIND, VERSION)
    shape = state.get(SHAPE_KEY)
    if isinstance(shape, dict) and shape.get(FINGERPRINT_KEY, "") is None and order.fingerprint is not None:
        raise StateError(
            "the state does not say which data it belongs to: it was saved for a length alone, or by a "
            "release that did not look into Subset and ConcatDataset. Start the epoch anew"
        )
    match_identity(state.get(SHAPE_KEY), order.shape())
    return stored_count(state, EPOCH_KEY), stored_count(state, POSITION_KEY, most=order.longest())
