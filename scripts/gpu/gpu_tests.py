"""Run the tests that are marked gpu, and write their outcomes.

    python scripts/gpu/gpu_tests.py [--output tests.json] FILE_OR_FOLDER …

Without a GPU they are skipped, and the result says so.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import results

ROOT = Path(__file__).resolve().parents[2]


class Outcomes:
    """A pytest plugin that records the outcome of each test, and the reason of each failure."""

    def __init__(self) -> None:
        self.ended: dict[str, str] = {}
        self.seconds: dict[str, float] = {}
        self.failures: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.seconds[report.nodeid] = report.duration
        if report.when == "call" or report.outcome != "passed":
            self.ended[report.nodeid] = report.outcome
        if report.failed:
            self.failures[report.nodeid] = str(report.longreprtext)[-2000:]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.ended[report.nodeid] = "failed"
            self.failures[report.nodeid] = str(report.longreprtext)[-2000:]

    def told(self) -> dict[str, Any]:
        count = Counter(self.ended.values())
        return {
            "passed": count["passed"],
            "failed": count["failed"],
            "skipped": count["skipped"],
            "test_seconds": sum(self.seconds.values()),
            "tests": self.ended,
            "failures": self.failures,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    results.add_output(parser)
    given = parser.parse_args()
    outcomes = Outcomes()
    quietly = [
        "-q",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "--show-capture=no",
        "-rfE",
        "--continue-on-collection-errors",
    ]
    code = pytest.main(["-m", "gpu", "--rootdir", str(ROOT), *quietly, *given.paths], plugins=[outcomes])
    results.write(outcomes.told(), given.output)
    sys.exit(code)


if __name__ == "__main__":
    main()
