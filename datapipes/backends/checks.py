"""What options may be: wrong ones are refused in words before anything is read."""

from __future__ import annotations

import operator

from datapipes.errors import OptionError

__all__ = [
    "MOST_CHUNK_BYTES",
    "MOST_IN_FLIGHT",
    "MOST_WRITERS",
    "check_count",
    "check_flag",
    "check_handle_cache_bytes",
    "check_option",
    "check_read_options",
    "check_write_options",
]

MOST_IN_FLIGHT = 1 << 16
"""Above this ``max_in_flight`` is taken for a mistake."""
MOST_WRITERS = 1024
"""The same of ``open_write``, which takes a thread for each."""
MOST_CHUNK_BYTES = 1 << 40
"""And of its ``chunk_bytes``."""
_MOST_BYTES = 1 << 62


def check_option(name: str, value: object, *, least: float, most: float = float("inf")) -> None:
    """Raise OptionError unless ``least <= value <= most``; for counts, bytes and seconds."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
        bound = f"at least {least}" if most == float("inf") else f"between {least} and {most}"
        raise OptionError(f"{name} must be a number {bound}, not {value!r}")


def check_count(name: str, value: object, *, least: int, most: int | None = None) -> int:
    """``value`` as an ``int``: numpy's integers overflow, and no JSON takes them.

    Raise OptionError unless it is an integer of at least ``least`` and at most ``most``.
    """
    # An older numpy's bool is an index too, with a warning.
    flag = isinstance(value, bool) or getattr(getattr(value, "dtype", None), "kind", "") == "b"
    try:
        count = least - 1 if flag else operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        count = least - 1
    if count < least:
        raise OptionError(f"{name} must be an integer of at least {least}, not {value!r}")
    if most is not None and count > most:
        raise OptionError(f"{name} must be at most {most}, not {value!r}")
    return count


def check_flag(name: str, value: object) -> None:
    """Raise OptionError for what is neither True nor False; 1 and 0 count as these."""
    if value not in (0, 1):
        raise OptionError(f"{name} must be True or False, not {value!r}")


def check_read_options(
    *, max_in_flight: int, timeout_s: float | None, max_buffer_bytes: int = 1
) -> tuple[int, int]:
    """(max_in_flight, max_buffer_bytes), as ``check_count`` gives them.

    Raise OptionError unless these are options that ``read_many`` and ``read_batch`` can work with.
    """
    max_in_flight = check_count("max_in_flight", max_in_flight, least=1, most=MOST_IN_FLIGHT)
    max_buffer_bytes = check_count("max_buffer_bytes", max_buffer_bytes, least=1, most=_MOST_BYTES)
    if timeout_s is not None:
        check_option("timeout_s", timeout_s, least=0.001, most=1e6)
    return max_in_flight, max_buffer_bytes


def check_write_options(chunk_bytes: int, max_in_flight: int) -> tuple[int, int]:
    """Both, as ``check_count`` gives them. Raise OptionError unless ``open_write`` can work with them."""
    chunk_bytes = check_count("chunk_bytes", chunk_bytes, least=1, most=MOST_CHUNK_BYTES)
    return chunk_bytes, check_count("max_in_flight", max_in_flight, least=1, most=MOST_WRITERS)


def check_handle_cache_bytes(value: object) -> int:
    """``value``, as ``check_count`` gives it. Raise OptionError unless a table of handles may be so large."""
    return check_count("handle_cache_bytes", value, least=0, most=_MOST_BYTES)
