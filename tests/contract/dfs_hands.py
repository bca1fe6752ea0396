"""A test's own hands in a DAOS container: libdfs without our engine, in another process, spoken to by pipes.

Another process, because libdfs keeps connections and what it has started to itself: nothing of that may help,
or disturb, the back end under test. This file is its program: ``python dfs_hands.py POOL CONTAINER``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pickle
import stat
import subprocess
import sys
from collections.abc import Mapping
from typing import Any


class Iov(ctypes.Structure):
    _fields_ = [("buf", ctypes.c_void_p), ("buf_len", ctypes.c_size_t), ("len", ctypes.c_size_t)]


class Sgl(ctypes.Structure):
    _fields_ = [("nr", ctypes.c_uint32), ("nr_out", ctypes.c_uint32), ("iovs", ctypes.POINTER(Iov))]


class Handle(ctypes.Structure):
    _fields_ = [("cookie", ctypes.c_uint64)]


READ, READ_WRITE = 1, 2  # DAOS_PC_RO, DAOS_COO_RW
BALANCED = 4  # DFS_BALANCED
LISTED = 3  # DAOS_ANCHOR_TYPE_EOF: nothing is behind that anchor


def load() -> ctypes.CDLL:
    """libdfs with what it is linked with, from ``DATAPIPES_LIBDFS_DIR`` or as the system finds it."""
    folder = os.environ.get("DATAPIPES_LIBDFS_DIR")
    if not folder:
        return ctypes.CDLL("libdfs.so")
    for name in ("libgurt.so.4", "libdaos_common.so", "libdaos.so.2"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            ctypes.CDLL(path)
    return ctypes.CDLL(os.path.join(folder, "libdfs.so"))


def check(code: int, what: str) -> None:
    if code:
        raise OSError(code, os.strerror(code), what)


class Container:
    """A connection that may write; names are paths from its root, as bytes."""

    def __init__(self, pool: str, container: str) -> None:
        self.dfs = load()
        check(self.dfs.dfs_init(), "dfs_init")
        self.mount = ctypes.c_void_p()
        pool_handle, handle = Handle(), Handle()
        where = f"daos://{pool}/{container}"
        made = ctypes.byref(pool_handle)
        code = self.dfs.daos_pool_connect(pool.encode(), None, READ, made, None, None)
        check(errno.EIO if code else 0, f"daos_pool_connect {where}: DER {-code}")
        made = ctypes.byref(handle)
        code = self.dfs.daos_cont_open(pool_handle, container.encode(), READ_WRITE, made, None, None)
        check(errno.EIO if code else 0, f"daos_cont_open {where}: DER {-code}")
        made = ctypes.byref(self.mount)
        code = self.dfs.dfs_mount(pool_handle, handle, os.O_RDWR, made)
        if code == errno.EPERM:
            code = self.dfs.dfs_mount(pool_handle, handle, os.O_RDWR | BALANCED, made)
        check(code, f"dfs_mount {where}")

    def look_up(self, path: bytes, flags: int) -> ctypes.c_void_p:
        found = ctypes.c_void_p()
        code = self.dfs.dfs_lookup(self.mount, b"/" + path, flags, ctypes.byref(found), None, None)
        check(code, f"dfs_lookup {path!r}")
        return found

    def make_directory(self, path: bytes) -> None:
        """And those above it."""
        above, _, name = path.rpartition(b"/")
        if above:
            self.make_directory(above)
        parent = self.look_up(above, os.O_RDWR)
        code = self.dfs.dfs_mkdir(self.mount, parent, name, 0o755, 0)
        self.dfs.dfs_release(parent)
        check(0 if code == errno.EEXIST else code, f"dfs_mkdir {path!r}")

    def write(self, path: bytes, data: bytes) -> None:
        """The same file with other content, if there is one."""
        above, _, name = path.rpartition(b"/")
        parent, file = self.look_up(above, os.O_RDWR), ctypes.c_void_p()
        flags, mode = os.O_RDWR | os.O_CREAT | os.O_TRUNC, stat.S_IFREG | 0o644
        made = ctypes.byref(file)
        offset = chunk = ctypes.c_uint64(0)
        code = self.dfs.dfs_open(self.mount, parent, name, mode, flags, 0, chunk, None, made)
        self.dfs.dfs_release(parent)
        check(code, f"dfs_open {path!r}")
        try:
            memory = ctypes.create_string_buffer(data, len(data))
            if data:
                code = self.dfs.dfs_write(self.mount, file, self.list_of(memory), offset, None)
            check(code, f"dfs_write {path!r}")
        finally:
            self.dfs.dfs_release(file)

    def read(self, path: bytes) -> bytes:
        file, size, got = self.look_up(path, os.O_RDONLY), ctypes.c_uint64(), ctypes.c_uint64()
        try:
            check(self.dfs.dfs_get_size(self.mount, file, ctypes.byref(size)), f"dfs_get_size {path!r}")
            memory = ctypes.create_string_buffer(size.value)
            to, offset, count = self.list_of(memory), ctypes.c_uint64(0), ctypes.byref(got)
            check(self.dfs.dfs_read(self.mount, file, to, offset, count, None), f"dfs_read {path!r}")
            return memory.raw[: got.value]
        finally:
            self.dfs.dfs_release(file)

    def remove(self, path: bytes, everything: bool) -> None:
        """Entry by entry: libdfs 2.8.0 dies of a large tree that it is to remove in a balanced container."""
        above, _, name = path.rpartition(b"/")
        parent = self.look_up(above, os.O_RDWR)
        code = self.dfs.dfs_remove(self.mount, parent, name, ctypes.c_bool(False), None)
        if code == errno.ENOTEMPTY and everything:
            for below in self.names_in(path):
                self.remove(path + b"/" + below, True)
            code = self.dfs.dfs_remove(self.mount, parent, name, ctypes.c_bool(False), None)
        self.dfs.dfs_release(parent)
        check(code, f"dfs_remove {path!r}")

    def names_in(self, path: bytes) -> list[bytes]:
        directory, names = self.look_up(path, os.O_RDONLY), list[bytes]()
        anchor, entries = ctypes.create_string_buffer(120), ctypes.create_string_buffer(280 * 64)
        while int.from_bytes(anchor.raw[:2], "little") != LISTED:
            count = ctypes.c_uint32(64)
            code = self.dfs.dfs_readdir(self.mount, directory, anchor, ctypes.byref(count), entries)
            check(code, f"dfs_readdir {path!r}")
            names += [entries.raw[at * 280 + 19 :].split(b"\0", 1)[0] for at in range(count.value)]
        self.dfs.dfs_release(directory)
        return names

    def write_all(self, files: Mapping[bytes, bytes]) -> None:
        """A name that ends with a slash is an empty directory."""
        made: set[bytes] = set()
        for name, data in files.items():
            above, _, last = name.rpartition(b"/")
            if above not in made:
                self.make_directory(above)
                made.add(above)
            if last:
                self.write(name, data)

    @staticmethod
    def list_of(memory: ctypes.Array[ctypes.c_char]) -> Any:
        size = ctypes.sizeof(memory)
        iov = Iov(ctypes.cast(memory, ctypes.c_void_p), size, size)
        return ctypes.byref(Sgl(1, 0, ctypes.pointer(iov)))


class Hands:
    """``Container`` in another process, with names as ``os.fsencode`` takes them."""

    def __init__(self, pool: str, container: str) -> None:
        command = [sys.executable, __file__, pool, container]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.answer()
        except BaseException:
            self.close()
            raise

    def answer(self) -> Any:
        assert self.process.stdout is not None
        good, value = pickle.load(self.process.stdout)
        if not good:
            raise value
        return value

    def ask(self, verb: str, *arguments: object) -> Any:
        assert self.process.stdin is not None
        pickle.dump((verb, arguments), self.process.stdin)
        self.process.stdin.flush()
        return self.answer()

    def write_all(self, files: Mapping[str, bytes]) -> None:
        self.ask("write_all", {os.fsencode(name): data for name, data in files.items()})

    def write(self, path: str, data: bytes) -> None:
        self.ask("write", os.fsencode(path), data)

    def read(self, path: str) -> bytes | None:
        """None: there is no such file."""
        try:
            found: bytes = self.ask("read", os.fsencode(path))
        except FileNotFoundError:
            return None
        return found

    def remove(self, path: str, *, everything: bool = False) -> None:
        self.ask("remove", os.fsencode(path), everything)

    def close(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        self.process.wait(20)


def serve(pool: str, container: str) -> None:
    """Answer until the pipe is closed; libraries that talk on standard output do so on standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    place: Any = None
    try:
        place, answer = Container(pool, container), (True, None)
    except OSError as error:
        answer = (False, error)  # type: ignore[assignment]
    while True:
        pickle.dump(answer, answers)
        answers.flush()
        try:
            verb, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer = (True, getattr(place, verb)(*arguments))
        except OSError as error:
            answer = (False, error)  # type: ignore[assignment]


if __name__ == "__main__":
    serve(*sys.argv[1:])
