"""The paper's tables again: its numbers as data, ours beside them, and the runs that make ours."""

from castream_jax.reproduce.published import TABLES, PublishedRow, published_rows

__all__ = ["TABLES", "PublishedRow", "published_rows"]
