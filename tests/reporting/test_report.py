"""The report page: its numbers, its promises (self-contained, escaped) and, in Chromium, its layout."""

from html.parser import HTMLParser
import io
import json
from pathlib import Path
import re
import shutil
import subprocess

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from castream_jax.reporting import markdown_table, metric_table, write_report
from castream_jax.reporting.differences import difference_rows
from castream_jax.reporting.gallery import overlay
from castream_jax.reporting.tables import COLUMNS, table_rows

CLASS_NAMES = ["cat", "<script>alert('class')</script>", "a-very-long-class-name-without-any-place-to-break-" * 2]
TEST = {"higher": 1200, "lower": 3, "ties": 1, "p": 0.0123}
HEADS = {
    "gap": {"accuracy": 0.8125, "parameters": 0},
    "ca": {
        "accuracy": 0.8125,
        "parameters": 6992,
        "intervals": {"accuracy": [0.79, 0.83]},
        "difference": {"accuracy": 0.0, "intervals": {"accuracy": [-0.01, 0.01]}, "sign_tests": {"accuracy": TEST}},
    },
}
# Two methods; under gradcam++ both heads print the same AD, so neither may be called best.
METRICS = [
    {"head": "ca", "method": "gradcam", "AD": 0.1234, "AG": 0.3, "AI": 0.5, "I": 0.6612, "D": 0.25},
    {"head": "gap", "method": "gradcam", "AD": 0.2, "AG": 0.1, "AI": 0.4, "I": 0.5, "D": 0.2},
    {"head": "gap", "method": "gradcam++", "AD": 0.200001, "AG": 0.1, "AI": 0.4, "I": 0.5, "D": float("nan")},
    {"head": "ca", "method": "gradcam++", "AD": 0.200002, "AG": 0.3, "AI": 0.3, "I": 0.6, "D": 0.2},
]
METRICS[0]["intervals"] = {"AD": [0.1, 0.15]}
# Under gradcam, AG's interval holds 0; the others exclude it, for the better but for D.
INTERVALS = {"AD": [-0.1, -0.05], "AG": [-0.01, 0.3], "AI": [0.01, 0.2], "I": [0.1, 0.2], "D": [0.02, 0.08]}
DIFFERENCES = [
    {"head": "ca", "method": "gradcam", "AD": -0.0766, "AG": 0.2, "AI": 0.1, "I": 0.1612, "D": 0.05}
    | {"intervals": INTERVALS, "sign_tests": dict.fromkeys(INTERVALS, TEST) | {"AD": {**TEST, "p": 1e-9}}},
]
BEST = {
    ("gradcam", "gap"): {"D"},
    ("gradcam", "ca"): {"AD", "AG", "AI", "I"},
    ("gradcam++", "gap"): {"AI"},
    ("gradcam++", "ca"): {"AG", "I"},
}


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    """A small evaluated experiment in the file formats that training and evaluation write."""
    rng = np.random.default_rng(0)
    for folder in ("logs", "evaluation"):
        (tmp_path / folder).mkdir()
    config = {
        "name": "digits & <b>more</b>",
        "data": {"name": "digits"},
        "backbone": {"name": "cifar_resnet20"},
        "streams": {"ca": {"start_stage": 0, "block": "ca"}},
        "optimizer": {"learning_rate": 0.1},
        "train": {"epochs": 3},
        "evaluation": {"protocol": "castream"},
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    summary = {
        "protocol": {"name": "castream", "hash": "3fa9c01be877", "pixels_per_step": 256},
        "trunk_fingerprint": "9d3f0c2b71aa44e0",
        "run": "0123456789ab",
        "accuracy_images": 16,
        "images": 16,
        "timed_images": 10,
        "seconds": 2.5,
        "images_per_second": 6.4,
        "class_names": CLASS_NAMES,
        "heads": HEADS,
        "metrics": METRICS,
        "differences": DIFFERENCES,
        "bootstrap": {"confidence": 0.95, "resamples": 10_000, "seed": 0},
        "device": "2 × cpu",
        "versions": {"castream_jax": "0.1.0", "jax": "0.10.2"},
        "date": "2025-11-21T00:30:00+00:00",
    }
    (tmp_path / "evaluation" / "summary.json").write_text(json.dumps(summary))
    log = [
        {"step": s, "epoch": s / 10, "learning_rate": 0.1, "ca/loss": 2.0 / (s + 1), "ca/accuracy": 0.5}
        for s in range(0, 30, 5)
    ]
    lines = [json.dumps(record) for record in log] + ['{"step": 30, "epo']  # the run was killed while writing
    (tmp_path / "logs" / "metrics.jsonl").write_text("\n".join(lines))
    rows = []
    for head in HEADS:
        for method in ("gradcam", "gradcam++"):
            for index in range(16):
                p, o = rng.uniform(0.05, 0.95, 2).tolist()
                row = {"index": index, "name": f"{index:04d}.png", "label": index % 3, "prediction": 0}
                row |= {"head": head, "method": method, "p": p, "o": o, "AD": max(0, p - o) / p}
                row |= {"AG": max(0, o - p) / (1 - p), "AI": float(o > p), "I": 0.6, "D": 0.3}
                rows.append(row)
    (tmp_path / "evaluation" / "rows").mkdir()
    for part in range(2):
        path = tmp_path / "evaluation" / "rows" / f"part-{part:05}.parquet"
        pq.write_table(pa.Table.from_pylist([row for row in rows if row["index"] // 8 == part]), path)
    curves = [
        {"head": head, "method": method, "curve": curve, "mean": mean, "low": mean - 0.1, "high": mean + 0.05}
        for head in HEADS
        for method in ("gradcam", "gradcam++")
        for curve, mean in (("insertion", np.linspace(0.1, 0.8, 5)), ("deletion", np.linspace(0.8, 0.1, 5)))
    ]
    pq.write_table(pa.Table.from_pylist(curves), tmp_path / "evaluation" / "curves.parquet")
    gallery = {
        "index": np.arange(6),
        "pixels": rng.integers(0, 256, (6, 32, 48, 3), dtype=np.uint8),
        "label": np.arange(6) % 3,
        "box": np.tile(np.array([4, 4, 24, 20], np.float32), (6, 1)),
        "prediction/gap": np.zeros(6, np.int64),
        "prediction/ca": np.arange(6) % 3,
        "map/gap/gradcam": rng.random((6, 4, 6), np.float32),
        "map/ca/gradcam": rng.random((6, 4, 6), np.float32),
        "map/ca/attention": rng.random((6, 8, 12), np.float32),
    }
    np.savez(tmp_path / "evaluation" / "gallery.npz", **gallery)
    return tmp_path


def read_summary(workdir: Path) -> dict:
    return json.loads((workdir / "evaluation" / "summary.json").read_text())


class Page(HTMLParser):
    """Tags with their attributes, and the text of the metrics table's cells."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.table: list[list[str]] = []
        self.in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.table.append([])
        elif tag in ("th", "td"):
            self.table[-1].append("")
            self.in_cell = True
        elif tag == "small":  # intervals are not part of the printed value
            self.in_cell = False

    def handle_endtag(self, tag: str) -> None:
        if tag in ("th", "td"):
            self.in_cell = False

    def handle_data(self, data: str) -> None:
        if self.in_cell and data.strip():
            self.table[-1][-1] += data


def test_page_loads_nothing_from_outside(workdir):
    html = write_report(workdir).read_text()
    for _, attributes in Page(html).tags:
        for name in ("src", "href", "srcset", "poster", "data"):
            assert (attributes.get(name) or "data:").startswith("data:")
    assert "@import" not in html
    assert "url(" not in html


def test_table_prints_the_summary_and_marks_the_best(workdir):
    html = write_report(workdir).read_text()
    printed = {}
    method = ""
    for row in Page(html[: html.index("<details>")]).table[1:]:
        if len(row) == 1:
            method = {"Grad-CAM": "gradcam", "Grad-CAM++": "gradcam++"}[row[0]]
        elif row[0] in ("GAP", "ca"):
            printed[method, row[0].lower()] = row[1:]
    assert printed.keys() == BEST.keys()
    for entry in METRICS:
        cells = printed[entry["method"], entry["head"]]
        values = {**entry, "accuracy": HEADS[entry["head"]]["accuracy"]}
        for column, cell in zip(COLUMNS, cells, strict=True):
            number = "–" if np.isnan(values[column.key]) else f"{100 * values[column.key]:.2f}"
            best = column.key in BEST[entry["method"], entry["head"]]
            assert cell == number + (" (best)" if best else "")
    assert html.count("<strong>") == sum(len(keys) for keys in BEST.values())


def test_differences_are_stream_minus_gap_and_marked_where_the_interval_excludes_0(workdir):
    rows = table_rows(read_summary(workdir))
    difference = next(row for row in rows if row.is_difference)
    assert difference.title == "ca − GAP"
    assert list(difference.cells) == [
        ("−7.66", "better", "±2.50"),
        ("+20.00", "", "±15.50"),
        ("+10.00", "better", "±9.50"),
        ("+16.12", "better", "±5.00"),
        ("+5.00", "worse", "±3.00"),
        ("0.00", "", "±1.00"),
    ]
    ca = next(row for row in rows if row.head == "ca")
    assert [cell.interval for cell in ca.cells] == ["±2.50", "", "", "", "", "±2.00"]


def test_differences_in_full(workdir):
    rows = [row for rows in difference_rows(read_summary(workdir)).values() for row in rows]
    assert rows[0] == ("ca", "Accuracy ↑", "0.00", "−1.00 to +1.00", 1200, 3, 1, "0.012")
    assert rows[1] == ("ca", "AD ↓", "−7.66", "−10.00 to −5.00", 1200, 3, 1, "< 0.001")
    html = write_report(workdir).read_text()
    for row in rows:
        assert f"<td>{row.difference}</td><td>{row.interval}</td><td>1,200</td><td>3</td>" in html


def test_terminal_and_markdown_print_the_same_cells(workdir):
    summary = read_summary(workdir)
    for entry in summary["heads"].values():
        entry["top5_accuracy"] = 1.0  # the widest table
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(metric_table(summary))
    terminal = console.export_text()
    markdown = markdown_table(summary)
    for row in table_rows(summary):
        cells = [cell.text for cell in row.cells]
        assert len(cells) == 7
        assert re.search(r"\s+[*†]?".join([re.escape(row.title), *map(re.escape, cells)]), terminal)
        for interval in filter(None, (cell.interval for cell in row.cells)):
            assert interval in terminal
        cells = [f"{cell.text} {cell.interval}".rstrip() for cell in row.cells]
        assert " | ".join([row.title, *cells]) in markdown.replace("**", "").replace("†", "")
    assert max(map(len, terminal.splitlines())) <= 80
    assert "**12.34** ±2.50" in markdown
    assert "†+16.12 ±5.00" in markdown
    assert "| +20.00 ±15.50" in markdown
    write_report(workdir)
    assert (workdir / "report" / "table.md").read_text() == markdown_table(read_summary(workdir))


def test_names_of_classes_and_experiment_are_escaped(workdir):
    html = write_report(workdir).read_text()
    assert "<script>alert" not in html
    assert "<b>more" not in html
    assert [tag for tag, _ in Page(html).tags].count("script") == 1


def test_missing_evaluation_says_what_to_run(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FileNotFoundError, match=r"run `castream evaluate --workdir .+` first\.$"):
        write_report(tmp_path)
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("file", "sentence"),
    [
        ("logs/metrics.jsonl", "No training curves"),
        ("evaluation/curves.parquet", "No insertion and deletion curves"),
        ("evaluation/gallery.npz", "No gallery"),
    ],
)
def test_missing_file_leaves_out_its_section_with_a_sentence(workdir, file, sentence):
    assert sentence not in write_report(workdir).read_text()
    (workdir / file).unlink()
    assert sentence in write_report(workdir).read_text()


def test_gallery_shows_the_numbers_of_its_images_from_every_part(workdir):
    html = write_report(workdir).read_text()
    row = pq.read_table(workdir / "evaluation" / "rows" / "part-00000.parquet").to_pylist()[5]
    assert (row["index"], row["method"]) == (5, "gradcam")
    assert f"<span>p&nbsp;{row['p']:.2f}</span> <span>o&nbsp;{row['o']:.2f}</span>" in html
    for path in (workdir / "evaluation" / "rows").iterdir():
        path.unlink()
    assert "<span>p&nbsp;" not in write_report(workdir).read_text()


def test_report_is_replaced_whole(workdir):
    assert write_report(workdir) == write_report(workdir)
    assert sorted(path.name for path in (workdir / "report").iterdir()) == ["index.html", "table.md"]


def test_overlay_interpolates_at_half_pixels():
    # Along one row 0, 1 becomes 0, 1/4, 3/4, 1 with half-pixel centres (0, 1/3, 2/3, 1 with aligned corners).
    black = np.zeros((1, 4, 3), np.uint8)
    expected = overlay(black, np.array([[0, 0.25, 0.75, 1]], np.float32))
    np.testing.assert_array_equal(overlay(black, np.array([[0, 1]], np.float32)), expected)


# Runs in the page, within a frame as wide as a phone. Clicks through the controls, then reports.
PROBE = """
<script>
addEventListener("load", () => {
  const set = (id, value, event) => {
    const control = document.getElementById(id);
    control.value = value;
    control.dispatchEvent(new Event(event));
  };
  const shown = () => [...document.querySelectorAll(".card")].filter((card) => !card.hidden);
  const box = document.documentElement;
  const result = {inner: innerWidth, scroll: box.scrollWidth, errors};
  result.tile = Math.min(...[...document.images].map((image) => image.getBoundingClientRect().width));
  set("metric", "AD", "change");
  set("map", "Grad-CAM, ca", "change");
  result.sorted = shown().map((card) => JSON.parse(card.dataset.values)["Grad-CAM, ca"].AD);
  set("class", "CAT", "input");
  result.cats = shown().length;
  set("theme", "dark", "change");
  result.dark = getComputedStyle(document.body).backgroundColor;
  set("theme", "light", "change");
  result.light = getComputedStyle(document.body).backgroundColor;
  parent.postMessage(result, "*");
});
</script>
"""
COLLECT_ERRORS = """
<script>
const errors = [];
addEventListener("error", (event) => errors.push(event.message));
addEventListener("securitypolicyviolation", (event) => errors.push(event.blockedURI));
for (const name of ["error", "warn"]) console[name] = (...parts) => errors.push(parts.join(" "));
</script>
"""
# A frame, because Chromium's window is never narrower than 500 pixels.
FRAME = """<!doctype html><meta charset="utf-8"><pre id="result"></pre>
<script>addEventListener("message", (event) => { result.textContent = JSON.stringify(event.data); });</script>
<iframe src="probed.html" style="width: WIDTHpx; height: 800px; border: 0"></iframe>
"""

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [380, 1280])
def test_page_in_chromium(workdir, tmp_path, width):
    assert CHROMIUM is not None
    page = write_report(workdir)
    html = page.read_text().replace("<head>", "<head>" + COLLECT_ERRORS).replace("</body>", PROBE + "</body>")
    (page.parent / "probed.html").write_text(html)
    (page.parent / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--enable-logging=stderr", "--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--dump-dom", (page.parent / "frame.html").as_uri()),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    found = re.search(r'<pre id="result">(.+?)</pre>', run.stdout, re.DOTALL)
    assert found, run.stderr[-2000:]
    result = json.loads(found[1])
    assert result["inner"] == width
    assert result["scroll"] <= width
    assert result["errors"] == []
    assert "CONSOLE" not in run.stderr
    assert result["tile"] >= 160
    assert len(result["sorted"]) == 6
    assert result["sorted"] == sorted(result["sorted"])
    assert result["cats"] == 2
    assert result["light"] != result["dark"]
