"""The report page: one self-contained HTML file of sections, each made from records and metrics that the steps left.

A section is a function from `Facts` to blocks; whatever a step did not leave (a recipe without preference optimisation, say)
makes no section.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment

from gristmill.report.blocks import Section
from gristmill.report.data_sections import duplicates_and_contamination, quality, what_came_in
from gristmill.report.facts import Facts
from gristmill.report.result_sections import cost, evaluation, provenance
from gristmill.report.training_sections import budget, post_training, pretraining
from gristmill.report.verdict import verdict

TEMPLATE = Path(__file__).with_name("page.html.jinja")
Sections = tuple[Callable[[Facts], Section | None], ...]
CURATION: Sections = (what_came_in, quality, duplicates_and_contamination)
TRAINING: Sections = (budget, pretraining, post_training, evaluation, cost, provenance)


def render(facts: Facts) -> str:
    """The whole page, one file, nothing fetched."""
    return render_made(
        facts, (*CURATION, *TRAINING), verdict=verdict(facts), sentence=facts.sentence, tiles=facts.tiles
    )


def render_curation(facts: Facts) -> str:
    """The page of a run that may have made nothing beyond `select`: its sections on the data, as they are on the whole page."""
    documents, words = facts.documents_left
    return render_made(
        facts, CURATION, verdict="", sentence=f"The text of a model to come: {documents} {words}.", tiles=()
    )


def render_made(facts: Facts, sections: Sections, **head: Any) -> str:
    """A page of those sections that the run has something for. head: as of `render_sections`."""
    made = [section for make in sections if (section := make(facts)) is not None]
    return render_sections(made, labels=facts.labels, **head)


def render_sections(sections: Sequence[Section], *, labels: Any, **head: Any) -> str:
    """A page of these sections. labels: `name` and `description`. head: what stands above the sections: verdict, sentence, tiles;
    and `refresh_seconds`, after which the page loads itself again."""
    template = Environment(autoescape=True).from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(labels=labels, sections=sections, **head)
