"""Masks: which base names they let through."""

from __future__ import annotations

from typing import Any

import pytest

from datapipes.errors import OptionError
from datapipes.masks import url_filter

URLS = ["daos://p/c/a.png", "daos://p/c/b.PNG", "daos://p/c/a.png.d/c.jpg", "daos://p/c/%25.txt", "x.png"]


@pytest.mark.parametrize(
    ("masks", "expected"),
    [
        ("*.png", ["daos://p/c/a.png", "x.png"]),
        (["*.png", "*.jpg"], ["daos://p/c/a.png", "daos://p/c/a.png.d/c.jpg", "x.png"]),
        ("[ab].*", ["daos://p/c/a.png", "daos://p/c/b.PNG"]),
        ("%.txt", ["daos://p/c/%25.txt"]),  # the name in the store, not its escape
        ("daos*", []),  # the base name alone is compared
        ("?", []),
    ],
)
def test_mask_takes_matching_base_names(masks: str | list[str], expected: list[str]) -> None:
    matches = url_filter(masks)
    assert matches is not None
    assert [url for url in URLS if matches(url)] == expected


@pytest.mark.parametrize("masks", [None, "", [], ()])
def test_no_mask_is_no_filter(masks: Any) -> None:
    assert url_filter(masks) is None


def test_name_with_a_newline_is_matched_whole() -> None:
    matches = url_filter("*.png")
    assert matches is not None
    assert matches("dir/a\nb.png")
    assert not matches("dir/a.png\nb")


@pytest.mark.parametrize("masks", [["*.png", 3], 0, 5, True, object(), [b"*.png"]])
def test_mask_that_is_no_text_is_refused(masks: Any) -> None:
    with pytest.raises(OptionError, match="masks"):
        url_filter(masks)
