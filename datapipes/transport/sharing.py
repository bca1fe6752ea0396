"""Which requests open a connection, which wait for one to share by HTTP/2, and what one leaves there.

libcurl finds out by ALPN what a server speaks. Left alone it opens a connection for each of the first
requests, of which HTTP/2 needs a few; told to wait (``PIPEWAIT``) it holds back the requests to a server
without HTTP/2 until the first of them is answered.
"""

from __future__ import annotations

import pycurl

from datapipes.transport.channel import Channel
from datapipes.transport.options import Origin

__all__ = ["Sharing"]

_STREAMS = 8
"""The most requests on one connection: with all of them on one there would be one congestion window, and one
server behind a balancer."""

_HTTP_1 = frozenset({pycurl.CURL_HTTP_VERSION_1_0, pycurl.CURL_HTTP_VERSION_1_1})


class _Place:
    """An origin, as one driver has met it.

    Attributes:
        going: requests on their way, and those held.
        opened: for how many of them a connection was opened, or would have been if none had been free.
        single: whether each request has a connection of its own; None: no answer has told yet.
        scouts: those that open its first connections; None: one of these stands, or has failed.
        held: requests that wait until then.
    """

    __slots__ = ("going", "held", "opened", "scouts", "single")

    def __init__(self) -> None:
        self.going: set[Channel] = set()
        self.opened = 0
        self.single: bool | None = None
        self.scouts: list[Channel] | None = []
        self.held: list[Channel] = []


class Sharing:
    """The origins of one driver, whose multi handle this is.

    Of the requests to an origin that are on their way at once each eighth opens a connection if none is free,
    and those in between wait while one is being opened: as many connections as HTTP/2 needs, all at once.
    Where one is lost, libcurl opens another for those that find no room. Until the first of them
    stands, those in between are held here; from then on libcurl knows whether to hold them.
    """

    def __init__(self, multi: pycurl.CurlMulti, *, allowed: bool) -> None:
        self._multi = multi
        self._allowed = allowed
        self._places: dict[Origin, _Place] = {}
        self._waiting: set[_Place] = set()
        self._left: set[int] = set()
        self.halted: list[Channel] = []
        """Where a transfer that is cut off or paused is noted while libcurl works."""
        multi.setopt(pycurl.M_MAX_CONCURRENT_STREAMS, _STREAMS)

    def start(self, channel: Channel) -> None:
        """Begin a transfer, or hold it back."""
        if not self._allowed or channel.origin.scheme != "https":
            self._multi.add_handle(channel.easy)
            return
        place = self._places.get(channel.origin)
        if place is None:
            place = self._places[channel.origin] = _Place()
        opens = place.single or len(place.going) >= _STREAMS * place.opened
        place.opened += opens
        place.going.add(channel)
        channel.wait_to_share(waits=not opens)
        if place.scouts is None:
            self._multi.add_handle(channel.easy)
        elif opens:
            place.scouts.append(channel)
            self._multi.add_handle(channel.easy)
        else:
            place.held.append(channel)
            self._waiting.add(place)

    def release(self) -> None:
        """Begin what was held for a connection that stands by now."""
        for place in list(self._waiting):
            if any(scout.easy.getinfo(pycurl.APPCONNECT_TIME) for scout in place.scouts or ()):
                self._release(place)

    def _release(self, place: _Place) -> None:
        place.scouts = None
        self._waiting.discard(place)
        held, place.held = place.held, []
        for channel in held:
            self._multi.add_handle(channel.easy)

    def ended(self, channel: Channel) -> None:
        """A transfer has ended, or is about to be cut off."""
        place = self._places.get(channel.origin)
        if place is None:
            return
        place.going.discard(channel)
        if channel in place.held:  # what its handle knows is of another transfer
            place.held.remove(channel)
        else:
            self._note_left(channel)
            version = channel.easy.getinfo(pycurl.INFO_HTTP_VERSION)
            if version:
                place.single = version in _HTTP_1
        if place.scouts is not None and channel in place.scouts:
            self._release(place)
        if not place.going:
            place.opened = 0
            if place.single is None:
                place.scouts = []

    def left(self) -> set[int]:
        """Sockets of connections that a transfer has left, where others may go on, since this was last asked.

        What has come for those may be in OpenSSL's memory already: no socket speaks of it any more, and
        libcurl (8.23) does not remember it.
        """
        for channel in self.halted:
            self._note_left(channel)
        self.halted.clear()
        left, self._left = self._left, set()
        return left

    def _note_left(self, channel: Channel) -> None:
        if channel.origin in self._places and channel.easy.getinfo(pycurl.INFO_HTTP_VERSION) not in _HTTP_1:
            self._left.add(channel.easy.getinfo(pycurl.ACTIVESOCKET))
