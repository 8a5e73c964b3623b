"""The engine, the in-loop scorer and the engine's own Hugging Face adapter must agree item by item."""

from __future__ import annotations

import random
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from gristmill.data.packs import Item, Pack, write_pack
from gristmill.errors import RecipeError
from gristmill.evaluate.adapter import AskedText, GristmillLM
from gristmill.evaluate.harness import _result, ask_engine, engine_versions, last_number, load_engine, score_packs
from gristmill.model.transformer import Llama
from gristmill.statistics import wilson_interval
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.scorer import CHOICE_METRICS, score_pack
from models import next_token_llama, random_llama

WORDS = ["cat", "dog", "mat", "door", "sea", "mill", "flour", "bread", "river", "grain", "mühle", "größe"]


def choice_pack(folder: Path, *, num_items: int = 12, metric: str = "acc") -> Pack:
    draw = random.Random(7)
    items = []
    for number in range(num_items):
        choices = tuple(f" {word}{'s' * draw.randrange(3)}" for word in draw.sample(WORDS, 4))
        prompt = f"{number}. {{{{ not a template }}}} The {draw.choice(WORDS)} and the"
        items.append(Item(id=f"item-{number}", prompt=prompt, choices=choices, answer=draw.randrange(4)))
    name = f"words-{num_items}-{metric}"
    return write_pack(
        folder / name, name=name, version=1, kind="multiple_choice", metric=metric, chance=0.25, items=items
    )


def text_pack(folder: Path, metric: str, targets: dict[str, str]) -> Pack:
    items = [Item(id=prompt, prompt=prompt, target=target) for prompt, target in targets.items()]
    return write_pack(folder / metric, name=metric, version=1, kind="generate", metric=metric, chance=0.0, items=items)


def single(tokenizer: Tokenizer, text: str) -> int:
    (token,) = tokenizer.encode(text)
    return token


@pytest.mark.parametrize("metric", ["acc", "acc_norm", "acc_bytes"])
def test_engine_in_loop_scorer_and_own_rules_agree_on_every_item(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, metric: str
) -> None:
    pytest.importorskip("lm_eval")
    pack = choice_pack(tmp_path, num_items=40, metric=metric)
    (asked,), (own,) = (score_packs(model, tokenizer, [pack], engine=engine) for engine in (True, False))
    in_loop = score_pack(model, tokenizer, pack)
    samples = ask_engine(GristmillLM(model, tokenizer), pack, chat=False)
    assert asked.engine == "lm-eval 0.4.13"
    assert asked.rows == own.rows
    assert asked.scores == own.scores
    for row, item, sample in zip(asked.rows, in_loop.items, samples, strict=True):
        assert row["logps"] == pytest.approx(item.logps, rel=1e-9)
        assert row["metrics"] == item.right == {name: sample[name] for name in CHOICE_METRICS}
    if metric != "acc_norm":
        expected = in_loop.accuracy if metric == "acc" else in_loop.accuracy_per_byte
        assert (asked.value, asked.low, asked.high) == pytest.approx((expected.value, expected.low, expected.high))
        assert asked.stderr == pytest.approx(expected.stderr)


def test_likelihoods_equal_those_of_the_hugging_face_adapter(
    model: Llama, tokenizer: Tokenizer, folder: Path, tmp_path: Path
) -> None:
    for needed in ("transformers", "accelerate", "lm_eval"):
        pytest.importorskip(needed)
    load_engine()
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=4)
    ours = GristmillLM(model, tokenizer)
    pack = choice_pack(tmp_path)
    pairs = [(item.prompt, choice) for item in pack.items for choice in item.choices]
    pairs += [("", "The cat"), ("ends with space ", "the mat"), ("long " * 60, " sea")]
    asked = [AskedText(pair) for pair in pairs]
    expected = theirs.loglikelihood(asked, disable_tqdm=True)
    found = ours.loglikelihood(asked)
    assert [logp for logp, _ in found] == pytest.approx([logp for logp, _ in expected], rel=1e-5)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]

    texts = [AskedText(("The cat sat on the mat. " * repeats,)) for repeats in (1, 10, 25)]
    assert ours.loglikelihood_rolling(texts) == pytest.approx(theirs.loglikelihood_rolling(texts, True), rel=1e-5)

    settings = {"until": ["\n"], "do_sample": False, "max_gen_toks": 16}
    prompts = [AskedText((item.prompt, settings)) for item in pack.items[:4]]
    assert ours.generate_until(prompts) == theirs.generate_until(prompts, True)


def test_engine_reaches_no_network(
    model: Llama, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lm_eval")

    def refuse(*arguments: object, **named: object) -> None:
        raise AssertionError(f"a socket was used: {arguments} {named}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    (result,) = score_packs(model, tokenizer, [choice_pack(tmp_path)], engine=True)
    assert len(result.scores) == 12


def test_adapter_passes_as_a_model_of_the_engine(model: Llama, tokenizer: Tokenizer) -> None:
    pytest.importorskip("lm_eval")
    load_engine()
    from lm_eval.api.model import LM

    assert isinstance(GristmillLM(model, tokenizer), LM)


@pytest.mark.parametrize("engine", [True, False])
def test_model_rigged_to_be_right_scores_one_and_wrong_scores_zero(
    tokenizer: Tokenizer, tmp_path: Path, engine: bool
) -> None:
    if engine:
        pytest.importorskip("lm_eval")
    pairs = dict(zip("abcde", "vwxyz", strict=True))
    rigged = next_token_llama(tokenizer, {single(tokenizer, a): single(tokenizer, b) for a, b in pairs.items()})
    letters = tuple(pairs.values())

    def pack(name: str, shift: int) -> Pack:
        items = [
            Item(id=a, prompt=f"Q={a}", choices=letters, answer=(number + shift) % 5) for number, a in enumerate(pairs)
        ]
        return write_pack(
            tmp_path / name, name=name, version=1, kind="multiple_choice", metric="acc", chance=0.2, items=items
        )

    right, wrong = score_packs(rigged, tokenizer, [pack("right", 0), pack("wrong", 1)], engine=engine)
    assert (right.value, right.high) == (1.0, 1.0)
    assert (wrong.value, wrong.low) == (0.0, 0.0)


@pytest.mark.parametrize("engine", [True, False])
def test_random_model_scores_chance_within_its_error_bar(tokenizer: Tokenizer, tmp_path: Path, engine: bool) -> None:
    if engine:
        pytest.importorskip("lm_eval")
    (result,) = score_packs(
        random_llama(tokenizer, seed=3, context=96), tokenizer, [choice_pack(tmp_path, num_items=200)], engine=engine
    )
    assert result.low <= 0.25 <= result.high
    assert result.high - result.low < 0.15


@pytest.mark.parametrize("engine", [True, False])
@pytest.mark.parametrize("chat", [True, False])
def test_generated_answers_are_judged_by_text_or_by_last_number(
    tokenizer: Tokenizer, tmp_path: Path, engine: bool, chat: bool
) -> None:
    if engine:
        pytest.importorskip("lm_eval")
    after = {" ": "7", "7": "!", "!": "\n", "Q": " "}
    if chat:  # the header of the assistant's turn ends with a line break
        after |= {"\n": " "}
        after["!"] = "?"
    rigged = next_token_llama(
        tokenizer, {single(tokenizer, a): single(tokenizer, b) for a, b in after.items()}, context=96
    )
    number = text_pack(tmp_path, "number_match", {"Q": "7", "What? Q": "8", "7 Q": "7"})
    exact = text_pack(tmp_path, "exact_match", {"Q": "7!?" if chat else "7!", "a Q": "7"})
    found = score_packs(rigged, tokenizer, [number, exact], chat=chat, max_new_tokens=12, engine=engine)
    assert [result.scores for result in found] == [(1.0, 0.0, 1.0), (1.0, 0.0)]
    assert {result.prompting for result in found} == {"chat" if chat else "plain"}
    assert found[0].rows[1]["read"] == "7"


def test_chat_prompt_keeps_a_typed_marker_apart_from_a_real_one(model: Llama, tokenizer: Tokenizer) -> None:
    adapter = GristmillLM(model, tokenizer)
    text = adapter.apply_chat_template([{"role": "user", "content": "say <|im_end|> please"}])
    assert adapter._chat_ids[text].count(tokenizer.im_end_id) == 1


def test_questions_on_one_passage_count_as_one_draw(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Each of six passages with four questions: the error bar is that of six draws, and as wide as theirs."""
    pack = choice_pack(tmp_path / "apart", num_items=24)
    items = [replace(item, passage=f"passage {number // 4}") for number, item in enumerate(pack.items)]
    shared = write_pack(
        tmp_path / "shared",
        name="shared",
        version=1,
        kind=pack.kind,
        metric=pack.metric,
        chance=pack.chance,
        items=items,
    )
    (apart,), (found,) = (score_packs(model, tokenizer, [one], engine=False) for one in (pack, shared))
    assert apart.clusters is None
    assert found.clusters == [number // 4 for number in range(24)]
    assert found.value == apart.value
    means = np.array(found.scores).reshape(6, 4).mean(axis=1)
    assert found.stderr == pytest.approx(means.std(ddof=1) / 6**0.5)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_passages_that_are_all_alike_are_no_certainty(tmp_path: Path, right: float) -> None:
    """Three passages with eight questions each, all of them right or all wrong: what three draws say, by Wilson's interval."""
    pack = choice_pack(tmp_path / "apart", num_items=24)
    items = tuple(replace(item, passage=f"passage {number // 8}") for number, item in enumerate(pack.items))
    rows = [{"metrics": {pack.metric: right}} for _ in items]
    found = _result(replace(pack, items=items), False, "own", rows)
    assert (found.low, found.high) == pytest.approx(wilson_interval(3 * right, 3))
    assert found.high - found.low > 0.4


def test_unknown_metric_is_refused_with_the_known_ones(model: Llama, tokenizer: Tokenizer, tmp_path: Path) -> None:
    pack = choice_pack(tmp_path, metric="f1")
    with pytest.raises(RecipeError, match=r"'f1'.*acc, acc_norm, acc_bytes"):
        score_packs(model, tokenizer, [pack])


def test_sampling_is_refused(model: Llama, tokenizer: Tokenizer) -> None:
    with pytest.raises(RecipeError, match="greedy"):
        GristmillLM(model, tokenizer).generate_until([AskedText(("The", {"do_sample": True}))])


def test_last_number_is_read_as_written() -> None:
    assert [last_number(text) for text in ("12 + 5 is 17.", "none", "-3 and 2.50", "1,204")] == [
        "17",
        None,
        "2.50",
        "204",
    ]


def test_versions_name_what_is_missing_as_none() -> None:
    assert engine_versions()["torch"] is not None
