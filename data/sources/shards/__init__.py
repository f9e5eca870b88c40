"""WebDataset shards written from any dataset: few large files, read from front to back.

The shards are a dataset like any other. Images keep their bytes, or are made smaller.
"""

from data.sources.shards.writing import SOURCE

__all__ = ["SOURCE"]
