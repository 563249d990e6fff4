"""Which files a report can become."""

from __future__ import annotations

from planning.report.blocks import Report
from planning.report.page import html
from planning.report.sheets import pdf, png


def rendered(report: Report, suffix: str) -> bytes:
    """A report's file.

    Args:
        report: What stands in it.
        suffix: `.html` or `.pdf` for all of it, `.png` for an overview.
    """
    match suffix:
        case ".html":
            return html(report).encode()
        case ".pdf":
            return pdf(report)
        case _:
            return png(report)
