"""What lay in the cluster before each file's first exchange, put round the server."""

from __future__ import annotations

import base64
import io
import tarfile
from collections.abc import Callable
from typing import Any

from datapipes.testing.ais_server import Store

from .exchanges import load

PATTERN = bytes(range(256))

LATER = [
    "b",
    "rec-arch",
    "rec-arch-list",
    "rec-empty",
    "rec-etl",
    "rec-gb",
    "rec-gb2",
    "rec-jobs",
    "rec-list",
]
"""Buckets that the cluster had when the later files were recorded."""


def seed(store: Store, name: str) -> None:
    """Makes the buckets and objects that a file of exchanges begins with."""
    if name in SEEDS:
        SEEDS[name](store)


def _objects(store: Store) -> None:
    store.create_bucket("rec-obj")


def _raw(store: Store) -> None:
    store.put("rec-obj-raw", "empty", b"")
    store.put("rec-obj-raw", "ten-locked", b"0123456789")


def _direct(store: Store) -> None:
    for key, size in {"s0": 0, "s1k": 1 << 10, "s64k": 1 << 16, "s1m": 1 << 20, "s8m": 1 << 23}.items():
        store.put("rec-obj-raw", key, PATTERN * (size // 256))
    for key in ("exp", "cf2", "ee0/b"):
        store.put("rec-obj-raw", key, b"1")


def _listing(store: Store) -> None:
    for i in range(10):
        store.put("rec-list", f"obj-{i:02d}", b"x" * (i + 1))
    listed: Any = load("04-listing")[46]["response"]["body"]["msgpack_decoded"]["Entries"]
    for entry in listed:
        store.put("rec-sort", entry["n"], b"x")
    store.create_bucket("rec-empty")


def _archives(store: Store) -> None:
    given = load("05-archives")[0]["response"]["body"]
    ustar, pax, gnu = (base64.b64decode(given[f"{kind}.tar"]["base64"]) for kind in ("ustar", "pax", "gnu"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar, tarfile.open(fileobj=io.BytesIO(ustar)) as source:
        for info in source:
            tar.addfile(info, source.extractfile(info) if info.isfile() else None)
    tgz = packed.getvalue()
    big = io.BytesIO()
    with tarfile.open(fileobj=big, mode="w") as tar:
        info = tarfile.TarInfo("m1")
        info.size = 200_000
        tar.addfile(info, io.BytesIO(b"z" * info.size))
    objects = {
        "ustar.tar": ustar, "pax.tar": pax, "gnu.tar": gnu, "shard.tgz": tgz, "shard.tar.gz": tgz,
        "shard.tar.lz4": b"\x04\x22\x4d\x18", "noext": ustar, "wrongext.zip": ustar, "mid-name.TAR": ustar,
        "shard.zip": base64.b64decode(given["shard.zip"]["base64"]), "plain.bin": b"no archive at all",
        "fake.tar": b"not a tar at all".ljust(1200, b"!"), "empty.tar": b"", "trunc.tar": ustar[:1800],
        "trunc.tgz": tgz[:100], "only-trailer.tar": b"\0" * 1024, "no-trailer.tar": ustar[: _end_of(ustar)],
        "corrupt-hdr.tar": ustar[:1024] + b"\xff" * 512 + ustar[1536:], "big.tar": big.getvalue(),
    }  # fmt: skip
    for key, data in objects.items():
        store.put("rec-archv", key, data)


def _end_of(tar: bytes) -> int:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        opened.getmembers()
        return opened.offset


def _batch(store: Store) -> None:
    for i in range(8):
        store.put("rec-gb", f"o{i}.txt", f"object number {i}\n".encode())
    store.put("rec-gb", "dir/nested.txt", b"nested object\n")
    shard = io.BytesIO()
    with tarfile.open(fileobj=shard, mode="w") as tar:
        for key, data in {"a.txt": b"member a\n", "sub/b.txt": b"member b\n", "c.bin": PATTERN}.items():
            info = tarfile.TarInfo(key)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    store.put("rec-gb", "shard.tar", shard.getvalue())
    contents = {
        "empty": b"", "exact512": b"x" * 512, "k600": b"y" * 600, "big1m": b"B" * (1 << 20),
        "ünï/日本.txt": b"unicode\n"[:8], "sp ace": b"space\n", "L" * 120 + ".txt": b"long name\n",
        "p" * 100 + "/" + "q" * 200: b"very long\n",
    }  # fmt: skip
    for key, data in contents.items():
        store.put("rec-gb", key, data)
    store.put("rec-gb2", "o0.txt", b"same name, other bucket\n")
    store.put("rec-gb2", "other.txt", b"in the other bucket\n")


def _etl(store: Store) -> None:
    for key in [*LATER, "rec-obj", "rec-obj-raw", "rec-s3", "rec-sort"]:
        store.create_bucket(key)
    store.put("rec-etl", "o", b"data")


def _jobs(store: Store) -> None:
    for i in range(3):
        store.put("rec-jobs", f"f{i}", b"f" + bytes([48 + i]))


SEEDS: dict[str, Callable[[Store], object]] = {
    "03-objects": _objects,
    "03b-objects-raw": _raw,
    "03c-direct-and-framing": _direct,
    "04-listing": _listing,
    "04b-listing-edges": _listing,
    "05-archives": _archives,
    "06-get-batch": _batch,
    "07-etl": _etl,
    "08-auth": _etl,
    "09-hrw": lambda store: store.create_bucket("b"),
    "10-s3": lambda store: store.create_bucket("rec-s3"),
    "11-jobs": _jobs,
}
