"""The paper's tables again: its numbers as data, ours beside them, and the runs that make ours.

Configs import `forms` from here: what trains and evaluates is imported by `make_targets` alone.
"""

from castream_jax.reproduce.published import TABLES, published_rows

__all__ = ["TABLES", "published_rows"]
