"""Back ends that stand before another one: counts, faults, latency, retries."""

from datapipes.backends.counting import CountingBackend
from datapipes.backends.faults import Fault, FaultBackend
from datapipes.backends.latency import LatencyBackend
from datapipes.backends.retry import RetryBackend
from datapipes.backends.wrapping import ReadsWrapper, WrapperBackend

__all__ = [
    "CountingBackend",
    "Fault",
    "FaultBackend",
    "LatencyBackend",
    "ReadsWrapper",
    "RetryBackend",
    "WrapperBackend",
]
