"""``DynamicBatchSampler``: batches by bytes, resumable."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from logging import getLogger
from typing import Any

import numpy as np
import torch
from torch.utils.data import Sampler

from datapipes.datasets.ais_map import AISBaseMapDataset
from datapipes.errors import StateError
from datapipes.stages.state import (
    FINGERPRINT_KEY,
    KIND_KEY,
    POSITION_KEY,
    VERSION_KEY,
    State,
    check_kind,
    fresh_copy,
    match_identity,
    stored_count,
)

__all__ = ["DynamicBatchSampler"]

KIND, VERSION = "ais_dynamic_batches", 1
PENDING_KEY, ORDER_KEY, BYTES_KEY = "pending", "order", "max_batch_size"

logger = getLogger(__name__)


class DynamicBatchSampler(Sampler[list[int]]):
    """Batches of as many samples as fit into ``max_batch_size`` bytes, in the order of the dataset.

    Takes the place of ``aistore.pytorch.DynamicBatchSampler``, with the same batches; shuffled ones too, from
    the same state of torch's generator. ``len()`` is the number of batches (there, of samples). Give it to
    StatefulDataLoader as ``batch_sampler=``: it goes on with the next batch.

    Args:
        data_source: a dataset with ``get_obj_list()``. Sizes are those of the listing; for a group of objects
            each is asked for once.
        max_batch_size: in bytes.
        drop_last: leave out a last batch that is not fuller than ``saturation_factor``.
        allow_oversized_samples: give a sample that is larger than a batch in one of its own; otherwise it is
            left out, with a warning, as are empty ones.
        saturation_factor: between 0 and 1.
        shuffle: a new permutation for each iteration, drawn from torch's default generator.
        len_of_samples: let ``len()`` be the number of samples, as it was.
    """

    def __init__(
        self,
        data_source: Any,
        max_batch_size: float,
        drop_last: bool = False,  # noqa: FBT001, FBT002 - as in aistore.pytorch
        allow_oversized_samples: bool = False,  # noqa: FBT001, FBT002 - likewise
        saturation_factor: float = 0.8,
        shuffle: bool = False,  # noqa: FBT001, FBT002 - likewise
        *,
        len_of_samples: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= saturation_factor <= 1:
            raise ValueError("`saturation_factor` must be between 0 and 1")
        self._data_source = data_source
        self._max_batch_size = max_batch_size
        self._drop_last = drop_last
        self._allow_oversized_samples = allow_oversized_samples
        self._saturation_factor = saturation_factor
        self._shuffle = shuffle
        self._len_of_samples = len_of_samples
        self._sizes: Any = None
        self._fingerprint: str | None = None
        self._loaded: State | None = None
        self._walk: _Walk | None = None

    def __iter__(self) -> Iterator[list[int]]:
        self._walk = _Walk(self)
        return self._walk

    def __len__(self) -> int:
        """Batches in an epoch. Of a shuffled one that has not begun it cannot be known: TypeError."""
        if self._len_of_samples:
            return len(self.sizes())
        if self._shuffle:
            raise TypeError(
                "how many batches there are depends on the order, which is drawn when the epoch starts; "
                "len_of_samples=True gives the number of samples, as aistore.pytorch has it"
            )
        return sum(1 for _ in self.batches(range(len(self.sizes())), lambda *_: None, quiet=True))

    def sizes(self) -> Any:
        """Bytes of each sample."""
        if self._sizes is None:
            source = self._data_source
            own = isinstance(source, AISBaseMapDataset) and (
                type(source).get_obj_list is AISBaseMapDataset.get_obj_list
            )
            self._sizes = source.found_sizes() if own else None
            if self._sizes is None:
                self._sizes = [sample.props_cached.size for sample in source.get_obj_list()]
        return self._sizes

    def state_dict(self) -> State:
        """The state of the latest iteration, after the batch that it gave last."""
        return self.upcoming() or (self._walk or _Walk(self)).state_dict()

    def load_state_dict(self, state_dict: State) -> None:
        """The next iteration goes on from the state. StateError where it does not fit this sampler."""
        self._loaded = self.checked(state_dict)

    def checked(self, state_dict: State) -> State:
        """A copy of a state that fits this sampler; StateError where it does not, or is damaged."""
        check_kind(state_dict, KIND, VERSION)
        match_identity(state_dict, self.identity())
        count = len(self.sizes())
        position = stored_count(state_dict, POSITION_KEY, most=count)
        pending, order = state_dict.get(PENDING_KEY), state_dict.get(ORDER_KEY)
        if not isinstance(pending, list) or not all(type(at) is int and 0 <= at < count for at in pending):
            raise StateError(f"the state is damaged: its {PENDING_KEY!r} is {pending!r:.200}")
        if order is not None:
            _generator_of(order)
        elif self._shuffle and position:
            raise StateError(f"the state is damaged: its {ORDER_KEY!r} is missing")
        copied: State = fresh_copy(dict(state_dict))
        return copied

    def identity(self) -> State:
        """What must be equal for a state to fit."""
        return {
            KIND_KEY: KIND,
            VERSION_KEY: VERSION,
            "count": len(self.sizes()),
            FINGERPRINT_KEY: self._digest(),
            BYTES_KEY: str(self._max_batch_size),
            "shuffle": self._shuffle,
        }

    def _digest(self) -> str:
        if self._fingerprint is None:
            sizes = np.asarray(self.sizes(), dtype=np.int64).tobytes()
            self._fingerprint = hashlib.blake2b(sizes, digest_size=16).hexdigest()
        return self._fingerprint

    def take_loaded(self) -> State | None:
        """The state that was loaded, once."""
        loaded, self._loaded = self._loaded, None
        return loaded

    def upcoming(self) -> State | None:
        """The state that was loaded and not taken up yet."""
        copied: State | None = fresh_copy(self._loaded)
        return copied

    def permutation(self, order: str | None) -> tuple[Any, str | None]:
        """The order of the samples, and what says so in a state: ``order``, or one that is drawn now."""
        count = len(self.sizes())
        if not self._shuffle:
            return range(count), None
        generator = None
        if order is None:
            order = base64.b64encode(torch.get_rng_state().numpy().tobytes()).decode()
        else:
            generator = _generator_of(order)
        return torch.randperm(count, generator=generator).tolist()[::-1], order

    def batches(
        self,
        order: Any,
        kept: Callable[[int, list[int]], None],
        *,
        start: int = 0,
        pending: list[int] | None = None,
        quiet: bool = False,
    ) -> Iterator[list[int]]:
        """Batches of ``order`` from position ``start`` on. Before each, ``kept`` is told where the next one
        starts and what is already in it."""
        sizes, most = self.sizes(), self._max_batch_size
        batch = list(pending or [])
        total = sum(int(sizes[index]) for index in batch)
        for position in range(start, len(order)):
            index = order[position]
            size = int(sizes[index])
            if size == 0 or (size > most and not self._allow_oversized_samples):
                if not quiet:
                    logger.warning(
                        "Sample %s is left out: it has %d bytes, and a batch at most %s", index, size, most
                    )
            elif size > most:
                kept(position + 1, batch)
                yield [index]
            else:
                if total + size > most:  # the sample waits for the next batch
                    complete, batch, total = batch, [], 0
                    kept(position, [])
                    yield complete
                batch.append(index)
                total += size
                if total == most:
                    complete, batch, total = batch, [], 0
                    kept(position + 1, [])
                    yield complete
        if (batch and not self._drop_last) or (self._drop_last and total / most > self._saturation_factor):
            kept(len(order), [])
            yield batch


def _generator_of(order: Any) -> torch.Generator:
    """The generator that drew an order. StateError where this says none."""
    generator = torch.Generator()
    try:
        generator.set_state(torch.tensor(list(base64.b64decode(order)), dtype=torch.uint8))
    except (TypeError, ValueError, RuntimeError):
        raise StateError(f"the state is damaged: its {ORDER_KEY!r} is {order!r:.200}") from None
    return generator


class _Walk(Iterator[list[int]]):
    """One iteration; it takes its order, or a loaded state, when the first batch is asked for."""

    def __init__(self, sampler: DynamicBatchSampler) -> None:
        self._sampler = sampler
        self._batches: Iterator[list[int]] | None = None
        self._position = 0
        self._pending: list[int] = []
        self._order: str | None = None

    def __next__(self) -> list[int]:
        if self._batches is None:
            self._begin(self._sampler.take_loaded())
        assert self._batches is not None  # noqa: S101 - just made
        return next(self._batches)

    def _begin(self, state: State | None) -> None:
        sampler = self._sampler
        if state is not None:
            self._position, self._pending = state[POSITION_KEY], state[PENDING_KEY]
            self._order = state.get(ORDER_KEY)
        order, self._order = sampler.permutation(self._order)
        self._batches = sampler.batches(order, self._keep, start=self._position, pending=self._pending)

    def _keep(self, position: int, pending: list[int]) -> None:
        self._position, self._pending = position, list(pending)

    def state_dict(self) -> State:
        upcoming = self._sampler.upcoming() if self._batches is None else None
        if upcoming is not None:
            return upcoming
        return {
            **self._sampler.identity(),
            POSITION_KEY: self._position,
            PENDING_KEY: list(self._pending),
            ORDER_KEY: self._order,
        }

    def load_state_dict(self, state_dict: State) -> None:
        """StatefulDataLoader loads the sampler first, then its iterator: the same state, taken up here."""
        state = self._sampler.checked(state_dict)
        self._sampler.take_loaded()
        self._begin(state)
