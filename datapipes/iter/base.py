"""What our pipes have in common: a source that torch can see, and a stage made for each iteration."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, ClassVar, TypeVar

from torch.utils.data import IterDataPipe
from torch.utils.data.datapipes.iter import IterableWrapper

from datapipes.epochs import Epochs
from datapipes.errors import OptionError
from datapipes.index import FileIndex
from datapipes.iter.graph import set_epoch
from datapipes.iter.meters import Meter, read_meters
from datapipes.jobs import Job

__all__ = ["StagePipe", "as_pipe", "is_face", "source_of"]

T_co = TypeVar("T_co", covariant=True)

_BLOCK = 32
"""Items between two looks at the clock."""


class StagePipe(IterDataPipe[T_co]):
    """A pipe whose work is done by a stage.

    The source stands in ``source_datapipe``, where ``traverse_dps`` and the graph functions of DataLoader2
    find and replace it; a source hidden inside a stage would be delivered by every worker. The stage is
    built when an iteration starts and closed when it ends; nothing live is kept on the pipe, so a pipe can
    be copied and pickled at any time.
    """

    # torch asks for this with hasattr() on every item; unanswered, that costs 1 us an item in __getattr__.
    _is_child_datapipe = False

    COUNTS: ClassVar[bool] = False
    """Whether the stage counts anything worth summing over workers."""

    def __init__(self, source: str | Iterable[Any]) -> None:
        super().__init__()
        self.source_datapipe = as_pipe(source)
        self.job = Job.current()
        self.ordinal = self.job.next_ordinal()
        self.epochs = Epochs(self.job)
        self.pinned_epoch: int | None = None

    @abstractmethod
    def stage(self) -> Any:
        """Start an iteration: a new stage, over the stages of our own pipes before it, in the next epoch.

        Torch's price for a pipe is so paid once for a run of our pipes, at the last one.
        """

    def __iter__(self) -> Iterator[T_co]:
        yield from self.deliver(self.stage())

    def deliver(self, stage: Any) -> Iterator[Any]:
        """What the pipe yields while ``stage`` runs; closes it in the end, however that comes."""
        outputs = self.outputs(stage)
        try:
            if not self.COUNTS:
                yield from outputs
                return
            meter = Meter(self.job, self.epochs.key, stage)
            try:
                # By the block: a look at the clock for each item would cost as much as the item.
                for first in outputs:
                    yield first
                    yield from islice(outputs, _BLOCK - 1)
                    meter.tick()
            finally:
                meter.write()
        finally:
            stage.close()

    def stats(self) -> dict[str, float]:
        """Counters, summed over all workers and epochs of this pipe and its copies in this job: ``items``
        delivered, ``bytes`` read, ``errors`` met, of which ``skipped``, ``wait_s`` (seconds spent waiting
        for reads), ``depth`` (reads at once, last time: as adapted, or the most there were). Empty for pipes
        that read nothing.
        """
        return read_meters(self.job, self.epochs.key) if self.COUNTS else {}

    def has_stage(self) -> bool:
        """Whether ``stage()`` is a stage, with a state and seekable, rather than a plain iterator."""
        return True

    def outputs(self, stage: Iterator[Any]) -> Iterator[Any]:
        """What this pipe yields for what its ``stage`` yields: one output for each, nothing kept between."""
        return stage

    def set_epoch(self, epoch: int) -> None:
        """The next iteration is ``epoch``, here and in the workers that serve it; then epochs count on.

        It holds for all our pipes before this one as well.
        """
        set_epoch(self, epoch)

    def pin_epoch(self, epoch: int) -> None:
        """Every iteration of this copy is ``epoch``: for those who keep count (``.resumable()``)."""
        self.pinned_epoch = epoch

    def begin_epoch(self) -> int:
        """Start an iteration of the pipe and return its epoch."""
        return self.epochs.begin() if self.pinned_epoch is None else self.pinned_epoch

    def source(self) -> Any:
        """The source as a stage takes it: a stage of ours, what an IterableWrapper wraps, or the pipe."""
        return source_of(self.source_datapipe)

    def __getstate__(self) -> Any:
        if IterDataPipe.getstate_hook is not None:
            return IterDataPipe.getstate_hook(self.__dict__)
        return self.__dict__


def is_face(pipe: Any) -> bool:
    """Whether ``pipe`` is ours and iterates as its stage does (a subclass may change that)."""
    return isinstance(pipe, StagePipe) and type(pipe).__iter__ is StagePipe.__iter__ and pipe.has_stage()


def has_stage(pipe: IterDataPipe[Any]) -> bool:
    """Whether a stage over ``pipe`` can know all names beforehand: stages of names, and data at hand."""
    if isinstance(pipe, StagePipe):
        return is_face(pipe) and type(pipe).outputs is StagePipe.outputs
    return type(pipe) is IterableWrapper and isinstance(pipe.iterable, (list, tuple, FileIndex))


def as_pipe(source: str | Iterable[Any]) -> IterDataPipe[Any]:
    """``source`` as a pipe: one URL and a list become an IterableWrapper."""
    if isinstance(source, IterDataPipe):
        if type(source) is IterableWrapper:
            _refuse_iterator(source.iterable)
        if type(source) is IterableWrapper and isinstance(source.iterable, str):
            text = source.iterable
            raise OptionError(
                f"IterableWrapper({text!r}) yields letters: give a list, IterableWrapper([{text!r}])"
            )
        return source
    if isinstance(source, str):
        return IterableWrapper([source])
    if not isinstance(source, Iterable):
        raise OptionError(f"the source must be a URL, a list of URLs or a pipe, not {source!r}")
    _refuse_iterator(source)
    # Names are never changed in place: torch's copy of a million of them for each epoch helps nobody.
    return IterableWrapper(source, deepcopy=False)


def _refuse_iterator(source: Any) -> None:
    """OptionError for what gives its names once: every later epoch would be empty. Stages start anew."""
    if isinstance(source, Iterator) and not hasattr(source, "reset"):
        raise OptionError(
            f"the source is an iterator ({type(source).__name__}), which can be walked only once; "
            "give a list or a pipe"
        )


def source_of(pipe: IterDataPipe[Any]) -> Any:
    """``pipe`` as the source of a stage: its stage if it is ours, so that no hook of torch runs between."""
    if not has_stage(pipe):
        return pipe
    return pipe.stage() if isinstance(pipe, StagePipe) else pipe.iterable
