"""``AISParallelMapDataset``: large objects of AIStore in shared memory, read in parallel ranges."""

from __future__ import annotations

import contextlib
import os
import weakref
from multiprocessing import shared_memory
from typing import Any, Self

from datapipes.backends.base import DEFAULT_TIMEOUT_S
from datapipes.datasets.ais_map import AISBaseMapDataset
from datapipes.records import WHOLE, ReadRequest

__all__ = ["AISParallelMapDataset", "SharedBuffer"]


class _Segment(shared_memory.SharedMemory):
    """Shared memory that goes with its last view: no descriptor keeps it, and dropping it is no error."""

    _fd: int

    def __init__(self, size: int) -> None:
        super().__init__(create=True, size=size)
        fd, self._fd = self._fd, -1  # the mapping has one of its own
        os.close(fd)

    def __del__(self) -> None:
        try:  # noqa: SIM105 - contextlib may be gone when the interpreter ends
            super().__del__()
        except BufferError:
            pass


class SharedBuffer:
    """The content of an object in shared memory: the interface of the SDK's ``ParallelBuffer``.

    ``close()`` gives the memory back, and so does dropping the buffer; memory of which there are views
    (numpy's arrays, say) goes with the last of them. Pickling copies the content, so a DataLoader's worker
    may send it: the receiver has a buffer of its own.
    """

    def __init__(self, size: int) -> None:
        self._memory = _Segment(max(size, 1))
        self._size = size
        whole = self._memory.buf
        assert whole is not None  # noqa: S101 - it is open
        self._view = whole[:size]
        self._unlink = weakref.finalize(self, _unlink, self._memory)

    @property
    def buf(self) -> memoryview:
        """The content, uncopied."""
        return self._view

    @property
    def name(self) -> str:
        """The name of the segment of shared memory."""
        return self._memory.name

    def __len__(self) -> int:
        return self._size

    def tobytes(self) -> bytes:
        """A copy of the content."""
        return bytes(self._view)

    def close(self) -> None:
        """Give the memory back; safe to call twice. Where views of it live, it goes with the last of them."""
        self._unlink()
        with contextlib.suppress(BufferError):
            self._view.release()
            self._memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _filled, (self.tobytes(),)


def _unlink(memory: shared_memory.SharedMemory) -> None:
    with contextlib.suppress(FileNotFoundError):
        memory.unlink()


def _filled(content: bytes) -> SharedBuffer:
    made = SharedBuffer(len(content))
    made.buf[:] = content
    return made


class AISParallelMapDataset(AISBaseMapDataset):
    """Gives (name, buffer) of the object at an index; the caller closes the buffer.

    Takes the place of ``aistore.pytorch.AISParallelMapDataset``. Large objects are read in parallel ranges,
    into the buffer, by one thread and no processes. An empty object gives an empty buffer.

    Args:
        ais_source_list, prefix_map: as of the base class.
        num_workers: how many ranges are under way at the same time; at least 2.
        timeout_s: bound on each object in seconds; None for none.
    """

    def __init__(
        self,
        ais_source_list: Any = None,
        prefix_map: dict[Any, Any] | None = None,
        num_workers: int = 16,
        *,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        super().__init__(ais_source_list, prefix_map)
        self._num_workers = num_workers
        self._timeout_s = timeout_s

    @property
    def num_workers(self) -> int:
        """Ranges under way at the same time."""
        return self._num_workers

    def __len__(self) -> int:
        return self._count()

    def __getitem__(self, index: int) -> tuple[str, Any]:
        if self._num_workers < 2:
            raise ValueError("`num_workers` must be at least 2.")
        [found] = self._found([index])
        if found.place is None:
            return found.name, found.thing.get_reader(num_workers=self._num_workers).read_all()
        backend = found.place.backend(None)
        size = found.size if found.size > 0 else backend.stat(found.url).size
        buffer = SharedBuffer(size)
        try:
            request = ReadRequest(found.url, 0, WHOLE, size)
            result = backend.read_batch(
                [request], out=buffer.buf, max_in_flight=self._num_workers, timeout_s=self._timeout_s
            )[0]
            result.unwrap()
        except BaseException:
            buffer.close()
            raise
        return found.name, buffer
