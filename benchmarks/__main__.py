"""``python -m benchmarks``: every table, on files it makes and removes. ``--quick`` for a small look."""

from __future__ import annotations

import argparse

from benchmarks.data import scratch
from benchmarks.depth import depth_table
from benchmarks.harness import print_machine
from benchmarks.latency import latency_table
from benchmarks.listing import index_table, listing_table
from benchmarks.overhead import overhead_table
from benchmarks.reading import read_table
from benchmarks.resuming import resume_table

TABLES = ("read", "latency", "depth", "overhead", "listing", "index")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "tables", nargs="*", metavar="TABLE", help=f"some of: {', '.join(TABLES)} (default: all)"
    )
    parser.add_argument("--quick", action="store_true", help="a tenth of the data, for a look")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    wanted = set(options.tables or TABLES)
    if unknown := wanted - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(unknown))}")
    scale, repeats = (10 if options.quick else 1), options.repeats
    print_machine(repeats)
    with scratch() as root:
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


if __name__ == "__main__":
    main()
