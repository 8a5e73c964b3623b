"""Values: every number has a range with a reason, nothing infinite or forgotten is taken, every name is known."""

from __future__ import annotations

import copy
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import annotated_types as ranges
import pytest
import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from gristmill.errors import RecipeError
from gristmill.extract.language import MODEL_PATH, load_model
from gristmill.recipe.load import load_recipe
from gristmill.recipe.schema.languages import CODES
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import Unit

SMALL = (Path(__file__).parent / "small.yaml").read_text(encoding="utf-8")
EVERY_FIELD = yaml.safe_load((Path(__file__).parents[1] / "pins" / "every-field.yaml").read_text(encoding="utf-8"))
BY_HAND = {"Change.set"}  # its values have the ranges of what they change, held by the section itself


def failure(text: str, tmp_path: Path) -> str:
    path = tmp_path / "r.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    return str(caught.value)


def line_with(text: str, words: str) -> int:
    return next(number for number, line in enumerate(text.splitlines(), 1) if words in line)


# ── ranges ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def numbers(annotation: Any, metadata: list[Any], where: str) -> Iterator[tuple[str, type, list[Any]]]:
    """(where, int or float, metadata) of each number of the schema below an annotation."""
    origin, parts = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        marks = [mark for item in parts[1:] for mark in (item.metadata if isinstance(item, FieldInfo) else [item])]
        yield from numbers(parts[0], [*metadata, *marks], where)
    elif annotation in (int, float):
        yield where, annotation, metadata
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        for name, field in annotation.model_fields.items():
            yield from numbers(field.annotation, field.metadata, f"{annotation.__name__}.{name}")
    else:
        for part in parts:
            yield from numbers(part, metadata, where)


NUMBERS = {where: (kind, metadata) for where, kind, metadata in numbers(Recipe, [], "Recipe") if where not in BY_HAND}


@pytest.mark.parametrize("where", NUMBERS)
def test_every_number_of_the_schema_has_a_range_with_both_ends_a_unit_and_a_reason(where: str) -> None:
    _, metadata = NUMBERS[where]
    assert any(isinstance(mark, ranges.Gt | ranges.Ge) for mark in metadata), "from where?"
    assert any(isinstance(mark, ranges.Lt | ranges.Le) for mark in metadata), "up to where?"
    assert any(isinstance(mark, Unit) and mark.name and len(mark.why) > 10 for mark in metadata), "in what, and why?"


def leaves(data: Any, key: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    if isinstance(data, dict | list):
        for part, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield from leaves(value, (*key, part))
    else:
        yield key, data


def with_value(data: Any, key: tuple[str | int, ...], value: Any) -> Any:
    changed = copy.deepcopy(data)
    holder = changed
    for part in key[:-1]:
        holder = holder[part]
    holder[key[-1]] = value
    return changed


FLOATS = [key for key, value in leaves(EVERY_FIELD) if isinstance(value, float)]


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_no_key_takes_a_number_that_is_infinite_or_undefined(value: float) -> None:
    Recipe.model_validate(EVERY_FIELD)  # in which every field stands: tests/graph/test_identity.py
    assert len(FLOATS) >= sum(kind is float for kind, _ in NUMBERS.values())
    taken = []
    for key in FLOATS:
        try:
            Recipe.model_validate(with_value(EVERY_FIELD, key, value))
            taken.append(key)
        except ValidationError:
            pass
    assert taken == []


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("peak_lr: 1.0e-3, beta1", "peak_lr: 4.0, beta1", "pretrain.optimizer.peak_lr is 4.0; expected above 0, at most 0.1 "
                                                         "(per step): Adam moves each weight by about the rate"),
        ("rope_theta: 10000.0", "rope_theta: 0.5", "model.rope_theta is 0.5; expected at least 100, at most 1e10 (base): positions"),
        ("rope_theta: 100000.0", "rope_theta: 0.5", "pretrain.stages.1.rope_theta is 0.5; expected at least 100"),
        ("min_jaccard: 0.7", "min_jaccard: 0.0", "select.near_duplicates.min_jaccard is 0.0; expected at least 0.1, at most 1 "
                                                 "(similarity): lower, all texts are copies"),
        ("max_new_tokens: 16", "max_new_tokens: 0", "pairs.max_new_tokens is 0; expected above 0, at most 16,777,216 (tokens)"),
        ("{web: 0.5, books: 0.5}", "{web: 1.5, books: 0.5}", "tokenizer.mixture.web is 1.5; expected above 0, at most 1 (share)"),
        ("{too_few_words: 20.0}", "{too_few_words: -1.0}", "sources.web.rules.limits.too_few_words is -1.0; expected at least 0"),
        ("unique_tokens: 1000000", "unique_tokens: 0", "sources.web.unique_tokens is 0; expected above 0"),
        ("weight_decay: 0.01", "weight_decay: .nan", "pretrain.optimizer.weight_decay is nan; expected at least 0, at most 1"),
        ("keep: [en]", "keep: [english]", "the language 'english' is none of the 176 that can be told; they are ISO 639 codes "
                                          "such as en, de, fr; with 'e' there are el, eml, en, eo, es, et, eu"),
    ],
)  # fmt: skip
def test_a_value_out_of_its_range_is_told_the_range_and_the_reason(
    tmp_path: Path, right: str, wrong: str, words: str
) -> None:
    text = SMALL.replace(right, wrong, 1)
    assert f"r.yaml:{line_with(text, wrong)}: {words}" in failure(text, tmp_path)


def test_the_languages_are_those_of_the_model() -> None:
    assert sorted(label.removeprefix("__label__") for label in load_model(MODEL_PATH).get_labels()) == sorted(CODES)


# ── keys left blank ──────────────────────────────────────────────────────────────────────────────────────────────────


def optional(data: Any, annotation: Any = Recipe, key: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of nested sections that need not be written."""
    for name, field in annotation.model_fields.items():
        if not field.is_required():
            yield (*key, name)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from optional(data, inner, (*key, name))


OPTIONAL = list(optional(EVERY_FIELD))


def test_no_key_may_be_left_blank(tmp_path: Path) -> None:
    assert len(OPTIONAL) > 30
    for key in OPTIONAL:
        text = yaml.safe_dump(with_value(EVERY_FIELD, key, "LEFT BLANK")).replace("LEFT BLANK", "")
        words = failure(text, tmp_path)
        blank = "  " * (len(key) - 1) + f"{key[-1]}:"
        line = next(number for number, row in enumerate(text.splitlines(), 1) if row.rstrip() == blank)
        assert f"r.yaml:{line}: the key {'.'.join(key)!r} is left blank; give it a value" in words


def test_null_is_taken_where_none_is_meant(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(SMALL.replace("{num_bands: 14", "null  # {num_bands: 14"), encoding="utf-8")
    assert load_recipe(path).recipe.select.near_duplicates is None


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("right", "wrong", "words"),
    [
        ("{source: web, weight: 0.5}", "{source: weg, weight: 0.5}", "pretrain.stages[decay].mixture names the source 'weg'; did "
                                                                     "you mean 'web'? the recipe has ['books', 'facts-table', 'web']"),
        ("mixture: {web: 0.75,", "mixture: {wep: 0.75,", "pretrain.stages[stable].mixture names the source 'wep'; did you mean 'web'?"),
        ("priority: [books, web]", "priority: [books, wib]", "select.priority names the source 'wib'; did you mean 'web'?"),
        ("{classifier: edu, above", "{classifier: educ, above", "select.min_scores.web names the classifier 'educ'; did you mean 'edu'?"),
        ("evaluate: {packs: [facts]", "evaluate: {packs: [fact]", "evaluate.packs names the pack 'fact'; did you mean 'facts'?"),
        ("packs: [facts], max_items", "packs: [farts], max_items", "pretrain.watch.packs names the pack 'farts'; did you mean 'facts'?"),
        ("definitions_from: facts-table", "definitions_from: factstable", "chat.definitions_from names the source 'factstable'; did"),
        ("tokens: 204800", "tokens: 204801", "stage 'decay' has 204,801 tokens, not a whole number of steps"),
        ("max_position_embeddings: 512", "max_position_embeddings: 256", ""),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_told_with_its_line(tmp_path: Path, right: str, wrong: str, words: str) -> None:
    text = SMALL.replace(right, wrong, 1)
    line = line_with(text, wrong) if words else line_with(text, "seq_len: 512")
    assert f"r.yaml:{line}: {words or 'pretrain.stages[decay].seq_len is 512, longer than'}" in failure(text, tmp_path)


def test_all_unknown_names_are_told_at_once(tmp_path: Path) -> None:
    text = SMALL.replace("priority: [books, web]", "priority: [book, weg]").replace("{packs: [facts]", "{packs: [fact]")
    assert "has 3 problems" in failure(text, tmp_path)
