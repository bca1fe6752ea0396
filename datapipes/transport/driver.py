"""libcurl's multi interface under epoll: many transfers driven by the one thread that waits for them.

A driver is used by one reader at a time and kept for the next, with its open connections. A forked child
never touches its parent's drivers: closing them would say good-bye on connections that the parent goes on
using.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import threading
import time
from collections import deque
from typing import Any

import pycurl

from datapipes._dfs import call_log
from datapipes.transport.channel import Channel
from datapipes.transport.options import HttpOptions
from datapipes.transport.sharing import Sharing

__all__ = ["Driver", "borrow", "most_in_flight", "take_back"]

_Ended = tuple["Channel", int, str]

_SPARE_DESCRIPTORS = 32
"""Left for what else the process opens: files, pipes of workers, libcurl's resolver."""

_IDLE_DRIVERS = 4
"""Kept for readers to come, whatever their options: each holds open connections."""

_LARGEST_MAPPED_BYTES = (32 << 20) - (64 << 10)
"""Freeing a block of this size makes glibc keep up to 64 MiB of what is freed from then on. By default it
gives large blocks back to the kernel and asks for them anew for every body: a third of the CPU of large ones.
See M_MMAP_THRESHOLD in mallopt(3); whoever sets the variables named there has it his way."""

_MASKS = {
    pycurl.POLL_IN: select.EPOLLIN,
    pycurl.POLL_OUT: select.EPOLLOUT,
    pycurl.POLL_INOUT: select.EPOLLIN | select.EPOLLOUT,
}


class Driver:
    """One multi handle and the epoll it waits with."""

    def __init__(self, options: HttpOptions) -> None:
        self.options = options
        self._multi = multi = pycurl.CurlMulti()
        self._epoll = select.epoll()
        self._changes: list[tuple[Any, ...]] = []
        self._timers: list[int] = []
        self._wanted: dict[int, int] = {}
        self._sharing = Sharing(multi, allowed=options.may_share)
        self._due: float | None = None
        self._idle: deque[Channel] = deque()
        self.active: dict[pycurl.Curl, Channel] = {}
        self.busiest = 0
        """The most transfers at once, and so connections: they are kept."""
        multi.setopt(pycurl.M_SOCKETFUNCTION, call_log(self._changes))
        multi.setopt(pycurl.M_TIMERFUNCTION, self._timers.append)

    def begin(self, depth: int) -> None:
        """A reading of up to ``depth`` transfers at once begins.

        libcurl counts busy connections among those it keeps: told to keep fewer, it closes one for each new.
        """
        self._multi.setopt(pycurl.M_MAXCONNECTS, max(depth, self.options.idle_connections))

    def channel(self) -> Channel:
        """A channel that nothing uses."""
        return self._idle.pop() if self._idle else Channel(self.options, self._sharing.halted)

    def start(self, channel: Channel) -> None:
        """Begin the transfer that ``channel`` has been set up for."""
        channel.headers.clear()
        self.active[channel.easy] = channel
        self.busiest = max(self.busiest, len(self.active))
        self._sharing.start(channel)

    def stop(self, channel: Channel) -> None:
        """Give a channel back, cutting its transfer short if it has not ended."""
        if self.active.pop(channel.easy, None) is not None:
            self._sharing.ended(channel)
            with contextlib.suppress(pycurl.error):  # a signal's handler raised before it was begun
                self._multi.remove_handle(channel.easy)
        channel.exchange = None
        channel.headers.clear()
        self._idle.append(channel)

    def stop_all(self) -> None:
        """Cut every transfer short."""
        for channel in list(self.active.values()):
            self.stop(channel)

    def step(self, most_s: float) -> list[_Ended]:
        """Wait for something to happen, at most so long, and do what there is to do: what has ended since."""
        ended = self._ended()
        if ended:  # by the kick before: its answer was quicker than we are
            return ended
        self._note_changes()
        wait_s = most_s
        if self._due is not None:
            wait_s = min(wait_s, max(0.0, self._due - time.monotonic()))
        left = self._sharing.left()
        if left:
            wait_s = 0.0
        for fd, events in self._epoll.poll(wait_s, 256) if wait_s or self._wanted else ():
            left.discard(fd)
            self._hear(fd, events)
        for fd in left & self._wanted.keys():
            self._multi.socket_action(fd, pycurl.CSELECT_IN)
        self._sharing.release()
        self.kick()
        return self._ended()

    def _hear(self, fd: int, events: int) -> None:
        if fd not in self._wanted:  # a connection kept open: closed by the server
            with contextlib.suppress(OSError):  # and by libcurl, in this very round
                self._epoll.unregister(fd)
            return
        mask = pycurl.CSELECT_IN if events & (select.EPOLLIN | select.EPOLLHUP) else 0
        if events & select.EPOLLOUT:
            mask |= pycurl.CSELECT_OUT
        if events & select.EPOLLERR:
            mask |= pycurl.CSELECT_ERR
        self._multi.socket_action(fd, mask)

    def kick(self) -> None:
        """Send what was started, without waiting for anything."""
        self._note_changes()
        if self._due is not None and self._due <= time.monotonic():
            self._due = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)

    def _note_changes(self) -> None:
        if self._timers:
            wait_ms = self._timers[-1]
            self._timers.clear()
            self._due = None if wait_ms < 0 else time.monotonic() + wait_ms / 1000
        if not self._changes:
            return
        latest = {
            fd: what for what, fd, _, _ in self._changes
        }  # one may be closed by now, and its number anew
        self._changes.clear()
        for fd, what in latest.items():
            mask = _MASKS.get(what)
            if mask is None:
                self._wanted.pop(fd, None)  # may be wanted again soon: epoll is told when it speaks unasked
            else:
                self._watch(fd, mask)

    def _watch(self, fd: int, mask: int) -> None:
        # A number may have been closed and opened again between two calls: epoll then knows nothing of it.
        self._wanted[fd] = mask
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)

    def _ended(self) -> list[_Ended]:
        ended: list[_Ended] = []
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            ended += [(self.active[easy], 0, "") for easy in good]
            ended += [(self.active[easy], code, message) for easy, code, message in bad]
        for channel, _, _ in ended:
            self._sharing.ended(channel)
            del self.active[channel.easy]
            self._multi.remove_handle(channel.easy)
        return ended

    def close(self) -> None:
        """Close every connection."""
        self.stop_all()
        self._multi.close()
        self._epoll.close()
        for channel in self._idle:
            channel.receiver.close()
            channel.easy.close()
        self._idle.clear()


class _Drivers:
    """The drivers of this process."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.lock = threading.Lock()
        self.all: list[Driver] = []
        self.idle: list[Driver] = []  # the one used last stands last

    def let_go(self, most: int, connections: int) -> list[Driver]:
        """Those to be closed so that so many stay idle, with so many connections. The lock is held."""
        gone = []
        while len(self.idle) > most or sum(driver.busiest for driver in self.idle) > connections:
            gone.append(self.idle.pop(0))
        self.all = [driver for driver in self.all if driver not in gone]
        return gone


_drivers: _Drivers | None = None


def _here() -> _Drivers:
    global _drivers  # noqa: PLW0603 - one for each process, made when it first reads
    if _drivers is None:
        bytes(_LARGEST_MAPPED_BYTES)
        _drivers = _Drivers()
        os.register_at_fork(after_in_child=_leave_to_the_parent)
    return _drivers


def _leave_to_the_parent() -> None:
    global _drivers  # noqa: PLW0603 - see _here
    if _drivers is not None:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_drivers))  # never freed: that would close connections
        _drivers = _Drivers()


def borrow(options: HttpOptions, depth: int) -> Driver:
    """A driver with these options, which nobody else uses until it is taken back, for so many transfers."""
    driver = _idle_or_new(options)
    driver.begin(depth)
    return driver


def _idle_or_new(options: HttpOptions) -> Driver:
    here = _here()
    with here.lock:
        for driver in reversed(here.idle):
            if driver.options == options:
                here.idle.remove(driver)
                return driver
        driver = Driver(options)
        here.all.append(driver)
        return driver


def take_back(driver: Driver) -> None:
    """Keep a driver for the next reader, but of all idle ones together no more connections than may idle."""
    here, most = _here(), driver.options.idle_connections
    with here.lock:
        if driver not in here.all:  # its process was forked: it is the parent's
            return
        if driver.busiest > most:
            here.all.remove(driver)
            closing = [driver]
        else:
            here.idle.append(driver)
            closing = here.let_go(_IDLE_DRIVERS, most)
    _close(closing)


def _close(drivers: list[Driver]) -> None:
    for driver in drivers:
        driver.close()


def most_in_flight(wanted: int) -> int:
    """``wanted``, or as many connections as this process may still open, and be it without idle ones.

    Beyond that libcurl reports connections as refused, which they are not.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft > 8 * (wanted + _SPARE_DESCRIPTORS):
        return wanted
    if _free(soft) < wanted:
        here = _here()
        with here.lock:
            idle = here.let_go(0, 0)
        _close(idle)
    return max(1, min(wanted, _free(soft)))


def _free(limit: int) -> int:
    return limit - len(os.listdir("/dev/fd")) - _SPARE_DESCRIPTORS
