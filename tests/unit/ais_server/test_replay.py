"""Every recorded exchange of a real cluster, sent to the embedded server: status, headers, body."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapipes.testing.ais_server import AisServer

from .exchanges import FILES, load
from .left_out import LEFT_OUT
from .replay import Player
from .seeds import seed

DIGESTS = (9587754536559172765, 15003378729609164295)
"""Of the recorded targets: with them, every object has the owner that it had."""

KILLED_BY = ("04b-listing-edges", 6)
"""After this request the recorded targets were gone."""


def test_all_exchanges_are_here() -> None:
    assert sum(len(load(name)) for name in FILES) == 1440
    assert len(FILES) == 14


@pytest.mark.parametrize("name", FILES)
def test_recorded_exchanges_are_answered_alike(name: str, tmp_path: Path) -> None:
    left_out = {number for file, numbers, _ in LEFT_OUT if file == name for number in numbers}
    differences = {}
    with AisServer(tmp_path, target_digests=DIGESTS, etl=name != "07-etl") as server:
        seed(server.store, name)
        player = Player(server)
        try:
            for number, line in enumerate(load(name)):
                if line["request"]["method"] == "NONE":
                    continue  # facts, no request
                if different := player.play(line):
                    differences[number] = f"{line['step']}: {different}"
                if (name, number) == KILLED_BY:
                    server.set_down(0)
                    server.set_down(1)
        finally:
            player.close()
    unexpected = {number: text for number, text in differences.items() if number not in left_out}
    assert not unexpected
    assert not left_out - differences.keys(), "these are answered alike now: take them off the list"


def test_what_is_left_out_exists_and_has_a_reason() -> None:
    for name, numbers, reason in LEFT_OUT:
        assert set(numbers) <= set(range(len(load(name))))
        assert len(reason) > 15


@pytest.mark.parametrize(
    ("number", "part", "value"),
    [
        (7, "status", 206),
        (7, "body", "hello, sec\n"),
        (6, "headers", {"Location": "http://TARGET_A/v1/objects/rec-obj/dir/hello.txt?pid=PROXY_ID&utm=UTM"}),
        (7, "headers", {"Ais-Checksum-Value": "268baf93cd3bf6c8"}),
        (7, "headers", {"Ais-Version": "3", "Ais-Etag": "more"}),
        (41, "body", {"message": "t[TARGET_B_ID]: ais://rec-obj/missing does not exist"}),
    ],
)
def test_a_recording_that_is_changed_is_noticed(
    number: int, part: str, value: object, tmp_path: Path
) -> None:
    with AisServer(tmp_path, target_digests=DIGESTS) as server:
        seed(server.store, "03-objects")
        player = Player(server)
        try:
            for line in load("03-objects")[:number]:
                assert not player.play(line)
            line = load("03-objects")[number]
            assert not player.play(line)
            now = value
            if isinstance(value, dict):
                now = {**line["response"][part], **value}
            changed = line | {"response": line["response"] | {part: now}}
            assert player.play(changed)
        finally:
            player.close()
