"""AISShardReader and AISMultiShardStream on the embedded AIStore."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import DataLoader

from datapipes.errors import FileMissingError, OptionError, ShardError, StateError

sdk = pytest.importorskip("aistore.sdk")
pytest.importorskip("aiohttp", reason="the embedded AIStore needs it")
DataShard = pytest.importorskip("aistore.sdk.dataset.data_shard").DataShard

from datapipes.datasets.ais import AISMultiShardStream, AISShardReader  # noqa: E402
from datapipes.testing.ais_server import AisServer  # noqa: E402


def packed(*members: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


SHARDS = {
    "s0.tar": packed(("d/a.jpg", b"0a"), ("d/b.jpg", b"0b"), ("d/a.cls", b"1"), ("d/b.cls", b"2")),
    "s1.tar": packed(("c.jpg", b"1c"), ("readme", b"no extension"), ("c.txt", b"words")),
    "s2.tar": packed(),
    "s3.tar": packed(("e.png", b"3e"), ("f.jpg", b"3f")),
}
SAMPLES = [
    ("a", {"jpg": b"0a", "cls": b"1"}),
    ("b", {"jpg": b"0b", "cls": b"2"}),
    ("c", {"jpg": b"1c", "txt": b"words", "cls": b""}),
    ("e", {"png": b"3e", "jpg": b"", "cls": b"", "txt": b""}),
    ("f", {"jpg": b"3f", "png": b"", "cls": b"", "txt": b""}),
]
ODD = {
    "folders.tar": packed(("a/x.jpg", b"1"), ("b/x.jpg", b"2"), ("a/x.cls", b"3"), ("b/y.jpg", b"4")),
    "doubles.tar": packed(("z.seg.jpg", b"seg"), ("z.jpg", b"image"), ("z.cls", b"1"), ("z.cls", b"2")),
    "cut.tar": SHARDS["s0.tar"][:700],
}


VIEWS = ["a.left.jpg", "a.right.jpg", "a.cls", "b.left.jpg", "c.right.jpg", "c.jpg", "c.v1.cls"]


def with_links() -> bytes:
    """Three samples: one whole, one of an empty file, one beside which stands a link; and a link alone."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in (("a.x", b"1"), ("b.x", b""), ("c.x", b"2")):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name in ("c.y", "d.x"):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "a.x"
            tar.addfile(info)
        info = tarfile.TarInfo("e.x")
        info.type = tarfile.FIFOTYPE
        tar.addfile(info)
    return out.getvalue()


def shout(data: bytes, args: str) -> bytes:
    return data.replace(b"l", b"L").replace(b"words", b"WORDS")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AisServer]:
    with AisServer(tmp_path_factory.mktemp("ais")) as server:
        for bucket, shards in (("b", SHARDS), ("odd", ODD)):
            for name, data in shards.items():
                server.store.put(bucket, name, data)
        server.store.put("left", "l-0.tar", packed(("2", b"l2"), ("10", b"l10"), ("d/1", b"l1")))
        server.store.put("left", "l-1.tar", packed(("0", b"l0")))
        server.store.put("left", "note.md", b"no shard")
        server.store.put("right", "r.tgz", gzip.compress(packed(("b", b"rb"), ("a", b"ra"))))
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as out:
            out.writestr("y", b"ry")
            out.writestr("x", b"rx")
        server.store.put("right", "s.zip", archive.getvalue())
        server.store.put("short", "r.tar", packed(("a", b"only")))
        server.store.put("listless", "many.tar", packed(*((f"{i}.x", b"1") for i in range(10_500))))
        server.store.put("listless", "no-extension", SHARDS["s0.tar"])
        server.store.put("listless", "links.tar", with_links())
        server.store.put("views", "0.tar", packed(*((name, name.encode()) for name in VIEWS)))
        server.store.put("views", "1.tar", packed(("d.left.jpg", b"d.left.jpg"), ("d.v1.cls", b"d.v1.cls")))
        server.register_etl("shout", shout)
        yield server


def given(dataset: Any) -> list[Any]:
    """Without asking for the length first, as list() does."""
    return [item for item in dataset]  # noqa: C416 - see above


def reads(server: AisServer, since: int) -> list[str]:
    found = [r.name for r in server.requests()[since:] if r.name and r.kind == "target"]
    return sorted(found)


def test_members_that_are_not_adjacent_make_one_sample(client: Any) -> None:
    dataset = AISShardReader(client.bucket("b"))
    assert given(dataset) == SAMPLES
    assert type(given(dataset)[0][1]) is AISShardReader.ZeroDict
    assert len(dataset) == len(SAMPLES)


def test_default_collation_takes_samples_that_lack_a_member(client: Any) -> None:
    loader = DataLoader(AISShardReader(client.bucket("b")), batch_size=2)
    batches = [batch for batch in loader]  # noqa: C416 - list() asks for the length first
    assert [names for names, _ in batches] == [("a", "b"), ("c", "e"), ("f",)]
    assert batches[1][1] == {"jpg": [b"1c", b""], "txt": [b"words", b""], "cls": [b"", b""]}


def test_keys_seen_accumulate_over_iterations_as_before(client: Any) -> None:
    dataset = AISShardReader(client.bucket("b"))
    given(dataset)
    assert given(dataset)[0] == ("a", {"jpg": b"0a", "cls": b"1", "txt": b"", "png": b""})


def test_a_state_goes_on_with_the_next_sample_and_its_keys(client: Any, server: AisServer) -> None:
    walk: Any = iter(AISShardReader(client.bucket("b")))
    states = [walk.state_dict(), *(json.loads(json.dumps(walk.state_dict())) for _ in walk)]
    for taken, state in enumerate(states):
        before = len(server.requests())
        again: Any = iter(AISShardReader(client.bucket("b")))
        again.load_state_dict(state)
        assert again.state_dict() == state
        assert list(again) == SAMPLES[taken:]
        over = state["position"]
        assert reads(server, before) == list(SHARDS)[over:]
    dataset = AISShardReader(client.bucket("b"))
    given(dataset)  # keys of later shards must not show up in what is resumed
    again = iter(dataset)
    again.load_state_dict(states[1])
    assert list(again) == SAMPLES[1:]
    damaged = {**states[1], "extra": {}}
    again.load_state_dict(damaged)
    with pytest.raises(StateError, match="damaged"):
        next(again)


def test_a_state_between_epochs_has_the_keys_of_the_epochs_before(client: Any) -> None:
    dataset = AISShardReader(client.bucket("b"))
    walk: Any = iter(dataset)
    first = given(walk)
    begun: Any = iter(dataset)
    states = [json.loads(json.dumps(each.state_dict())) for each in (walk, begun)]
    second = given(dataset)
    assert second != first == SAMPLES
    for state in states:
        again = AISShardReader(client.bucket("b"))
        resumed: Any = iter(again)
        resumed.load_state_dict(state)
        assert given(resumed) == second
        assert given(again) == second


def test_equal_names_in_different_folders_stay_apart(client: Any) -> None:
    bucket = client.bucket("odd")
    options: dict[str, Any] = {"prefix_map": {bucket: "folders"}}
    expected = [("a/x", {"jpg": b"1", "cls": b"3"}), ("b/x", {"jpg": b"2", "cls": b""})]
    dataset = AISShardReader(bucket, **options)
    assert given(dataset) == [*expected, ("y", {"jpg": b"4", "cls": b""})]
    assert len(dataset) == 3
    merged = AISShardReader(bucket, **options, grouping="basename")
    assert given(merged) == [("x", {"jpg": b"2", "cls": b"3"}), ("y", {"jpg": b"4", "cls": b""})]
    assert len(merged) == 2
    with pytest.raises(OptionError, match="grouping"):
        AISShardReader(bucket, grouping="stem")  # type: ignore[arg-type]


def test_members_that_share_their_last_extension_stay_apart(client: Any) -> None:
    bucket = client.bucket("odd")
    [sample] = given(AISShardReader(bucket, {bucket: "doubles"}))
    assert sample == ("z", {"jpg": b"image", "seg.jpg": b"seg", "cls": b"2"})
    [sample] = given(AISShardReader(bucket, {bucket: "doubles"}, grouping="basename"))
    assert sample == ("z", {"jpg": b"image", "cls": b"2"})


def test_an_extension_means_the_same_in_every_sample_of_a_shard(client: Any) -> None:
    bucket = client.bucket("views")
    assert given(AISShardReader(bucket, {bucket: "0"})) == [
        ("a", {"left.jpg": b"a.left.jpg", "right.jpg": b"a.right.jpg", "cls": b"a.cls", "jpg": b""}),
        ("b", {"left.jpg": b"b.left.jpg", "right.jpg": b"", "cls": b"", "jpg": b""}),
        ("c", {"right.jpg": b"c.right.jpg", "jpg": b"c.jpg", "cls": b"c.v1.cls", "left.jpg": b""}),
    ]
    # Of another shard the last extensions, whatever was read before.
    _, members = given(AISShardReader(bucket))[-1]
    assert {key: value for key, value in members.items() if value} == {
        "jpg": b"d.left.jpg",
        "cls": b"d.v1.cls",
    }


@pytest.mark.parametrize(("name", "count"), [("many.tar", 10_500), ("no-extension", 2), ("links.tar", 3)])
def test_the_length_is_that_of_the_iteration_where_no_list_says_it(
    client: Any, name: str, count: int
) -> None:
    bucket = client.bucket("listless")
    dataset = AISShardReader(bucket, {bucket: name})
    assert len(dataset) == count == sum(1 for _ in dataset)


def test_asking_for_the_length_shows_no_extensions(client: Any) -> None:
    bucket = client.bucket("b")
    dataset = AISShardReader(bucket, {bucket: ["s1", "s3"]}, etl_name="shout")
    assert len(dataset) == 3
    assert next(iter(dataset)) == ("c", {"jpg": b"1c", "txt": b"WORDS"})


def test_a_damaged_shard_raises_the_incumbents_error_and_ours(client: Any) -> None:
    bucket = client.bucket("odd")
    for expected in (tarfile.TarError, ShardError):
        with pytest.raises(expected, match=r"<AISShardReader> .*cut\.tar"):
            given(AISShardReader(bucket, {bucket: "cut"}))


def test_an_etl_is_applied_to_whole_shards(client: Any) -> None:
    bucket = client.bucket("b")
    dataset = AISShardReader(bucket, {bucket: "s1"}, etl_name="shout")
    assert given(dataset) == [("c", {"jpg": b"1c", "txt": b"WORDS"})]
    assert len(dataset) == 1


class Renamed(AISShardReader):
    def _read_samples_from_shards(self, shard_content: bytes) -> Any:
        samples = super()._read_samples_from_shards(shard_content)
        return {name.upper(): members for name, members in samples.items()}


def test_an_overridden_reading_of_shards_is_used(client: Any) -> None:
    dataset = pickle.loads(pickle.dumps(Renamed(client.bucket("b"))))
    assert given(dataset) == [(name.upper(), members) for name, members in SAMPLES]


def series(server: AisServer, *buckets: str, **options: Any) -> list[Any]:
    return [DataShard(server.url, bucket, **options) for bucket in buckets]


def test_members_stand_side_by_side_and_each_shard_is_read_once(server: AisServer) -> None:
    before = len(server.requests())
    assert given(AISMultiShardStream(series(server, "left", "right"))) == [
        (b"l10", b"ra"),
        (b"l2", b"rb"),
        (b"l1", b"rx"),
        (b"l0", b"ry"),
    ]
    assert reads(server, before) == ["l-0.tar", "l-1.tar", "r.tgz", "s.zip"]
    assert given(AISMultiShardStream([])) == []


def test_series_of_different_length_raise_unless_they_may_be_cut(server: AisServer) -> None:
    walk = iter(AISMultiShardStream(series(server, "right", "short")))
    assert next(walk) == (b"ra", b"only")
    with pytest.raises(ShardError, match="'short/' ends after 1 members, and 'right/' goes on"):
        next(walk)
    cut = AISMultiShardStream(series(server, "right", "short"), cut_to_shortest=True)
    assert given(cut) == [(b"ra", b"only")]


def test_an_etl_is_applied_to_members(server: AisServer) -> None:
    dataset = AISMultiShardStream(series(server, "left", etl_name="shout", prefix="l-"))
    assert given(dataset) == [(b"L10",), (b"L2",), (b"L1",), (b"L0",)]


def test_a_series_without_its_bucket_raises(server: AisServer) -> None:
    with pytest.raises(FileMissingError):
        next(iter(AISMultiShardStream(series(server, "nowhere"))))


def test_streams_resume_at_every_tuple_without_the_shards_before(server: AisServer) -> None:
    def make() -> Any:
        return iter(AISMultiShardStream(series(server, "left", "right")))

    walk = make()
    states, items = [walk.state_dict()], []
    for item in walk:
        items.append(item)
        states.append(json.loads(json.dumps(walk.state_dict())))
    for taken, state in enumerate(states):
        before = len(server.requests())
        again = make()
        again.load_state_dict(state)
        assert list(again) == items[taken:]
        left = [name for name in reads(server, before) if name.startswith("l")]
        assert left == (["l-1.tar"] if taken == 4 else ["l-0.tar", "l-1.tar"] if taken < 4 else [])
    other: Any = iter(AISMultiShardStream(series(server, "left")))
    other.load_state_dict(states[1])
    with pytest.raises(StateError, match="series of shards"):
        next(other)


def test_streams_start_anew_from_a_state_of_the_end(server: AisServer) -> None:
    dataset = AISMultiShardStream(series(server, "left", "right"))
    walk: Any = iter(dataset)
    items = given(walk)
    again: Any = iter(dataset)
    again.load_state_dict(json.loads(json.dumps(walk.state_dict())))
    assert given(again) == items
    assert len(items) == 4


def test_streams_refuse_a_damaged_state(server: AisServer) -> None:
    walk: Any = iter(AISMultiShardStream(series(server, "left", "right")))
    next(walk)
    state = walk.state_dict()
    for extra in ({}, {"streams": [[0, 1]]}, {"streams": [[0, 1], 1]}, {"streams": [[0, 1], ["0", 1]]}):
        walk.load_state_dict({**state, "extra": extra})
        with pytest.raises(StateError):
            next(walk)


class Doubled(AISMultiShardStream):
    def _get_shard_objects_iterator(self, bucket: Any, prefix: str = "", etl_name: Any = "") -> Any:
        for member in super()._get_shard_objects_iterator(bucket, prefix, etl_name):
            yield member
            yield member


def test_an_overridden_iterator_of_members_is_used_and_resumes(server: AisServer) -> None:
    dataset = Doubled(series(server, "right"))
    items = given(dataset)
    assert items == [(each,) for each in (b"ra", b"ra", b"rb", b"rb", b"rx", b"rx", b"ry", b"ry")]
    walk: Any = iter(dataset)
    for _ in range(3):
        next(walk)
    again: Any = iter(Doubled(series(server, "right")))
    again.load_state_dict(walk.state_dict())
    assert list(again) == items[3:]
