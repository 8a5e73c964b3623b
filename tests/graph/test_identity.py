"""Identity: what it covers is pinned, field by field and step by step; what it does not cover is in a list."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field

from gristmill.graph.outputs import File, Files, Outputs, content_files, content_hash
from gristmill.pipeline import steps_of
from gristmill.recipe.schema.formats import READERS
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import (
    WATCHED,
    IdentityDefault,
    IdentityName,
    Outside,
    Section,
    ShapesNothing,
    identity_default,
    marker,
)
from gristmill.store.fingerprint import fingerprint

ROOT = Path(__file__).parents[2]
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "pin_identities.py"))
UPDATE = "run: python scripts/pin_identities.py, then again with --why"
OUTSIDE = {  # fields that no identity knows; tests/lifecycle/test_changed.py changes each and finds nothing remade
    "AllowEpochs.max", "AllowEpochs.reason", "Change.why", "Finetune.sample_prompts", "NearDuplicates.max_source_loss",
    "Pretrain.allow_epochs", "Pretrain.checkpoint_every_tokens", "Pretrain.max_epochs", "Pretrain.sample_prompts", "Pretrain.warn_epochs",
    "PackRef.locked", "Pretrain.watch", "Source.max_failed", "Source.max_loss", "Source.unique_tokens", "Watch.every_tokens", "Watch.max_items", "Watch.max_share",
    "Watch.packs", "Watch.packs_every_tokens", "Watch.reference", "Watch.stage_packs", "Watch.validation_bytes",
}  # fmt: skip
PLACES = {  # where files lie: their content counts, by the label of the files
    "ChatData.conversations", "Classifier.annotations", "PackRef.path",
    "FetchCommonCrawl.data", "FetchCommonCrawl.index", "FetchCommonCrawl.table", "FetchSoftwareHeritage.api", "FetchSoftwareHeritage.content",
    "FetchSoftwareHeritage.ids", *(f"{reader.__name__}.paths" for reader in READERS.values()),
} - {"ReadParquet.paths", "ReadText.paths", "ReadWarc.paths"}  # of fetched files, which the pins have of these formats, the names count  # fmt: skip
REQUIRED = {  # sections that cannot be left out; what is in them is tried
    "Dpo.optimizer", "FetchSoftwareHeritage.ids_from", "Finetune.optimizer", "Pretrain.optimizer", "Recipe.model", "Recipe.pretrain",
    "Recipe.tokenizer", "Source.read",
}  # fmt: skip
ABSENT = {
    "FetchUrls.max_bytes",
    "RepeatedText.max_loss",
}  # outside as well; the runs of tests/lifecycle/test_changed.py have no such sections
ABLATIONS = {  # no step reads them: an ablation is made of recipes of its own
    "Recipe.ablations", "Ablation.kind", "Ablation.candidates", "Ablation.shares", "Ablation.endpoint", "Ablation.seeds", "Ablation.after_step",
    "Ablation.plans", "Ablation.tokens", "Ablation.validation_bytes",
}  # fmt: skip
NOT_ALONE = {  # no other value is valid while everything else stays; a released model has a tokenizer: tests/train/test_released.py
    "Pretrain.init_from", "Recipe.schema_version", "FetchHub.kind", "FetchObjectStore.kind", "FetchUrls.kind", "FetchCommonCrawl.kind", "FetchSoftwareHeritage.kind", *(f"{reader.__name__}.format" for reader in READERS.values()),
}  # fmt: skip


@pytest.fixture(scope="module")
def pins() -> dict[str, Any]:
    return dict(json.loads(SCRIPT["PINS"].read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def present() -> dict[str, Any]:
    return dict(SCRIPT["present"]())


@pytest.mark.parametrize("recipe", SCRIPT["RECIPES"])
def test_what_the_identities_of_a_shipped_recipe_cover_is_pinned(
    pins: dict[str, Any], present: dict[str, Any], recipe: str
) -> None:
    assert present["recipes"][recipe] == pins["recipes"][recipe], UPDATE


def test_which_steps_each_field_of_the_schema_remakes_is_pinned(pins: dict[str, Any], present: dict[str, Any]) -> None:
    assert present["fields"] == pins["fields"], UPDATE


def test_pins_were_not_edited_without_a_reason(pins: dict[str, Any]) -> None:
    last = pins["history"][-1]
    assert last["pins"] == fingerprint({"recipes": pins["recipes"], "fields": pins["fields"]})
    assert len(last["why"]) > 20


def test_every_field_of_the_schema_is_tried(present: dict[str, Any]) -> None:
    assert present["fields"].keys() == SCRIPT["all_fields"]()


def test_a_field_without_influence_on_any_identity_stands_in_a_list(present: dict[str, Any]) -> None:
    without = {field for field, steps in present["fields"].items() if not steps}
    assert without == OUTSIDE | ABSENT | PLACES | REQUIRED | ABLATIONS | NOT_ALONE


# ── a schema that grows ──────────────────────────────────────────────────────────────────────────────────────────────


class Inner(Section):
    limit: float = 0.7


class Before(Section):
    steps: int
    shape: str = "linear"
    inner: Inner = Inner()


def test_a_new_field_changes_no_identity() -> None:
    class After(Before):
        warm: bool = False
        extra: Inner = Inner()
        other: Inner | None = None

    assert After(steps=3).literals() == Before(steps=3).literals() == {"steps": 3}
    assert After(steps=3, warm=True).literals() == {"steps": 3, "warm": True}
    assert After(steps=3, other=Inner()).literals() == {"steps": 3, "other": {}}


def test_a_default_that_is_changed_later_changes_the_identity_where_it_is_relied_on() -> None:
    class After(Section):
        steps: int
        shape: Annotated[str, IdentityDefault("linear")] = "cosine"

    assert After(steps=3).literals() == {"steps": 3, "shape": "cosine"}
    assert After(steps=3, shape="linear").literals() == Before(steps=3).literals()


def test_a_default_that_is_changed_within_a_section_shows_where_the_section_is_left_out() -> None:
    class NewInner(Section):
        limit: Annotated[float, IdentityDefault(0.7)] = 0.8

    class After(Section):
        steps: int
        inner: NewInner = NewInner()

    assert After(steps=3).literals() == {"steps": 3, "inner": {"limit": 0.8}}
    assert After(steps=3, inner=NewInner(limit=0.7)).literals() == {"steps": 3}


def test_a_renamed_field_keeps_its_identity_name() -> None:
    class After(Section):
        steps: int
        decay_shape: Annotated[str, IdentityName("shape")] = "linear"

    assert After(steps=3, decay_shape="cosine").literals() == Before(steps=3, shape="cosine").literals()


def test_a_value_that_shapes_nothing_counts_as_the_default_and_is_not_told_to_the_step() -> None:
    class Watched(Section):
        on_spike: Annotated[str, ShapesNothing(("log", "stop"))] = "log"

    assert Watched(on_spike="stop").literals() == Watched().literals() == {}
    assert Watched(on_spike="skip").literals() == {"on_spike": "skip"}
    assert [Watched(on_spike=value).inside().on_spike for value in ("log", "stop", "skip")] == ["log", "log", "skip"]


def test_what_is_done_about_a_spike_is_in_the_identity_of_pretraining_where_it_leaves_updates_out() -> None:
    documents = {}
    for policy in ("log", "rewind", "stop", "skip"):
        recipe = SCRIPT["every_field_recipe"]()
        section = recipe.pretrain.model_copy(update={"on_spike": policy})
        documents[policy] = SCRIPT["documents"](recipe.model_copy(update={"pretrain": section}))["pretrain"]
    assert documents["rewind"] == documents["stop"] == documents["log"] != documents["skip"]
    assert "gristmill.train.stability" in documents["skip"]["version"]


def test_discriminators_have_no_default_and_sections_as_defaults_are_bare() -> None:
    models = [Recipe]
    while models:
        model = models.pop()
        for name, field in model.model_fields.items():
            models += SCRIPT["_models_in"](field.annotation)
            if name == "format":
                assert field.is_required(), f"{model.__name__}.{name}"
            if not field.is_required() and isinstance(default := field.get_default(call_default_factory=True), Section):
                assert default == type(default)(), (
                    f"{model.__name__}.{name}: its default is not that of {type(default)}"
                )
                assert identity_default(field) == {}


def test_what_is_outside_cannot_be_read_from_the_inside() -> None:
    class Watched(Section):
        every: Annotated[int, WATCHED] = 5
        steps: int = Field(gt=0)

    class Whole(Section):
        parts: list[Watched]
        by_name: dict[str, Watched]

    inside = Whole(parts=[Watched(steps=1)], by_name={"a": Watched(steps=2, every=7)}).inside()
    assert (inside.parts[0].steps, inside.by_name["a"].steps) == (1, 2)
    for section in (inside.parts[0], inside.by_name["a"]):
        with pytest.raises(AttributeError):
            _ = section.every


def test_no_step_is_given_a_section_with_something_outside() -> None:
    for step in steps_of(SCRIPT["every_field_recipe"]()):
        for value in step.given.config.values():
            if isinstance(value, Section):
                outside = {name for name, field in type(value).model_fields.items() if marker(field, Outside)}
                assert not outside & value.__dict__.keys(), f"{step.name}: {outside}"


# ── outputs ──────────────────────────────────────────────────────────────────────────────────────────────────────────


class Made(Outputs):
    rows = Files("{source}/rows-*.txt")
    index = File("index.txt")
    log = File("log.txt", notes=True)


FILES = {"a/rows-0.txt": "1", "a/rows-1.txt": "2", "b/rows-0.txt": "3", "index.txt": "4", "log.txt": "5"}


def test_content_is_that_of_the_outputs_that_are_read() -> None:
    def of(files: dict[str, str], *reads: str, source: str = "*") -> str:
        return content_hash(Made, files, reads=reads, source=source)

    base = of(FILES, "rows", source="a")
    assert of({**FILES, "b/rows-0.txt": "x", "index.txt": "x", "log.txt": "x"}, "rows", source="a") == base
    assert of({**FILES, "a/rows-2.txt": "new"}, "rows", source="a") != base
    assert of({**FILES, "a/rows-1.txt": "x"}, "rows", source="a") != base
    assert of({**FILES, "b/rows-0.txt": "x"}, "rows") != of(FILES, "rows")
    assert of({**FILES, "log.txt": "x"}, "rows", "log") == of(FILES, "rows", "log"), "notes are no content"
    assert content_files(Made, FILES).keys() == FILES.keys() - {"log.txt"}


def test_an_output_that_was_not_declared_as_read_cannot_be_reached(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("", encoding="utf-8")
    made = Made(tmp_path, reads=("rows",), source="a")
    assert [path.name for path in made.rows] == ["rows-0.txt", "rows-1.txt"]
    with pytest.raises(AssertionError, match="index is read, but the step declares"):
        _ = made.index
