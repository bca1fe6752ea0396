"""Masks: shell patterns (``fnmatch``) on the base name of a URL, as in torchdata."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Sequence

from datapipes.errors import OptionError
from datapipes.urls import unquote_name

__all__ = ["url_filter"]


def url_filter(masks: str | Sequence[str] | None) -> Callable[[str], bool] | None:
    """A test of URLs: does the base name match one of ``masks``? None where every name does.

    No masks (None, an empty string or list) let everything through, as in torchdata. The base name is
    compared as it is in the store, without the escapes of a URL, and upper and lower case are different.
    """
    if masks is None:
        return None
    if not isinstance(masks, Sequence):
        raise OptionError(f"masks must be a pattern such as '*.png', or a list of patterns, not {masks!r}")
    if len(masks) == 0:
        return None
    given = [masks] if isinstance(masks, str) else list(masks)
    if not all(isinstance(mask, str) for mask in given):
        raise OptionError(f"masks must be a pattern or a list of patterns, not {masks!r}")
    pattern = re.compile("|".join(fnmatch.translate(mask) for mask in given))

    def matches(url: str) -> bool:
        return pattern.match(unquote_name(url.rpartition("/")[2])) is not None

    return matches
