"""The main job on real files: ``make demo``, or ``python demo/digits.py --digits 6000``.

Draws PNG digits into an embedded DAOS container (a directory), then
 1. reads them through DataLoader and through torchdata.nodes and finds the same order,
 2. trains a linear classifier on them,
 3. shards them over two ranks, kills both with SIGKILL in mid-epoch, resumes them in new processes, counts,
 4. does 1 and 3 again through libdfs (a stand-in: no DAOS is needed), and once more over an embedded AIStore.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from draw import draw_digits
from pipelines import as_node, as_pipe
from standin import calls, libdfs
from torch.utils.data import DataLoader
from torchdata.nodes import Loader
from tqdm import tqdm

from datapipes.testing.ais_server import AisServer

URL = "daos://tank/digits/"
AIS_URL = "ais://digits/"
RANKS = 2


def read_both_ways(url: str, count: int) -> None:
    """One epoch through DataLoader and one through torchdata.nodes: the same names in the same order."""
    orders = {}
    loaders: dict[str, Any] = {
        "DataLoader": DataLoader(as_pipe(url), batch_size=None),
        "torchdata.nodes": Loader(as_node(url)),
    }
    for name, loader in loaders.items():
        begin = time.perf_counter()
        order = []
        with tqdm(total=count, desc=f"  {name}", unit="file", mininterval=1) as bar:
            for urls, _pixels, _labels in loader:
                order += urls
                bar.update(len(urls))
        seconds = time.perf_counter() - begin
        print(f"  {name}: {len(order)} files in {seconds:.2f} s, {len(order) / seconds:,.0f} files/s decoded")
        orders[name] = order
    first, second = orders.values()
    expect(first == second, "pipes and nodes give the same order")
    expect(first != sorted(first) and len(set(first)) == count, "every file once, shuffled")


def upload(directory: Path, server: AisServer) -> None:
    """Every file of ``directory`` as an object of the same name."""
    server.store.create_bucket("digits")
    for path in sorted(directory.rglob("*.png")):
        server.store.put("digits", str(path.relative_to(directory)), path.read_bytes())


def train(epochs: int) -> None:
    """A linear classifier; each epoch comes in another order by itself."""
    torch.manual_seed(0)
    model = torch.nn.Linear(28 * 28, 10)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    loader = DataLoader(as_pipe(URL), batch_size=None)
    accuracy = 0.0
    for epoch in range(epochs):
        losses, right, seen = 0.0, 0, 0
        batches = tqdm(loader, desc=f"  epoch {epoch}", unit="batch", mininterval=1)
        for _urls, pixels, labels in batches:
            scores = model(pixels.flatten(1))
            loss = torch.nn.functional.cross_entropy(scores, labels)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
            losses += loss.item() * len(labels)
            right += int((scores.argmax(1) == labels).sum())
            seen += len(labels)
        accuracy = right / seen
        print(f"  epoch {epoch}: loss {losses / seen:.3f}, accuracy {accuracy:.1%}")
    expect(accuracy > 0.8, "the classifier learned its digits")


def kill_and_resume(kind: str, url: str, scratch: Path, count: int) -> None:
    """Every rank is killed at a batch of its own; new processes go on from the checkpoints."""
    checkpoints = [scratch / f"{kind}-{rank}.json" for rank in range(RANKS)]
    batches = count // RANKS // 64
    killed = run_ranks(kind, url, checkpoints, [max(2, batches // 3), max(3, batches // 2)])
    expect(killed == [-signal.SIGKILL] * RANKS, f"{kind}: both ranks were killed in mid-epoch (SIGKILL)")
    before = sum(len(json.loads(path.read_text())["delivered"]) for path in checkpoints)
    finished = run_ranks(kind, url, checkpoints, [0] * RANKS)
    expect(finished == [0] * RANKS, f"{kind}: both ranks resumed in new processes and finished")
    seen = Counter(url for path in checkpoints for url in json.loads(path.read_text())["delivered"])
    delivered = sum(seen.values())
    lost, repeated = count - len(seen), delivered - len(seen)
    after = delivered - before
    print(f"  {before} delivered before the kill, {after} after: {lost} lost, {repeated} repeated")
    for path in checkpoints:
        path.unlink()
    expect(lost == 0 and repeated == 0, f"{kind}: nothing lost, nothing repeated")


def run_ranks(kind: str, url: str, checkpoints: list[Path], kill_after: list[int]) -> list[int]:
    script = str(Path(__file__).with_name("job.py"))
    ranks = [
        subprocess.Popen(
            [sys.executable, script, kind, url, str(checkpoint), str(kill)],
            env={**os.environ, "RANK": str(rank), "WORLD_SIZE": str(RANKS)},
        )
        for rank, (checkpoint, kill) in enumerate(zip(checkpoints, kill_after, strict=True))
    ]
    return [rank.wait(timeout=300) for rank in ranks]


def read_twice(url: str, count: int) -> None:
    """Two epochs; the second opens nothing, as handles are kept beside the index."""
    loader = Loader(as_node(url))
    opened = []
    for _ in range(2):
        before = calls()
        read = sum(len(urls) for urls, _pixels, _labels in loader)
        opens, reads = (now - then for now, then in zip(calls(), before, strict=True))
        opened.append(opens)
        print(f"  an epoch: {read} files, {opens} calls of libdfs to open, {reads} to read")
        expect(read == count and reads >= count, "every file came from libdfs")
    expect(opened[0] >= count and opened[1] == 0, "a later epoch opens nothing")


def expect(true: object, what: str) -> None:
    print(f"  {'ok' if true else 'FAILED'}: {what}", flush=True)
    if not true:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--digits", type=int, default=6000, help="how many files to draw (default: 6000)")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of training (default: 3)")
    options = parser.parse_args()
    if options.digits < 640:
        parser.error("--digits must be at least 640: fewer batches leave no room to be killed in")
    with tempfile.TemporaryDirectory(prefix="datapipes-demo-") as place:
        scratch = Path(place)
        os.environ["DATAPIPES_DAOS_ROOT"] = str(scratch)
        print(f"1. {options.digits} PNG files, as {URL} in an embedded container")
        draw_digits(scratch / "tank/digits", options.digits)
        print("2. The same pipeline under two executors")
        read_both_ways(URL, options.digits)
        print("3. Training")
        train(options.epochs)
        print(f"4. {RANKS} ranks, killed and resumed")
        for kind in ("stateful", "nodes"):
            kill_and_resume(kind, URL, scratch, options.digits)
        print("5. The same URLs through libdfs and libdaos (a stand-in: no DAOS is needed)")
        with libdfs(scratch / "libraries", pools=scratch):
            read_both_ways(URL, options.digits)
            read_twice(URL, options.digits)
            kill_and_resume("stateful", URL, scratch, options.digits)
        print("6. The same files in an embedded AIStore, a proxy and two targets")
        with AisServer(process=True) as server:
            os.environ["AIS_ENDPOINT"] = server.url
            upload(scratch / "tank/digits", server)
            read_both_ways(AIS_URL, options.digits)
            for kind in ("stateful", "nodes"):
                kill_and_resume(kind, AIS_URL, scratch, options.digits)
    print("demo: all ok")


if __name__ == "__main__":
    main()
