"""Recall must be 1 for a model that says what it was taught, 0 for one that does not, and stopping is counted apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from gristmill.data.packs import Item, write_pack
from gristmill.evaluate.recall import (
    HELD_OUT_SUMS,
    ask,
    held_out_sums,
    spread_by_task,
    summarize,
    trained_questions,
)
from gristmill.model.transformer import Llama
from gristmill.synthesize.outputs import Conversation
from gristmill.tokens.tokenizer import Tokenizer
from models import next_token_llama


def exchange(id: str, kind: str, question: str, answer: str, trained_item: str | None = None) -> Conversation:
    messages = ({"role": "user", "content": question}, {"role": "assistant", "content": answer})
    return Conversation(id=id, kind=kind, messages=messages, trained_item=trained_item)


ROWS = [
    exchange("sum/2+5#0", "sum", "What is 2 + 5?", "2 + 5 = 7", "sum/2+5"),
    exchange("sum/12+5#0", "sum", "12 + 5 = ?", "It is 17.", "sum/12+5"),
    exchange("hi-1", "everyday", "Hello!", " w"),
    exchange("hi-1#2", "everyday", "Hello!", " w"),
    exchange("hi-2", "everyday", " Hello! ", "Good day."),
]


def answering(tokenizer: Tokenizer, text: str, *, stops: bool = True) -> Llama:
    """A model that answers every prompt with `text`, whose characters must differ: it sees the last token only."""
    ids = [tokenizer.encode("\n")[0], *tokenizer.encode(text)]
    assert len(set(ids)) == len(ids)
    after = dict(zip(ids, [*ids[1:], tokenizer.im_end_id if stops else ids[-1]], strict=True))
    model: Llama = next_token_llama(tokenizer, after, context=256)
    return model


def test_questions_are_the_first_exchanges_each_prompt_once_with_all_its_answers() -> None:
    questions = trained_questions(ROWS)
    assert [(question.task, question.answers, question.number) for question in questions] == [
        ("trained_single_digit_sums", {"7"}, True),
        ("trained_two_digit_sums", {"17"}, True),
        ("trained_everyday", {"w", "Good day."}, False),
    ]


def test_greetings_are_told_apart_by_id_copies_included() -> None:
    questions = trained_questions(ROWS[2:], greeting_ids={"hi-1"})
    assert [(question.task, question.answers) for question in questions] == [
        ("trained_greetings", {"w"}),
        ("trained_everyday", {"Good day."}),
    ]


def test_conversation_without_a_question_is_not_asked() -> None:
    alone = replace(ROWS[2], messages=ROWS[2].messages[1:])
    assert trained_questions([alone]) == []


@pytest.mark.parametrize(
    ("text", "rights"),
    [("7", [True, False, False]), ("2 + 7", [True, False, False]), ("w", [False, False, True]), ("wx", [False] * 3)],
)
def test_sums_are_judged_by_the_last_number_and_greetings_by_the_whole_answer(
    tokenizer: Tokenizer, text: str, rights: list[bool]
) -> None:
    if text == "2 + 7":  # a space would lead to two places
        text = "2+7"
    replies = ask(answering(tokenizer, text), tokenizer, trained_questions(ROWS))
    assert [reply.right for reply in replies] == rights
    assert all(reply.stopped for reply in replies)


def test_answer_that_never_ends_is_counted_as_not_stopping(tokenizer: Tokenizer) -> None:
    model = answering(tokenizer, "w", stops=False)
    found = summarize(ask(model, tokenizer, trained_questions(ROWS)))
    assert (found["stop_rate"].value, found["stop_rate"].count) == (0.0, 3)
    assert found["stop_rate"].high > 0.3  # three answers prove little, and the interval says so


def test_held_out_sums_come_from_the_packs_under_their_own_name(tmp_path: Path) -> None:
    items = [
        Item(id=f"s{a}", prompt=f"{a} + 31 =", target=str(a + 31), ids=(f"sum/{a}+31", f"sum/31+{a}")) for a in (10, 11)
    ]
    pack = write_pack(
        tmp_path / "p", name="sums", version=1, kind="generate", metric="number_match", chance=0.0, items=items
    )
    questions = held_out_sums([pack, pack], seed=3)
    assert [(question.id, question.answers) for question in questions] == [("sum/10+31", {"41"}), ("sum/11+31", {"42"})]
    assert {question.task for question in questions} == {HELD_OUT_SUMS}
    assert all("31" in question.messages[0]["content"] for question in questions)


def test_a_limit_takes_the_same_questions_at_even_distances() -> None:
    rows = [exchange(f"s{n}", "sum", f"What is {n} + 1?", str(n + 1), f"sum/{n}+1") for n in range(9)]
    found = spread_by_task(trained_questions(rows), 3)
    assert [question.id for question in found["trained_single_digit_sums"]] == ["s0", "s3", "s6"]
