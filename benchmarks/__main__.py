"""``python -m benchmarks``: every table, on files it makes and removes. ``--quick`` for a small look.

The table ``daos-pool`` is printed where ``DAOS_POOL`` and ``DAOS_CONT`` name a container.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from benchmarks.aistore import aistore_table
from benchmarks.daos import daos_table
from benchmarks.daos_pool import pool_tables
from benchmarks.data import scratch
from benchmarks.depth import depth_table
from benchmarks.harness import print_machine
from benchmarks.latency import latency_table
from benchmarks.listing import index_table, listing_table
from benchmarks.overhead import overhead_table
from benchmarks.reading import read_table
from benchmarks.resuming import resume_table

TABLES = ("read", "latency", "depth", "overhead", "listing", "index", "daos", "daos-pool", "aistore")


def file_tables(wanted: set[str], root: Path, *, scale: int, repeats: int) -> None:
    """Those tables that read files of their own below ``root``."""
    if "read" in wanted:
        read_table(root, count=20_000 // scale, size=8 * 1024, repeats=repeats)
        read_table(root, count=2_000 // scale, size=112 * 1024, repeats=repeats)
    if "latency" in wanted:
        latency_table(root, count=10_000 // scale, repeats=max(1, repeats // 2))
    if "depth" in wanted:
        depth_table(root, count=2_000, repeats=max(1, repeats // 2))
    if "overhead" in wanted:
        overhead_table(root, count=20_000 // scale, repeats=repeats)
    if "listing" in wanted:
        listing_table(root, directories=1_000 // scale, per_directory=1_000, repeats=max(1, repeats // 2))
    if "index" in wanted:
        index_table(root, names=10_000_000 // scale)
        resume_table(root, repeats=repeats)
    if "daos" in wanted:
        daos_table(root, count=20_000 // scale, repeats=max(1, repeats // 2))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"some of: {', '.join(TABLES)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, for a look")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument(
        "--latency-ms",
        type=float,
        nargs="+",
        default=[],
        metavar="MS",
        help="aistore: over an embedded server whose answers begin so much later",
    )
    options = parser.parse_args()
    wanted = set(options.tables or TABLES)
    if unknown := wanted - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    pool, cont = os.environ.get("DAOS_POOL"), os.environ.get("DAOS_CONT")
    if "daos-pool" in options.tables and not (pool and cont):
        parser.error("daos-pool needs DAOS_POOL and DAOS_CONT")
    scale, repeats = (10 if options.quick else 1), options.repeats
    print_machine(repeats)
    with scratch() as root:
        file_tables(wanted, root, scale=scale, repeats=repeats)
    if "daos-pool" in wanted and pool and cont:
        pool_tables(pool, cont, scale=scale, repeats=max(1, repeats // 2))
    if "aistore" in wanted:
        aistore_table(scale=scale, repeats=max(1, repeats // 2), latencies_ms=options.latency_ms)


if __name__ == "__main__":
    main()
