"""One rank of the demo's job: goes through an epoch, saves after every batch, and may kill itself on the way.

``python demo/job.py LOADER URL CHECKPOINT KILL_AFTER`` with RANK and WORLD_SIZE in the environment. LOADER is
``stateful`` (StatefulDataLoader over pipes, two worker processes) or ``nodes`` (torchdata.nodes.Loader).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from pipelines import as_node, as_pipe
from torchdata.nodes import Loader
from torchdata.stateful_dataloader import StatefulDataLoader
from tqdm import tqdm

warnings.filterwarnings("ignore", message="'set_vital' is deprecated")  # torchdata 0.11 under torch 2.15


def make_loader(kind: str, url: str) -> Any:
    if kind == "nodes":
        return Loader(as_node(url))
    return StatefulDataLoader(as_pipe(url).resumable(), batch_size=None, num_workers=2)


def main(kind: str, url: str, checkpoint: Path, kill_after: int) -> None:
    loader = make_loader(kind, url)
    delivered: list[str] = []
    if checkpoint.exists():
        saved = json.loads(checkpoint.read_text())
        delivered = saved["delivered"]
        loader.load_state_dict(saved["state"])
    rank, before, begin = os.environ["RANK"], len(delivered), time.perf_counter()
    bar = tqdm(desc=f"  {kind}, rank 0", unit="file", initial=before, mininterval=1, disable=rank != "0")
    for number, (urls, _pixels, _labels) in enumerate(loader, start=1):
        if number == kill_after:
            os.kill(os.getpid(), signal.SIGKILL)  # this batch is not in the checkpoint: it never happened
        delivered += urls
        bar.update(len(urls))
        new = checkpoint.with_suffix(".new")
        new.write_text(json.dumps({"delivered": delivered, "state": loader.state_dict()}))
        os.replace(new, checkpoint)
    bar.close()
    seconds = time.perf_counter() - begin
    print(f"  rank {rank}: {len(delivered) - before} files in {seconds:.1f} s, {before} before it was killed")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
