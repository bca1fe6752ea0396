"""``ResumableSampler``: shuffles, shards over ranks, and goes on exactly where a saved state says."""

from __future__ import annotations

from collections.abc import Iterator, Sized
from typing import Any, Literal, TypeVar, overload

import numpy as np
from torch.utils.data import Sampler

from datapipes.errors import OptionError, StateError
from datapipes.permutation import Permutation
from datapipes.ranks import check_rank, current_rank

__all__ = ["ResumableSampler"]

T_co = TypeVar("T_co", covariant=True)
Uneven = Literal["keep", "pad", "drop"]

BLOCK = 8192
"""Indices drawn at a time: numpy's cost per call vanishes, memory does not show."""


class ResumableSampler(Sampler[T_co]):
    """Indices of a map-style dataset: each exactly once an epoch, in an order that is never stored.

    The order is that of ``shuffle_files`` and ``shard_files`` for the same seed, epoch and ranks: a keyed
    permutation, computed where it is needed, so that resuming costs the same at any position. Each new
    iteration is the next epoch; ``set_epoch`` says which one the next iteration is.

    Use it as ``sampler=`` of a ``StatefulDataLoader`` (whose state is exact with prefetching workers too), or
    of ``torchdata.nodes.SamplerWrapper``. Under a plain ``DataLoader`` the sampler's own state runs ahead of
    what was delivered by what the workers prefetch. With ``batch_size`` it yields lists, for
    ``batch_sampler=``; torch's own ``BatchSampler`` object in that place has no state and loses the epoch.

    A state holds the epoch and the position in samples of this rank; ranks that run in step may share one.
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

    VERSION = 1
    VERSION_KEY = "version"
    KIND_KEY = "kind"
    KIND = "resumable_sampler"
    EPOCH_KEY = "epoch"
    POSITION_KEY = "position"
    SHAPE_KEY = "shape"

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
            _check_count("data_source", data_source, least=0)
        elif not isinstance(data_source, Sized):
            raise OptionError(f"data_source must be a dataset with a length, or a length, not {data_source!r}")
        if uneven not in ("keep", "pad", "drop"):
            raise OptionError(f"uneven must be 'keep', 'pad' or 'drop', not {uneven!r}")
        if batch_size is not None:
            _check_count("batch_size", batch_size, least=1)
        elif drop_last:
            raise OptionError("drop_last needs a batch_size: a DataLoader that batches has a drop_last of its own")
        _check_count("seed", seed, least=0)
        self.data_source = data_source
        self.seed = seed
        self.shuffle = shuffle
        self.uneven: Uneven = uneven
        self.batch_size = batch_size
        self.drop_last = drop_last
        self._rank = rank
        self._world_size = world_size
        self._next_epoch = 0
        self._pending: tuple[int, int] | None = None  # epoch and position of a loaded state
        self._walk: _Walk | None = None  # the latest iterator, whose position state_dict() tells

    def __iter__(self) -> Iterator[T_co]:
        self._walk = _Walk(self)
        return self._walk

    def __len__(self) -> int:
        """Samples (with ``batch_size``: batches) of this rank in one epoch."""
        samples = len(_Order(self, epoch=0))
        if self.batch_size is None:
            return samples
        return samples // self.batch_size if self.drop_last else -(-samples // self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is ``epoch``, and the ones after it count on; a loaded state goes first."""
        _check_count("epoch", epoch, least=0)
        self._next_epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """The state of the latest iteration, after what it returned last; small, JSON-able, a fresh copy."""
        return (self._walk or _Walk(self)).state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on from ``state``. Raises StateError where it does not fit this sampler."""
        self._pending = self._checked(state)
        self._walk = None

    def _checked(self, state: dict[str, Any]) -> tuple[int, int]:
        if not isinstance(state, dict) or state.get(self.KIND_KEY) != self.KIND:
            raise StateError(f"this is not the state of a ResumableSampler: {state!r:.200}")
        if state.get(self.VERSION_KEY) != self.VERSION:
            raise StateError(
                f"the state is of version {state.get(self.VERSION_KEY)!r}, and this release reads version {self.VERSION}"
            )
        epoch, position = state.get(self.EPOCH_KEY), state.get(self.POSITION_KEY)
        order = _Order(self, epoch=0)
        saved, own = state.get(self.SHAPE_KEY), order.shape()
        if not isinstance(saved, dict) or saved != own:
            saved = saved if isinstance(saved, dict) else {}
            other = ", ".join(f"{k}={saved.get(k)!r} (here {v!r})" for k, v in own.items() if saved.get(k) != v)
            raise StateError(f"the state is of a sampler with other {other or 'fields'}: it cannot be resumed here")
        if not isinstance(epoch, int) or not isinstance(position, int) or epoch < 0 or position < 0:
            raise StateError(f"the state is damaged: epoch {epoch!r}, position {position!r}")
        if position > order.longest():
            raise StateError(f"the state is damaged: position {position} of an epoch of {order.longest()}")
        return epoch, position


class _Order:
    """The samples of one rank in one epoch, by position."""

    def __init__(self, sampler: ResumableSampler[Any], epoch: int) -> None:
        source = sampler.data_source
        self.epoch = epoch
        self.samples = source if isinstance(source, int) else len(source)
        self.rank, self.world_size = current_rank(sampler._rank, sampler._world_size)
        self._sampler = sampler

    def __len__(self) -> int:
        whole, rest = divmod(self.samples, self.world_size)
        return whole + {"keep": self.rank < rest, "pad": rest > 0, "drop": False}[self._sampler.uneven]

    def longest(self) -> int:
        """The length on the rank that has most: what a state of another rank in step may hold."""
        least = self.samples // self.world_size
        return least if self._sampler.uneven == "drop" else -(-self.samples // self.world_size)

    def shape(self) -> dict[str, Any]:
        """What must be equal for a position to mean the same samples."""
        sampler = self._sampler
        fingerprint = getattr(sampler.data_source, "fingerprint", None)
        return {
            "samples": self.samples,
            "fingerprint": fingerprint if isinstance(fingerprint, str) else None,
            "seed": sampler.seed if sampler.shuffle else None,
            "world_size": self.world_size,
            "uneven": sampler.uneven,
        }

    def block(self, start: int, stop: int) -> list[int]:
        """The samples at positions [start, stop)."""
        positions = self.rank + self.world_size * np.arange(start, stop, dtype=np.int64)
        if self._sampler.uneven == "pad":
            positions %= max(self.samples, 1)
        if self._sampler.shuffle:
            positions = Permutation(self.samples, self._sampler.seed, self.epoch)(positions)
        return positions.tolist()


class _Walk(Iterator[Any]):
    """One iteration over one epoch.

    It takes its epoch when the first item is asked for and not before: DataLoader makes two iterators for
    each epoch and StatefulDataLoader up to three, of which one is used.
    """

    def __init__(self, sampler: ResumableSampler[Any]) -> None:
        self._sampler = sampler
        self._order: _Order | None = None
        self._shape: dict[str, Any] = {}
        self._block: list[int] = []
        self._start = 0  # position of the block
        self._at = 0  # next item within the block

    def __next__(self) -> Any:
        size = self._sampler.batch_size
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
            if len(batch) < size and self._sampler.drop_last:
                raise StopIteration
        self._at += len(batch)
        return batch

    def state_dict(self) -> dict[str, Any]:
        cls, order = type(self._sampler), self._order
        if order is None:
            epoch, position = self._sampler._pending or (self._sampler._next_epoch, 0)
            shape = _Order(self._sampler, epoch).shape()
        else:
            epoch, position, shape = order.epoch, self._start + self._at, dict(self._shape)
        return {
            cls.VERSION_KEY: cls.VERSION,
            cls.KIND_KEY: cls.KIND,
            cls.EPOCH_KEY: epoch,
            cls.POSITION_KEY: position,
            cls.SHAPE_KEY: shape,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """StatefulDataLoader loads the sampler first, then its iterator: the same state, taken up here."""
        self._sampler._pending = self._sampler._checked(state)
        self._sampler._walk = self
        self._take_epoch()

    def _take_epoch(self) -> _Order:
        sampler = self._sampler
        epoch, position = sampler._pending or (sampler._next_epoch, 0)
        order = _Order(sampler, epoch)
        sampler._pending, sampler._next_epoch = None, epoch + 1
        self._order, self._shape = order, order.shape()
        self._block, self._start, self._at = [], position, 0
        return order

    def _refill(self, least: int) -> list[int]:
        """The block from the present position on: ``least`` indices or more, fewer only at the end."""
        order = self._order or self._take_epoch()
        start = self._start + self._at
        stop = min(start + max(least, BLOCK), len(order))
        if start >= stop:
            raise StopIteration
        self._block, self._start, self._at = order.block(start, stop), start, 0
        return self._block


def _check_count(name: str, value: int, *, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise OptionError(f"{name} must be an integer of at least {least}, not {value!r}")
