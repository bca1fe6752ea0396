"""The recorded exchanges that the embedded server does not answer alike, each with the reason.

Held to be complete, and no longer than it must be, by ``test_replay.py``.
"""

from __future__ import annotations

from .exchanges import load

FIGURES = "figures and settings of the recorded machine; the SDK reads none of it but for a screen"
LZ4 = "Python's standard library has no lz4"
JOBS = "jobs other than delete, evict and prefetch are out of scope"

LEFT_OUT: list[tuple[str, tuple[int, ...], str]] = [
    ("01-cluster", (9, 10, 21, 22, 23, 29, 33, 36), FIGURES),
    ("03-objects", (103,), "promote: there are no files of a cluster's own to promote"),
    ("03b-objects-raw", (262,), "a NUL in Location: the HTTP library refuses to send one, a space is sent"),
    ("03b-objects-raw", (263,), "the message names a temporary file of the cluster's"),
    (
        "03b-objects-raw",
        (310,),
        "a cluster lists a//b as a/b, and /leading and //x not at all; here names are listed as put",
    ),
    ("03c-direct-and-framing", (58,), "no Host header: refused by the HTTP library with words of its own"),
    (
        "03c-direct-and-framing",
        (67,),
        "a prose description; the body is read here before the connection closes",
    ),
    ("04b-listing-edges", (6,), "a negative page size kills a cluster's targets: here it is refused"),
    ("05-archives", (20,), "equal names of one archive come in no fixed order"),
    (
        "05-archives",
        (22,),
        "a cluster loses members where a page ends inside an archive; here none is lost",
    ),
    ("05-archives", (69, 70, 116), LZ4),
    ("06-get-batch", (134, 146), LZ4),
    ("10-s3", tuple(range(len(load("10-s3")))), "/s3 is out of scope"),
    ("11-jobs", (0, *range(2, 9), 10, *range(11, 26), 29, 30), JOBS),
]
"""File, numbers of the lines counted from 0, and why."""
