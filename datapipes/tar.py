"""What is in a tar shard: the engine's walker, with errors that say which shard and where.

Regular files only, in stored order; which formats, and what is passed over, stands in ``_dfs.pyi``. A shard
ends with its end marker, and one without is cut short, although Python's ``tarfile`` takes it for whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from datapipes.errors import ShardError

if TYPE_CHECKING:
    from datapipes import _dfs

__all__ = ["MEMBER_BYTES", "TarStream", "tar_members"]

MEMBER_BYTES = 1 << 31
"""Above this a member is taken for damage: a member of a stream is held in memory as a whole."""


def tar_members(
    buffer: bytes | bytearray | memoryview, *, url: str, start: int = 0
) -> list[tuple[str, int, int]]:
    """(name, offset of the data, size) of every member of the shard ``url``, whose bytes are in ``buffer``.

    ``start`` is the offset of the header to begin at. Raises ShardError.
    """
    from datapipes import _dfs  # noqa: PLC0415 - loads the engine

    try:
        return _dfs.tar_members(buffer, start=start)
    except _dfs.TarError as error:
        raise _shard_error(error, url) from None


class TarStream:
    """The members of the shard ``url``, whose bytes come in pieces of any size.

    Memory: one member, if it spans pieces, and nothing else; views keep the pieces that they are views of.

    Args:
        url: for errors.
        offset: where in the shard the first piece begins: at the start of a header, extended ones included.
        views: give read-only memoryviews, uncopied where a member lies within one piece, in place of bytes.
        max_member_bytes: a larger member is a ShardError.
    """

    def __init__(
        self, *, url: str, offset: int = 0, views: bool = False, max_member_bytes: int = MEMBER_BYTES
    ) -> None:
        from datapipes import _dfs  # noqa: PLC0415 - loads the engine

        self._url = url
        self._fault = _dfs.TarError
        self._stream = _dfs.TarStream(offset=offset, views=views, max_member_bytes=max_member_bytes)

    def feed(self, piece: bytes | bytearray | memoryview) -> list[tuple[str, bytes | memoryview, int]]:
        """(name, data, offset) of each member that ends within ``piece``; another stream that begins at the
        offset goes on after it. Raises ShardError, once the members before the fault were returned."""
        try:
            return self._stream.feed(piece)
        except self._fault as error:
            raise _shard_error(error, self._url) from None

    def finish(self) -> None:
        """The last piece was given. Raises ShardError where the shard should not have ended there."""
        try:
            self._stream.finish()
        except self._fault as error:
            raise _shard_error(error, self._url) from None

    @property
    def ended(self) -> bool:
        """Whether the end marker was met: what follows is no part of the shard."""
        return self._stream.ended


def _shard_error(error: _dfs.TarError, url: str) -> ShardError:
    reason, offset = error.args
    return ShardError(f"read {url!r} failed at byte {offset}: {reason}", url=url, operation="read")
