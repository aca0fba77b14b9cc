"""Every test here is a case of an attack; the run ends with how many were tried and survived."""

from collections import Counter
from collections.abc import Iterator

import pytest

_TRIED: Counter[str] = Counter()
_SURVIVED: Counter[str] = Counter()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    kind = getattr(getattr(item, "module", None), "KIND", None)
    if kind is not None and report.when == "call" and not report.skipped:
        _TRIED[kind] += 1
        _SURVIVED[kind] += report.passed
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _TRIED:
        return
    terminalreporter.section("attacks")
    for kind, tried in sorted(_TRIED.items()):
        terminalreporter.write_line(f"{kind:<28} {tried:>5} tried {_SURVIVED[kind]:>5} survived")
    total, survived = _TRIED.total(), _SURVIVED.total()
    terminalreporter.write_line(f"{'all':<28} {total:>5} tried {survived:>5} survived")
