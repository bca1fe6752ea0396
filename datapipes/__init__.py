"""Training data from DAOS, AIStore, S3-compatible stores and plain directories, as PyTorch pipes.

Importing this package opens nothing and needs no store's client: the rooms are imported where used
(``datapipes.iter``, ``datapipes.nodes``, ``datapipes.datasets``). See ``README.md`` beside this file.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
