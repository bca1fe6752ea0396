"""The code of pages runs: block after block, as a reader would paste it, over an embedded container."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRINTED = {
    "README.md": "no-such-file.png",
    "docs/daos.md": "no-such-file.png",
    "docs/migrating-from-aistore.md": "x b'content'",
}
"""What the code of each page prints, among the rest."""
EXECUTED = list(PRINTED)
PAGES = [*EXECUTED, "datapipes/README.md", "CONTRIBUTING.md"]

BLOCK = re.compile(
    r"(?:^<!-- (?P<note>[^\n]*) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)

PREAMBLE = """
import multiprocessing
multiprocessing.set_start_method("fork", force=True)  # a pasted session has no __main__ guard
"""


def blocks(page: str) -> list[tuple[str, str, str]]:
    """(note above the block, language, code) of every fenced block."""
    text = (ROOT / page).read_text()
    return [(m["note"] or "", m["language"], m["code"]) for m in BLOCK.finditer(text)]


def runnable(page: str) -> list[str]:
    """The Python blocks that run with what is installed here."""
    found = []
    for note, language, code in blocks(page):
        needed = note.removeprefix("needs: ") if note.startswith("needs: ") else ""
        if language == "python" and not note.startswith("not executed: ") and _are_there(needed):
            found.append(code)
    return found


def _are_there(modules: str) -> bool:
    try:
        return all(importlib.util.find_spec(each) is not None for each in modules.split(", ") if each)
    except ModuleNotFoundError:
        return False


@pytest.fixture
def imagenet(daos_root: Path) -> Path:
    image = pytest.importorskip("PIL.Image", reason="needs Pillow")
    for label in range(4):
        directory = daos_root / "tank/train/imagenet" / str(label)
        directory.mkdir(parents=True)
        for number in range(20):
            image.new("L", (8, 8), label * 10 + number).save(directory / f"{number:03}.png")
    return daos_root


@pytest.mark.timeout(180)
@pytest.mark.parametrize("page", EXECUTED)
def test_the_code_of_a_page_runs(imagenet: Path, tmp_path: Path, page: str) -> None:
    code = runnable(page)
    if not code and all(note.startswith("needs: ") for note, language, _ in blocks(page) if language):
        pytest.skip("what all of its code needs is not installed")
    assert code, "no block to run"
    script = tmp_path / "page.py"
    script.write_text(PREAMBLE + "\n".join(code))
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:datapipes", str(script)],
        capture_output=True,
        text=True,
        timeout=170,
        check=False,
        cwd=tmp_path,
        env={**os.environ, "DATAPIPES_DAOS_ROOT": str(imagenet)},
    )
    assert done.returncode == 0, done.stderr
    assert PRINTED[page] in done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_every_block_is_executed_or_says_why_not(page: str) -> None:
    for note, language, code in blocks(page):
        executed = language == "python" and page in EXECUTED
        if language and not executed:
            reason = note.removeprefix("not executed: ")
            assert note.startswith("not executed: "), f"{page}: say why this is not executed:\n{code}"
            assert len(reason) > 8


@pytest.mark.parametrize("page", [*PAGES, "DECISIONS.md", "_ext/README.md"])
def test_links_between_pages_lead_somewhere(page: str) -> None:
    path = ROOT / page
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", path.read_text()):
        assert (path.parent / target).exists(), f"{page} links to {target}"
