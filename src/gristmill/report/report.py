"""STEP report: one self-contained page made from the records and metrics of the run and nothing else."""

from __future__ import annotations

from typing import Any

from gristmill.graph.step import StepContext
from gristmill.report.facts import Facts
from gristmill.report.page import render

VERSION = 7


def run(ctx: StepContext) -> dict[str, Any]:
    """Write report.html."""
    facts = Facts.of(ctx)
    page = render(facts)
    (ctx.out / "report.html").write_text(page, encoding="utf-8")
    return {"bytes": len(page.encode())}
