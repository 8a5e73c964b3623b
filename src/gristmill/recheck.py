"""Finished steps against limits that the recipe has now: each passed those that it had when the step was made."""

from __future__ import annotations

from collections.abc import Iterable

from gristmill.data.ledger import check_failures
from gristmill.errors import RecipeError
from gristmill.extract.outputs import Extracted
from gristmill.graph.state import States
from gristmill.recipe.schema.recipe import Recipe
from gristmill.select.outputs import Deduplicated, Selected
from gristmill.select.repeated_text import check_repeated


def check_finished(recipe: Recipe, states: States, steps: Iterable[str]) -> None:
    """Holds what those of the steps that are finished checked against the limits of their time against the limits of now.

    Raises DataError for a source of which more failed or more text was repeated, RecipeError for one that lost more to one document.
    """
    for step in steps:
        kind, _, name = step.partition("/")
        folder = states[step].folder if kind in ("extract", "duplicates", "select") else None
        if folder is not None and kind == "extract":
            check_failures(Extracted(folder).ledger, name, max_failed=recipe.sources[name].max_failed)
        elif folder is not None and kind == "duplicates":
            _check_source_loss(recipe, Deduplicated(folder))
        elif folder is not None:
            check_repeated(Selected(folder).repeated_text, recipe.select.repeated_text)


def _check_source_loss(recipe: Recipe, found: Deduplicated) -> None:
    near = recipe.select.near_duplicates
    if near is None:
        return
    problems = [
        f"one document, {row.taken_by!r}, took {row.largest_share:.3g} of the {row.documents:,} documents of source {name!r} as its "
        f"copies; the limit is now {near.max_source_loss:.3g}."
        for name, row in found.findings.sources.items()
        if row.largest_share > near.max_source_loss
    ]
    if problems:
        raise RecipeError(
            "\n".join(problems)
            + "\n  If they are copies, raise select.near_duplicates.max_source_loss. If they only share a "
            "template, raise min_jaccard, or drop the template with a rule."
        )
