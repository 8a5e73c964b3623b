"""Recall of trained items: does a chat model give back what it was taught, and does it stop?

This is a check that fine-tuning took, not a measure of ability: the questions are the trained ones. Sums that were held out
are asked in the same wordings and reported under their own name, for contrast.

Each question is put through the chat template and answered greedily. A sum is right when the last number written is the
right one; anything else is right when it equals one of the answers trained for that question, white space aside.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gristmill.data.packs import Pack
from gristmill.evaluate.harness import last_number
from gristmill.model.generate import generate
from gristmill.model.inference import InferenceModel
from gristmill.model.transformer import Llama
from gristmill.statistics import proportion
from gristmill.synthesize.outputs import Conversation
from gristmill.synthesize.templates import sum_prompt
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.written import Estimate

MAX_QUESTIONS = 100
MAX_NEW_TOKENS = 64
SUM_TOKENS = 24
HELD_OUT_SUMS = "held_out_sums_asked"
_SUM = re.compile(r"sum/(\d+)\+(\d+)")


@dataclass(frozen=True, kw_only=True)
class Question:
    """A prompt that ends with a user's turn, and what counts as right: a number, or one of some texts."""

    id: str
    task: str
    messages: tuple[Mapping[str, Any], ...]
    answers: frozenset[str]
    number: bool


@dataclass(frozen=True, kw_only=True)
class Reply:
    """`stopped`: the model ended its turn itself within the limit."""

    question: Question
    text: str
    right: bool
    stopped: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "id": self.question.id,
            "prompt": self.question.messages[-1]["content"],
            "answers": sorted(self.question.answers),
            "response": self.text,
            "metrics": {"right": float(self.right), "stopped": float(self.stopped)},
        }


def trained_questions(
    conversations: Iterable[Conversation], *, greeting_ids: Collection[str] = frozenset()
) -> list[Question]:
    """The first exchange of every trained conversation, each prompt once.

    Tasks are trained_single_digit_sums, trained_two_digit_sums, trained_greetings (the conversations named in
    `greeting_ids`; the "#2" of a copy does not count), and trained_<kind> for the rest. Answers trained for the same prompt
    in different conversations are all right.
    """
    prompts: dict[tuple[str, str], tuple[str, tuple[Mapping[str, Any], ...]]] = {}
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for conversation in conversations:
        messages = conversation.messages
        first = next((number for number, message in enumerate(messages) if message["role"] == "assistant"), None)
        if not first:
            continue  # nothing was asked before the assistant spoke, or it never does
        sum_of = _SUM.fullmatch(conversation.trained_item or "")
        is_greeting = conversation.id.partition("#")[0] in greeting_ids
        task = _sum_task(sum_of) if sum_of else "trained_greetings" if is_greeting else f"trained_{conversation.kind}"
        key = (task, repr([(message["role"], message["content"].strip()) for message in messages[:first]]))
        prompts.setdefault(key, (conversation.id, messages[:first]))
        answers[key].add(str(int(sum_of[1]) + int(sum_of[2])) if sum_of else messages[first]["content"].strip())
    return [
        Question(
            id=id,
            task=key[0],
            messages=messages,
            answers=frozenset(answers[key]),
            number=key[0].endswith("_sums"),
        )
        for key, (id, messages) in prompts.items()
    ]


def held_out_sums(packs: Iterable[Pack], *, seed: int) -> list[Question]:
    """The sums that packs hold out ("sum/a+b" among the ids of an item), asked in the wordings of the trained ones."""
    found: dict[str, tuple[int, int]] = {}
    for pack in packs:
        for item in pack.items:
            match = next(filter(None, map(_SUM.fullmatch, (item.id, *item.ids))), None)  # ids also names the mirror
            if match is not None:
                found.setdefault(match[0], (int(match[1]), int(match[2])))
    return [
        Question(
            id=id,
            task=HELD_OUT_SUMS,
            messages=sum_prompt(a, b, seed=seed),
            answers=frozenset({str(a + b)}),
            number=True,
        )
        for id, (a, b) in found.items()
    ]


def within_context(questions: Iterable[Question], tokenizer: Tokenizer, context: int) -> tuple[list[Question], int]:
    """The questions that leave room for an answer in `context` tokens, and how many do not."""
    fitting: list[Question] = []
    num_too_long = 0
    for question in questions:
        if len(encode_chat(tokenizer, question.messages, add_generation_prompt=True)[0]) + MAX_NEW_TOKENS <= context:
            fitting.append(question)
        else:
            num_too_long += 1
    return fitting, num_too_long


def spread_by_task(questions: Iterable[Question], max_questions: int = MAX_QUESTIONS) -> dict[str, list[Question]]:
    """Task → its questions, at most `max_questions` of them at even distances, always the same."""
    by_task: dict[str, list[Question]] = defaultdict(list)
    for question in questions:
        by_task[question.task].append(question)
    return {
        task: [found[index * len(found) // max_questions] for index in range(max_questions)]
        if len(found) > max_questions
        else found
        for task, found in by_task.items()
    }


def ask(model: Llama, tokenizer: Tokenizer, questions: Sequence[Question]) -> list[Reply]:
    """Greedy answers, in order: at most SUM_TOKENS tokens where a number is wanted, else MAX_NEW_TOKENS."""
    ends = {tokenizer.im_end_id, tokenizer.eos_id}
    ready = InferenceModel(model)
    replies: list[Reply] = []
    for question in questions:
        prompt, _ = encode_chat(tokenizer, question.messages, add_generation_prompt=True)
        limit = SUM_TOKENS if question.number else MAX_NEW_TOKENS
        (ids,) = generate(ready, [prompt], max_new_tokens=limit, stop_ids=ends)
        stopped = ids[-1] == tokenizer.im_end_id
        text = tokenizer.decode(ids[:-1] if ids[-1] in ends else ids).strip()
        read = last_number(text) if question.number else text
        replies.append(Reply(question=question, text=text, right=read in question.answers, stopped=stopped))
    return replies


def summarize(replies: Sequence[Reply]) -> dict[str, Estimate]:
    """Share of right answers and share of answers that stop, each with its Wilson interval."""
    return {
        "right": proportion(sum(reply.right for reply in replies), len(replies)),
        "stop_rate": proportion(sum(reply.stopped for reply in replies), len(replies)),
    }


def _sum_task(match: re.Match[str]) -> str:
    single = max(len(match[1]), len(match[2])) == 1
    return "trained_single_digit_sums" if single else "trained_two_digit_sums"
