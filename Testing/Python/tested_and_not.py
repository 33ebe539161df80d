"""The last line of a test run: what was tested, and what was not.

Hooks for pytest; `conftest.py` takes them over. They work in one process and with pytest-xdist, where only the workers
know what was left out.
"""

from __future__ import annotations

from collections import Counter

import pytest

_LEFT_OUT = pytest.StashKey[int]()
_OUTPUT_KEY = "tested_and_not"


def pytest_configure(config):
    config.stash[_LEFT_OUT] = 0


def pytest_deselected(items):
    for item in items[:1]:
        item.config.stash[_LEFT_OUT] += len(items)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT_KEY] = session.config.stash[_LEFT_OUT]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    left_out = getattr(node, "workeroutput", {}).get(_OUTPUT_KEY, 0)
    stash = node.config.stash
    stash[_LEFT_OUT] = max(stash[_LEFT_OUT], left_out)  # every worker collects, and leaves out, the same


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    """Say it when pytest has had its last word."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or hasattr(config, "workerinput") or not reporter.stats:
        return
    coverage = getattr(config.pluginmanager.get_plugin("_cov"), "cov_total", None)
    reporter.write_line(summary(reporter.stats, config.stash[_LEFT_OUT], coverage))


def summary(stats: dict, left_out: int, coverage: float | None) -> str:
    """One line about a test run.

    Args:
        stats: the reports of pytest's terminal reporter, by outcome.
        left_out: how many tests were not selected.
        coverage: covered lines in percent, or None if they were not measured.
    """
    parts = [f"{len(stats.get('passed', ())):,} passed"]
    failed = len(stats.get("failed", ())) + len(stats.get("error", ()))
    parts += [f"{failed:,} FAILED"] if failed else []
    reasons = Counter(_reason(report) for report in stats.get("skipped", ()))
    listed = "; ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    parts.append(f"{sum(reasons.values()):,} skipped" + (f" ({listed})" if listed else ""))
    parts.append(f"{left_out:,} left out" + (" (slow ones; --slow runs them)" if left_out else ""))
    parts.append("lines not measured (--coverage)" if coverage is None else f"{coverage:.1f} % of the lines covered")
    return f"Tested: {', '.join(parts)}."


def _reason(report) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.partition("Skipped: ")[2] or reason
