"""Figures that the report works out itself, from records alone."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
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
def facts() -> Facts:
    return Facts(Recipe.model_validate(small()), {"pretrain": SimpleNamespace(record={"counts": {"draws": DRAWS}})})


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
    assert "language" not in front_matter(Facts(Recipe.model_validate(unfiltered), facts.inputs))


@pytest.mark.parametrize(
    ("equal", "tied", "words"),
    [
        ([64, 64], [0, 0], "128 of 128 greedy tokens equal"),
        ([64, 63], [0, 1], "127 of 128 greedy tokens equal, 1 tie within 0.0001"),
        ([64, 62], [0, 2], "126 of 128 greedy tokens equal, 2 ties within 0.0001"),
    ],
)
def test_ties_of_the_exported_model_are_told_beside_what_is_equal(
    tmp_path: Path, equal: list[int], tied: list[int], words: str
) -> None:
    parity = {
        "max_logit_difference_read_back": 0.0,
        "max_logit_change_by_rounding": 0.0,
        "transformers": {
            "checked": True,
            "version": "5.24.0",
            "max_logit_difference": 1e-6,
            "tolerance": 1e-4,
            "greedy_tokens_compared": [64, 64],
            "greedy_tokens_equal": equal,
            "greedy_tokens_tied": tied,
        },
    }
    write_json(tmp_path / "parity.json", parity)
    exported = SimpleNamespace(record={}, parity=tmp_path / "parity.json")
    told = dict(Facts(Recipe.model_validate(small()), {"export": exported}).parity_words)
    assert told["transformers 5.24.0"].endswith(f"; {words}")
