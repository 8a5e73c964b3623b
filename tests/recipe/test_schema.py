"""The schema refuses what cannot be, in words, and converts nothing in silence."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.training import Stage


def message(data: dict[str, Any]) -> str:
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(data)
    return str(caught.value)


def test_every_section_at_once_is_a_recipe(small: dict[str, Any]) -> None:
    assert Recipe.model_validate(small).pretrain.total_tokens == 1_024_000


def test_a_recipe_cannot_be_changed_after_it_was_read(small: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(small)
    with pytest.raises(ValidationError, match="frozen"):
        recipe.seed = 9


@pytest.mark.parametrize("value", ["8", 8.5, True, None, -1])
def test_a_seed_that_is_no_whole_number_is_refused(small: dict[str, Any], value: object) -> None:
    small["seed"] = value
    assert "seed" in message(small)


def test_weights_off_by_a_millionth_are_refused_with_their_sum(small: dict[str, Any]) -> None:
    small["pretrain"]["stages"][0]["mixture"] = {"web": 0.75, "books": 0.249999}
    assert "sum to 0.999999, not 1 (off by -0.000001)" in message(small)


def test_weights_with_more_decimals_than_can_be_apportioned_are_refused(small: dict[str, Any]) -> None:
    small["pretrain"]["stages"][0]["mixture"] = {"web": 0.7500001, "books": 0.2499999}
    assert "more than 6 decimals" in message(small)


@given(st.integers(1, 999_999))
@settings(deadline=None, max_examples=100)
def test_two_weights_that_add_up_in_decimals_are_accepted_whatever_binary_floats_say(parts: int) -> None:
    mixture = {"a": parts / 10**6, "b": (10**6 - parts) / 10**6}
    stage = Stage.model_validate({"name": "s", "tokens": 1, "seq_len": 1, "mixture": mixture})
    assert [draw.weight for draw in stage.mixture] == list(mixture.values())


def test_the_short_and_the_long_form_of_a_mixture_are_the_same_stage() -> None:
    short = {"name": "s", "tokens": 8, "seq_len": 4, "mixture": {"a": 0.25, "b": 0.75}}
    long = short | {"mixture": [{"source": "a", "weight": 0.25}, {"source": "b", "weight": 0.75}]}
    assert Stage.model_validate(short) == Stage.model_validate(long)


def test_a_selection_drawn_twice_in_a_stage_is_refused(small: dict[str, Any]) -> None:
    small["pretrain"]["stages"][0]["mixture"] = [{"source": "web", "weight": 0.5}, {"source": "web", "weight": 0.5}]
    assert "same selection twice" in message(small)


def test_a_stage_that_is_not_whole_steps_is_told_the_two_nearest(small: dict[str, Any]) -> None:
    small["pretrain"]["stages"][0]["tokens"] = 819_300
    assert "'stable' has 819,300 tokens, not a whole number of steps of 1,024; use 819,200 or 820,224" in message(small)


def test_a_batch_that_is_not_whole_sequences_is_refused(small: dict[str, Any]) -> None:
    small["pretrain"]["stages"][0]["seq_len"] = 300
    assert "global_batch_tokens 1024 is not a multiple of seq_len 300 of stage 'stable'" in message(small)


def test_a_sequence_longer_than_the_models_context_is_refused(small: dict[str, Any]) -> None:
    small["model"]["max_position_embeddings"] = 256
    assert "pretrain.stages[decay].seq_len is 512, longer than model.max_position_embeddings 256" in message(small)


def test_warmup_and_decay_must_fit_into_the_stages(small: dict[str, Any]) -> None:
    small["pretrain"]["decay_tokens"] = 1_024_000
    assert "exceed the 1,024,000 tokens of all stages" in message(small)


@pytest.mark.parametrize("key", ["warmup_tokens", "decay_tokens"])
def test_a_phase_of_less_than_a_step_is_refused(small: dict[str, Any], key: str) -> None:
    small["pretrain"][key] = 100
    step = small["pretrain"]["global_batch_tokens"]
    assert f"{key} 100 is less than one step of {step:,} tokens" in message(small)
    small["pretrain"][key] = step
    Recipe.model_validate(small)


def test_two_stages_of_one_name_are_refused(small: dict[str, Any]) -> None:
    small["pretrain"]["stages"][1]["name"] = "stable"
    assert "two stages share a name" in message(small)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("num_attention_heads", 3, "not a multiple of num_attention_heads 3"),
        ("num_key_value_heads", 3, "not a multiple of num_key_value_heads 3"),
        ("num_attention_heads", 64, "the head size 1 is odd"),
    ],
)
def test_heads_that_do_not_divide_are_refused(small: dict[str, Any], key: str, value: int, words: str) -> None:
    small["model"][key] = value
    assert words in message(small)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("select", "min_scores"), "select.min_scores.nowhere names the source 'nowhere'"),
        (("tokenizer", "mixture"), "tokenizer.mixture names the source 'nowhere'"),
        (("pretrain", "allow_epochs"), "pretrain.allow_epochs names the source 'nowhere'"),
    ],
)
def test_a_reference_to_no_source_is_refused_where_it_stands(
    small: dict[str, Any], path: tuple[str, str], words: str
) -> None:
    entries = small[path[0]][path[1]]
    entries["nowhere"] = entries.pop(next(iter(entries)))
    assert words in message(small)


def test_post_training_sections_need_the_ones_before_them(small: dict[str, Any]) -> None:
    del small["pairs"]
    assert "dpo needs the section pairs; add it or remove dpo" in message(small)


def test_main_text_of_a_source_without_html_is_refused(small: dict[str, Any]) -> None:
    small["sources"]["books"]["main_text"] = {"extractor": "trafilatura"}
    assert "main_text is for warc and html, this source reads text" in message(small)


def test_a_classifier_that_is_not_there_is_refused(small: dict[str, Any]) -> None:
    small["select"]["min_scores"]["web"]["classifier"] = "edo"
    assert "names the classifier 'edo'; did you mean 'edu'? the recipe has ['edu']" in message(small)


def test_a_pack_and_a_source_of_one_name_are_refused(small: dict[str, Any]) -> None:
    small["packs"]["web"] = {"path": "packs/web"}
    assert "packs.web and sources.web have the same name" in message(small)


def test_late_sources_are_named_in_the_order_of_sources(small: dict[str, Any]) -> None:
    for name in ("web", "facts-table"):
        small["sources"][name]["late"] = True
    small["select"]["priority"], small["tokenizer"]["mixture"] = ["books"], {"books": 1.0}
    assert Recipe.model_validate(small).late_sources == ["web", "facts-table"]


def test_a_late_source_has_no_priority_and_no_part_in_the_tokenizer(small: dict[str, Any]) -> None:
    small["sources"]["books"]["late"] = True
    assert "Remove it from select.priority" in message(small)
    small["select"]["priority"] = ["web"]
    assert "Remove it from tokenizer.mixture, or remove sources.books.late" in message(small)
    small["tokenizer"]["mixture"] = {"web": 1.0}
    assert Recipe.model_validate(small).late_sources == ["books"]


def test_a_recipe_whose_sources_are_all_late_is_refused(small: dict[str, Any]) -> None:
    for source in small["sources"].values():
        source["late"] = True
    assert "every source is late" in message(small)


def test_a_classifier_that_learns_from_a_late_source_scores_none_before_it(small: dict[str, Any]) -> None:
    small["select"]["min_scores"]["facts-table"] = {"classifier": "edu", "above": 2.5}
    small["sources"]["facts-table"]["late"] = True
    assert Recipe.model_validate(small).late_sources == ["facts-table"]
    small["classifiers"]["edu"]["source"] = "facts-table"
    assert "select.min_scores.web names the classifier 'edu', which learns from the late source" in message(small)
    del small["select"]["min_scores"]["web"]
    assert Recipe.model_validate(small).late_sources == ["facts-table"]


def test_a_pack_that_is_not_there_is_refused(small: dict[str, Any]) -> None:
    small["evaluate"]["packs"] = ["fakts"]
    assert "evaluate.packs names the pack 'fakts'; did you mean 'facts'? the recipe has ['facts']" in message(small)
