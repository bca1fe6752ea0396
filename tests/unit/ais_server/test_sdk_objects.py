"""The unmodified SDK on the embedded server: buckets and objects."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import xxhash

from datapipes.testing.ais_server import AisServer, Bck

errors = pytest.importorskip("aistore.sdk.errors")
namespaces = pytest.importorskip("aistore.sdk.namespace")

NAMES = ["a", "dir/x", "sp ace", "日本", "dir//x", "n" * 300, "h#?%+", ".hidden", "a\\b", "100%", "x&y=z"]


def test_objects_go_in_and_out_under_any_name(server: AisServer, client: Any) -> None:
    bucket = client.bucket("b").create()
    for name in NAMES:
        bucket.object(name).get_writer().put_content(name.encode())
        assert server.store.get("b", name) == name.encode()
        assert bucket.object(name).get_reader().read_all() == name.encode()
        assert bucket.object(name).get_reader(direct=True).read_all() == name.encode()
    listed = [entry.name for entry in bucket.list_all_objects(page_size=3)]
    assert listed == sorted(NAMES, key=str.encode) == server.store.names("b")


def test_what_is_missing_has_the_sdks_own_exceptions(client: Any) -> None:
    bucket = client.bucket("b").create()
    with pytest.raises(errors.ErrObjNotFound):
        bucket.object("nope").get_reader().read_all()
    with pytest.raises(errors.ErrObjNotFound):
        bucket.object("nope").delete()
    with pytest.raises(errors.ErrBckNotFound):
        client.bucket("nope").object("x").get_reader().read_all()
    with pytest.raises(errors.ErrBckNotFound):
        client.bucket("nope").list_all_objects()
    with pytest.raises(errors.ErrBckAlreadyExists):
        bucket.create(exist_ok=False)
    with pytest.raises(errors.ErrRemoteBckNotFound):
        client.bucket("nope", provider="aws").object("x").get_reader().read_all()


def test_buckets_are_made_listed_and_destroyed(client: Any) -> None:
    cluster = client.cluster()
    assert cluster.is_ready()
    client.bucket("one").create()
    client.bucket("two", namespace=namespaces.Namespace(name="ns")).create()
    assert {bucket.name for bucket in cluster.list_buckets()} == {"one", "two"}
    assert "Ais-Bucket-Props" in client.bucket("one").head()
    props, summary = client.bucket("one").info()
    assert json.loads(props)["provider"] == "ais"
    assert summary["ObjCount"]["obj_count_present"] == "0"
    assert client.bucket("one").summary()["TotalSize"]["size_all_present_objs"] == "0"
    client.bucket("one").delete()
    client.bucket("one").delete(missing_ok=True)
    assert {bucket.name for bucket in cluster.list_buckets()} == {"two"}


def test_the_cluster_tells_of_itself(server: AisServer, client: Any) -> None:
    cluster = client.cluster()
    smap = cluster.get_info()
    urls = {node.public_net.direct_url for node in smap.tmap.values()}
    assert urls == set(server.target_urls)
    assert cluster.get_primary_url() == server.url
    for node in [*smap.tmap.values(), *smap.pmap.values()]:
        assert node.id_digest == xxhash.xxh64_intdigest(node.daemon_id.encode(), seed=1103515245)
    assert set(cluster.get_performance()) == set(smap.tmap)
    assert cluster.list_running_jobs() == []


def test_properties_versions_and_checksums_are_kept(client: Any) -> None:
    thing = client.bucket("b").create().object("x")
    thing.get_writer().put_content(b"one")
    thing.get_writer().set_custom_props({"k": "v", "n": "1"})
    thing.get_writer().put_content(b"two!")
    props = thing.props
    assert props.size == 4
    assert props.obj_version == "2"
    assert props.checksum_type == "xxhash2"
    assert props.checksum_value == xxhash.xxh64_hexdigest(b"two!")
    assert props.custom_metadata == {"k": "v", "n": "1"}
    thing.get_writer().set_custom_props({"only": "one"}, replace_existing=True)
    assert thing.props.custom_metadata == {"only": "one"}


@pytest.mark.parametrize("direct", [False, True])
def test_ranges_streams_and_files_read_the_same_bytes(client: Any, direct: bool) -> None:
    content = hashlib.shake_256(b"big").digest(5_000_001)
    thing = client.bucket("b").create().object("big")
    thing.get_writer().put_content(content)
    assert thing.get_reader(direct=direct).read_all() == content
    assert thing.get_reader(byte_range="bytes=10-19", direct=direct).read_all() == content[10:20]
    assert thing.get_reader(byte_range="bytes=-7", direct=direct).read_all() == content[-7:]
    assert b"".join(thing.get_reader(chunk_size=100_000, direct=direct)) == content
    with thing.get_reader(direct=direct).as_file() as file:
        assert file.read(3) == content[:3]
        assert file.read() == content[3:]


def test_parallel_readers_read_the_same_bytes(client: Any) -> None:
    content = hashlib.shake_256(b"parallel").digest(3_000_000)
    thing = client.bucket("b").create().object("big")
    thing.get_writer().put_content(content)
    reader = thing.get_reader(num_workers=3, chunk_size=200_000)
    with reader.read_all() as buffer:
        assert buffer.tobytes() == content


def test_objects_grow_by_append_and_by_parts(server: AisServer, client: Any) -> None:
    bucket = client.bucket("b").create()
    handle = bucket.object("log").get_writer().append_content(b"one ")
    handle = bucket.object("log").get_writer().append_content(b"two", handle=handle)
    assert "log" not in server.store.names("b")
    bucket.object("log").get_writer().append_content(b"", handle=handle, flush=True)
    assert bucket.object("log").get_reader().read_all() == b"one two"
    upload = bucket.object("parts").multipart_upload().create()
    upload.add_part(2).put_content(b"world")
    upload.add_part(1).put_content(bytes(3_000_000))
    upload.complete()
    assert bucket.object("parts").get_reader().read_all() == bytes(3_000_000) + b"world"
    bucket.object("gone").multipart_upload().create().abort()
    assert server.store.names("b") == ["log", "parts"]


def test_objects_are_copied_and_deleted(server: AisServer, client: Any, tmp_path: Path) -> None:
    bucket, other = client.bucket("b").create(), client.bucket("c").create()
    (tmp_path / "file").write_bytes(b"from a file")
    bucket.object("f").get_writer().put_file(tmp_path / "file")
    bucket.object("f").copy(other.object("g"))
    assert server.store.get("c", "g") == b"from a file"
    bucket.object("f").delete()
    assert server.store.names("b") == []
    for i in range(5):
        bucket.object(f"n-{i}").get_writer().put_content(b"")
    client.job(bucket.objects(obj_names=["n-0", "n-1"]).delete()).wait(timeout=5)
    client.job(bucket.objects(obj_template="n-{2..3}").delete()).wait(timeout=5)
    assert server.store.names("b") == ["n-4"]


def test_groups_of_objects_are_listed_by_template(server: AisServer, client: Any) -> None:
    for i in range(4):
        server.store.put("b", f"n-{i:02d}", str(i).encode())
    group = client.bucket("b").objects(obj_template="n-{00..02}")
    assert [one.get_reader().read_all() for one in group.list_all_objects_iter()] == [b"0", b"1", b"2"]


def test_cold_objects_of_a_remote_bucket_are_listed_and_come_in_when_read(
    server: AisServer, client: Any
) -> None:
    remote = Bck("cloud", "aws")
    for i in range(3):
        server.store.put(remote, f"o{i}", b"cloud data")
    server.make_cold(remote, ["o0", "o1"])
    bucket = client.bucket("cloud", provider="aws")
    flags = pytest.importorskip("aistore.sdk.list_object_flag").ListObjectFlag
    assert [entry.is_cached() for entry in bucket.list_all_objects()] == [False, False, True]
    assert [entry.name for entry in bucket.list_all_objects(flags=[flags.CACHED])] == ["o2"]
    assert [entry.name for entry in bucket.list_all_objects(flags=[flags.NOT_CACHED])] == ["o0", "o1"]
    assert not bucket.object("o0").head().present
    assert bucket.object("o0").get_reader().read_all() == b"cloud data"
    assert bucket.object("o1").get_reader(direct=True).read_all() == b"cloud data"
    assert [entry.is_cached() for entry in bucket.list_all_objects()] == [True, True, True]
    client.job(bucket.objects(obj_names=["o2"]).evict()).wait(timeout=5)
    assert not bucket.object("o2").head().present
    client.job(bucket.objects(obj_names=["o2"]).prefetch()).wait(timeout=5)
    assert bucket.object("o2").head().present
