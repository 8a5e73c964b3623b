"""Figures that the report works out itself, from records and labels alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gristmill.errors import ArtifactError
from gristmill.evaluate.evaluate import figure
from gristmill.export.outputs import CheckedWith, Parity
from gristmill.extract.not_read import keep_not_read, kept_not_read, not_read_in
from gristmill.graph.outputs import Outputs
from gristmill.graph.record import Peak, Record
from gristmill.graph.state import resolved
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.recipe import Recipe
from gristmill.report.card import front_matter, starting_point
from gristmill.report.data_sections import how_it_came_in, what_was_not_read
from gristmill.report.facts import Caps, Facts, Labels, bits
from gristmill.report.proof import parity_words
from gristmill.report.result_sections import cost
from gristmill.store.durable import read_json, write_json
from gristmill.tokens.stages import Use
from gristmill.train.outputs import Pretrained, PretrainingCounts, ReleasedOrigin, StageTime

SMALL = Path(__file__).parent.parent / "recipe" / "small.yaml"
DRAWS = (
    Use(source="web", min_document_tokens=None, seq_len=100, tokens_drawn=400_000, unique_tokens=1_000_050),
    Use(source="books", min_document_tokens=None, seq_len=100, tokens_drawn=200_000, unique_tokens=200_050),
    Use(source="web", min_document_tokens=None, seq_len=1_000, tokens_drawn=300_000, unique_tokens=1_000_050),
    Use(source="books", min_document_tokens=512, seq_len=1_000, tokens_drawn=50_000, unique_tokens=100_050),
)
COUNTS = PretrainingCounts(
    steps=1, tokens=1, parameters=1, training_seconds=1.0, tokens_per_second=1.0, final={}, environment={}, lineage=(),
    mixed_environments=False, checkpoints=(), tokens_by_source={}, draws=DRAWS,
    stages=(StageTime(first_step=0, started_seconds=0.0, seconds=7.0),),
)  # fmt: skip


def small() -> dict[str, Any]:
    recipe: dict[str, Any] = yaml.safe_load(SMALL.read_text(encoding="utf-8"))
    return recipe


@pytest.fixture
def facts_of(tmp_path: Path) -> Callable[..., Facts]:
    """The facts of a run whose steps left nothing but records, as the runner writes them."""

    def of(written: dict[str, Any], labels: dict[str, Any] | None = None) -> Facts:
        steps = {step.name: step for step in steps_of(Recipe.model_validate(written))}
        inputs: dict[str, Outputs] = {}
        for name, step in steps.items():
            record = Record(
                record_version=2, step=name, identity="0", document={"version": {"m": 1}},
                resolved=resolved(step.given.config), watching=resolved(step.watching.config),
                counts=COUNTS.to_json() if name == "pretrain" else {}, made_at="", wall_seconds=2.0,
                made_from={}, peak_memory_bytes=Peak(process=9, largest_child=0, how=""), command=(), machine={}, versions={},
            )  # fmt: skip
            (tmp_path / name).mkdir(parents=True, exist_ok=True)
            write_json(tmp_path / name / "record.json", record.to_json())
            inputs[name] = step.outputs(tmp_path / name)
        config = steps["report"].given.config["labels"] | (labels or {})
        return Facts(Labels(**config), Caps(**steps["report"].watching.config["caps"]), inputs)

    return of


def test_epochs_are_those_of_the_cap_which_counts_overlapping_draws(facts_of: Callable[..., Facts]) -> None:
    rows = facts_of(small()).token_budget
    assert {name: row.epochs for name, row in rows.items()} == {
        "web": pytest.approx(0.7),
        "books": pytest.approx(1.25),
        "books ≥ 512 tokens": pytest.approx(1.5),
    }
    assert [row.drawn for row in rows.values()] == [700_000, 200_000, 50_000]


def test_what_was_not_read_is_shown_with_what_to_do(facts_of: Callable[..., Facts], tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.xlsx").write_bytes(bytes(2000))
    (tmp_path / "in" / "gone.txt").symlink_to("nowhere")
    keep_not_read(tmp_path, not_read_in(tmp_path / "in"))
    facts = facts_of(small())
    facts.not_read = kept_not_read(tmp_path)
    shown = what_was_not_read(facts)
    for words in (
        ".xlsx",
        "2 kB",
        "save each sheet as CSV",
        "link that leads nowhere (gone.txt)",
        "put back what it leads to",
    ):
        assert words in shown


def test_stages_are_those_that_were_trained_under_the_names_that_they_have_now(facts_of: Callable[..., Facts]) -> None:
    written = small()["pretrain"]["stages"]
    facts = facts_of(small(), {"stage_names": [f"stage-{number}" for number in range(len(written))]})
    assert [row.stage.name for row in facts.stages] == [f"stage-{number}" for number in range(len(written))]
    assert [row.stage.tokens for row in facts.stages] == [stage["tokens"] for stage in written]
    assert [row.seconds for row in facts.stages] == [7.0, *[None] * (len(written) - 1)]
    assert facts.stages[-1].last_token == sum(stage["tokens"] for stage in written)
    assert facts.model.hidden_size == small()["model"]["hidden_size"]


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        (lambda resolved: resolved["model"].update(width=resolved["model"].pop("hidden_size")), "model: "),
        (lambda resolved: resolved["pretrain"]["stages"][0].update(seq_len="long"), "pretrain.stages.0: "),
        (lambda resolved: resolved.pop("pretrain"), "pretrain.stages: is missing"),
    ],
)
def test_a_record_that_does_not_fit_the_schema_is_refused(
    facts_of: Callable[..., Facts], damage: Callable[[Any], Any], place: str
) -> None:
    facts = facts_of(small())
    path = facts.left("pretrain", Pretrained).record_path
    record = read_json(path)
    damage(record["resolved"])
    write_json(path, record)
    with pytest.raises(ArtifactError, match=f"the record of pretrain: {place}"):
        _ = facts.model, facts.stages


def test_what_was_planned_is_what_the_records_say_was_forecast(facts_of: Callable[..., Facts]) -> None:
    facts = facts_of(small())
    section = cost(facts)
    assert section is not None
    assert "".join(section.blocks).count('data-label="planned">not recorded<') == 3
    for name in facts.inputs:
        path = facts.inputs[name].record_path
        forecast = {
            "parameters": 31,
            "pretraining_seconds": 2.0,
            "memory_bytes": 4e6,
            "speed_source": "measured by hand",
        }
        said = {"planned": {"work": {}, "seconds": 77.0, "num_records": 0}} | (
            {"forecast": forecast} if name == "pretrain" else {}
        )
        write_json(path, read_json(path) | said)
    facts = Facts(facts.labels, facts.caps, {name: type(made)(made.folder) for name, made in facts.inputs.items()})
    section = cost(facts)
    assert section is not None
    page = "".join(section.blocks)
    assert "The speed of pretraining was measured by hand." in page
    rate = f"{facts.planned_tokens / 2:,.0f}"
    for planned in ("31", rate, "4 MB", "77 s"):
        assert f'data-label="planned">{planned}<' in page


@pytest.mark.parametrize(
    ("licence", "words"),
    [
        (
            "apache-2.0",
            "Its licence, as the model card in its folder states it, is apache-2.0. That licence binds this model, too.",
        ),
        (None, "Its licence is unknown: the folder states none. Find it out before you pass this model on."),
    ],
)
def test_the_card_names_the_released_model_and_that_its_licence_binds(licence: str | None, words: str) -> None:
    assert starting_point(None) == []
    text = " ".join(starting_point(ReleasedOrigin(name="Base-1", licence=licence)))
    assert "Training continued from the released model Base-1." in text
    assert words in text


def test_card_claims_the_languages_that_were_filtered_for_and_no_other(facts_of: Callable[..., Facts]) -> None:
    assert front_matter(facts_of(small()))["language"] == ["en"]
    unfiltered = small()
    del unfiltered["sources"]["web"]["language"]
    assert "language" not in front_matter(facts_of(unfiltered))


@pytest.mark.parametrize(
    ("equal", "tied", "words"),
    [
        ((64, 64), (0, 0), "128 of 128 greedy tokens equal"),
        ((64, 63), (0, 1), "127 of 128 greedy tokens equal, 1 tie within 0.0001"),
        ((64, 62), (0, 2), "126 of 128 greedy tokens equal, 2 ties within 0.0001"),
    ],
)
def test_ties_of_the_exported_model_are_told_beside_what_is_equal(
    facts_of: Callable[..., Facts], equal: tuple[int, int], tied: tuple[int, int], words: str
) -> None:
    parity = Parity(
        prompts=(), logit_positions=2, stored_dtype="float32", max_logit_difference_read_back=0.0,
        max_logit_change_by_rounding=0.0, transformers=CheckedWith(
            checked=True, version="5.24.0", max_logit_difference=1e-6, largest_logit=1.0, tolerance=1e-4,
            greedy_tokens_compared=(64, 64), greedy_tokens_equal=equal, greedy_tokens_tied=tied,
        ),
    )  # fmt: skip
    facts = facts_of(small())
    write_json(facts.inputs["export"].folder / "parity.json", parity.to_json())
    assert dict(parity_words(facts))["transformers 5.24.0"].endswith(f"; {words}")


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (None, "1.500"),
        ((1.4, 1.6), "1.500 ± 0.100"),
        ((1.4, 1.604), "1.500 ± 0.102"),
        ((1.45, 1.9), "1.500 [1.450, 1.900]"),
    ],
)
def test_a_score_that_is_not_in_the_middle_of_its_interval_shows_both_ends(
    interval: tuple[float, float] | None, said: str
) -> None:
    row = figure(model="m", task="t", metric="b", value=1.5, stderr=None, interval=interval, n=9, kind="held_out")
    assert bits(row) == said


def test_the_page_says_of_filters_only_those_that_a_source_has(facts_of: Callable[..., Facts]) -> None:
    def told(**source: Any) -> str:
        recipe = small()
        for one in recipe["sources"].values():
            for key in ("language", "rules", "main_text"):
                one.pop(key, None)
            one |= source
        return how_it_came_in(facts_of(recipe))

    by_rules = "filtered by rules with published limits that are chosen for this source"
    rest = "then all sources together lose what scores low, what tests ask, and copies."
    assert told() == f"Each source is read; {rest}"
    assert told(rules={"packs": ["gopher_quality@1"]}) == f"Each source is read, {by_rules}; {rest}"
    assert told(language={"keep": ["en"]}) == f"Each source is read, filtered by language; {rest}"
    both = told(language={"keep": ["en"]}, rules={"packs": ["gopher_quality@1"]})
    assert both == f"Each source is read, {by_rules.replace('by rules', 'by language and by rules')}; {rest}"
