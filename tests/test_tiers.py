"""The tiers of the suite itself: what is too slow fails, and what is left out is said."""

import pytest

SUITE = """
import time
import pytest

def test_quick(): pass

def test_waiting(): time.sleep(0.3)

def test_busy():
    end = time.process_time() + 0.3
    while time.process_time() < end: pass

@pytest.mark.slow
def test_marked_slow(): test_busy()

@pytest.mark.system
def test_marked_system(): test_busy()

@pytest.fixture
def browser(): pass

def test_with_a_browser(browser): test_busy()
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    pytester.makeini("[pytest]\nstrict_markers = true")
    pytester.makepyfile(SUITE)
    return pytester


@pytest.mark.parametrize("workers", [(), ("-n", "1")], ids=["one process", "a worker"])
def test_the_everyday_run_ends_with_what_it_leaves_out(suite, workers):
    result = suite.runpytest("-p", "tiers", *workers, "-m", "not slow and not system", "--test-seconds", "0.1")
    result.assert_outcomes(passed=2, failed=1, deselected=0 if workers else 3)
    result.stdout.fnmatch_lines(
        [
            "passed, but took 0.3 s of processor time, 0.0 s of them for compiling, and the everyday run allows 0.1 s*",
            "tests per tier: everyday 3 in *",
        ]
    )
    last = "tests left to `make test-rest`: 1 slow and 2 with several processes, a browser or a notebook"
    assert result.outlines[-1] == last


def test_the_whole_run_leaves_nothing_out_and_limits_no_marked_test(suite):
    result = suite.runpytest("-p", "tiers", "--test-seconds", "0.1")
    result.assert_outcomes(passed=5, failed=1)
    result.stdout.fnmatch_lines(["tests per tier: everyday 3 in *, slow 1 in *, system 2 in *"])
    assert "left to" not in result.stdout.str()


def test_the_limit_can_be_lifted(suite):
    suite.runpytest("-p", "tiers", "--test-seconds", "0").assert_outcomes(passed=6)


def test_compiling_may_take_as_long_again(pytester):
    pytester.makepyfile("""
        import time
        import jax

        def test_the_first_to_compile():
            event = "/jax/core/compile/backend_compile_duration"
            end = time.process_time() + 0.4
            while time.process_time() < end: pass
            jax.monitoring.record_event_duration_secs(event, 0.3)

        def test_compiling_too_much():
            test_the_first_to_compile()
            test_the_first_to_compile()
    """)
    result = pytester.runpytest("-p", "tiers", "--test-seconds", "0.25")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["passed, but took 0.8 s of processor time, 0.6 s of them for compiling*"])
