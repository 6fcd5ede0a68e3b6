"""Tables, figures and the self-contained HTML page of one evaluated experiment."""

from castream_jax.reporting.metric_table import markdown_table, metric_table
from castream_jax.reporting.report_page import write_report

__all__ = ["markdown_table", "metric_table", "write_report"]
