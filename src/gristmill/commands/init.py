"""`gristmill init`: a commented recipe over a person's own folder of text, sized to it, which runs as it is."""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from gristmill.commands.survey import MESSAGES, OTHER, format_for, text_columns
from gristmill.data.outside import visible_files
from gristmill.errors import DataError, RecipeError
from gristmill.extract.not_read import not_read_in
from gristmill.planning.estimate import bytes_per_token, text_bytes_of
from gristmill.recipe.schema.formats import READERS

MIN_BYTES = 200_000
EPOCHS = 2.5  # passes over the text as estimated; curation may drop half of it before the cap of five refuses
PEEK_FILES = 20


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
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is a file; name a folder for the recipe: gristmill init mymodel --data FOLDER")
    texts = (data or folder / "data").absolute()
    if not texts.exists() and data is not None:
        raise RecipeError(f"--data: {texts} does not exist; name the folder, or the file, that holds your text.")
    if not texts.exists():
        texts.mkdir(parents=True)
        raise RecipeError(
            f"{folder / 'data'} was not there; it is now, and empty.\n  Put text, Markdown, HTML, WARC, JSONL, Parquet or"
            f" source code into it and run the same command again, or name your folder: gristmill init {folder} --data FOLDER"
        )
    files = _files(texts)
    columns = {kind: _column(kind, files[kind]) for kind in files if READERS[kind].text_key}
    without = [kind for kind, column in columns.items() if column is None]
    found = {kind: int(text_bytes_of(paths, kind)) for kind, paths in files.items() if kind not in without}
    if without:
        console.print(f"Left out, because no key of theirs holds plain text: {', '.join(without)}", highlight=False)
    for one in not_read_in(texts):
        console.print(f"not read: {one}", highlight=False, markup=False)
    total = sum(found.values())
    if total < MIN_BYTES:
        kinds = ", ".join(dict.fromkeys(suffix for reader in READERS.values() for suffix in reader.suffixes))
        raise DataError(
            f"{texts} holds about {total:,} bytes of text in known formats, by the sizes of its files; "
            f"a model needs at least {MIN_BYTES:,}.\n"
            f"  Known are {kinds}. `gristmill inspect {texts}` shows what was found."
        )
    tokens = int(total / bytes_per_token(SIZES[1].vocab_size))
    size = [size for size in SIZES if tokens >= size.min_tokens][-1]
    tokens = int(total / bytes_per_token(size.vocab_size))
    folder.mkdir(parents=True, exist_ok=True)
    sources = "\n".join(_source(kind, files[kind], texts, folder.absolute(), columns.get(kind)) for kind in found)
    recipe.write_text(_recipe(folder.absolute(), texts, found, sources, tokens, size), encoding="utf-8")
    console.print(
        f"Wrote {recipe}: {', '.join(found)}; about {tokens:,} tokens by size (the tokenizer will count).",
        highlight=False,
    )
    console.print(f"  gristmill plan {recipe}\n  gristmill run {recipe}", highlight=False)
    return recipe


def _files(texts: Path) -> dict[str, list[Path]]:
    """Format → its files."""
    found: dict[str, list[Path]] = {}
    for path in visible_files(texts) if texts.is_dir() else [texts]:
        if (kind := format_for(path)) != OTHER:
            found.setdefault(kind, []).append(path)
    return {kind: found[kind] for kind in READERS if kind in found}


def _column(kind: str, files: list[Path]) -> str | None:
    """The key that holds most text in most of the first files; None where there is text in none but in conversations."""
    columns = Counter(text_columns(kind, files[:PEEK_FILES]))
    return next((column for column, _ in columns.most_common() if column not in (None, MESSAGES)), None)


def _source(kind: str, files: list[Path], texts: Path, start: Path, column: str | None) -> str:
    relative = os.path.relpath(texts, start)
    if texts.is_file():
        paths = [relative]
    else:
        present = {suffix for path in files for suffix in READERS[kind].suffixes if path.name.lower().endswith(suffix)}
        paths = [f"{relative}/**/*{suffix}" for suffix in sorted(present)]
    web = kind == "warc"
    language = (
        f"\n    {'' if web else '# '}language: {{keep: [en], min_score: 0.65}}   # other languages: keep: [de, fr];"
        " without this line all stay"
    )
    packs = "gopher_repetition@1, gopher_quality@1" if web else "code@1" if kind == "code" else ""
    hint = "" if packs else "   # for pages of the web: [gopher_repetition@1, gopher_quality@1]"
    name = READERS[kind].text_key
    field = f"\n      {name}: {json.dumps(column, ensure_ascii=False)}   # it holds most text" if name else ""
    return f"""  {kind}:
    read:
      format: {kind}
      paths: {paths}{field}
    license: unknown               # printed in the model card; say what you know{"" if kind == "code" else language}
    rules: {{packs: [{packs}]}}{hint}
"""


def _name(folder: Path) -> str:
    """The folder's name as a recipe's: lower-case letters, digits, dashes and underscores."""
    return re.sub("[^a-z0-9_]+", "-", folder.name.lower()).strip("-_") or "mymodel"


def _recipe(folder: Path, texts: Path, found: dict[str, int], sources: str, tokens: int, size: _Size) -> str:
    batch = size.global_batch_tokens
    steps = max(20, int(tokens * EPOCHS) // batch)
    stable, decay = int(steps * 0.8) * batch, (steps - int(steps * 0.8)) * batch
    total = sum(found.values())
    shares = {kind: round(amount / total, 4) for kind, amount in found.items()}
    largest = max(shares, key=lambda kind: shares[kind])
    shares[largest] = round(1 - sum(share for kind, share in shares.items() if kind != largest), 4)
    mixture = "{" + ", ".join(f"{kind}: {share}" for kind, share in shares.items() if share > 0) + "}"
    return f"""# Made by `gristmill init` over {os.path.relpath(texts, folder)}. Every value is yours to change.
#   gristmill plan recipe.yaml      tokens, epochs, hours, memory: before anything runs
#   gristmill run recipe.yaml       everything; run it again and it resumes or does nothing
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

# Warm-up, constant, then a linear decay to zero over the last stage. About {EPOCHS} passes over the text, more where
# curation drops much: `plan` shows the epochs per source, warns above 4 and refuses above 5.
# For a quick try, lower both `tokens` and `decay_tokens`; whole multiples of global_batch_tokens.
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
