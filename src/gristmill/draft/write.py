"""The recipe that init writes: commented YAML over what was counted."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.draft.conversations import BATCH, RATE_SHARE, ChatPlan
from gristmill.draft.count import Count, SourceCount
from gristmill.draft.folder import FolderSource, name_of
from gristmill.draft.interval import Estimate
from gristmill.draft.released import EVALUATED_BYTES, Released, model_text, pretrain_text, replay_lines
from gristmill.draft.size import SHAPES, Budget, Shape
from gristmill.draft.yaml_values import as_yaml
from gristmill.recipe.load import CONVERSATIONS_FILE, SCHEMA_FILE
from gristmill.recipe.schema.curation import NearDuplicates, Validation
from gristmill.recipe.schema.recipe import Recipe
from gristmill.units import passes, percent

MAX_TOKENIZER_BYTES = 50_000_000  # of the sample; more would not tell more of how many bytes a token holds


@dataclass(frozen=True, kw_only=True)
class Written:
    """What the recipe says of one source. train_tokens: unique ones, by count or estimate."""

    source: FolderSource
    found: SourceCount
    train_tokens: Estimate
    max_failed: float | None


def raised_limit(share: float, usual: float) -> float | None:
    """A limit above a share that was measured, where the usual one would stop the run; else None."""
    if share <= 0.8 * usual:
        return None
    return min(1.0, math.ceil(100 * (1.15 * share + 0.02)) / 100)


def failed_share(found: SourceCount) -> float:
    """Of documents or of bytes, whichever is more, as `max_failed` counts."""
    came, lost = found.account.came_in, found.account.total("failed")
    return max(lost.documents / max(1, came.documents), lost.num_bytes / max(1, came.num_bytes))


def draft_recipe(
    sources: Sequence[FolderSource],
    order: Sequence[str],
    vocab_size: int,
    validation: Validation,
    *,
    released: Released | None = None,
) -> Recipe:
    """A recipe over these sources that can be carried out up to tokenize: its pretraining is one step. vocab_size: of a tokenizer
    that is trained."""
    by_name = {source.name: source for source in sources}
    share = 1.0 / len(order)
    weights = {name: round(share, 4) for name in order[1:]}
    mixture = {order[0]: round(1 - sum(weights.values()), 4), **weights}
    stage = {"name": "all", "tokens": 8, "seq_len": 8, "mixture": mixture}
    start: dict[str, Any] = {
        "model": SHAPES[0].model.model_dump(),
        "tokenizer": {"vocab_size": vocab_size, "max_bytes": MAX_TOKENIZER_BYTES},
    }
    if released is not None:
        evaluated = {"validation_bytes": EVALUATED_BYTES, "xz_yardstick": False}
        start = {
            "model": released.model.model_dump(),
            "tokenizer": {"vocab_size": released.vocab_size},
            "evaluate": evaluated,
        }
    return Recipe.model_validate(
        {
            "schema_version": 1,
            "name": "count",
            "seed": 8,
            "sources": {name: by_name[name].section(max_failed=1.0).model_dump(mode="json") for name in order},
            "select": {
                "priority": [*order],
                "near_duplicates": {"max_source_loss": 1.0},
                "validation": validation.model_dump(),
            },
            **start,
            "pretrain": {
                "init_from": None if released is None else released.path,
                "stages": [stage],
                "global_batch_tokens": 8,
                "warmup_tokens": 0,
                "decay_tokens": 8,
                "optimizer": {"peak_lr": 1e-3},
                "watch": {"every_tokens": 8},
                "checkpoint_every_tokens": 8,
            },
        }
    )


def recipe_text(
    written: Sequence[Written],
    count: Count,
    budget: Budget,
    *,
    folder: Path,
    texts: Path,
    validation: Validation,
    chat: ChatPlan | None,
    released: Released | None,
    asked: str,
) -> str:
    """The file. asked: in words, what the tokens were sized to."""
    shape = budget.shape
    largest = max(budget.weights, key=lambda name: budget.weights[name])
    mixture, prompts = _inline(budget.weights), as_yaml(sorted({"", count.sources[largest].opening}))
    sources = [_source(one, count.is_whole) for one in written if one.source.name in budget.weights]
    tokenizer = f"tokenizer:\n  vocab_size: {shape.vocab_size}\n"
    if released is None:
        training = [tokenizer, _model(shape), _pretrain(budget, mixture=mixture, prompts=prompts, asked=asked)]
    else:
        sources += [] if budget.replay_share else [replay_lines(largest)]
        last = pretrain_text(
            released, budget, mixture=mixture, sources=len(budget.weights), asked=asked, prompts=prompts
        )
        whose = "# The released model's own tokenizer is used.\n"
        training = [whose + tokenizer, model_text(released, shape.parameters), last]
    return "\n".join(
        [
            _head(folder, texts),
            "# Named collections of documents. Paths are relative to this file.\nsources:\n" + "\n".join(sources),
            _select(written, budget, validation),
            *training,
            *([] if chat is None else [chat_text(chat, shape)]),
        ]
    )


def _model(shape: Shape) -> str:
    model = shape.model
    return f"""# The keys of a Hugging Face Llama config.json: {shape.parameters:,} parameters.
model:
  hidden_size: {model.hidden_size}
  intermediate_size: {model.intermediate_size}
  num_hidden_layers: {model.num_hidden_layers}
  num_attention_heads: {model.num_attention_heads}
  num_key_value_heads: {model.num_key_value_heads}
  initializer_range: {model.initializer_range}      # 1/sqrt(hidden_size), as SmolLM2's small models
  max_position_embeddings: {model.max_position_embeddings}
"""


def _pretrain(budget: Budget, *, mixture: str, prompts: str, asked: str) -> str:
    shape, batch = budget.shape, budget.shape.global_batch_tokens
    return f"""# Warm-up, constant, then a linear decay to zero over the last stage. {asked}: {passes(budget.epochs)} over the text;
# `plan` shows the epochs per source, warns above 4 and refuses above 5.
# For a quick try, lower both `tokens` and `decay_tokens`; whole multiples of global_batch_tokens.
pretrain:
  stages:
    - {{name: stable, tokens: {budget.stable_tokens}, seq_len: {shape.seq_len}, mixture: {mixture}}}
    - {{name: decay, tokens: {budget.decay_tokens}, seq_len: {shape.seq_len}, mixture: {mixture}}}
  global_batch_tokens: {batch}
  warmup_tokens: {budget.warmup_tokens}
  decay_tokens: {budget.decay_tokens}
  optimizer: {{peak_lr: {shape.peak_lr}}}
  checkpoint_every_tokens: {max(1, budget.steps // 5) * batch}
  sample_prompts: {prompts}
"""


def name_for(folder: Path) -> str:
    """The folder's name as a recipe's."""
    return name_of(folder.name) or "mymodel"


def _head(folder: Path, texts: Path) -> str:
    return f"""# yaml-language-server: $schema={SCHEMA_FILE}
# Written by `gristmill init` for {as_yaml(os.path.relpath(texts, folder))}. You may change every value.
#   gristmill plan recipe.yaml      tokens, epochs, hours, memory: before anything runs
#   gristmill run recipe.yaml       everything; run it again and it resumes or does nothing
schema_version: 1
name: {name_for(folder)}
seed: 8
"""


def _source(one: Written, is_whole: bool) -> str:
    source, found, tokens = one.source, one.found, one.train_tokens
    keys = {name: value for name, value in source.read.items() if name not in ("format", "paths")}
    if found.share_read == 1 and not found.passages:
        keys.pop("passage_chars")  # no document is longer
    shares = found.languages.shares
    languages = ", ".join(f"{name} {share:.0%}" for name, share in [*shares.items()][:3] if share >= 0.005)
    spread = "counted" if tokens.is_counted else f"estimated, {tokens.low:,.0f} to {tokens.high:,.0f}"
    lines = [
        f"  {source.name}:",
        "    read:",
        f"      format: {source.kind}",
        *_paths(source),
        *(f"      {name}: {as_yaml(value)}{_why(name)}" for name, value in keys.items()),
        "    license: unknown               # printed in the model card; say what you know",
        f"    unique_tokens: {tokens.value:.0f}         # {spread}, with a vocabulary of this size",
    ]
    if source.kind != "code":
        first = next((name for name in shares if name != "?"), "en")
        lines.append(
            f"    # language: {{keep: [{first}], min_score: 0.65}}   # several: keep: [de, fr]; without this line all are kept"
            f" (found, by bytes: {languages or 'none'})"
        )
    hint = "" if source.rules else "   # for web pages: [gopher_repetition@1, gopher_quality@1]"
    if "gopher_quality@1" in source.rules and {*shares} - {"en", "?"}:
        hint = "   # its stop-word rule judges English pages only"
    lines.append(f"    rules: {{packs: [{', '.join(source.rules)}]}}{hint}")
    if one.max_failed is not None:
        share = percent(failed_share(found))
        lines.append(
            f"    max_failed: {one.max_failed}   # {share} of what was read cannot be read or processed; usual is 0.5"
        )
    return "\n".join(lines) + "\n"


def _paths(source: FolderSource) -> list[str]:
    if not source.is_listed:
        return [f"      paths: {as_yaml(source.read['paths'])}"]
    why = "# one by one, for no pattern names these files and no others; add those that come later"
    return [f"      paths:   {why}", *(f"        - {as_yaml(path)}" for path in source.read["paths"])]


def _why(key: str) -> str:
    if key == "passage_chars":
        return "   # longer documents are cut, so that many passages are held out, and not one document"
    return "   # the one with the most text"


def _select(written: Sequence[Written], budget: Budget, validation: Validation) -> str:
    names = [one.source.name for one in written if one.source.name in budget.weights]
    lines = [
        "# Which documents are kept. Near-duplicates are found by MinHash and verified on the full text.",
        "select:",
    ]
    if len(names) > 1:
        lines.append(f"  priority: [{', '.join(names)}]   # of two copies, that of the earlier source is kept")
    largest = max((one.found.copies.largest_share for one in written if one.found.copies), default=0.0)
    if (limit := raised_limit(largest, NearDuplicates().max_source_loss)) is not None:
        lines.append(
            f"  near_duplicates: {{max_source_loss: {limit}}}   # {largest:.0%} of a source are copies of one document; usual is 0.5"
        )
    held = f"{{fraction: {validation.fraction}, min_bytes: {validation.min_bytes}}}"
    lines.append(f"  validation: {held}   # held out, never trained on")
    return "\n".join(lines) + "\n"


def chat_text(chat: ChatPlan, shape: Shape) -> str:
    """The sections of chat. shape: of the model, whose context they are for."""
    whose = "your own conversations" if chat.are_own else "everyday conversations that come with gristmill"
    return f"""# {chat.conversations:,} {whose} (edit {CONVERSATIONS_FILE}), each {chat.copies} times, and {chat.sums:,} questions about sums:
# {chat.share:.0%} conversations, {1 - chat.share:.0%} sums. Sums can be judged by a rule, so the preference pairs come from them.
chat:
  conversations: [{CONVERSATIONS_FILE}]
  conversation_copies: {chat.copies}
  sums_up_to: {chat.sums_up_to}

# {chat.steps} steps; more of them, or a higher rate, and the model forgets more of what it was pretrained on (`evaluate` shows it).
sft:
  epochs: {chat.epochs}
  batch_conversations: {BATCH}
  seq_len: {shape.seq_len}
  optimizer: {{peak_lr: {float(shape.peak_lr) / RATE_SHARE:.1e}}}
  sample_prompts: {as_yaml([*chat.questions, "What is 2 + 3?"])}

# Answers sampled from the SFT model to questions about sums, right ones preferred to wrong ones.
pairs:
  num_prompts: {(chat.sums_up_to + 1) ** 2}
  samples_per_prompt: 16
  temperature: 1.2
  max_pairs_per_prompt: 3

dpo:
  epochs: 2
  batch_pairs: 16
  seq_len: {shape.seq_len}
  optimizer: {{peak_lr: 5.0e-5}}
"""


def _inline(weights: Mapping[str, float]) -> str:
    return "{" + ", ".join(f"{name}: {share:.6f}".rstrip("0").rstrip(".") for name, share in weights.items()) + "}"
