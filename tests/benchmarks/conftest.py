"""At the end of the benchmarks: every target, and whether it was kept."""

import pytest

from tests.benchmarks.frame import summary


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if lines := list(summary()):
        terminalreporter.section("targets")
        for line in lines:
            terminalreporter.write_line(line)
