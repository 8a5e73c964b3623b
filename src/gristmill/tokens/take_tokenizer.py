"""STEP tokenizer, where the recipe continues from a released model: that model's tokenizer, measured; nothing is trained.

Reads the folder's tokenizer.json; writes what train_tokenizer.py writes, its report without a sample.
"""

from __future__ import annotations

from typing import Any

from gristmill.graph.step import StepContext, by_source
from gristmill.store.durable import write_json
from gristmill.tokens.outputs import TokenizerReport
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.tokens.train_tokenizer import measure

VERSION = 1


def run(ctx: StepContext) -> dict[str, Any]:
    """Saves and measures the tokenizer. Returns the report."""
    tokenizer = Tokenizer.load(ctx.files["released tokenizer"].only.parent)
    tokenizer.save(ctx.out)
    validation = by_source(ctx.watching.inputs, "validation of ")
    report = TokenizerReport(
        vocab_size=tokenizer.vocab_size,
        sample={},
        validation={source: measure(tokenizer, text.validation) for source, text in validation.items()},
    ).to_json()
    write_json(ctx.out / "report.json", report)
    return report
