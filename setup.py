"""Builds the native engine; everything else about the package is in pyproject.toml.

Switches (environment): DATAPIPES_DEBUG=1 builds without optimisation, DATAPIPES_SANITIZE=1 with
AddressSanitizer and UndefinedBehaviorSanitizer, DATAPIPES_WERROR=1 makes warnings errors (CI),
DATAPIPES_DAOS_INCLUDE names the folder of DAOS's headers (daos_fs.h) where it is an unusual one.
"""

import os
import sys
from glob import glob
from pathlib import Path

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
link_args = ["-pthread"] + (["-ldl"] if sys.platform == "linux" else [])  # glibc before 2.34
compile_args += ["-O1", "-g", "-fno-omit-frame-pointer", "-UNDEBUG"] if DEBUG else ["-O3", "-g0"]
if SANITIZE:
    compile_args += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    link_args += ["-fsanitize=address,undefined"]
# Where DAOS's headers are at hand, what _ext/core/dfs_abi.h says is held against them; no build needs them.
HEADER_FOLDERS = [os.environ.get("DATAPIPES_DAOS_INCLUDE", ""), "/usr/include", "/opt/daos/include"]
daos_include = [folder for folder in HEADER_FOLDERS if folder and Path(folder, "daos_fs.h").is_file()][:1]
for folder in daos_include:
    compile_args += ["-isystem", folder]  # whose warnings are not ours
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
                *[("HAVE_DAOS_HEADERS", "1") for _ in daos_include],
            ],
            extra_compile_args=compile_args,
            extra_link_args=link_args,
            py_limited_api=True,
        )
    ],
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
