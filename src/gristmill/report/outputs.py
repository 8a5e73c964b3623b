"""What report leaves."""

from __future__ import annotations

from gristmill.graph.outputs import File, Outputs


class ReportPage(Outputs):
    """One self-contained page."""

    page = File("report.html")
