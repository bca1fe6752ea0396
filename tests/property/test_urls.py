"""URLs: any name there can be survives the way into a URL and back."""

from __future__ import annotations

import os
import posixpath

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datapipes.errors import UrlError
from datapipes.urls import format_url, normalize_path, parse_url, quote_name, scheme_of, unquote_name

# What a store may hold: any bytes but NUL, decoded as Python decodes file names; and any text.
RAW = st.binary(max_size=40).filter(lambda raw: b"\0" not in raw).map(os.fsdecode)
TEXT = st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=40)
AWKWARD = st.text(st.sampled_from("%?#2537Ff3/.:a \n\udcff&=+é"), max_size=20)
NAMES = RAW | TEXT | AWKWARD
CONTAINER = st.text(st.sampled_from("abcXYZ019-_.~"), min_size=1, max_size=8)


@given(NAMES)
@example("%25")
@example("%3F%23")
@example("?")
def test_quoting_is_undone_by_unquoting(name: str) -> None:
    quoted = quote_name(name)
    assert unquote_name(quoted) == name
    assert "?" not in quoted
    assert "#" not in quoted


@given(NAMES, NAMES)
def test_different_names_stay_different(one: str, other: str) -> None:
    assert (quote_name(one) == quote_name(other)) == (one == other)


@given(
    st.sampled_from(["memory", "ais", "s3"]),
    CONTAINER,
    NAMES,
    st.none() | TEXT.filter(lambda t: "#" not in t),
)
def test_url_of_an_object_comes_back(scheme: str, bucket: str, path: str, options: str | None) -> None:
    url = format_url(scheme, bucket, path, options)
    assert parse_url(url) == (scheme, bucket, path, options)
    assert scheme_of(url) == scheme


@given(
    st.sampled_from(["ais", "s3", "gs", "az", "oci", "ht"]),
    st.sampled_from(["@uuid#ns", "@#ns", "#ns", "@uuid"]),
    CONTAINER,
    NAMES,
    st.none() | TEXT.filter(lambda t: "#" not in t),
)
def test_url_in_a_namespace_comes_back(
    scheme: str, space: str, bucket: str, path: str, options: str | None
) -> None:
    url = format_url(scheme, f"{space}/{bucket}", path, options)
    assert parse_url(url) == (scheme, f"{space}/{bucket}", path, options)


@pytest.mark.parametrize(
    "url", ["ais://@u#ns", "ais://@u#ns/", "ais://b/@u#ns/x", "memory://@u#n/b/x", "ais://b#/x"]
)
def test_hash_outside_a_namespace_is_refused(url: str) -> None:
    with pytest.raises(UrlError):
        parse_url(url)


@given(CONTAINER, CONTAINER, NAMES)
def test_url_in_a_container_comes_back(pool: str, container: str, path: str) -> None:
    url = format_url("daos", f"{pool}/{container}", path)
    assert parse_url(url) == ("daos", f"{pool}/{container}", path, None)


@given(NAMES)
def test_file_url_comes_back(name: str) -> None:
    assert parse_url(format_url("file", "", "/" + name)) == ("file", "", "/" + name, None)


@given(RAW)
def test_file_url_leads_to_the_same_bytes(name: str) -> None:
    path = parse_url(format_url("file", "", "/" + name)).path
    assert os.fsencode(path) == os.fsencode("/" + name)


@given(st.text(max_size=30))
@example("\ud800")
@example("a\ud800/")
def test_text_is_parsed_or_refused_and_nothing_else(text: str) -> None:
    for url in (
        text,
        *(scheme + text for scheme in ("memory://", "daos://", "file://", "ais://", "ais://@")),
    ):
        try:
            parsed = parse_url(url)
        except UrlError:
            continue
        assert parse_url(format_url(*parsed)) == parsed


PARTS = st.lists(st.sampled_from(["a", "b c", ".", "..", "", "...", "..x", "é"]), max_size=8)


@given(PARTS, st.sampled_from(["", "/"]))
def test_normalizing_agrees_with_posixpath_below_the_root(parts: list[str], head: str) -> None:
    path = head + "/".join(parts)
    depth = 0
    leads_out = False
    for part in path.split("/"):
        depth += {"..": -1, ".": 0, "": 0}.get(part, 1)
        leads_out = leads_out or depth < 0
    if leads_out:
        with pytest.raises(UrlError):
            normalize_path(path, path)
        return
    plain = normalize_path(path, path)
    assert normalize_path(plain, path) == plain
    assert posixpath.normpath("/" + plain.lstrip("/")) == posixpath.normpath("/" + path.lstrip("/"))
    assert plain.startswith("/") == path.startswith("/")
