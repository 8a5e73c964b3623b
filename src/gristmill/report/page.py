"""The report page: one self-contained HTML file of sections, each made from records and metrics that the steps left.

A section is a function from `Facts` to blocks; whatever a step did not leave (a recipe without preference optimisation, say)
makes no section.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from jinja2 import Environment

from gristmill.report.blocks import Section
from gristmill.report.data_sections import duplicates_and_contamination, quality, what_came_in
from gristmill.report.facts import Facts
from gristmill.report.result_sections import cost, evaluation, provenance
from gristmill.report.training_sections import budget, post_training, pretraining
from gristmill.report.verdict import verdict

TEMPLATE = Path(__file__).with_name("page.html.jinja")
SECTIONS: tuple[Callable[[Facts], Section | None], ...] = (
    what_came_in, quality, duplicates_and_contamination, budget, pretraining, post_training, evaluation, cost, provenance,
)  # fmt: skip


def render(facts: Facts) -> str:
    """The whole page, one file, nothing fetched."""
    sections = [section for make in SECTIONS if (section := make(facts)) is not None]
    environment = Environment(autoescape=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(facts=facts, verdict=verdict(facts), sections=sections)
