"""``BackendContract``: what every store promises, as a class of tests to inherit from.

A subclass says how to make the back end and how to reach the store's data without it; pytest collects the
rest::

    class TestMyBackend(BackendContract):
        def make(self):
            return MyBackend("endpoint", bucket="b")

        def seed(self, files): ...
        def alter(self, url, data): ...
        def peek(self, url): ...
        def missing_container(self): ...

Nothing opts out: a store that cannot pass a test does not keep the contract. The parts are in
``backend_listing``, ``backend_reading``, ``backend_faults``, ``backend_bounds``, ``backend_writing`` and
``backend_processes``; the hooks are described in ``backend_hooks``. For readable failures, call
``pytest.register_assert_rewrite("datapipes.testing")`` before the first import.
"""

from __future__ import annotations

from datapipes.errors import UrlError
from datapipes.testing.backend_bounds import BoundsContract
from datapipes.testing.backend_faults import FaultsContract
from datapipes.testing.backend_hooks import raises_exactly
from datapipes.testing.backend_listing import ListingContract
from datapipes.testing.backend_processes import ProcessesContract
from datapipes.testing.backend_reading import ReadingContract
from datapipes.testing.backend_writing import WritingContract

__all__ = ["BackendContract"]


class BackendContract(
    ListingContract, ReadingContract, FaultsContract, BoundsContract, WritingContract, ProcessesContract
):
    """All of it; see the module."""

    def test_scheme_is_that_of_its_urls_and_no_other_is_let_in(self) -> None:
        backend = self.make()
        assert self.seed({}).startswith(f"{backend.scheme}://")
        backend.check_scheme(self.seed({}))
        with raises_exactly(UrlError):
            backend.check_scheme("nostore://a/b")
