"""``python -m datapipes.testing.ais_server DIR``: an AIStore over a directory, until Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence

from datapipes.testing.ais_server.cluster import Cluster
from datapipes.testing.ais_server.core import Core
from datapipes.testing.ais_server.server import KEY_VARIABLE, TOKEN_VARIABLE
from datapipes.testing.ais_server.store import Store

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m datapipes.testing.ais_server", description=__doc__)
    parser.add_argument("directory", metavar="DIR", help="buckets are its directories; made if missing")
    parser.add_argument("--port", type=int, default=51080, help="of the proxy (%(default)s; 0: a free one)")
    parser.add_argument("--targets", type=int, default=2, metavar="N", help="how many (%(default)s)")
    parser.add_argument("--no-name-conflicts", action="store_true", help="allow objects a and a/b together")
    parser.add_argument("--no-etl", action="store_true", help="answer like a build without ETL")
    parser.add_argument("--target-digests", default="", help=argparse.SUPPRESS)
    parser.add_argument("--managed", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if not 0 <= given.port <= 65535:
        parser.error(f"--port must be between 0 and 65535, not {given.port}")
    if given.targets < 1:
        parser.error(f"--targets must be at least 1, not {given.targets}")
    try:
        core = _core(given)
    except OSError as error:
        said = f"cannot serve {given.directory!r} at port {given.port}: {error}"
        print(f"{parser.prog}: {said} (--port 0 takes a free port)", file=sys.stderr)
        return 1
    gc.freeze()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(core.run(_tell(core, managed=given.managed)))
    return 0


def _core(given: argparse.Namespace) -> Core:
    """The server as the arguments want it, bound to its port."""
    cluster = Cluster(
        Store(given.directory),
        targets=given.targets,
        token=os.environ.get(TOKEN_VARIABLE) or None,
        name_conflicts=not given.no_name_conflicts,
        target_digests=[int(digest) for digest in given.target_digests.split(",") if digest],
        etl=not given.no_etl,
    )
    cluster.control_key = os.environ.get(KEY_VARIABLE) or None
    return Core(cluster, port=given.port)


def _tell(core: Core, *, managed: bool) -> Callable[[], None]:
    """What to say when the server is ready: to a person, or to the process that started it."""

    def ready() -> None:
        nodes = core.cluster.nodes
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, core.stop)
        if managed:
            # Nothing is ever written there: it ends when whoever started this process closes it, or dies.
            loop.add_reader(sys.stdin.fileno(), core.stop)
            print(json.dumps([node.url for node in nodes]), flush=True)
            return
        targets = ", ".join(node.url for node in core.cluster.targets)
        print(f"AIStore at AIS_ENDPOINT={nodes[0].url} (targets: {targets}); Ctrl-C ends it", flush=True)

    return ready


if __name__ == "__main__":
    sys.exit(main())
