"""An easy handle of libcurl, as transfers use it one after the other."""

from __future__ import annotations

from typing import Any

import pycurl

from datapipes.transport.options import NOWHERE, HttpOptions

__all__ = ["Channel"]


class Channel:
    """An easy handle, with what it keeps from one transfer to the next.

    What libcurl calls back while it works is a builtin or a generator that is never left by an exception:
    a signal's handler may raise in any other Python code (KeyboardInterrupt), and PycURL would print that and
    lose it.
    """

    __slots__ = (
        "easy",
        "exchange",
        "halted",
        "header_lines",
        "headers",
        "origin",
        "posted",
        "ranged",
        "receiver",
        "waits",
    )

    def __init__(self, options: HttpOptions, halted: list[Channel]) -> None:
        self.easy = easy = pycurl.Curl()
        self.origin = NOWHERE
        self.waits = False
        self.halted = halted
        self.headers: list[bytes] = []
        self.exchange: Any = None
        self.header_lines: tuple[str, ...] = ()
        self.ranged = self.posted = False
        self.receiver = _receiver(self)
        next(self.receiver)
        easy.setopt(pycurl.WRITEFUNCTION, self.receiver.send)
        easy.setopt(pycurl.HEADERFUNCTION, self.headers.append)
        options.apply(easy)

    def wait_to_share(self, *, waits: bool) -> None:
        """Whether to wait for a connection that is being opened, or to open another."""
        if waits != self.waits:
            self.easy.setopt(pycurl.PIPEWAIT, int(waits))
            self.waits = waits


def _receiver(channel: Channel) -> Any:
    """Hands each piece of a body to the exchange; its yields are what libcurl is told.

    Every ``yield`` stands within the ``try``, where the handler of a signal is heard when a piece comes in.
    """
    reply: int | None = None
    while True:
        try:
            while True:
                piece = yield reply
                reply = channel.exchange.receive(piece)
                if reply is not None:
                    channel.halted.append(channel)
        except GeneratorExit:
            return
        except BaseException as error:  # noqa: BLE001 - raised again where Python can hear it: Driver.step
            channel.exchange.broken = error
            reply = -1
