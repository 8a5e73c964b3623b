"""STEP synthesize: chat data from hand-written conversations, sums, and definitions found in a source.

    candidates (everyday · sum · definition) ─→ held out? ─→ contaminated? ─→ sft.jsonl, prompts.jsonl
                                                    └──────────────┴────────→ rejected.jsonl, counted in ledger.json

Definitions come from the training side of select only, which holds neither held-out synsets nor validation text. Sums that a
pack holds out are refused here by name. All texts are then checked against the packs word by word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from gristmill.data.document import read_documents
from gristmill.data.ledger import Ledger
from gristmill.data.packs import held_out_ids, packs_of
from gristmill.errors import DataError
from gristmill.graph.step import StepContext
from gristmill.recipe.schema.post_training import ChatData
from gristmill.select.decontaminate import Decontaminator
from gristmill.select.outputs import Selected
from gristmill.store.durable import write_json
from gristmill.store.jsonl import write_jsonl
from gristmill.synthesize.outputs import Conversation, ConversationCounts, RefusedConversation, in_words
from gristmill.synthesize.rows import read_conversations
from gristmill.synthesize.templates import (
    LARGE_SUM_WORDINGS,
    SMALL_SUM_WORDINGS,
    ChatRow,
    Messages,
    as_text,
    definition_row,
    is_held_out_sum,
    parse_entry,
    pick_entries,
    small_sums,
    sum_id,
    sum_prompt,
    sum_rows,
    two_digit_sums,
)

VERSION = 1


def run(ctx: StepContext) -> dict[str, Any]:
    """Makes the conversations, drops what the packs hold out, and writes the rest."""
    chat: ChatData = ctx.config["chat"]
    packs = packs_of(ctx.files)
    held_out = held_out_ids(packs)
    finder = Decontaminator.of(packs, rule=ctx.config["decontaminate"].rule)
    gate = Gate(held_out=held_out, finder=finder)
    kept = list(gate.pass_on(candidates(ctx, chat, held_out)))
    if not kept:
        raise DataError(
            "no conversation is left; name files in chat.conversations, or ask for sums or definitions in chat."
        )
    prompts = list(_prompts(chat, gate, seed=ctx.seed))
    gate.ledger.check()
    write_jsonl(
        ctx.out / "sft.jsonl",
        (
            Conversation(id=row.id, kind=row.kind, messages=row.messages, trained_item=row.trained_item).to_json()
            for row in kept
        ),
    )
    write_jsonl(ctx.out / "prompts.jsonl", prompts)
    write_jsonl(ctx.out / "rejected.jsonl", (row.to_json() for row in gate.rejected))
    write_json(ctx.out / "ledger.json", gate.ledger.to_json())
    for kind in gate.ledger.sources:
        ctx.say(f"{in_words(kind)}: {gate.ledger.source(kind).total('kept').documents} kept")
    counts = ConversationCounts(
        conversations=len(kept),
        by_kind=Counter(row.kind for row in kept),
        prompts=len(prompts),
        rejected=len(gate.rejected),
    )
    return counts.to_json()


class Gate:
    """Lets through what no pack holds out, and keeps account of both."""

    def __init__(self, *, held_out: frozenset[str], finder: Decontaminator) -> None:
        self.ledger = Ledger()
        self.rejected: list[RefusedConversation] = []
        self.held_out = held_out
        self._finder = finder

    def pass_on(self, rows: Iterable[ChatRow]) -> Iterator[ChatRow]:
        """The rows that may be trained on."""
        for row in rows:
            if self.admits(row.id, row.kind, row.messages, trained_item=row.trained_item):
                yield row

    def admits(self, id: str, kind: str, messages: Messages, *, trained_item: str | None) -> bool:
        """True when the conversation may be used; otherwise it is counted and recorded with the reason."""
        text = as_text(messages)
        size = len(text.encode())
        self.ledger.saw(kind, size)
        reason, detail = self._verdict(text, trained_item)
        if reason is None:
            self.ledger.add(kind, "kept", size)
            return True
        self.ledger.add(kind, "dropped", size, reason=reason)
        self.rejected.append(
            RefusedConversation(id=id, kind=kind, reason=reason, detail=detail, messages=tuple(messages))
        )
        return False

    def _verdict(self, text: str, trained_item: str | None) -> tuple[str | None, str]:
        if trained_item is not None and self._is_held_out(trained_item):
            return "held_out", trained_item
        match = self._finder.match(text)
        return (None, "") if match is None else ("contaminated", match.detail)

    def _is_held_out(self, item: str) -> bool:
        if item.startswith("sum/"):
            a, b = (int(term) for term in item.removeprefix("sum/").split("+"))
            return is_held_out_sum(a, b, self.held_out)
        return item in self.held_out


# ── candidates ───────────────────────────────────────────────────────────────────────────────────────────────────────


def candidates(ctx: StepContext, chat: ChatData, held_out: frozenset[str]) -> Iterator[ChatRow]:
    """Every conversation that the recipe asks for, in a fixed order."""
    yield from everyday_rows(ctx, chat)
    for a, b in small_sums(chat.sums_up_to):
        yield from sum_rows(a, b, num_wordings=SMALL_SUM_WORDINGS, seed=ctx.seed)
    for a, b in two_digit_sums(chat.two_digit_sums, held_out=held_out, seed=ctx.seed):
        yield from sum_rows(a, b, num_wordings=LARGE_SUM_WORDINGS, seed=ctx.seed)
    if chat.definitions_from is not None and chat.num_definitions:
        yield from definition_rows(ctx, chat.definitions_from, chat.num_definitions)


def everyday_rows(ctx: StepContext, chat: ChatData) -> Iterator[ChatRow]:
    """The hand-written conversations, each `conversation_copies` times. Raises DataError for one that is malformed."""
    seen: set[str] = set()
    for path in ctx.files["conversations"].paths:
        for name, messages in read_conversations(path):
            if name in seen:
                raise DataError(f"{path}: the id {name!r} is used in another file, too.")
            seen.add(name)
            for copy in range(chat.conversation_copies):
                yield ChatRow(
                    id=f"everyday/{name}" + (f"#{copy + 1}" if copy else ""), kind="everyday", messages=messages
                )


def definition_rows(ctx: StepContext, source: str, number: int) -> Iterator[ChatRow]:
    """Questions about dictionary entries of `source`, from its training documents. Raises DataError when there is none."""
    entries_from: Selected = ctx.inputs["entries"]
    documents = (document for path in entries_from.train for document in read_documents(path))
    parsed = (parse_entry(document.id, document.text) for document in documents)
    entries = pick_entries((entry for entry in parsed if entry is not None), number, seed=ctx.seed)
    if not entries:
        raise DataError(
            f'no document of {source} begins like a dictionary entry, "term (class): definition". '
            "Name another source in chat.definitions_from, or remove it."
        )
    if len(entries) < number:
        ctx.say(
            f"chat.num_definitions is {number}, source {source} has {len(entries)} usable entries; all of them are used"
        )
    for entry in entries:
        yield definition_row(entry, seed=ctx.seed)


def _prompts(chat: ChatData, gate: Gate, *, seed: int) -> Iterator[dict[str, Any]]:
    """Questions for preference pairs in three groups: small and large sums that SFT trains, and large ones it never saw.

    They are counted in the ledger as "prompt", apart from the conversations.
    """
    large = two_digit_sums(2 * chat.two_digit_sums, held_out=gate.held_out, seed=seed)
    groups = {
        "small": small_sums(chat.sums_up_to),
        "large": large[: chat.two_digit_sums],
        "unseen": large[chat.two_digit_sums :],
    }
    for group, sums in groups.items():
        for a, b in sums:
            messages = sum_prompt(a, b, seed=seed)
            if gate.admits(f"prompt/{sum_id(a, b)}", "prompt", messages, trained_item=sum_id(a, b)):
                yield {
                    "id": sum_id(a, b),
                    "kind": "sum",
                    "group": group,
                    "messages": list(messages),
                    "a": a,
                    "b": b,
                    "target": str(a + b),
                }
