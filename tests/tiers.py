"""The tiers of the test suite: what runs every day, and what that run leaves to `make test-rest`.

A test belongs to the everyday run unless it is marked `slow` or `system`. An unmarked test that itself, its fixtures
aside, takes more than `--test-seconds` of processor time fails, so that the everyday run stays short. As many seconds
again are free for compiling, which the test that comes first does for the others, too.
"""

from collections import Counter, defaultdict
from collections.abc import Container, Iterable, Iterator
import os

import jax
import pytest

TIERS = {"everyday": "", "slow": "slow", "system": "with several processes, a browser or a notebook"}
MARKERS = (
    "slow: takes more than five seconds of processor time",
    "system: runs several processes, a browser or a notebook",
    "extra: needs PyTorch, an S3 server or data kept outside the repository, else skipped; follows from its fixtures",
)
LEFT_OUT = pytest.StashKey[Counter[str]]()

_compiled = [0.0]  # seconds so far


def _count_compilation(event: str, seconds: float, **_: object) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _compiled[0] += seconds


jax.monitoring.register_event_duration_secs_listener(_count_compilation)


def tier(names: Container[str]) -> str:
    """The tier of a test with these markers or keywords."""
    return next((mark for mark in ("system", "slow") if mark in names), "everyday")


def slow_after(count: int, cases: Iterable[object]) -> list[object]:
    """Cases for `parametrize`: the first `count` of them run every day, the others are marked slow."""
    cases = list(cases)
    slow = [
        pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.slow) for case in cases[count:]
    ]
    return [*cases[:count], *slow]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--test-seconds",
        type=float,
        default=5.0,
        help="processor seconds that a test without the mark `slow` or `system` may take; 0: any (default: 5)",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LEFT_OUT] = Counter()
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        if "browser" in fixtures:
            item.add_marker("system")
        if not {"shared", "torch", "s3_server"}.isdisjoint(fixtures):
            item.add_marker("extra")
    # The longest first, so that several workers end together.
    items.sort(key=lambda item: list(TIERS)[::-1].index(tier(item.keywords)))


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items and "not slow" in items[0].config.option.markexpr:  # not what `-k` leaves out
        items[0].config.stash[LEFT_OUT].update(tier(item.keywords) for item in items)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fails an everyday test that takes too long. Processor time: what else runs on the machine does not count."""
    limit, begin, compiled = item.config.getoption("--test-seconds"), sum(os.times()[:4]), _compiled[0]
    yield
    seconds, compiling = sum(os.times()[:4]) - begin, _compiled[0] - compiled
    if limit and seconds - min(compiling, limit) > limit and tier(item.keywords) == "everyday":
        pytest.fail(
            f"passed, but took {seconds:.1f} s of processor time, {compiling:.1f} s of them for compiling, and the "
            f"everyday run allows {limit:g} s, and as many for compiling (--test-seconds): make it shorter, or mark it "
            "slow",
            pytrace=False,
        )


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):  # of pytest-xdist, whose controller collects nothing itself
        session.config.workeroutput["left_out"] = dict(session.config.stash[LEFT_OUT])  # pyright: ignore[reportAttributeAccessIssue]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node) -> None:
    if hasattr(node, "workeroutput"):  # it did not crash
        node.config.stash[LEFT_OUT] = Counter(node.workeroutput["left_out"])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The number of tests of each tier and their seconds, those of fixtures included."""
    seconds, tests = defaultdict(float), defaultdict(set)
    for report in (report for reports in terminalreporter.stats.values() for report in reports):
        if isinstance(report, pytest.TestReport):
            seconds[tier(report.keywords)] += report.duration
            tests[tier(report.keywords)].add(report.nodeid)
    sums = [f"{name} {len(tests[name])} in {seconds[name]:.0f} s" for name in TIERS if tests[name]]
    if sums:
        terminalreporter.write_line(f"tests per tier: {', '.join(sums)}")


def pytest_unconfigure(config: pytest.Config) -> None:
    """The last line: what was left out."""
    left = config.stash.get(LEFT_OUT, Counter())
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput"):
        parts = [f"{left[name]} {words}" for name, words in TIERS.items() if words and left[name]]
        if parts:
            reporter.write_line(f"tests left to `make test-rest`: {' and '.join(parts)}")
