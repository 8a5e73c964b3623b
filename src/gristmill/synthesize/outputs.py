"""What synthesize leaves."""

from __future__ import annotations

from gristmill.graph.outputs import File, Outputs


class Conversations(Outputs):
    """Conversations to fine-tune on, prompts to draw preference pairs from, and what the packs held out."""

    conversations = File("sft.jsonl")
    prompts = File("prompts.jsonl")
    rejected = File("rejected.jsonl", notes=True)
    accounts = File("ledger.json", notes=True)
