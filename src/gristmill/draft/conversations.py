"""Chat data for a recipe: a person's own conversations where there are some, else a few that come with gristmill; and sums.

Sums can be judged by a rule, so they give preference pairs; but they must not drown what people say. So each conversation is
listed as often as it takes for all of them to be CONVERSATION_SHARE of what is trained on. And fine-tuning must not undo what
pretraining learned: the fewer conversations, the fewer sums, and no more passes than make LEAST_STEPS.
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.data.record import Unread
from gristmill.draft.prompts import first_questions
from gristmill.errors import DataError
from gristmill.formats.format import Span, format_named, size_of
from gristmill.recipe.load import CONVERSATIONS_FILE
from gristmill.recipe.schema.formats import READERS, reader_of
from gristmill.store.jsonl import read_jsonl, write_jsonl
from gristmill.synthesize.rows import check_messages
from gristmill.synthesize.templates import SMALL_SUM_WORDINGS, small_sums
from gristmill.tokens.chat import encode_chat
from gristmill.tokens.tokenizer import Tokenizer

BUILT_IN = Path(__file__).with_name("conversations.jsonl")
SUMS_UP_TO, FEW_SUMS_UP_TO = 5, 3
BUILT_IN_QUESTIONS = ("Hello!", "What is your name?")
FEW = 40  # conversations
CONVERSATION_SHARE = 2 / 3
MESSAGES = "messages"
READ = ("field_is_not_text", "missing_field")  # what a reader of text says of rows with messages, or with neither
BATCH = 16
EPOCHS = 2  # smol-smoltalk: recipes/smollm2/sft of huggingface/alignment-handbook
MOST_EPOCHS = 6
LEAST_STEPS = 60
RATE_SHARE = 3  # of pretraining's peak rate one part in three: 1e-3 beside 3e-3, as SmolLM2-135M and -360M
TURNS = 4  # questions with their answers that a context holds
ANSWER_TOKENS = 128  # that chat keeps free for an answer, or half of the context
CONTEXTS = (128, 256, 512, 1024)
MEASURED = 1000  # conversations


@dataclass(frozen=True, kw_only=True)
class ChatPlan:
    """What chat is trained on. left_out: reason → conversations of the person that cannot be used. exchange_tokens: that a question
    and its answer take, at most, in nine of ten conversations; context: that holds TURNS of them. questions: the first of the
    person's own, else two that the built-in conversations answer."""

    conversations: int
    are_own: bool
    copies: int
    sums_up_to: int
    left_out: Counter[str]
    questions: tuple[str, ...]
    exchange_tokens: int = 0
    context: int = CONTEXTS[0]

    @property
    def sums(self) -> int:
        """Questions about sums."""
        return len(small_sums(self.sums_up_to)) * SMALL_SUM_WORDINGS

    @property
    def rows(self) -> int:
        """What one pass reads."""
        return self.copies * self.conversations + self.sums

    @property
    def epochs(self) -> int:
        """Passes of fine-tuning."""
        return max(EPOCHS, min(MOST_EPOCHS, math.ceil(LEAST_STEPS * BATCH / self.rows)))

    @property
    def steps(self) -> int:
        """Of fine-tuning."""
        return self.epochs * math.ceil(self.rows / BATCH)

    @property
    def share(self) -> float:
        """Of the rows, conversations."""
        return self.copies * self.conversations / self.rows


def write_conversations(folder: Path, files: Sequence[Path]) -> ChatPlan:
    """Writes FOLDER/conversations.jsonl from files whose rows have `messages`, or from what comes with gristmill."""
    left_out: Counter[str] = Counter()
    rows = [row for path in files for row in _own(path, left_out)]
    chosen = rows or [{"id": row["id"], MESSAGES: row[MESSAGES]} for row in read_jsonl(BUILT_IN)]
    write_jsonl(
        folder / CONVERSATIONS_FILE, ({**row, "id": f"{number:05d}"} for number, row in enumerate(chosen, start=1))
    )
    once = ChatPlan(
        conversations=len(chosen),
        are_own=bool(rows),
        copies=1,
        sums_up_to=SUMS_UP_TO if len(chosen) > FEW else FEW_SUMS_UP_TO,
        left_out=left_out,
        questions=first_questions(rows) or BUILT_IN_QUESTIONS,
    )
    wanted = once.sums * CONVERSATION_SHARE / (1 - CONVERSATION_SHARE)
    return replace(once, copies=max(1, math.ceil(wanted / len(chosen))))


def with_context(plan: ChatPlan, path: Path, tokenizer: Tokenizer) -> ChatPlan:
    """With the context that the conversations in the file need, by their lengths in tokens: TURNS exchanges beside an answer, and
    nearly every conversation whole."""
    first = islice(read_jsonl(path), MEASURED)
    sizes = [(len(encode_chat(tokenizer, row[MESSAGES])[0]), _num_answers(row[MESSAGES])) for row in first]
    exchange = math.ceil(np.quantile([size / answers for size, answers in sizes], 0.9))
    longest = np.quantile([size for size, _ in sizes], 0.95)
    fitting = [
        context
        for context in CONTEXTS
        if context - min(ANSWER_TOKENS, context // 2) >= TURNS * exchange and context >= longest
    ]
    return replace(plan, exchange_tokens=exchange, context=min(fitting, default=CONTEXTS[-1]))


def _num_answers(messages: Sequence[Mapping[str, Any]]) -> int:
    return max(1, [message["role"] for message in messages].count("assistant"))


def _own(path: Path, left_out: Counter[str]) -> list[dict[str, Any]]:
    """The conversations of a file that can be trained on; the others are counted by reason."""
    kind = next(kind for kind, reader in READERS.items() if reader is reader_of(path.name))
    rows = []
    for row in format_named(kind).peek(path, num_rows=sys.maxsize):
        try:
            messages = check_messages(row.get(MESSAGES), where=path.name)
        except DataError:
            left_out["no messages with role and content"] += 1
        else:
            rows.append({"id": "", MESSAGES: [*messages]})
    settings = READERS[kind].model_validate({"format": kind, "paths": [path.name], READERS[kind].text_key: MESSAGES})
    records = format_named(kind).read(Span(path=path, name=path.name, size=size_of(path)), settings)
    left_out.update(found.reason for found in records if isinstance(found, Unread) and found.reason not in READ)
    return rows
