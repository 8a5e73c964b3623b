"""STEP tokenizer: a byte-level BPE trained on the training split, in the recipe's mix of sources, late ones aside.

Reads select/<source>/train-*.parquet; writes tokenizer.json, tokenizer_config.json, chat_template.jinja and report.json, which
says what was sampled and how many bytes a token holds on each source's validation text, which the trainer never saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from gristmill.data.document import read_batches
from gristmill.errors import DataError
from gristmill.graph.step import StepContext, by_source
from gristmill.recipe.schema.training import TokenizerSection
from gristmill.select.outputs import Selected
from gristmill.store.durable import write_json
from gristmill.tokens.outputs import CompressedText, SampledText, TokenizerReport
from gristmill.tokens.permutation import key_of, mix
from gristmill.tokens.tokenizer import Tokenizer, train_tokenizer

VERSION = 1
_REPORT_BATCH_ROWS = 256


def run(ctx: StepContext) -> dict[str, Any]:
    """Trains, saves and measures the tokenizer. Returns the report."""
    section: TokenizerSection = ctx.config["tokenizer"]
    texts: dict[str, Selected] = by_source(ctx.inputs, "text of ")
    validation: dict[str, Selected] = by_source(ctx.watching.inputs, "validation of ")
    sources = list(texts)
    sizes = {source: document_bytes(texts[source].train) for source in sources}
    budgets = byte_budgets(
        {source: int(size.sum()) for source, size in sizes.items()}, section.mixture, section.max_bytes
    )
    chosen = {source: sample_documents(size, budgets[source], ctx.seed, source) for source, size in sizes.items()}
    sampled = {source: int(sizes[source][chosen[source]].sum()) for source in sources}
    for source, weight in section.mixture.items():
        if sampled[source] < 0.9 * budgets[source]:
            share = sampled[source] / max(1, sum(sampled.values()))
            ctx.say(
                f"tokenizer: {source} has {sampled[source]:,} bytes of the {budgets[source]:,} that its weight {weight} asks "
                f"for; its share of the sample is {share:.3f}"
            )
    trained = train_tokenizer(_texts({source: texts[source].train for source in sources}, chosen), section.vocab_size)
    tokenizer = Tokenizer(trained)
    tokenizer.save(ctx.out)
    report = TokenizerReport(
        vocab_size=tokenizer.vocab_size,
        sample={
            source: SampledText(
                documents=int(chosen[source].sum()), bytes=sampled[source], budget_bytes=budgets[source]
            )
            for source in sources
        },
        validation={source: measure(tokenizer, text.validation) for source, text in validation.items()},
    ).to_json()
    write_json(ctx.out / "report.json", report)
    return report


def document_bytes(paths: list[Path]) -> NDArray[np.int64]:
    """(documents,) int64: UTF-8 bytes of each document's text, over the shards in order."""
    sizes = [
        pc.binary_length(batch.column("text")).to_numpy(zero_copy_only=False).astype(np.int64)
        for path in paths
        for batch in read_batches(path, columns=["text"])
    ]
    return np.concatenate(sizes) if sizes else np.zeros(0, dtype=np.int64)


def byte_budgets(available: dict[str, int], mixture: dict[str, float], max_bytes: int) -> dict[str, int]:
    """Bytes to sample per source: its weight of `max_bytes`, or without a mixture its natural share. At most what it has."""
    total = sum(available.values())
    if total == 0:
        raise DataError(
            f"the training split of {', '.join(available)} is empty; the tokenizer has nothing to learn from."
        )
    if mixture:
        return {source: int(mixture[source] * max_bytes) for source in available}
    return {source: size * min(max_bytes, total) // total for source, size in available.items()}


def sample_documents(sizes: NDArray[np.int64], budget_bytes: int, seed: int, source: str) -> NDArray[np.bool_]:
    """(documents,) bool: a random set of documents that fills the budget without passing it, the same for the same seed.

    At least one document, where there is one and the budget is not 0.
    """
    keys = mix(np.arange(len(sizes), dtype=np.uint64) + np.uint64(key_of("tokenizer sample", seed, source)))
    order = np.argsort(keys, kind="stable")
    count = int(np.searchsorted(np.cumsum(sizes[order]), budget_bytes, side="right"))
    chosen = np.zeros(len(sizes), dtype=np.bool_)
    chosen[order[: max(count, int(budget_bytes > 0))]] = True
    return chosen


def measure(tokenizer: Tokenizer, paths: list[Path]) -> CompressedText:
    """Tokens, bytes and bytes per token (None without text) of all documents in the shards."""
    num_tokens = num_bytes = num_documents = 0
    for path in paths:
        for batch in read_batches(path, columns=["text"], batch_rows=_REPORT_BATCH_ROWS):
            encoded = tokenizer.encode_batch(batch.column("text").to_pylist())
            num_documents += len(encoded)
            num_tokens += sum(map(len, encoded))
            num_bytes += sum(tokenizer.num_bytes(ids) for ids in encoded)
    return CompressedText(
        documents=num_documents,
        tokens=num_tokens,
        bytes=num_bytes,
        bytes_per_token=num_bytes / num_tokens if num_tokens else None,
    )


def _texts(shards: dict[str, list[Path]], chosen: dict[str, NDArray[np.bool_]]) -> Iterator[str]:
    for source, wanted in chosen.items():
        row = 0
        for path in shards[source]:
            for batch in read_batches(path, columns=["text"]):
                mask = wanted[row : row + batch.num_rows]
                row += batch.num_rows
                for place in np.flatnonzero(mask).tolist():
                    yield batch.column("text")[place].as_py()
