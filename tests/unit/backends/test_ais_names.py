"""Names of AIStore: URLs taken apart and put together, and what goes over the wire."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from datapipes.backends.ais_names import (
    PROVIDERS,
    AisName,
    bucket_text,
    check_object,
    check_prefix,
    format_ais_url,
    object_path,
    object_paths,
    parse_ais_url,
    quote_path,
    redirected,
    unames,
)
from datapipes.errors import DatapipesError, FileMissingError, UrlError

NAMES = st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=30) | st.text(
    st.sampled_from("%?#2537Ff/.~:a \n\udcff&=+é"), min_size=1, max_size=12
)
SPACES = st.sampled_from(["", "@uuid#ns", "@#ns", "@uuid#"])


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("ais://b/dir/a.png", AisName("ais", "", "b", "dir/a.png")),
        ("ais://b/", AisName("ais", "", "b", "")),
        ("ais://b", AisName("ais", "", "b", "")),
        ("AIS://b/A", AisName("ais", "", "b", "A")),
        ("ais://b//leading", AisName("ais", "", "b", "/leading")),
        ("ais://b/a//b", AisName("ais", "", "b", "a//b")),
        ("ais://b/.hidden", AisName("ais", "", "b", ".hidden")),
        ("ais://b/a b+c&d=é", AisName("ais", "", "b", "a b+c&d=é")),
        ("ais://b/50%25%3F%23", AisName("ais", "", "b", "50%?#")),
        ("s3://b/a", AisName("aws", "", "b", "a")),
        ("gs://b/a", AisName("gcp", "", "b", "a")),
        ("az://b/a", AisName("azure", "", "b", "a")),
        ("oci://b/a", AisName("oci", "", "b", "a")),
        ("ht://b/a", AisName("ht", "", "b", "a")),
        ("ais://@uuid#ns/b/x", AisName("ais", "@uuid#ns", "b", "x")),
        ("ais://@#ns/b/x", AisName("ais", "@#ns", "b", "x")),
        ("ais://#ns/b", AisName("ais", "@#ns", "b", "")),
        ("ais://@uuid/b/x", AisName("ais", "@uuid#", "b", "x")),
        ("ais://b/s.tar?archpath=d/0001.jpg", AisName("ais", "", "b", "s.tar", "d/0001.jpg")),
        ("ais://b/s.tar?archpath=a%3Fb&c=d", AisName("ais", "", "b", "s.tar", "a?b&c=d")),
        ("ais://b/s.tar?archpath=", AisName("ais", "", "b", "s.tar", "")),
        ("http://p:8080/v1/objects/b/a?provider=ais", AisName("ais", "", "b", "a")),
        ("https://p/v1/objects/b/a%20b%3F%23%25+?provider=s3", AisName("aws", "", "b", "a b?#%+")),
        ("http://p/v1/objects/b/a", AisName("ais", "", "b", "a")),
        (
            "http://p/v1/objects/b/s.tar?provider=ais&namespace=%40u%23ns&archpath=x%2F%C3%A9+y&etl_name=e",
            AisName("ais", "@u#ns", "b", "s.tar", "x/é y", "e"),
        ),
        ("http://p/v1/objects/b//x//y/v1/objects/z", AisName("ais", "", "b", "/x//y/v1/objects/z")),
    ],
)
def test_url_is_taken_apart(url: str, name: AisName) -> None:
    assert parse_ais_url(url) == name


@pytest.mark.parametrize(
    "url",
    [
        "asd",
        "",
        "ais://",
        "ais:///a",
        "aws:bucket/folder/",
        "ais://b/a?b",
        "ais://b/a?archpath=x#y",
        "ais://b/a?etl_name=x",
        "ais://b?archpath=x",
        "ais://b/a#b",
        "ais://b/%zz",
        "ais://b/s.tar?archpath=%zz",
        "ais://@uuid#ns/",
        "ais://@a@b/c/d",
        "ais://a@b/c",
        "ais://b b/x",
        "ais://.b/x",
        "ais://b/a\0b",
        "ais://b/\ud800",
        "daos://p/c/x",
        "http://p/v1/daemon?what=smap",
        "http://p/v1/objects/b/a?provider=zzz",
        "http://p/v1/objects/b/a?pid=1",
        "http://p/v1/objects/b/a?provider=ais#x",
        "http://p/v1/objects/b/a%00",
        "http://p/v1/objects/b/a\nb",
        "http://p/v1/objects/b/\ud800",
        "http:///v1/objects/b/a",
        "http://[::1/v1/objects/b/a",
    ],
    ids=ascii,
)
def test_what_is_no_url_is_refused_and_named(url: str) -> None:
    with pytest.raises(UrlError) as caught:
        parse_ais_url(url)
    assert caught.value.url == url
    assert caught.value.operation == "parse"
    assert repr(url)[1:-1] in str(caught.value)


@pytest.mark.parametrize("url", [None, 5, b"ais://b/a"])
def test_what_is_no_text_is_refused(url: object) -> None:
    with pytest.raises(UrlError, match="a URL is a str"):
        parse_ais_url(url)  # type: ignore[arg-type]


@given(st.sampled_from(sorted(PROVIDERS)), SPACES, NAMES, st.none() | NAMES)
@example("ais", "", "%", "?#")
def test_url_of_a_name_comes_back(scheme: str, space: str, path: str, archpath: str | None) -> None:
    name = AisName(PROVIDERS[scheme], space, "my-bucket.1", path, archpath)
    assert parse_ais_url(format_ais_url(name, scheme)) == name
    assert parse_ais_url(format_ais_url(name)) == name


@given(NAMES, st.none() | NAMES, SPACES)
@example("%2F", "+", "")
def test_request_of_a_name_comes_back_as_a_url_of_the_sdk(
    path: str, archpath: str | None, space: str
) -> None:
    name = AisName("ais", space, "b", path, archpath, "my etl&x")
    request = object_path(name)
    assert request.isascii()
    assert request.isprintable()
    assert " " not in request
    assert parse_ais_url("http://proxy" + request) == name


@given(NAMES)
def test_quoted_path_is_the_name_percent_encoded(name: str) -> None:
    quoted = quote_path(name)
    assert unquote(quoted, errors="surrogateescape") == name
    assert not set(quoted) & set(" ?#+\n&=")


@pytest.mark.parametrize(
    ("name", "path"),  # as recorded
    [
        ("a b", "a%20b"),
        ("ünï/日本", "%C3%BCn%C3%AF/%E6%97%A5%E6%9C%AC"),
        ("hash#tag", "hash%23tag"),
        ("what?q=1", "what%3Fq%3D1"),
        ("100%", "100%25"),
        ("plus+plus", "plus%2Bplus"),
        ("/leading", "/leading"),
        ("a//b", "a//b"),
        ("quote'\"q", "quote%27%22q"),
        ("amp&amp", "amp%26amp"),
        ("new\nline", "new%0Aline"),
        ("tilde~", "tilde~"),
        ("emoji😀", "emoji%F0%9F%98%80"),
        ("\udcff", "%FF"),
    ],
)
def test_request_path_is_that_of_the_recordings(name: str, path: str) -> None:
    expected = f"/v1/objects/b/{path}?provider=ais"
    assert object_path(AisName("ais", "", "b", name)) == expected
    assert object_paths(AisName("ais", "", "b", ""), ["plain", name])[1] == expected


def test_request_query_names_bucket_member_and_etl() -> None:
    name = AisName("aws", "@u#n", "b", "s.tar", "d/a b", "my etl")
    query = "provider=aws&namespace=%40u%23n&etl_name=my%20etl"
    assert object_path(name) == f"/v1/objects/b/s.tar?{query}&archpath=d/a%20b"
    assert object_paths(name, ["x"]) == [f"/v1/objects/b/x?{query}"]


REFUSED = [".", "..", "a/./b", "a/../b", "../x", "x/..", "x/.", "~/x", "", "../", "./"]
"""What AIStore answers with errInvalidPath, and no name at all."""

ACCEPTED = ["...", "x..y", ".hidden", "dir/.hidden", "~", "tilde~", "a//b", "/leading", "a~/b", "..a/b.."]


@pytest.mark.parametrize("operation", ["read", "write"])
@pytest.mark.parametrize("path", REFUSED)
def test_name_that_no_object_can_have_is_refused(path: str, operation: str) -> None:
    url = f"ais://b/{path}"
    with pytest.raises(UrlError) as caught:
        check_object(parse_ais_url(url), url, operation)
    assert (caught.value.url, caught.value.operation) == (url, operation)


def test_bucket_where_an_object_is_wanted_is_refused_with_a_hint() -> None:
    with pytest.raises(UrlError, match=r"'ais://b/' failed: it names a bucket.*List it"):
        check_object(parse_ais_url("ais://b/"), "ais://b/", "read")


@pytest.mark.parametrize("path", ["d/", "d//", "a/b/"])
def test_name_with_a_slash_at_the_end_is_missing_when_read_and_refused_when_written(path: str) -> None:
    url = f"ais://b/{path}"
    for operation in ("read", "stat", "remove"):
        with pytest.raises(FileMissingError) as missing:
            check_object(parse_ais_url(url), url, operation)
        assert repr(url) in str(missing.value)
    with pytest.raises(UrlError):
        check_object(parse_ais_url(url), url, "write")


@pytest.mark.parametrize("path", ACCEPTED)
def test_name_that_an_object_can_have_is_let_through(path: str) -> None:
    name = AisName("ais", "", "b", path)
    assert check_object(name, format_ais_url(name), "read") is name
    assert check_prefix(name, format_ais_url(name)) is name


@pytest.mark.parametrize("member", ["./x", "../x", "d/", "a/../b", "."])
def test_member_that_cannot_be_asked_for_is_refused(member: str) -> None:
    url = f"ais://b/s.tar?archpath={member}"
    with pytest.raises(DatapipesError):
        check_object(parse_ais_url(url), url, "read")


def test_members_leading_slash_is_let_through() -> None:
    name = parse_ais_url("ais://b/s.tar?archpath=/x")
    assert check_object(name, "ais://b/s.tar?archpath=/x", "read") is name


@pytest.mark.parametrize("prefix", ["", "d/", "d", "..", "a/.", "~", ".x"])
def test_prefix_may_be_any_leading_part_of_a_name(prefix: str) -> None:
    name = AisName("ais", "", "b", prefix)
    assert check_prefix(name, "ais://b") is name


@pytest.mark.parametrize("prefix", ["../", "dir/../", "./", "a/./b", "~/x"])
def test_prefix_of_no_name_is_refused(prefix: str) -> None:
    with pytest.raises(UrlError):
        check_prefix(AisName("ais", "", "b", prefix), f"ais://b/{prefix}")


def test_full_name_that_places_an_object_is_that_of_the_recordings() -> None:
    assert unames(AisName("ais", "", "b", ""), ["o", "é"]) == [b"ais/@#/b/o", "ais/@#/b/é".encode()]
    assert unames(AisName("aws", "@u#n", "b", ""), ["o"]) == [b"aws/@u#n/b/o"]


def test_bucket_is_named_as_in_aistores_messages() -> None:
    assert bucket_text(AisName("ais", "", "b", "x")) == "ais://b"
    assert bucket_text(AisName("ais", "@u#n", "b", "x")) == "ais://@u#n/b"


@pytest.mark.parametrize(
    ("name", "location"),  # a newline becomes a space there, and a "?" stays escaped
    [
        ("new\nline", "http://T:1/v1/objects/b/new line?provider=ais&pid=P&utm=U"),
        ("a\\b", "http://T:1/v1/objects/b/a\\b?provider=ais&pid=P&utm=U"),
        ("what?q", "http://T:1/v1/objects/b/what%3Fq?provider=ais&pid=P&utm=U"),
    ],
)
def test_redirect_is_followed_to_the_very_object(name: str, location: str) -> None:
    path = object_path(AisName("ais", "", "b", name))
    expected = f"http://T:1/v1/objects/b/{quote_path(name)}?provider=ais&pid=P&utm=U"
    assert redirected(location, path) == expected
    assert redirected(location, "http://proxy/prefix" + path) == expected


def test_redirect_to_something_else_is_left_as_it_is() -> None:
    for location in ("http://T/login?x=1", "/elsewhere", "http://T/v1/objects/b/a"):
        assert redirected(location, "/v1/objects/b/a?provider=ais") == location
