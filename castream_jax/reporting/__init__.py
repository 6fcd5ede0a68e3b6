"""Tables, figures and the self-contained HTML page of one evaluated experiment."""

from castream_jax.reporting.html import write_report
from castream_jax.reporting.tables import markdown_table, metric_table

__all__ = ["markdown_table", "metric_table", "write_report"]
