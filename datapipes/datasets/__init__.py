"""Map-style datasets and samplers: the simplest way to exact resume."""

from datapipes.datasets.files import FileDataset
from datapipes.datasets.samplers import ResumableSampler

__all__ = ["FileDataset", "ResumableSampler"]
