"""``list_files_by_daos``, ``list_files_by_local``: the URLs of all files under some directories."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal

from datapipes.backends.base import DEFAULT_HANDLE_CACHE_BYTES
from datapipes.backends.registry import OneStore
from datapipes.iter.base import StagePipe
from datapipes.stages.list_files import ListFiles
from datapipes.stages.state import check_count

__all__ = ["DaosFileLister", "LocalFileLister", "StoreFileLister"]


class StoreFileLister(StagePipe[Any]):
    """Yields the URL of every file under each source, in path order; a subclass for each store.

    The store is asked once a job and host: the first process lists, its workers, the other ranks of the
    host and later epochs share the list.

    Args:
        source_datapipe: one URL, a list, or a pipe of URLs of directories (or single files).
        recursive: look into subdirectories.
        masks: shell patterns for the base name (``"*.png"``); a file that fits any of them is listed.
        relist: ``"epoch"`` asks the store again for each epoch, for data that changes.
        entries: yield ``FileEntry(url, size)`` instead of the URL, sizes in bytes.
        sizes: False asks for no sizes, which are then -1 where they do not come by themselves. Listing is
            quicker, the first reads slower, which find them out.
        types: False without sizes says that the sources hold only files; of DAOS, where types have to be
            asked for, nothing but names is then asked.
        handle_cache_bytes: of DAOS: bound of the file beside the list in which listing keeps, for all
            processes of the host, what it has learnt of opening the files. 0: keep nothing.
        length: what ``len()`` says, as in torchdata; without it, ``len()`` is a TypeError.
    """

    SCHEME: ClassVar[str]

    def __init__(
        self,
        source_datapipe: str | Iterable[Any],
        *,
        recursive: bool = True,
        masks: str | Sequence[str] | None = None,
        relist: Literal["job", "epoch"] = "job",
        entries: bool = False,
        sizes: bool = True,
        types: bool = True,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
        length: int | None = None,
    ) -> None:
        if length is not None:
            length = check_count("length", length, least=0)
        super().__init__(source_datapipe)
        self.recursive, self.masks, self.relist = recursive, masks, relist
        self.entries, self.length = entries, length
        self.sizes, self.types, self.handle_cache_bytes = sizes, types, handle_cache_bytes
        self.resolve = self.store()
        self.resolve.check_first(source_datapipe)
        self._build(())  # the stage checks its options, and does nothing else before it is iterated

    def store(self) -> OneStore:
        """Which store serves the URLs."""
        return OneStore(self.SCHEME)

    def stage(self) -> ListFiles:
        stage = self._build(self.source())
        if self.relist == "epoch":
            stage.set_epoch(self.begin_epoch())
        return stage

    def _build(self, source: Iterable[Any]) -> ListFiles:
        return ListFiles(
            source,
            recursive=self.recursive,
            masks=self.masks,
            relist=self.relist,
            entries=self.entries,
            sizes=self.sizes,
            types=self.types,
            handle_cache_bytes=self.handle_cache_bytes,
            resolve=self.resolve,
            job=self.job,
            ordinal=self.ordinal,
        )

    def __len__(self) -> int:
        if self.length is None:
            raise TypeError(f"{type(self).__name__} instance doesn't have valid length")
        return self.length


class DaosFileLister(StoreFileLister):
    """Lists ``daos://pool/container/path`` (functional name: ``list_files_by_daos``)."""

    SCHEME = "daos"
    __doc__ = f"{__doc__}\n\n{StoreFileLister.__doc__}"


class LocalFileLister(StoreFileLister):
    """Lists plain paths and ``file:///path`` (functional name: ``list_files_by_local``)."""

    SCHEME = "file"
    __doc__ = f"{__doc__}\n\n{StoreFileLister.__doc__}"
