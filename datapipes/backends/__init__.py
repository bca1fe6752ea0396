"""Where the bytes live: one module for each kind of store, all under the contract of ``base``."""

from datapipes.backends.base import Backend, ReadIterator
from datapipes.backends.registry import backend_for, known_schemes, register_backend

__all__ = ["Backend", "ReadIterator", "backend_for", "known_schemes", "register_backend"]
