"""4. Listing a million files, the index of ten million names, the permutation."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.data import make_empty_files
from benchmarks.harness import Contender, interleave, print_rows, print_table
from datapipes.backends.local import LocalBackend
from datapipes.index import FileIndex
from datapipes.permutation import Permutation
from datapipes.records import FileEntry


def _walk(root: str) -> int:
    count, pending = 0, [root]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    entry.stat()
                    count += 1
    return count


def _list_in_child(root: Path) -> tuple[float, float, float]:
    """Seconds to the first entry, entries a second and peak MiB of a process that lists and counts."""
    program = (
        "import sys,time\n"
        "from datapipes.backends.local import LocalBackend\n"
        # Of this program alone; what getrusage tells counts its parent's before the exec as well.
        "def peak(): return int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "before=peak()\n"
        "start=time.perf_counter(); it=LocalBackend().list(sys.argv[1]); next(it)\n"
        "first=time.perf_counter()-start\n"
        "n=1+sum(1 for _ in it); total=time.perf_counter()-start\n"
        "print(first, n/total, (peak()-before)/1024)"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(root)], check=True, capture_output=True, text=True
    ).stdout
    first, rate, peak = map(float, out.split())
    return first, rate, peak


def listing_table(root: Path, *, directories: int, per_directory: int, repeats: int) -> None:
    """Entries a second with sizes, against os.scandir; the first entry; peak memory."""
    tree = root / "listing"
    count = make_empty_files(tree, directories=directories, per_directory=per_directory)
    backend, url = LocalBackend(), f"file://{tree}"
    contenders = [
        Contender("os.scandir with stat, unsorted", lambda: _walk(str(tree))),
        Contender("list, sizes", lambda: sum(1 for _ in backend.list(url))),
        Contender("list, names only", lambda: sum(1 for _ in backend.list(url, sizes=False))),
    ]
    title = f"Listing {count:,} files in {directories:,} directories"
    print_table(title, interleave(contenders, repeats), baseline=contenders[0].name, unit="entries")
    runs = [_list_in_child(tree) for _ in range(repeats)]
    first, _, peak = (statistics.median(column) for column in zip(*runs, strict=True))
    print_rows(
        "The same in a process of its own",
        [("first entry, s", f"{first:.3f}"), ("peak memory grown, MiB", f"{peak:.0f}")],
    )


def _names(count: int) -> Iterator[FileEntry]:
    for i in range(count):
        yield FileEntry(f"memory://synthetic/{i // 10_000:010d}/{'x' * 32}{i:013d}.bin", 8192)


def _pss_of_readers(path: Path, readers: int) -> float:
    """MiB that ``readers`` processes together hold of the index (proportional set size of the mapping)."""
    program = (
        "import sys,numpy as np\n"
        "from datapipes.index import FileIndex\n"
        "i=FileIndex.open(sys.argv[1]); n=len(i)\n"
        "for s in range(0,n,1<<16): i.urls(np.arange(s,min(n,s+(1<<16)),64))\n"
        "print('ready',flush=True); sys.stdin.read(1)\n"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(readers)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    total = 0
    for child in children:
        inside = False
        for line in Path(f"/proc/{child.pid}/smaps").read_text().splitlines():
            if "-" in line.split()[0]:
                inside = path.name in line
            elif inside and line.startswith("Pss:"):
                total += int(line.split()[1])
    for child in children:
        child.communicate(b"x")
    return total / 1024


def index_table(root: Path, *, names: int) -> None:
    """Build time, size and shared memory of an index; nanoseconds an index of the permutation."""
    path = root / "names.index"
    start = time.perf_counter()
    index = FileIndex.from_entries(_names(names), path)
    built = time.perf_counter() - start
    start = time.perf_counter()
    for _ in _names(names):
        pass
    generated = time.perf_counter() - start
    scattered = Permutation(len(index), 0, 0)(np.arange(100_000))
    start = time.perf_counter()
    index.urls(scattered)
    lookup = (time.perf_counter() - start) / len(scattered)
    permutation, block = Permutation(names, 0, 1), np.arange(65_536)
    start = time.perf_counter()
    for offset in range(0, min(names, 1 << 20) - len(block) + 1, len(block)):
        permutation(block + offset)
    per_index = (time.perf_counter() - start) / max(1, min(names, 1 << 20) // len(block) * len(block))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = path.stat().st_size
    print_rows(
        f"FileIndex of {names:,} names of 60 bytes below their root",
        [
            ("build from Python entries, s", f"{built:.1f} (of which making the entries {generated:.1f})"),
            ("file, MB", f"{size / 1e6:.0f} ({size / names:.1f} bytes a name)"),
            ("8 processes that read all of it, MiB together", f"{_pss_of_readers(path, 8):.0f}"),
            ("name by number, scattered, us", f"{1e6 * lookup:.2f}"),
            ("permutation, ns an index", f"{1e9 * per_index:.0f}"),
            ("peak memory of this process, MiB", f"{peak:.0f}"),
        ],
    )
