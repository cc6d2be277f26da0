"""`report.html`: what went into and came out of each stage, on one self-contained page."""

from apps.report.report import write_report

__all__ = ["write_report"]
