"""What tests in several files share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from datapipes.backends.daos import ROOT_VARIABLE, DaosBackend
from datapipes.errors import ContainerMissingError

from .standin import StandIn


@pytest.fixture(scope="session")
def loaded_standin(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    """The one that this process loads."""
    return StandIn(tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="module")
def standin(loaded_standin: StandIn) -> Iterator[StandIn]:
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(ROOT_VARIABLE, raising=False)
        for name, value in loaded_standin.variables.items():
            patch.setenv(name, value)
        with contextlib.suppress(ContainerMissingError):  # so that it is loaded, whatever runs first
            DaosBackend("tank", "none").stat("daos://tank/none/a")
        yield loaded_standin
