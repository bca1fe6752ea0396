"""What options may be: wrong ones are refused in words before anything is read."""

from __future__ import annotations

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


def check_count(name: str, value: object, *, least: int, most: int | None = None) -> None:
    """Raise OptionError unless ``value`` is an integer of at least ``least`` and at most ``most``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} must be an integer of at least {least}, not {value!r}")
    if most is not None and value > most:
        raise OptionError(f"{name} must be at most {most}, not {value!r}")


def check_flag(name: str, value: object) -> None:
    """Raise OptionError for what is neither True nor False; 1 and 0 count as these."""
    if value not in (0, 1):
        raise OptionError(f"{name} must be True or False, not {value!r}")


def check_read_options(*, max_in_flight: int, timeout_s: float | None, max_buffer_bytes: int = 1) -> None:
    """Raise OptionError unless these are options that ``read_many`` and ``read_batch`` can work with."""
    check_count("max_in_flight", max_in_flight, least=1, most=MOST_IN_FLIGHT)
    check_count("max_buffer_bytes", max_buffer_bytes, least=1, most=_MOST_BYTES)
    if timeout_s is not None:
        check_option("timeout_s", timeout_s, least=0.001, most=1e6)


def check_write_options(chunk_bytes: int, max_in_flight: int) -> None:
    """Raise OptionError unless these are options that ``open_write`` can work with."""
    check_count("chunk_bytes", chunk_bytes, least=1, most=MOST_CHUNK_BYTES)
    check_count("max_in_flight", max_in_flight, least=1, most=MOST_WRITERS)


def check_handle_cache_bytes(value: object) -> None:
    """Raise OptionError unless a table of handles may be bounded by it."""
    check_count("handle_cache_bytes", value, least=0, most=_MOST_BYTES)
