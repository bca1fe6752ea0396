"""The one module that owns functional names: ``pipe.list_files_by_daos(...)`` and the others.

torchdata <= 0.9 registers some names of its own (``list_files_by_ais``, ``load_files_by_s3``, ...), and
registering a name that is taken raises, whoever comes second. So torchdata's pipes are imported first
where they exist, and names are then set, not registered: whichever package a program imports first, ours
stand in the end. What replaces a name keeps its parameters.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch.utils.data import IterDataPipe

__all__ = ["register_functional_forms"]

_DEPRECATION = r"\s*#+\s*WARNING!\s*The 'datapipes', 'dataloader2' modules are deprecated"
"""torchdata 0.9 says so of itself when its pipes are imported; those who import us did not ask."""


def register_functional_forms(forms: Mapping[str, Callable[..., Any]]) -> None:
    """Make each ``name`` of ``forms`` a method of every IterDataPipe, in place of whatever had the name.

    The callable takes the pipe as its first argument. Doing it twice changes nothing.
    """
    _import_torchdata_pipes()
    for name, form in forms.items():
        # As torch's own register_datapipe_as_function leaves it: a partial that carries the docstring.
        function = functools.partial(form)
        functools.update_wrapper(wrapper=function, wrapped=form, assigned=("__doc__",), updated=())
        IterDataPipe.functions[name] = function


def _import_torchdata_pipes() -> None:
    """Import ``torchdata.datapipes.iter`` where torchdata has it (0.9 and before), so that it comes first."""
    if (
        importlib.util.find_spec("torchdata") is None
        or importlib.util.find_spec("torchdata.datapipes") is None
    ):
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=_DEPRECATION, category=UserWarning)
        importlib.import_module("torchdata.datapipes.iter")
