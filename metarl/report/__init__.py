"""One page about runs: how they learned, what adaptation comes to, and how to repeat them."""

from metarl.report.page import write_report

__all__ = ["write_report"]
