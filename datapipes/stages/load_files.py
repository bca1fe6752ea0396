"""``load_files``: the bytes of files, read ahead, in the order of their names."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

from datapipes.backends.base import (
    DEFAULT_BUFFER_BYTES,
    DEFAULT_HANDLE_CACHE_BYTES,
    DEFAULT_IN_FLIGHT,
    DEFAULT_TIMEOUT_S,
    Backend,
)
from datapipes.backends.checks import check_flag, check_handle_cache_bytes, check_read_options
from datapipes.backends.registry import backend_for
from datapipes.errors import OptionError, StateError
from datapipes.index import FileIndex
from datapipes.stages.base import SKIP, Stage
from datapipes.stages.feeds import Cursor, IndexFeed, Stores
from datapipes.stages.indexed import IndexedStage, indexed, start_position
from datapipes.stages.name_feed import NameFeed, SourceAccess
from datapipes.stages.reading import AHEAD_KEY, OnError, Reading, Tally
from datapipes.stages.state import (
    EPOCH_KEY,
    FINISHED_KEY,
    KIND_KEY,
    POSITION_KEY,
    SOURCE_KEY,
    VERSION_KEY,
    State,
    copy_identity,
    stored_count,
)

__all__ = ["LoadFiles", "OnError"]


class LoadFiles(Stage[Any]):
    """Yields (url, bytes) for every name of the source, many reads under way at once.

    A state says which item comes next, whatever has been read ahead: going on from it delivers exactly the
    remaining items and rereads nothing that was delivered.

    Args:
        source: one URL, an indexed stage or a FileIndex (sought in constant time, sizes known), any other
            stage or a torchdata node (its own state is part of ours), or any iterable of URLs or FileEntry
            (its names, not the files, are walked again on resume).
        max_in_flight: reads under way or waiting to be delivered; also what a resume may read again.
        max_buffer_bytes: bound of what read-ahead holds.
        ordered: False delivers as reads complete. A state then lists what was delivered beyond the first
            gap; a gap is waited for when delivery is about four times ``max_in_flight`` beyond it.
        on_error: ``"raise"`` raises where the item would have come, and again at every further ``next``; a
            state from before it tries the item again. ``"skip"`` leaves the item out and counts it. A
            callable ``(url, exception)`` returns an item in its place, or SKIP.
        timeout_s: how long one read may take (None: no bound) before it is a StoreTimeoutError.
        verify: ``"size"`` makes a file that has grown since it was listed an error; one that has shrunk
            always is.
        writable: the data are ``bytearray``, each of its own, in place of bytes.
        handle_cache_bytes: over an index, of stores for which opening is costly (DAOS): bound of the file
            beside the index in which all processes of a host keep what opens its files at once the next
            time. 0: keep nothing.
        resolve: URL to back end. Names of several stores may be mixed; each run of names of one store is
            read to its end before the next is begun.
    """

    KIND = "load_files"

    def __init__(
        self,
        source: str | IndexedStage | FileIndex | Iterable[Any],
        *,
        max_in_flight: int = DEFAULT_IN_FLIGHT,
        max_buffer_bytes: int = DEFAULT_BUFFER_BYTES,
        ordered: bool = True,
        on_error: OnError = "raise",
        timeout_s: float | None = DEFAULT_TIMEOUT_S,
        verify: Literal["size"] | None = None,
        writable: bool = False,
        handle_cache_bytes: int = DEFAULT_HANDLE_CACHE_BYTES,
        resolve: Callable[[str], Backend] = backend_for,
    ) -> None:
        max_in_flight, max_buffer_bytes = check_read_options(
            max_in_flight=max_in_flight, timeout_s=timeout_s, max_buffer_bytes=max_buffer_bytes
        )
        if on_error not in ("raise", "skip") and not callable(on_error):
            raise OptionError(f"on_error must be 'raise', 'skip' or a callable, not {on_error!r}")
        if verify not in ("size", None):
            raise OptionError(f"verify must be 'size' or None, not {verify!r}")
        check_flag("ordered", ordered)
        handle_cache_bytes = check_handle_cache_bytes(handle_cache_bytes)
        if isinstance(source, str):
            source = [source]
        if not isinstance(source, Iterable):
            raise OptionError(f"the source must be an iterable of URLs, not {source!r:.200}")
        self.source: Any = indexed(source) if isinstance(source, FileIndex) else source
        super().__init__(self.source.clock if isinstance(self.source, IndexedStage) else None)
        self.max_in_flight = max_in_flight
        self.ordered = bool(ordered)
        self.on_error: OnError = on_error
        self.resolve = resolve
        self._form: type[bytes | bytearray] = bytearray if writable else bytes
        self._handle_cache_bytes = handle_cache_bytes
        self._read_options = {
            "max_in_flight": max_in_flight,
            "max_buffer_bytes": max_buffer_bytes,
            "ordered": self.ordered,
            "timeout_s": timeout_s,
            "verify_size": verify == "size",
            "writable": writable,
        }

    def __next__(self) -> Any:  # noqa: C901 - written out, for a call costs more than all of it
        run = self._run
        if run is None and (run := self._begin()) is None:
            raise StopIteration
        run.acquire()  # half the price of a with statement
        try:
            while True:
                try:
                    position, request, data, error = run.pull()
                except StopIteration:
                    if run.advance():
                        continue
                    raise
                if error is not None:
                    item = run.replace(position, request.url, error)
                    if item is SKIP:
                        continue
                    return item
                if run.ordered:
                    run.cursor.position += 1
                else:
                    run.cursor.take(run.absolute(position))
                return request[0], data if type(data) is self._form else self._form(data)
        except StopIteration:
            raise
        except Exception as error:
            if run.fail(error):
                raise
            raise StopIteration from None
        except BaseException:
            self._interrupt(run)
            raise
        finally:
            run.release()

    def __len__(self) -> int:
        """Names of the present epoch; TypeError where the source has no length."""
        return len(self.source)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        if not isinstance(self.source, IndexedStage) and hasattr(self.source, "set_epoch"):
            self.source.set_epoch(epoch)

    def keep_epoch(self) -> None:
        super().keep_epoch()
        if isinstance(self.source, IndexedStage):
            return
        if hasattr(self.source, "keep_epoch"):
            self.source.keep_epoch()
        elif hasattr(self.source, "set_epoch"):
            self.source.set_epoch(self.clock.upcoming())

    def stats(self) -> dict[str, float]:
        """Counters since this stage was made, of this process: ``items`` delivered, ``bytes`` read,
        ``errors`` met, of which ``skipped``, ``wait_s`` (seconds ``next`` waited for reads); and gauges of
        the present read: ``depth`` and what else the back end tells."""
        run = self._run
        return self._tally.total(run)

    def close(self) -> None:
        super().close()
        if isinstance(self.source, Stage):
            self.source.close()

    def _start(self, epoch: int, state: State | None) -> Reading:
        stores = Stores(self.resolve)
        window = None if self.ordered else 4 * max(self.max_in_flight, 16)
        source = self.source
        finished = state is not None and state[FINISHED_KEY]
        feed: IndexFeed | NameFeed
        read_options: dict[str, Any] = self._read_options
        if isinstance(source, IndexedStage):
            order = source.order(epoch)
            own = {VERSION_KEY: self.VERSION, KIND_KEY: self.KIND, SOURCE_KEY: order.identity}
            position = 0 if state is None else start_position(state, own, order)
            cursor = Cursor(position, self._saved_ahead(state, order.length))
            feed = IndexFeed(order, cursor, stores, window=window)
            read_options = {**read_options, "handles": order.index.handle_file(self._handle_cache_bytes)}
        else:
            position = 0 if state is None or finished else stored_count(state, POSITION_KEY)
            cursor = Cursor(position, self._saved_ahead(state, None))
            feed = NameFeed(source, cursor, stores, self._access, window=window)
            # A state whose source is missing, or None, is damaged: it must not pass for no state at all.
            feed.open(None if state is None else state.get(SOURCE_KEY) or {}, finished=finished)
        return Reading(
            self._header(epoch),
            cursor,
            feed,
            self._tally,
            on_error=self.on_error,
            read_options=read_options,
        )

    def _saved_ahead(self, state: State | None, length: int | None) -> list[int]:
        if state is None or state[FINISHED_KEY]:
            return []
        ahead: Any = state.get(AHEAD_KEY)
        position = stored_count(state, POSITION_KEY)
        whole = isinstance(ahead, list) and all(isinstance(p, int) and p > position for p in ahead)
        if not whole or (length is not None and any(p >= length for p in ahead)):
            raise StateError(f"the state is damaged: its {AHEAD_KEY!r} is {ahead!r:.200}")
        if ahead and self.ordered:
            raise StateError(
                "the state was saved with ordered=False and some items delivered out of turn: "
                "resume it with ordered=False"
            )
        return list(ahead)

    def _state_at_start(self, epoch: int) -> State:
        if isinstance(self.source, IndexedStage):
            saved = copy_identity(self.source.order(epoch).identity)
        else:
            feed = NameFeed(self.source, Cursor(0, []), Stores(self.resolve), self._access, window=None)
            saved = feed.state_at_start()
        return {**self._header(epoch), POSITION_KEY: 0, FINISHED_KEY: False, AHEAD_KEY: [], SOURCE_KEY: saved}

    def _header(self, epoch: int) -> State:
        return {VERSION_KEY: self.VERSION, KIND_KEY: self.KIND, EPOCH_KEY: epoch}

    _access: SourceAccess
    _tally: Tally

    def _live(self) -> State:
        return {**super()._live(), "_access": SourceAccess(), "_tally": Tally()}
