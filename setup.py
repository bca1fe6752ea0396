"""Builds the native engine; everything else about the package is in pyproject.toml.

Switches (environment): DATAPIPES_DEBUG=1 builds without optimisation, DATAPIPES_SANITIZE=1 with
AddressSanitizer and UndefinedBehaviorSanitizer, DATAPIPES_WERROR=1 makes warnings errors (CI).
"""

import os
from glob import glob

from setuptools import Extension, setup

SANITIZE = os.environ.get("DATAPIPES_SANITIZE") == "1"
DEBUG = SANITIZE or os.environ.get("DATAPIPES_DEBUG") == "1"

compile_args = [
    "-std=c11",
    "-pthread",
    "-fvisibility=hidden",
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wstrict-prototypes",
    "-Wmissing-prototypes",
    "-Wvla",
    "-Wformat=2",
    "-Wundef",
]
link_args = ["-pthread"]
compile_args += ["-O1", "-g", "-fno-omit-frame-pointer", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"]
if SANITIZE:
    compile_args += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    link_args += ["-fsanitize=address,undefined"]
if os.environ.get("DATAPIPES_WERROR") == "1":
    compile_args += ["-Werror"]

setup(
    ext_modules=[
        Extension(
            "datapipes._dfs",
            sources=sorted(glob("_ext/core/*.c") + glob("_ext/bind/*.c")),
            depends=sorted(glob("_ext/core/*.h") + glob("_ext/bind/*.h")),
            define_macros=[
                ("Py_LIMITED_API", "0x030b0000"),  # Py_buffer entered the limited API in 3.11
                ("_GNU_SOURCE", "1"),
                ("DPX_DEBUG", "1" if DEBUG else "0"),
            ],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
