"""Parquet files in the layout of Hugging Face."""

from data.sources.parquet.listing import SOURCE

__all__ = ["SOURCE"]
