"""URLs: what each part becomes, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from datapipes.errors import UrlError
from datapipes.urls import (
    Url,
    format_url,
    normalize_path,
    parse_url,
    quote_name,
    scheme_of,
    unquote_name,
)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("daos://pool/cont/dir/a.png", Url("daos", "pool/cont", "dir/a.png")),
        ("daos://pool/cont/", Url("daos", "pool/cont", "")),
        ("daos://pool/cont", Url("daos", "pool/cont", "")),
        ("DAOS://pool/cont/A", Url("daos", "pool/cont", "A")),
        ("file:///data/a.png", Url("file", "", "/data/a.png")),
        ("file:///", Url("file", "", "/")),
        ("memory://name/dir/a", Url("memory", "name", "dir/a")),
        ("memory://name/a%25b%3Fc%23d", Url("memory", "name", "a%b?c#d")),
        ("memory://name/a?archpath=x/y%20", Url("memory", "name", "a", "archpath=x/y%20")),
        ("memory://name/a?", Url("memory", "name", "a", "")),
        ("memory://name/a b+c&d=é", Url("memory", "name", "a b+c&d=é")),
        ("memory://name/\udcff", Url("memory", "name", "\udcff")),
        ("memory://name/a%253Fb", Url("memory", "name", "a%3Fb")),  # decoded once
    ],
)
def test_url_is_taken_apart(url: str, parts: Url) -> None:
    assert parse_url(url) == parts


def test_plain_path_is_raw_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_url("data/a%20?#.png") == Url("file", "", f"{tmp_path}/data/a%20?#.png")
    assert parse_url("data/") == Url("file", "", f"{tmp_path}/data/")
    assert parse_url("/") == Url("file", "", "/")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "empty"),
        ("daos://", "container"),
        ("daos://pool", "daos://pool/container/path"),
        ("daos:///cont/x", "container"),
        ("memory://", "container"),
        ("file://host/a", "file:///absolute/path"),
        ("memory://n/a#b", "%23"),
        ("memory://n/50%", "%25"),
        ("memory://n/a%20b", "%25"),
        ("memory://n/a\0b", "NUL"),
        ("a\0b", "NUL"),
        ("memory://n/a\ud800b", "surrogate"),
        (b"memory://n/a", "str"),
        (None, "str"),
        (Path("/a"), "str"),
    ],
)
def test_malformed_url_is_refused_with_the_remedy(url: Any, says: str) -> None:
    with pytest.raises(UrlError, match=says) as caught:
        parse_url(url)
    assert caught.value.operation == "parse"
    if isinstance(url, str):
        assert caught.value.url is not None


@pytest.mark.parametrize(
    ("url", "scheme"),
    [("a/b", "file"), ("ais://b/o", "ais"), ("S3+x://b", "s3+x"), ("a:b//c", "file"), ("1x://a", "file")],
)
def test_scheme_is_what_stands_before_the_slashes(url: str, scheme: str) -> None:
    assert scheme_of(url) == scheme


def test_only_three_characters_are_escaped() -> None:
    everything = "".join(map(chr, range(1, 256)))
    quoted = quote_name(everything)
    assert quoted == everything.replace("%", "%25").replace("?", "%3F").replace("#", "%23")
    assert unquote_name(quoted) == everything
    assert unquote_name("%3f") == "?"


def test_options_are_appended_undecoded() -> None:
    assert format_url("ais", "bucket", "a?b.tar", "archpath=x%20y") == "ais://bucket/a%3Fb.tar?archpath=x%20y"


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("", ""),
        ("a/b", "a/b"),
        ("a//b", "a/b"),
        ("a/./b/../c", "a/c"),
        ("./a", "a"),
        ("a/", "a/"),
        ("a/.", "a/"),
        ("a/b/..", "a/"),
        ("a/..", ""),
        (".", ""),
        ("/", "/"),
        ("//", "/"),
        ("/a/../b/", "/b/"),
        ("...", "..."),
        ("a/..b/.c", "a/..b/.c"),
    ],
)
def test_path_is_normalized_by_its_text(path: str, plain: str) -> None:
    assert normalize_path(path, f"memory://n/{path}") == plain


@pytest.mark.parametrize("path", ["..", "../a", "a/../..", "a/../../b", "/..", "/../a", "./..", "a//../.."])
def test_path_that_leads_out_is_refused(path: str) -> None:
    with pytest.raises(UrlError, match="out of the container") as caught:
        normalize_path(path, "daos://pool/cont/" + path)
    assert caught.value.url == "daos://pool/cont/" + path
