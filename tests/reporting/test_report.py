"""The report page: its numbers, its promises (self-contained, escaped) and, in Chromium, its layout."""

from collections.abc import Iterator
from html.parser import HTMLParser
import io
import json
from pathlib import Path
import re
import shutil

from chromium import CHROMIUM, Browser
import numpy as np
from PIL import Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from castream_jax.reporting import markdown_table, metric_table, write_report
from castream_jax.reporting.differences import difference_rows
from castream_jax.reporting.metric_table import COLUMNS, table_rows
from castream_jax.reporting.side_by_side import compare_experiments

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
    assert html.count("url(") == html.count("url(data:image/webp;base64,") == 6  # the photographs


def test_table_prints_the_summary_and_marks_the_best(workdir):
    html = write_report(workdir).read_text()
    printed = {}
    rows = Page(html[: html.index("<details>")]).table[1:]
    methods = iter(["gradcam", "gradcam", "gradcam++", "gradcam++"])
    for row in rows:
        if row[0] in ("GAP", "ca"):
            printed[next(methods), row[0].lower()] = row[1:]
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
    assert rows[0] == ("ca − GAP", "Accuracy ↑", "0.00", "−1.00 to +1.00", "1,200", "3", "1", "0.012")
    assert rows[1] == ("ca − GAP", "AD ↓", "−7.66", "−10.00 to −5.00", "1,200", "3", "1", "< 0.001")
    html = write_report(workdir).read_text()
    for row in rows:
        assert f"<td>{row.difference}</td><td>{row.interval}</td><td>1,200</td><td>3</td>" in html


def test_a_method_stands_beside_the_reference_method_in_table_and_report(workdir):
    summary = read_summary(workdir)
    summary["reference_method"] = "gradcam"
    entry = {
        "head": "ca",
        "method": "gradcam++",
        "reference": "gradcam",
        "AD": 0.0766,
        "AG": 0,
        "AI": -0.2,
        "I": -0.0612,
        "D": -0.05,
    }
    summary["method_differences"] = [entry | {"intervals": {"AD": [0.05, 0.1]}, "sign_tests": {"AD": TEST}}]
    (workdir / "evaluation" / "summary.json").write_text(json.dumps(summary))
    (row,) = (row for row in table_rows(summary) if row.minus == "gradcam")
    assert (row.method, row.title) == ("gradcam++", "ca: − Grad-CAM")
    # Points of the printed values, 20.00 − 12.34; an accuracy has no method.
    assert [cell.text for cell in row.cells] == ["+7.66", "0.00", "−20.00", "−6.12", "−5.00", "–"]
    assert row.cells[0] == ("+7.66", "worse", "±2.50")
    assert "| Grad-CAM++ | ca: − Grad-CAM | †+7.66 ±2.50 |" in markdown_table(summary)
    full = [row for row in difference_rows(summary)["Grad-CAM++"] if row.title == "ca: − Grad-CAM"]
    assert full[0] == ("ca: − Grad-CAM", "AD ↓", "+7.66", "+5.00 to +10.00", "1,200", "3", "1", "0.012")
    html = write_report(workdir).read_text()
    assert html.count("ca: − Grad-CAM") == 2 + len(full)  # the table's row (and what it sorts by), and in full


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
    assert [attributes for tag, attributes in Page(html).tags if tag == "script"] == [
        {"id": "extremes", "type": "application/json"}, {}
    ]  # fmt: skip


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


def second_workdir(workdir: Path, folder: Path, **changes: object) -> Path:
    """The same experiment, every AD of `ca` 0.05 higher, rows in another order, and `changes` of the summary."""
    shutil.copytree(workdir, folder)
    summary = read_summary(folder)
    for entry in summary["metrics"]:
        entry["AD"] += 0.05 * (entry["head"] == "ca")
    (folder / "evaluation" / "summary.json").write_text(json.dumps(summary | changes))
    rows = folder / "evaluation" / "rows"
    table = pa.concat_tables([pq.read_table(path) for path in sorted(rows.iterdir())]).to_pylist()
    for path in rows.iterdir():
        path.unlink()
    table = [row | {"AD": row["AD"] + 0.05 * (row["head"] == "ca")} for row in table[::-1]]
    pq.write_table(pa.Table.from_pylist(table), rows / "part-00000.parquet")
    return folder


def compared_rows(first: Path, other: Path) -> dict[tuple[str, str], tuple]:
    comparison = compare_experiments([first, other], ["one", "two"])
    units = [*comparison.recognition, *comparison.metrics]
    return {(unit[0].method, unit[0].title): unit[1].cells for unit in units if len(unit) > 1}


def test_experiments_are_compared_image_by_image(workdir, tmp_path_factory):
    other = second_workdir(workdir, tmp_path_factory.mktemp("other") / "b")
    rows = compared_rows(workdir, other)
    assert set(rows) == {(m, f"{h}, two") for m in ("", "gradcam", "gradcam++") for h in ("GAP", "ca")}
    # The same shift on every image has no spread, unless images are paired wrongly.
    assert rows["gradcam", "ca, two"][0] == ("+5.00", "worse", "±0.00")
    assert rows["gradcam", "ca, two"][1] == ("0.00", "", "±0.00")
    assert rows["gradcam", "GAP, two"][0] == ("0.00", "", "±0.00")
    html = write_report(workdir, [other]).read_text()
    assert "Comparison of 2 experiments" in html
    assert 'class="warning"' not in html
    assert f"{workdir.name}</th>" in html  # of one name, they are told apart by their folders
    assert "Comparison of" not in write_report(workdir).read_text()


def test_incomparable_experiments_are_not_subtracted(workdir, tmp_path_factory, capsys):
    folder = tmp_path_factory.mktemp("other")
    protocol = {"name": "rise", "hash": "0" * 12}
    other = second_workdir(workdir, folder / "protocol", protocol=protocol)
    assert {method for method, _ in compared_rows(workdir, other)} == {""}  # accuracy has no protocol
    html = write_report(workdir, [other]).read_text()
    assert "protocol: castream (3fa9c01be877)" in html
    said = " ".join(capsys.readouterr().err.split())
    assert "is not fully comparable (protocol: castream (3fa9c01be877), there rise" in said
    assert "cannot be compared" in html

    other = second_workdir(workdir, folder / "classes", class_names=["a", "b", "c"])
    assert compared_rows(workdir, other) == {}

    other = second_workdir(workdir, folder / "images")
    path = other / "evaluation" / "rows" / "part-00000.parquet"
    pq.write_table(pq.read_table(path, filters=[("index", "<", 15)]), path)
    assert {method for method, _ in compared_rows(workdir, other)} == {""}

    other = second_workdir(workdir, folder / "data")
    for path, seed in ((workdir, 0), (other, 1)):
        run = {"identity": {"data": {"source": "digits", "seed": seed}}}
        (path / "evaluation" / "run.json").write_text(json.dumps(run))
    assert compared_rows(workdir, other) == {}


def test_a_workdir_is_not_compared_with_itself_or_with_nothing(workdir, tmp_path):
    with pytest.raises(ValueError, match="give each workdir once"):
        write_report(workdir, [workdir])
    with pytest.raises(FileNotFoundError, match=r"run `castream train .*` and then `castream evaluate"):
        write_report(workdir, [tmp_path / "absent"])


def test_report_is_replaced_whole(workdir):
    assert write_report(workdir) == write_report(workdir)
    assert sorted(path.name for path in (workdir / "report").iterdir()) == ["index.html", "table.md"]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.mark.parametrize("width", [390, 1280])
def test_page_loads_alone_and_fits_its_width(workdir, browser, width, tmp_path_factory):
    other = second_workdir(workdir, tmp_path_factory.mktemp("a-name-of-no-use") / "b", class_names=["a", "b", "c"])
    page = write_report(workdir, [other])
    browser.problems.clear()
    browser.requests.clear()
    browser.open(page, width=width)
    assert browser.js("innerWidth") == width
    browser.js("document.querySelectorAll('details').forEach((details) => { details.open = true; })")
    assert browser.js("document.documentElement.scrollWidth") <= width
    browser.js("document.querySelector('#cards .picture').click()")
    zoom = browser.js("document.getElementById('zoom').getBoundingClientRect().toJSON()")
    assert 0 <= zoom["left"] < zoom["right"] <= width
    assert 0 <= zoom["top"] < zoom["bottom"] <= 800
    browser.press("Escape")
    browser.wait_for("document.getElementById('zoom').open", False)
    browser.js("document.querySelector('#zoomed').replaceChildren()")
    pictures = "[...document.querySelectorAll('.picture')].map((p) => p.getBoundingClientRect())"
    assert min(browser.js(f"{pictures}.map((p) => p.width)")) >= 160
    # The photograph is 48 x 32, and every map is laid over it whole.
    assert browser.js(f"{pictures}.map((p) => p.width / p.height)") == pytest.approx([1.5] * 24, abs=0.02)
    maps = browser.js(
        "Promise.all([...document.querySelectorAll('.picture img')].map((map) => { map.loading = 'eager';"
        "return map.decode().then(() => [map.naturalWidth, map.naturalHeight]); }))"
    )
    assert maps == [[112, 75]] * 18
    assert browser.problems == []
    assert browser.requests == [page.as_uri()]


def test_tables_sort_by_click_and_by_key(workdir, browser):
    browser.open(write_report(workdir), width=1280)
    table = "document.querySelector('[aria-label=\"Metrics table\"] table')"
    rows = f"[...{table}.tBodies].map((body) => [...body.rows].map((row) => row.cells[1].innerText.split('\\n')[0]))"
    sorts = f"[...{table}.tHead.rows[0].cells].map((header) => header.ariaSort)"
    printed = [["★20.00"], ["★12.34", "†−7.66"], ["20.00"], ["20.00", "0.00"]]
    printed = [[cell.replace("★", "") for cell in body] for body in printed]

    def shown() -> list[list[str]]:
        return [[cell.replace(" (best)", "").replace(" (better)", "") for cell in body] for body in browser.js(rows)]

    assert shown() == printed
    assert set(browser.js(sorts)) == {"none"}
    browser.js(f"{table}.tHead.rows[0].cells[1].firstChild.click()")
    assert browser.js(sorts)[:3] == ["none", "ascending", "none"]
    assert shown() == [printed[1], printed[0], *printed[2:]]  # differences stay below their values
    browser.js(f"{table}.tHead.rows[0].cells[1].firstChild.focus()")
    browser.press("Enter")
    assert browser.js(sorts)[1] == "descending"
    assert shown()[-1] == printed[1]
    browser.press("Enter")
    assert set(browser.js(sorts)) == {"none"}
    assert shown() == printed
    # A missing value is last in both orders.
    browser.js(f"{table}.tHead.rows[0].cells[5].firstChild.focus()")
    for _ in range(2):
        browser.press("Enter")
        assert browser.js(f"[...{table}.tBodies].at(-1).rows[0].cells[5].innerText") == "–"


def test_gallery_searches_true_and_predicted_classes(workdir, browser):
    browser.open(write_report(workdir), width=1280)
    count = "document.getElementById('count').textContent"
    shown = "[...document.querySelectorAll('.card')].filter((card) => !card.hidden).length"
    assert browser.js(count) == "6 of 6 images"
    browser.js("document.getElementById('class').focus()")
    browser.type("CA")
    # Labels and the stream's predictions are 0, 1, 2, 0, 1, 2; GAP always predicts 0, the cat.
    assert (browser.js(count), browser.js(shown)) == ("6 of 6 images", 6)
    for where, expected in (("class", 2), ("predicted", 6), ("words", 6)):
        browser.js(
            f"document.getElementById('where').value = '{where}';"
            "document.getElementById('where').dispatchEvent(new Event('input'))"
        )
        assert (browser.js(count), browser.js(shown)) == (f"{expected} of 6 images", expected)
    browser.type("pet")
    assert browser.js(count) == "0 of 6 images"


def test_gallery_sorts_best_and_worst_first(workdir, browser):
    browser.open(write_report(workdir), width=1280)
    for metric, order, descending in (("AD", "1", False), ("AD", "-1", True), ("AG", "1", True), ("AG", "-1", False)):
        settings = {"metric": metric, "map": "Grad-CAM, ca", "order": order}
        for name, value in settings.items():
            browser.js(
                f"document.getElementById('{name}').value = '{value}';"
                f"document.getElementById('{name}').dispatchEvent(new Event('change'))"
            )
        cards = browser.js("[...document.querySelectorAll('.card')].map((card) => JSON.parse(card.dataset.values))")
        values = [card["Grad-CAM, ca"][metric] for card in cards]
        assert len(set(values)) > 1
        assert values == sorted(values, reverse=descending)


def test_gallery_is_walked_by_keys(workdir, browser):
    browser.open(write_report(workdir), width=1280)
    # One picture is in the tab order.
    assert browser.js("document.querySelectorAll('#cards [tabindex=\"0\"]').length") == 1
    browser.js("document.getElementById('order').focus()")
    browser.press("Tab")
    at = (
        "(() => { const picture = document.activeElement, all = [...document.querySelectorAll('.card:not([hidden])')];"
        "return [all.indexOf(picture.closest('.card')),"
        "[...picture.closest('.card').querySelectorAll('.picture')].indexOf(picture)]; })()"
    )
    assert browser.js(at) == [0, 0]
    # A card has the image, raw attention and Grad-CAM under both heads.
    for key, place in (
        ("ArrowRight", [0, 1]), ("ArrowDown", [1, 1]), ("ArrowLeft", [1, 0]), ("ArrowLeft", [0, 3]),
        ("ArrowUp", [0, 3]), ("End", [5, 3]), ("ArrowRight", [5, 3]), ("Home", [0, 0]), ("ArrowRight", [0, 1]),
    ):  # fmt: skip
        browser.press(key)
        assert browser.js(at) == place, key
    focus = browser.js(
        "[document.activeElement.matches(':focus-visible'), getComputedStyle(document.activeElement).outlineStyle]"
    )
    assert focus == [True, "solid"]
    browser.press("Enter")
    enlarged = "[document.getElementById('zoom').open, document.querySelector('#zoomed .picture')?.ariaLabel]"
    assert browser.js(enlarged) == [True, "Raw attention, ca over the image of class cat"]
    width = browser.js("document.querySelector('#zoomed .picture').getBoundingClientRect().width")
    assert width > 1.5 * browser.js("document.querySelector('#cards .picture').getBoundingClientRect().width")
    browser.press("ArrowRight")
    assert browser.js(enlarged) == [True, "Grad-CAM, GAP over the image of class cat"]
    browser.press("Escape")
    browser.wait_for("document.getElementById('zoom').open", False)
    browser.wait_for(at, [0, 2])  # back to the picture that was shown last


def test_cases_are_the_best_and_the_worst_of_all_rows(workdir, browser):
    page = write_report(workdir)
    rows = pq.read_table(workdir / "evaluation" / "rows").to_pylist()
    browser.problems.clear()
    browser.open(page, width=1280)
    for metric, sign in (("AD", 1), ("AG", -1)):
        for key, value in (("case-method", "Grad-CAM++"), ("case-head", "ca"), ("case-metric", metric)):
            browser.js(
                f"document.getElementById('{key}').value = '{value}';"
                f"document.getElementById('{key}').dispatchEvent(new Event('change'))"
            )
        chosen = [row for row in rows if (row["head"], row["method"]) == ("ca", "gradcam++")]
        for end, order in (("best", 1), ("worst", -1)):
            gain = lambda row: row["p"] - row["o"]  # noqa: E731
            expected = sorted(chosen, key=lambda row: (order * sign * row[metric], order * gain(row)))[:10]
            cells = browser.js(
                f"[...document.getElementById('{end}-rows').rows]"
                ".map((row) => [...row.cells].map((cell) => cell.textContent))"
            )
            assert [(row[0], row[1]) for row in cells] == [
                (row["name"], f"{100 * round(row[metric], 4):.2f}") for row in expected
            ]
            assert [row[2] for row in cells] == [CLASS_NAMES[row["label"]] for row in expected]
    # Images in the gallery (indices 0 to 5) are links to their cards, also to one that is filtered away.
    links = browser.js("[...document.querySelectorAll('#best-rows a, #worst-rows a')].map((a) => a.hash)")
    assert links
    browser.js("document.getElementById('class').value = 'nothing'; filterCards()")
    browser.js("document.querySelector('#best-rows a, #worst-rows a').click()")
    assert not browser.js(f"document.querySelector('{links[0]}').hidden")
    assert browser.problems == []


def test_theme_is_that_of_the_system_unless_chosen(workdir, browser):
    page = write_report(workdir)
    background = "getComputedStyle(document.body).backgroundColor"
    colors = {}
    for scheme in ("light", "dark"):
        browser.open(page, width=390, scheme=scheme)
        colors[scheme] = browser.js(background)
    assert colors["light"] != colors["dark"]
    browser.js("theme.value = 'light'; theme.dispatchEvent(new Event('change'))")
    assert browser.js(background) == colors["light"]
    browser.open(page, width=390, scheme="dark")
    assert browser.js(background) == colors["light"]  # remembered
    browser.js("theme.value = ''; theme.dispatchEvent(new Event('change'))")
    assert browser.js(background) == colors["dark"]


def test_baselines_are_set_apart_below(workdir):
    summary = read_summary(workdir)
    random = [{"head": head, "method": "random", "AD": 0.9, "AG": 0.1 + 0.1 * (head == "ca")} for head in HEADS]
    summary["metrics"] = random + summary["metrics"]
    row = {"head": "ca", "method": "gradcam"}
    summary["sanity"] = [row | {"randomised": "nothing", "rank_correlation": 1.0}]
    summary["sanity"] += [row | {"randomised": "classifier", "rank_correlation": -0.25}]
    (workdir / "evaluation" / "summary.json").write_text(json.dumps(summary))
    rows = table_rows(summary)
    assert [row.method for row in rows if not row.is_difference][-2:] == ["random", "random"]
    assert not any(cell.mark == "best" for row in rows if row.method == "random" for cell in row.cells)
    html = write_report(workdir).read_text()
    bodies = [attributes["class"] for tag, attributes in Page(html).tags if tag == "tbody" and "class" in attributes]
    assert ["baseline" in (name or "") for name in bodies] == [False] * 4 + [True] * 2
    assert '<td class="quiet">1.00</td>' in html
    assert '<td class="better">−0.25</td>' in html


def test_raw_attention_is_drawn_on_its_own_scale_unless_chosen_otherwise(workdir, browser):
    with np.load(workdir / "evaluation" / "gallery.npz") as there:
        arrays = dict(there) | {"range/ca/attention": np.tile(np.array([0.5, 7.25], np.float32), (6, 1))}
    np.savez(workdir / "evaluation" / "gallery.npz", **arrays)
    browser.open(write_report(workdir), width=390)
    shown = (
        "[...document.querySelectorAll('#cards .card:first-child img')]"
        ".filter((img) => getComputedStyle(img).display !== 'none').map((img) => img.className)"
    )
    assert browser.js(shown) == ["absolute", "", ""]
    caption = "document.querySelectorAll('#cards .tile figcaption')[1].innerText"
    assert "at most 7.2 × uniform" in browser.js(caption)
    browser.js("byId('scale').value = 'stretched'; byId('scale').dispatchEvent(new Event('change'))")
    assert browser.js(shown) == ["stretched", "", ""]
    assert browser.js("document.documentElement.scrollWidth") <= 390


def test_a_page_that_is_sent_names_no_folder_of_its_author(workdir):
    config = json.loads((workdir / "config.json").read_text())
    config["data"] |= {"path": "/home/somebody/secret/digits"}
    (workdir / "config.json").write_text(json.dumps(config | {"imports": ["/home/somebody/secret/own.py"]}))
    html = write_report(workdir).read_text()
    assert "somebody" not in html
    assert str(workdir.parent) not in html
    assert f"castream train --config config.json --workdir {workdir.name}" in html


def test_attention_across_depth_has_a_column_per_stage(workdir, browser):
    assert "Attention across depth" not in write_report(workdir).read_text()
    with np.load(workdir / "evaluation" / "gallery.npz") as there:
        arrays = dict(there)
    for stage in (10, 0, 2):
        arrays[f"map/ca/attention:{stage}"] = np.random.default_rng(stage).random((6, 4, 6), np.float32)
    np.savez(workdir / "evaluation" / "gallery.npz", **arrays)
    browser.open(write_report(workdir), width=390)
    rows = (
        "[...document.querySelector('.depth').rows].map((row) => [...row.cells].map((cell) => cell.innerText.trim()))"
    )
    header, *images = browser.js(rows)
    assert header == ["Image", "S0, ca", "S2, ca", "S10, ca"]
    assert [len(row) for row in images] == [4] * 6
    assert browser.js("document.documentElement.scrollWidth") <= 390


@pytest.mark.slow
def test_two_hundred_images_under_seven_maps_stay_below_ten_megabytes(workdir):
    rng = np.random.default_rng(0)
    # As hard to compress as photographs, which take 10 kB: smooth shapes and some noise.
    base = rng.integers(0, 256, (200, 14, 14, 3), dtype=np.uint8)
    pixels = np.stack(
        [np.asarray(Image.fromarray(image).resize((224, 224), Image.Resampling.BICUBIC)) for image in base]
    )
    noise = rng.normal(0, 9, (224, 224, 1))
    gallery = {
        "index": np.arange(200),
        "pixels": (pixels + noise).clip(0, 255).astype(np.uint8),
        "label": np.zeros(200, int),
    }
    for head, method in (("ca", "attention"), *((h, f"{m}cam") for m in ("grad", "score", "layer") for h in HEADS)):
        gallery[f"map/{head}/{method}"] = rng.random((200, 7, 7), np.float32)
    np.savez(workdir / "evaluation" / "gallery.npz", **gallery)
    page = write_report(workdir)
    assert page.read_text().count('class="picture') == 200 * 8
    photos = re.findall(r"--photo: url\(data:image/webp;base64,([^)]*)\)", page.read_text())
    assert np.mean([len(photo) * 3 / 4 for photo in photos]) > 10_000
    assert len(page.read_bytes()) < 10_000_000
