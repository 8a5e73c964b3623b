"""Pairs: the judge's laws, matching by length, counts that add up, answers that depend on nothing but their seed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.align.pairs import (
    NoUsablePairs,
    Prompt,
    Sample,
    Verdict,
    count,
    draw_answers,
    judge_sum,
    judged,
    match_pairs,
    require_pairs,
)
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.synthesize.templates import SUM_ANSWERS
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

terms = st.integers(0, 99)
TEXTS = ["What is 1 + 2?", "The answer is 3.", "1 + 2 is 3.", "user assistant system"] * 5


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(train_tokenizer(TEXTS, 290))


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Llama:
    config = LlamaConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=128,
        initializer_range=0.3,
    )
    return init_weights(Llama(config), seed=0)


def prompt(name: str = "sum/1+2", a: int = 1, b: int = 2) -> Prompt:
    return Prompt(id=name, kind="sum", messages=({"role": "user", "content": f"What is {a} + {b}?"},), a=a, b=b)


def sample(index: int, verdict: Verdict, num_tokens: int, text: str | None = None) -> Sample:
    return Sample(prompt_id="p", index=index, text=text or f"t{index}", num_tokens=num_tokens, verdict=verdict)


@given(terms, terms, st.sampled_from(SUM_ANSWERS))
def test_the_sum_is_right_in_every_wording(a: int, b: int, wording: str) -> None:
    assert judge_sum(a, b, wording.format(a=a, b=b, total=a + b))


@given(terms, terms, st.integers(-300, 300), st.sampled_from(SUM_ANSWERS))
def test_another_number_is_wrong_in_every_wording(a: int, b: int, other: int, wording: str) -> None:
    assert judge_sum(a, b, wording.format(a=a, b=b, total=other)) == (other == a + b)


@given(st.text(max_size=60), terms, terms)
def test_any_text_gets_a_verdict_and_text_without_the_sum_is_never_right(text: str, a: int, b: int) -> None:
    if judge_sum(a, b, text):
        assert str(a + b) in text


@pytest.mark.parametrize(
    "answer", ["", "seven", "7 or 8", "7.5", "8, no, 9, so 7", "07", "-7", "1,7", "3 + 4 = 7 + 0 = 8", "٧"]
)
def test_answers_that_are_not_plainly_seven_are_wrong(answer: str) -> None:
    assert not judge_sum(3, 4, answer)


@given(
    st.lists(
        st.tuples(st.sampled_from(["right", "wrong", "empty"]), st.integers(1, 9), st.sampled_from("abcd")), max_size=9
    )
)
def test_matching_pairs_right_with_wrong_and_uses_no_text_twice(drawn: list[tuple[Verdict, int, str]]) -> None:
    samples = [sample(i, verdict, size, f"{verdict}{text}") for i, (verdict, size, text) in enumerate(drawn)]
    pairs = match_pairs(prompt(), samples, max_pairs=3)
    right = {s.text for s in samples if s.verdict == "right"}
    wrong = {s.text for s in samples if s.verdict == "wrong"}
    assert len(pairs) == min(3, len(right), len(wrong))
    for side in ("chosen", "rejected"):
        texts = [getattr(pair, side).text for pair in pairs]
        assert len(set(texts)) == len(texts)
    assert all(pair.chosen.verdict == "right" and pair.rejected.verdict == "wrong" for pair in pairs)


def test_the_closest_lengths_are_paired() -> None:
    samples = [sample(0, "right", 9), sample(1, "right", 4), sample(2, "wrong", 5), sample(3, "wrong", 1)]
    (pair,) = match_pairs(prompt(), samples, max_pairs=1)
    assert (pair.chosen.index, pair.rejected.index) == (1, 2)


def test_cut_blank_and_special_answers_are_neither_right_nor_wrong(tokenizer: Tokenizer) -> None:
    three, end = tokenizer.encode("3"), tokenizer.im_end_id
    verdicts = [
        judged(tokenizer, prompt(), 0, ids).verdict
        for ids in (
            [*three, end],
            [*tokenizer.encode("4"), end],
            three,
            [end],
            [*three, tokenizer.pad_id, end],
            [],
            [tokenizer.eos_id],
        )
    ]
    assert verdicts == ["right", "wrong", "unfinished", "empty", "special_token", "unfinished", "special_token"]


def test_counts_add_up_and_no_pair_is_an_error_that_says_what_was_seen() -> None:
    drawn = (["right"] * 2, ["wrong"] * 2, ["wrong"] * 2, ["wrong", "unfinished"])
    counts = count([([sample(i, verdict, 3) for i, verdict in enumerate(verdicts)], []) for verdicts in drawn])
    fates = counts.prompts_with_pairs + counts.prompts_all_right + counts.prompts_all_wrong + counts.prompts_other
    assert counts.prompts == fates == 4
    assert sum(counts.samples.values()) == 8
    with pytest.raises(
        NoUsablePairs,
        match=r"none of 4 prompts.*1 were answered right every time, 2 wrong every time, and 1 never both",
    ):
        require_pairs(counts)


def test_words_on_pairs_account_for_every_prompt() -> None:
    right, wrong, cut = (sample(i, verdict, 3) for i, verdict in enumerate(["right", "wrong", "unfinished"]))
    outcomes = [([right, wrong], match_pairs(prompt(), [right, wrong], max_pairs=1)), ([right, cut], []), ([cut], [])]
    said = count(outcomes).words
    assert said.startswith("1 pair from 3 prompts: 1 gave pairs, 0 were")
    assert "0 wrong every time, and 2 never both right and wrong" in said


@settings(deadline=None, max_examples=5)
@given(st.integers(0, 2**31), st.permutations(["sum/1+2", "sum/2+1", "sum/2+2"]))
def test_an_answer_depends_on_seed_prompt_and_index_alone(
    tokenizer: Tokenizer, model: Llama, seed: int, order: list[str]
) -> None:
    def draw(name: str, num_samples: int) -> list[Sample]:
        question = prompt(name, *(int(n) for n in name[4:].split("+")))
        return draw_answers(
            model, tokenizer, question, seed=seed, num_samples=num_samples, temperature=1.0, max_new_tokens=6
        )

    together = {name: draw(name, 3) for name in order}
    alone = draw("sum/2+1", 1)
    assert together["sum/2+1"][:1] == alone
    assert len({tuple(s.text for s in samples) for samples in together.values()}) == 3


def test_prompts_that_read_alike_draw_random_numbers_of_their_own(tokenizer: Tokenizer, model: Llama) -> None:
    first, again, copy = (
        draw_answers(model, tokenizer, prompt(name), seed=1, num_samples=4, temperature=1.0, max_new_tokens=6)
        for name in ("sum/1+2", "sum/1+2", "copy/1+2")
    )
    assert first == again
    assert [sample.text for sample in first] != [sample.text for sample in copy]


def test_drawing_leaves_the_global_generator_alone(tokenizer: Tokenizer, model: Llama) -> None:
    before = torch.random.get_rng_state()
    draw_answers(model, tokenizer, prompt(), seed=1, num_samples=1, temperature=1.0, max_new_tokens=3)
    assert torch.equal(before, torch.random.get_rng_state())
