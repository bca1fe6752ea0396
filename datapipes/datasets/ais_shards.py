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
    ``b/x``). Where two members of a sample have one last extension, members that have it are called by their
    whole one (``jpg``, ``seg.jpg``), in every sample of that shard. ``grouping="basename"`` throws them
    together, the last one of an extension wins.

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
        """The number of samples of all workers. Lists the members of each shard, and reads shards whose list
        does not say it, with an ETL all of them."""
        total = 0
        unlisted = []
        for found in self._everything():
            count = self._listed_count(found)
            if count is None:
                unlisted.append(found)
            else:
                total += count
        return total + self._read_count(unlisted)

    def _listed_count(self, found: Found) -> int | None:
        """The samples of a shard by the list of its members; None where that does not say."""
        if found.place is None or self._etl_name:
            return None
        listing = found.place.backend(None).list(f"{found.url}?archpath=")
        try:
            members = [(parse_url(url).options or "", 0, size) for url, size in listing]
        except ShardError:  # more members than a page, or a name that does not say that it is a tar
            return None
        groups = self._group(members)
        # Links and pipes stand in the list too, without a size.
        filled = all(any(size > 0 for _, _, size in group.values()) for group in groups.values())
        return len(groups) if filled else None

    def _read_count(self, founds: list[Found]) -> int:
        keys, total = self.observed_keys, 0
        for found, content, error in self._reader.read(founds):
            if error is not None:
                raise error
            total += self._read_samples(content, found)[0]
        self.observed_keys = keys
        return total

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
        founds, worker = self._shares()
        results = self._reader.read(resumed(founds, progress, _name))
        with closing(results):
            for found, content, error in results:
                if error is not None:
                    raise error
                length, samples = self._read_samples(content, found)
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

    def _read_samples(self, content: bytes, found: Found) -> Samples:
        if not overridden(self, AISShardReader, ["_read_samples_from_shards"]):
            return self._samples(content, found.url or found.name)
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


def _by_folder(members: Members, apart: frozenset[str] = frozenset()) -> Groups:
    """As ``_by_basename``, and nothing is lost where names meet; members with a last extension that is in
    ``apart`` are called by their whole one."""
    groups: Groups = {}
    doubles: set[str] = set()
    for member in members:
        name = member[0]
        dot = name.find(".", name.rfind("/") + 1)
        extension = name[name.rfind(".") + 1 :]
        if dot < 0 or not extension:
            continue
        if extension in apart:
            extension = name[dot + 1 :]
        path = name[:dot]
        group = groups.get(path)
        if group is None:
            groups[path] = {extension: member}
            continue
        held = group.get(extension)
        if held is not None and held[0] != name:
            doubles.add(extension)
        group[extension] = member  # of a name that comes twice the last one counts, as in a tar
    if doubles:
        return _by_folder(members, frozenset(doubles))
    return dict(zip(_names_of(list(groups)), groups.values(), strict=True))


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
