"""What synthesize leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gristmill.data.ledger import Ledger, read_ledger
from gristmill.graph.outputs import File, Outputs
from gristmill.store.jsonl import numbered_objects
from gristmill.written import Written

WRITTEN_NAMES = {"everyday": "written", "trained_everyday": "trained_written"}


def in_words(name: str) -> str:
    """A kind of conversation, or a task over one, as people read it: what came from chat.conversations, written and not made by a
    template, is "everyday" in files only."""
    return WRITTEN_NAMES.get(name, name)


@dataclass(frozen=True, kw_only=True)
class Conversation(Written):
    """A line of sft.jsonl. trained_item: the item that it teaches, such as "sum/1+2"."""

    id: str
    kind: str
    messages: tuple[Mapping[str, Any], ...]
    trained_item: str | None


@dataclass(frozen=True, kw_only=True)
class RefusedConversation(Written):
    """A line of rejected.jsonl: a conversation that a pack holds out, or that holds one of its items."""

    id: str
    kind: str
    reason: str
    detail: str
    messages: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, kw_only=True)
class ConversationCounts(Written):
    """by_kind: conversations kept."""

    conversations: int
    by_kind: Mapping[str, int]
    prompts: int
    rejected: int


class Conversations(Outputs):
    """Conversations to fine-tune on, prompts to draw preference pairs from, and what the packs held out."""

    conversations = File("sft.jsonl")
    prompts = File("prompts.jsonl")
    rejected = File("rejected.jsonl", notes=True)
    accounts = File("ledger.json", notes=True)

    @property
    def ledger(self) -> Ledger:
        """Conversations by kind: in, kept, dropped."""
        return read_ledger(self.accounts)

    @property
    def counts(self) -> ConversationCounts:
        """How many there are."""
        return ConversationCounts.from_json(self.record.counts, where=self.record_path)

    @property
    def trained(self) -> list[Conversation]:
        """The conversations to fine-tune on."""
        path = self.conversations
        return [Conversation.from_json(row, where=f"{path}:{line}") for line, row in numbered_objects(path)]

    @property
    def refused(self) -> list[RefusedConversation]:
        """What the packs held out."""
        path = self.rejected
        return [RefusedConversation.from_json(row, where=f"{path}:{line}") for line, row in numbered_objects(path)]
