"""The table of `castream models` holds the paper's counts."""

import pytest

from castream_jax.reporting import backbone_table


@pytest.mark.slow
def test_rows_hold_the_papers_parameter_counts(monkeypatch):
    monkeypatch.setattr(backbone_table, "backbone_names", lambda: ("resnet50", "convnext_tiny"))
    header, rule, resnet, convnext = backbone_table.models_table()
    assert header.count("|") == rule.count("|") == resnet.count("|")
    assert (
        "| 25,557,032 | 64, 256, 512, 1024, 2048 | 6,969,152 | 6,969,152 | `imagenet1k_v1`, `imagenet1k_v2` |" in resnet
    )
    assert "| 28,589,128 | 96, 192, 384, 768 |" in convnext
