"""`gristmill init`: a commented recipe over a person's own folder of text, sized to it, which runs as it is."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gristmill.errors import DataError, RecipeError
from gristmill.recipe.estimate import bytes_per_token

FORMATS = {
    "text": (".txt", ".md", ".rst"),
    "html": (".html", ".htm"),
    "warc": (".warc", ".warc.gz"),
    "jsonl": (".jsonl", ".jsonl.gz"),
    "parquet": (".parquet",),
    "code": (".py", ".c", ".h", ".cpp", ".js", ".ts", ".java", ".go", ".rs", ".rb", ".php", ".sh", ".sql"),
}
PACKED_RATIO = 4.0  # text bytes per byte of a gzip or Parquet file, a usual figure for prose
MIN_BYTES = 200_000
EPOCHS = 3.5  # passes over the text; value fades after four (Muennighoff et al. 2023)


@dataclass(frozen=True, kw_only=True)
class _Size:
    """A model that fits an amount of text; the rule of thumb is parameters of about the tokens drawn, or fewer."""

    min_tokens: int
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    seq_len: int
    global_batch_tokens: int
    peak_lr: str


SIZES = (
    _Size(min_tokens=0, vocab_size=2048, hidden_size=96, intermediate_size=256, num_hidden_layers=5,
          num_attention_heads=3, num_key_value_heads=1, seq_len=256, global_batch_tokens=2048, peak_lr="4.0e-3"),
    _Size(min_tokens=600_000, vocab_size=4096, hidden_size=128, intermediate_size=352, num_hidden_layers=6,
          num_attention_heads=4, num_key_value_heads=2, seq_len=256, global_batch_tokens=2048, peak_lr="4.0e-3"),
    _Size(min_tokens=5_000_000, vocab_size=8192, hidden_size=256, intermediate_size=704, num_hidden_layers=8,
          num_attention_heads=4, num_key_value_heads=2, seq_len=512, global_batch_tokens=8192, peak_lr="3.0e-3"),
    _Size(min_tokens=50_000_000, vocab_size=16_384, hidden_size=384, intermediate_size=1024, num_hidden_layers=12,
          num_attention_heads=6, num_key_value_heads=2, seq_len=1024, global_batch_tokens=32_768, peak_lr="3.0e-3"),
)  # fmt: skip


def init(folder: Path, *, data: Path | None, console: Console) -> Path:
    """Write FOLDER/recipe.yaml over the text in `data` (or FOLDER/data). Raises RecipeError when one is there already."""
    recipe = folder / "recipe.yaml"
    if recipe.exists():
        raise RecipeError(f"{recipe} exists already; nothing was changed. Choose another folder or move it away.")
    texts = (data or folder / "data").absolute()
    if not texts.exists():
        (folder / "data").mkdir(parents=True, exist_ok=True)
        raise RecipeError(
            f"{texts} does not exist.\n  Put text, Markdown, HTML, WARC, JSONL, Parquet or source code into {folder / 'data'}"
            f" and run the same command again, or name your folder: gristmill init {folder} --data FOLDER"
        )
    found = _formats(texts)
    total = sum(found.values())
    if total < MIN_BYTES:
        kinds = ", ".join(suffix for suffixes in FORMATS.values() for suffix in suffixes)
        raise DataError(
            f"{texts} holds about {total:,} bytes of text in known formats; a model needs at least {MIN_BYTES:,}.\n"
            f"  Known are {kinds}. `gristmill inspect {texts}` shows what was found."
        )
    tokens = int(total / bytes_per_token(SIZES[1].vocab_size))
    size = [size for size in SIZES if tokens >= size.min_tokens][-1]
    folder.mkdir(parents=True, exist_ok=True)
    recipe.write_text(_recipe(folder.absolute(), texts, found, tokens, size), encoding="utf-8")
    console.print(
        f"Wrote {recipe}: {len(found)} source(s), about {tokens:,} tokens by size (the tokenizer will count)."
    )
    console.print(f"  gristmill plan {recipe}\n  gristmill run {recipe}", highlight=False)
    return recipe


def _formats(texts: Path) -> dict[str, int]:
    """Format → estimated bytes of text."""
    found: dict[str, int] = {}
    for path in _files(texts):
        name = path.name.lower()
        for kind, suffixes in FORMATS.items():
            if name.endswith(suffixes):
                ratio = PACKED_RATIO if name.endswith((".gz", ".parquet")) else 1.0
                found[kind] = found.get(kind, 0) + int(path.stat().st_size * ratio)
    return found


def _files(texts: Path) -> Iterable[Path]:
    return sorted(path for path in texts.rglob("*") if path.is_file()) if texts.is_dir() else [texts]


def _source(kind: str, texts: Path, start: Path) -> str:
    relative = os.path.relpath(texts, start)
    if texts.is_file() or kind == "code":
        paths = [relative]
    else:
        present = {suffix for path in _files(texts) for suffix in FORMATS[kind] if path.name.lower().endswith(suffix)}
        paths = [f"{relative}/**/*{suffix}" for suffix in sorted(present)]
    language = (
        "" if kind == "code" else "\n    language: {keep: [en], min_score: 0.65}   # other languages: keep: [de, fr]"
    )
    rules = {
        "code": "[code@1]",
        "html": "[gopher_repetition@1, gopher_quality@1]",
        "warc": "[gopher_repetition@1, gopher_quality@1]",
    }
    column = {
        "jsonl": "\n      text_field: text            # the key that holds the text",
        "parquet": "\n      text_column: text           # the column that holds the text",
    }.get(kind, "")
    return f"""  {kind}:
    read:
      format: {kind}
      paths: {paths}{column}
    license: unknown               # goes into the model card; say what you know{language}
    rules: {{packs: {rules.get(kind, "[]")}}}
"""


def _name(folder: Path) -> str:
    """The folder's name as a recipe's: lower-case letters, digits and dashes."""
    return re.sub("[^a-z0-9]+", "-", folder.name.lower()).strip("-") or "mymodel"


def _recipe(folder: Path, texts: Path, found: dict[str, int], tokens: int, size: _Size) -> str:
    batch = size.global_batch_tokens
    steps = max(20, int(tokens * EPOCHS) // batch)
    stable, decay = int(steps * 0.8) * batch, (steps - int(steps * 0.8)) * batch
    total = sum(found.values())
    shares = {kind: round(amount / total, 4) for kind, amount in found.items()}
    largest = max(shares, key=lambda kind: shares[kind])
    shares[largest] = round(1 - sum(share for kind, share in shares.items() if kind != largest), 4)
    mixture = "{" + ", ".join(f"{kind}: {share}" for kind, share in shares.items() if share > 0) + "}"
    sources = "\n".join(_source(kind, texts, folder) for kind in found)
    return f"""# Made by `gristmill init` over {os.path.relpath(texts, folder)}. Every value is yours to change.
#   gristmill plan recipe.yaml      tokens, epochs, hours, memory: before anything runs
#   gristmill run recipe.yaml       everything; run it again and it goes on or does nothing
schema_version: 1
name: {_name(folder)}
seed: 8

# Named collections of documents. Paths are relative to this file.
sources:
{sources}
# Which documents stay. Near-duplicates are found by MinHash and verified on the full text.
select:
  validation: {{fraction: 0.02, min_bytes: 20000}}   # held out, never trained on

tokenizer:
  vocab_size: {size.vocab_size}

# The keys of a Hugging Face Llama config.json.
model:
  hidden_size: {size.hidden_size}
  intermediate_size: {size.intermediate_size}
  num_hidden_layers: {size.num_hidden_layers}
  num_attention_heads: {size.num_attention_heads}
  num_key_value_heads: {size.num_key_value_heads}
  initializer_range: {round(size.hidden_size**-0.5, 4)}      # 1/sqrt(hidden_size), as SmolLM2's small models
  max_position_embeddings: {size.seq_len}

# Warm-up, constant, then a linear decay to zero over the last stage. About {EPOCHS} passes over the text: `plan` shows the
# epochs per source, warns above 4 and refuses above 5.
pretrain:
  stages:
    - {{name: stable, tokens: {stable}, seq_len: {size.seq_len}, mixture: {mixture}}}
    - {{name: decay, tokens: {decay}, seq_len: {size.seq_len}, mixture: {mixture}}}
  global_batch_tokens: {batch}
  warmup_tokens: {max(1, steps // 50) * batch}
  decay_tokens: {decay}
  optimizer: {{peak_lr: {size.peak_lr}}}
  watch: {{every_tokens: {max(1, steps // 10) * batch}}}
  checkpoint_every_tokens: {max(1, steps // 5) * batch}
  sample_prompts: ["", "The "]
"""
