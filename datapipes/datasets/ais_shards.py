"""``AISShardReader``: samples out of WebDataset shards in AIStore, grouped as ``aistore.pytorch`` does it."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from typing import Any, Literal

from datapipes.backends.base import DEFAULT_TIMEOUT_S
from datapipes.datasets.ais_found import Found, overridden
from datapipes.datasets.ais_iter import AISBaseIterDataset
from datapipes.datasets.ais_reads import FoundReader
from datapipes.datasets.ais_walk import EXTRA_KEY, Progress, Walk, progress_bar, resumed
from datapipes.errors import OptionError, ShardError, StateError
from datapipes.stages.state import State
from datapipes.tar import tar_members
from datapipes.urls import parse_url

__all__ = ["AISShardReader", "TarShardError"]

SHARDS_IN_FLIGHT = 4
SHARD_BUFFER_BYTES = 256 * 1024 * 1024
KEYS = "keys"

Member = tuple[str, int, int]
"""Name, offset and size."""
Members = list[Member]
Groups = dict[str, dict[str, Member]]
"""Sample to extension to member."""
Samples = tuple[int, Iterator[tuple[str, dict[str, bytes]]]]
"""How many there are, and they."""


class TarShardError(ShardError, tarfile.TarError):
    """A shard that is damaged or cut short; also the ``TarError`` that ``aistore.pytorch`` raises."""


class AISShardReader(AISBaseIterDataset):
    """Yields (basename, {extension: bytes}) of every sample in tar shards.

    Takes the place of ``aistore.pytorch.AISShardReader``. Members of a sample need not stand side by side, so
    a whole shard is held, with what is read ahead of it. Extensions that other samples have so far, and this
    one lacks, stand in it as ``b""``, so that default collation takes any batch.

    Members of one basename in different folders are different samples, named by their paths (``a/x``,
    ``b/x``); of two members of a sample with one last extension, each has its whole one (``jpg``,
    ``seg.jpg``). ``grouping="basename"`` throws them together, the last one of an extension wins.

    A state says how many shards are over, how many samples of the present one, and which extensions have been
    seen: resuming reads that shard again.

    Args:
        bucket_list: a ``Bucket``, or any source of shards, or a list of them.
        prefix_map, partition_sources_by_worker: as of the base class.
        etl_name: read what this ETL makes of each shard.
        show_progress: show tqdm's bar over the samples of each shard.
        grouping: see above.
        max_in_flight: shards under way or waiting, the present one apart.
        max_buffer_bytes: bytes of these; one larger shard is read alone.
        timeout_s: bound on each shard in seconds; None for none.
    """

    def __init__(
        self,
        bucket_list: Any,
        prefix_map: dict[Any, Any] | None = None,
        etl_name: str | None = None,
        show_progress: bool = False,  # noqa: FBT001, FBT002 - as in aistore.pytorch
        partition_sources_by_worker: bool = False,  # noqa: FBT001, FBT002 - likewise
        *,
        grouping: Literal["folder", "basename"] = "folder",
        max_in_flight: int = SHARDS_IN_FLIGHT,
        max_buffer_bytes: int = SHARD_BUFFER_BYTES,
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
    ) -> None:
        if grouping not in ("folder", "basename"):
            raise OptionError(f"grouping must be 'folder' or 'basename', not {grouping!r}")
        super().__init__(bucket_list, prefix_map, partition_sources_by_worker)
        self._etl_name = etl_name
        self._show_progress = show_progress
        self._grouping = grouping
        self._observed_keys: set[str] = set()
        self._reader = FoundReader(
            etl_name, max_in_flight=max_in_flight, max_buffer_bytes=max_buffer_bytes, timeout_s=timeout_s
        )

    class ZeroDict(dict[str, bytes]):
        """A sample's members by extension, and ``b""`` for every other of ``keys``."""

        def __init__(self, dict: dict[str, bytes], keys: Any) -> None:  # noqa: A002 - as in aistore.pytorch
            super().__init__(dict)
            for key in keys:
                if key not in self:
                    self[key] = b""

    def __len__(self) -> int:
        """The number of samples of all workers; lists the members of each shard (with an ETL: reads it)."""
        if self._etl_name:
            return sum(1 for _ in self.outputs(Progress()))
        return sum(self._count_in(found) for found in self._everything())

    def _count_in(self, found: Found) -> int:
        if found.place is None:
            return len(self._grouped(self._reader.read_own(found), found.name))
        listing = found.place.backend(None).list(f"{found.url}?archpath=", sizes=False)
        return len(self._group([(parse_url(url).options or "", 0, 0) for url, _ in listing]))

    def __iter__(self) -> Iterator[tuple[str, dict[str, bytes]]]:
        return _KeyedWalk(self, "ais_shard_reader")

    @property
    def observed_keys(self) -> list[str]:
        """The extensions that have been seen; for ``Walk``."""
        return sorted(self._observed_keys)

    @observed_keys.setter
    def observed_keys(self, keys: list[str]) -> None:
        self._observed_keys = set(keys)

    def outputs(self, progress: Progress) -> Iterator[tuple[str, dict[str, bytes]]]:
        """The samples after ``progress``; for ``Walk``."""
        if progress.position or progress.within or KEYS in progress.extra:
            self.observed_keys = _saved_keys(progress.extra)
        progress.extra = {KEYS: self.observed_keys}
        own = overridden(self, AISShardReader, ["_read_samples_from_shards"])
        founds, worker = self._shares()
        results = self._reader.read(resumed(founds, progress, _name))
        with closing(results):
            for found, content, error in results:
                if error is not None:
                    raise error
                length, samples = (
                    self._own(content) if own else self._samples(content, found.url or found.name)
                )
                keys = self.observed_keys
                progress.extra = {KEYS: keys}
                skip = progress.within
                rest = islice(samples, skip, None)
                shown = progress_bar(rest, found.name + worker, shown=self._show_progress)
                for count, (name, members) in enumerate(shown, skip + 1):
                    if count == length:
                        progress.over(found.name)
                    else:
                        progress.within, progress.last = count, found.name
                    yield name, self.ZeroDict(members, keys)
                if skip == length:
                    progress.over(found.name)

    def _read_samples_from_shards(self, shard_content: bytes) -> dict[str, dict[str, bytes]]:
        """The samples of a shard, in the order of their first members; notes the extensions that it has."""
        return dict(self._samples(shard_content, "shard")[1])

    def _own(self, content: bytes) -> Samples:
        """As a subclass reads them."""
        samples = self._read_samples_from_shards(content)
        return len(samples), iter(samples.items())

    def _samples(self, content: bytes, url: str) -> Samples:
        groups = self._grouped(content, url)
        self._observed_keys.update(*groups.values())
        return len(groups), _cut_out(content, groups)

    def _grouped(self, content: bytes, url: str) -> Groups:
        try:
            members = tar_members(content, url=url)
        except ShardError as error:
            raise TarShardError(f"<{type(self).__name__}> {error}", url=url, operation="read") from None
        return self._group(members)

    def _group(self, members: Members) -> Groups:
        return (_by_basename if self._grouping == "basename" else _by_folder)(members)


class _KeyedWalk(Walk[tuple[str, dict[str, bytes]]]):
    """A state has the extensions seen also where no sample has been given: those of the epochs before."""

    def __init__(self, dataset: AISShardReader, kind: str) -> None:
        super().__init__(dataset, kind)
        self._reader = dataset

    def state_dict(self) -> State:
        state = super().state_dict()
        state[EXTRA_KEY].setdefault(KEYS, self._reader.observed_keys)
        return state

    def load_state_dict(self, state_dict: State) -> None:
        super().load_state_dict(state_dict)
        if KEYS in state_dict[EXTRA_KEY]:  # now, because an executor may drop this walk and begin another
            self._reader.observed_keys = _saved_keys(state_dict[EXTRA_KEY])


def _cut_out(content: bytes, groups: Groups) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Each sample when its turn comes, so that its memory is that of one that is done with."""
    for name, group in groups.items():
        yield (
            name,
            {extension: content[offset : offset + size] for extension, (_, offset, size) in group.items()},
        )


def _by_basename(members: Members) -> Groups:
    groups: Groups = {}
    for member in members:
        base = member[0].rpartition("/")[2]
        extension = base.rpartition(".")[2] if "." in base else ""
        if extension:
            groups.setdefault(base.partition(".")[0], {})[extension] = member
    return groups


def _by_folder(members: Members) -> Groups:
    """As ``_by_basename``, and nothing is lost where names meet."""
    groups: Groups = {}
    doubles: set[tuple[str, str]] = set()
    for member in members:
        name = member[0]
        dot = name.find(".", name.rfind("/") + 1)
        extension = name[name.rfind(".") + 1 :]
        if dot < 0 or not extension:
            continue
        path = name[:dot]
        group = groups.get(path)
        if group is None:
            groups[path] = {extension: member}
            continue
        held = group.get(extension)
        if held is None or held[0] == name:  # a name that comes twice: the last one counts, as in a tar
            group[extension] = member
        else:
            doubles.add((path, extension))
    if doubles:
        _set_apart(groups, doubles, members)
    return dict(zip(_names_of(list(groups)), groups.values(), strict=True))


def _set_apart(groups: Groups, doubles: set[tuple[str, str]], members: Members) -> None:
    """Give members that share their last extension with another of the sample their whole one."""
    for path, extension in doubles:
        del groups[path][extension]
    for member in members:
        base = member[0].rpartition("/")[2]
        _, dot, whole = base.partition(".")
        path = member[0][: len(member[0]) - len(dot) - len(whole)]
        if (path, whole.rpartition(".")[2]) in doubles:
            groups[path][whole] = member


def _names_of(paths: list[str]) -> list[str]:
    """The basename of each path; the whole path where two have one basename."""
    names = [path.rpartition("/")[2] for path in paths]
    if len(set(names)) == len(names):
        return names
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    return [path if counts[name] > 1 else name for path, name in zip(paths, names, strict=True)]


def _saved_keys(extra: dict[str, Any]) -> list[str]:
    keys = extra.get(KEYS)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise StateError(f"the state is damaged: its {KEYS!r} is {keys!r:.200}")
    return keys


def _name(found: Found) -> str:
    return found.name
