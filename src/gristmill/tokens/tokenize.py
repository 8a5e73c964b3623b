"""STEP tokenize: every kept document to ids, one shard per source and split; then the exact count against the epoch cap.

Reads select/<source>/{train,validation}-*.parquet and the tokenizer; writes <source>/{train,validation}.{bin,index,json}.
Document k of a shard is row k of the split's Parquet files in order. A shard is finished when its sidecar is there, so a killed
run resumes with the next one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gristmill.data.document import read_batches
from gristmill.data.each_shard import num_rows
from gristmill.errors import ArtifactError, DataError, Interrupted
from gristmill.graph.progress import Position
from gristmill.graph.step import StepContext, by_source
from gristmill.planning.budget import Selection, asked_tokens, check_epochs
from gristmill.recipe.schema.training import Pretrain
from gristmill.select.outputs import Selected
from gristmill.store.durable import file_sha256
from gristmill.tokens.encoder import Disagreement, Encoder
from gristmill.tokens.outputs import Tokenized, TokenizerFiles
from gristmill.tokens.shards import ShardFacts, ShardWriter, TokenShard, unique_tokens
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.units import counted

VERSION = 1
SPLITS = ("train", "validation")
_BATCH_BYTES = 4_000_000


def run(ctx: StepContext) -> dict[str, Any]:
    """Tokenizes all sources. Returns documents, tokens and bytes by source and split.

    Raises RecipeError when the stages would read documents more often than the recipe's cap, now that tokens are counted.
    """
    files: TokenizerFiles = ctx.inputs["tokenizer"]
    tokenizer = Tokenizer.load(files.files)
    tokenizer_sha256 = file_sha256(files.files / "tokenizer.json")
    texts: dict[str, Selected] = by_source(ctx.inputs, "text of ")
    try:
        counts = _tokenize(
            ctx,
            Encoder.fastest(tokenizer, lambda line: ctx.say(f"tokenize: {line}")),
            tokenizer,
            tokenizer_sha256,
            texts,
        )
    except Disagreement as error:
        ctx.say(f"tokenize: splintr does otherwise than tokenizers ({error}), which encodes all texts now")
        for sidecar in ctx.out.glob("*/*.json"):
            sidecar.unlink()
        counts = _tokenize(ctx, Encoder(tokenizer), tokenizer, tokenizer_sha256, texts)
    pretrain: Pretrain = ctx.watching.config["pretrain"]
    made = Tokenized(ctx.out)
    shards = {source: TokenShard(made.of(source).train) for source in texts}
    for row in check_epochs(pretrain, list(texts), selection_tokens(pretrain, shards)):
        if row.verdict in ("repeated", "allowed"):
            ctx.say(
                f"tokenize: {row.selection} is read {row.epochs[-1]:.2f} times ({row.total_tokens:,} tokens asked, "
                f"{row.unique_tokens or 0:,} unique); repeating is known to help up to {row.warn_epochs:g}"
            )
    return counts


def _tokenize(
    ctx: StepContext, encoder: Encoder, tokenizer: Tokenizer, tokenizer_sha256: str, texts: Mapping[str, Selected]
) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    total, done = sum(num_rows(path) for text in texts.values() for path in (*text.train, *text.validation)), 0
    for source, text in texts.items():
        counts[source] = {}
        for split in SPLITS:
            path = ctx.out / source / split
            facts = finished(path, tokenizer_sha256)
            if facts is None:
                paths = split_paths(text, split)
                facts = tokenize_split(ctx, encoder, tokenizer, tokenizer_sha256, paths, path, done=done, total=total)
            done += facts.num_documents
            counts[source][split] = {
                "documents": facts.num_documents,
                "tokens": facts.num_tokens,
                "bytes": facts.num_bytes,
            }
        train = counts[source]["train"]
        ctx.say(
            f"tokenize: {source} has {counted(train['tokens'], 'token')} in {counted(train['documents'], 'training document')}"
        )
    return counts


def selection_tokens(pretrain: Pretrain, shards: Mapping[str, TokenShard]) -> dict[Selection, int]:
    """Unique training tokens of every selection that the stages draw, and of every source, by its training shard."""
    selections = [*map(Selection, shards), *asked_tokens(pretrain.as_changed().stages)]
    return {
        selection: unique_tokens(shards[selection.source], min_document_tokens=selection.min_document_tokens)
        for selection in selections
    }


def split_paths(text: Selected, split: str) -> list[Path]:
    """The Parquet files of one split. Raises ArtifactError when there is none: an empty split is a file without rows."""
    paths: list[Path] = getattr(text, split)
    if not paths:
        raise ArtifactError(f"{text.folder / text.source} has no {split}-*.parquet. Remake select.")
    return paths


def tokenize_split(
    ctx: StepContext,
    encoder: Encoder,
    tokenizer: Tokenizer,
    tokenizer_sha256: str,
    paths: list[Path],
    path: Path,
    *,
    done: int,
    total: int,
) -> ShardFacts:
    """Streams the documents of `paths` into the shard at `path`. Raises Interrupted between batches when asked to stop.

    done of total: documents of the step that are tokenized.
    """
    writer = ShardWriter(
        path, tokenizer_sha256=tokenizer_sha256, vocab_size=tokenizer.vocab_size, eos_id=tokenizer.eos_id
    )
    with writer:
        for texts, num_bytes in text_batches(paths):
            if ctx.should_stop():
                raise Interrupted(
                    f"stopped while tokenizing {path.parent.name}/{path.name}; finished sources are kept."
                )
            try:
                documents = encoder.encode(texts)
            except DataError as error:
                raise DataError(
                    f"{path.parent.name}/{path.name}, document {writer.num_documents} or after: {error}"
                ) from error
            if tokenizer.num_bytes(np.concatenate(documents)) != num_bytes:
                raise DataError(
                    f"{path.parent.name}/{path.name}, document {writer.num_documents} or after: the ids decode to another number "
                    f"of bytes than the {num_bytes:,} of the texts, so the tokenizer loses text. Train one with the tokenizer "
                    "step, which has all 256 bytes."
                )
            writer.add_many(documents, num_bytes=num_bytes)
            now = done + writer.num_documents
            part = f"{path.parent.name}, {path.name}"
            ctx.progress(Position(done=now, total=total, unit="document", part=part, counts={"documents": now}))
    return TokenShard(path).facts


def text_batches(paths: list[Path], *, batch_bytes: int = _BATCH_BYTES) -> Iterator[tuple[list[str], int]]:
    """(texts, UTF-8 bytes) in order, in batches of about `batch_bytes`."""
    texts: list[str] = []
    num_bytes = 0
    for path in paths:
        for batch in read_batches(path, columns=["text"], batch_rows=256):
            for text in batch.column("text").to_pylist():
                texts.append(text)
                num_bytes += len(text.encode())
                if num_bytes >= batch_bytes:
                    yield texts, num_bytes
                    texts, num_bytes = [], 0
    if texts:
        yield texts, num_bytes


def finished(path: Path, tokenizer_sha256: str) -> ShardFacts | None:
    """The facts of a shard that an earlier attempt completed with this tokenizer, fully checked; None when there is none."""
    if not path.with_name(f"{path.name}.json").exists():
        return None
    try:
        shard = TokenShard(path)
        shard.verify()
    except ArtifactError:
        return None  # a damaged part is rebuilt from its documents
    return shard.facts if shard.facts.tokenizer_sha256 == tokenizer_sha256 else None
