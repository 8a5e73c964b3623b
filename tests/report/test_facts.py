"""Figures that the report works out itself, from records alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from gristmill.recipe.schema.recipe import Recipe
from gristmill.report.card import front_matter
from gristmill.report.facts import Facts
from gristmill.store.durable import write_json

SMALL = Path(__file__).parent.parent / "recipe" / "small.yaml"
DRAWS = [
    {"source": "web", "min_document_tokens": None, "seq_len": 100, "tokens_drawn": 400_000, "unique_tokens": 1_000_050},
    {"source": "books", "min_document_tokens": None, "seq_len": 100, "tokens_drawn": 200_000, "unique_tokens": 200_050},
    {
        "source": "web",
        "min_document_tokens": None,
        "seq_len": 1_000,
        "tokens_drawn": 300_000,
        "unique_tokens": 1_000_050,
    },
    {"source": "books", "min_document_tokens": 512, "seq_len": 1_000, "tokens_drawn": 50_000, "unique_tokens": 100_050},
]


def small() -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
    return recipe


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    (tmp_path / "pretrain").mkdir()
    write_json(tmp_path / "pretrain" / "record.json", {"counts": {"draws": DRAWS}})
    return Facts(Recipe.model_validate(small()), SMALL.parent, {"pretrain": tmp_path / "pretrain"})


def test_epochs_are_those_of_the_cap_which_counts_overlapping_draws(facts: Facts) -> None:
    rows = facts.token_budget
    assert {name: row["epochs"] for name, row in rows.items()} == {
        "web": pytest.approx(0.7),
        "books": pytest.approx(1.25),
        "books ≥ 512 tokens": pytest.approx(1.5),
    }
    assert [row["drawn"] for row in rows.values()] == [700_000, 200_000, 50_000]


def test_card_claims_the_languages_that_were_filtered_for_and_no_other(facts: Facts) -> None:
    assert front_matter(facts)["language"] == ["en"]
    unfiltered = small()
    del unfiltered["sources"]["web"]["language"]
    assert "language" not in front_matter(Facts(Recipe.model_validate(unfiltered), SMALL.parent, facts.inputs))
