"""DAOS: what listing one flat directory costs, by what is asked, on the stand-in of the tests.

The baseline looks at one entry after another, as ``dfs_readdirplus`` does inside, and with it the incumbent
in a directory that lies on one target.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.harness import Contender
from datapipes import _dfs

BASELINE = "sizes, one entry after another"


def listing_contenders(session: _dfs.Session, path: str, files: int, root: Path) -> list[Contender]:
    """Each mode of listing the directory ``path`` of so many ``files``; handles are kept within the time."""

    def listed(**options: Any) -> int:
        count = sum(len(block) for block in session.list(path, **options))
        assert count == files
        return count

    def with_handles() -> int:
        spool = _dfs.HandleSpool(str(root), max_bytes=1 << 30)
        count = listed(handles=spool)
        spool.settle(str(root / "listed.handles"), identity="", files=count, max_bytes=1 << 30)
        return count

    return [
        Contender(BASELINE, lambda: listed(depth=1)),
        Contender("sizes", listed),
        Contender("sizes, and handles for all that reads later", with_handles),
        Contender("names and types", lambda: listed(sizes=False)),
        Contender("names", lambda: listed(sizes=False, types=False)),
    ]
