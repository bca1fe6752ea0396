"""What a state is made of, and how one is checked before it is taken up.

A state is a small JSON-able dict. What must be equal for a position to mean the same item (names, seed,
ranks) stands in it beside the position and is compared at ``reset``, so a state is refused with a reason,
never misread. A stage's own source stands nested under ``SOURCE_KEY``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from datapipes.backends.checks import check_count
from datapipes.errors import StateError

__all__ = [
    "EPOCH_KEY",
    "FINGERPRINT_KEY",
    "FINISHED_KEY",
    "KIND_KEY",
    "POSITION_KEY",
    "SOURCE_KEY",
    "VERSION_KEY",
    "State",
    "check_count",
    "check_kind",
    "copy_identity",
    "fresh_copy",
    "match_identity",
    "stored_count",
]

State = dict[str, Any]

VERSION_KEY: Final = "version"
KIND_KEY: Final = "kind"
EPOCH_KEY: Final = "epoch"
POSITION_KEY: Final = "position"
FINISHED_KEY: Final = "finished"
FINGERPRINT_KEY: Final = "fingerprint"
SOURCE_KEY: Final = "source"


def check_kind(state: Any, kind: str, version: int) -> None:
    """Raise StateError unless ``state`` was made by this kind of stage in this version."""
    if not isinstance(state, Mapping) or KIND_KEY not in state or VERSION_KEY not in state:
        raise StateError(
            f"this is not the state of a {kind} stage: {state!r:.200}; pass what get_state() returned"
        )
    if state[KIND_KEY] != kind:
        raise StateError(
            f"the state is of another pipeline: made by {state[KIND_KEY]!r}, given to {kind!r}. "
            "Resume it with the pipeline that made it"
        )
    if state[VERSION_KEY] != version or type(state[VERSION_KEY]) is not int:
        raise StateError(
            f"the state of {kind} is of version {state[VERSION_KEY]!r}, and this release reads version "
            f"{version}. Resume it with the release that made it, or start the epoch anew"
        )


def stored_count(state: State, key: str, *, most: int | None = None) -> int:
    """The count under ``key``; StateError where it is missing, no count, or beyond ``most``."""
    value = state.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise StateError(f"the state is damaged: its {key!r} is {value!r}, not a count")
    if most is not None and value > most:
        raise StateError(f"the state is damaged: its {key!r} is {value}, and the epoch has {most} items")
    return value


_REASONS = {
    FINGERPRINT_KEY: "the state belongs to other data: names, sizes or their order are not the same. "
    "Resume over the same files, or start the epoch anew",
    "count": "the state belongs to other data: another number of files. "
    "Resume over the same files, or start the epoch anew",
    "seed": "the state belongs to another order. Resume with the same seed",
    "rank": "the state belongs to another rank. Give each rank the state it saved",
    "world_size": "the number of ranks has changed. Resume with as many, or start the epoch anew",
    "worker": "the state belongs to another worker. Give each worker the state it saved",
    "stateful_source": "the source is of another kind: one with a state of its own, or without. "
    "Resume over the same source",
    "num_workers": "the number of workers has changed. Resume with as many, or start the epoch anew",
}


def match_identity(saved: Any, own: State, *, except_for: Collection[str] = ()) -> None:
    """Raise StateError, saying which and what to do, where ``saved`` lacks or differs in a key of ``own``.

    ``own`` is what must be equal: kinds, versions, seeds, ranks, fingerprints, sources nested likewise; keys
    in ``except_for`` may differ.
    """
    if KIND_KEY in own:
        check_kind(saved, own[KIND_KEY], own[VERSION_KEY])
    elif not isinstance(saved, Mapping):
        raise StateError(f"the state is damaged: a part of it is {saved!r:.200}, which names nothing")
    for key, value in own.items():
        if key == SOURCE_KEY and isinstance(value, dict):
            match_identity(saved.get(key), value, except_for=except_for)
        elif key in except_for:
            continue
        elif key not in saved:
            raise StateError(f"the state is damaged: {key!r} is missing")
        elif saved[key] != value or type(saved[key]) is not type(value):
            reason = _REASONS.get(key, "resume it with the options it was saved with")
            raise StateError(
                f"the state has {key}={saved[key]!r} and this pipeline {key}={value!r}: {reason}"
            )


def copy_identity(identity: State) -> State:
    """A copy of an identity, whose only nested value is its source's."""
    copied = identity.copy()
    source = copied.get(SOURCE_KEY)
    if source is not None:
        copied[SOURCE_KEY] = copy_identity(source)
    return copied


def fresh_copy(value: Any) -> Any:
    """A copy of nested dicts and lists; what they hold besides (numbers, strings) is immutable.

    A tenth of the price of ``copy.deepcopy``: executors ask for a state after every item.
    """
    if type(value) is dict:
        return {k: fresh_copy(v) if type(v) is dict or type(v) is list else v for k, v in value.items()}
    if type(value) is list:
        return [fresh_copy(v) if type(v) is dict or type(v) is list else v for v in value]
    return value
