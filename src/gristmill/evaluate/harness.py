"""Task packs scored by lm-evaluation-harness, on a live model, with nothing fetched from anywhere.

    pack ─→ items.parquet + task.yaml in a temporary folder ─→ lm_eval TaskManager ─→ lm_eval evaluate ─→ samples ─→ PackResult
                                                                                 │  ↑
                                                                              adapter.py: GristmillLM

The engine asks; the numbers come from the same scorer that runs inside the training loop, and choices are judged where that
loop judges them (`judge_choices`), so the two agree item by item. A test holds the verdicts against the engine's own, and the
numbers against its Hugging Face adapter on an exported folder. Where lm-eval is not installed, the same adapter is asked
directly, and the result says so. Written answers are judged by the engine, or by the same rule without it.

Only task files that this module wrote are read: the engine's own index stays closed and no task can bring code.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import io
import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from gristmill.data.packs import Item, Pack, passages_of
from gristmill.errors import RecipeError
from gristmill.evaluate.adapter import MAX_NEW_TOKENS, AskedText, GristmillLM
from gristmill.model.transformer import Llama
from gristmill.statistics import mean_stderr, ratio_of_sums, sums_by_cluster, wilson_interval
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.scorer import CHOICE_METRICS, judge_choices

INSTALL = "pip install --no-deps lm-eval==0.4.13 && pip install datasets requests sacrebleu"
TEXT_METRICS = ("exact_match", "number_match")
LAST_NUMBER = r"-?\d+(?:\.\d+)?"
WHOLE_TEXT = r"(?s)^\s*(.*?)\s*$"
NO_MATCH = "[no match]"
ITEM_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("prompt", pa.string()),
        ("choices", pa.list_(pa.string())),
        ("answer", pa.int64()),
        ("target", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class PackResult:
    """One pack on one model. `scores` and `rows` are in the order of the pack's items; every score is 0 or 1.

    `prompting` is "chat" where prompts went through the chat template. `low` and `high`: 95 % Wilson interval; where items share passages,
    Student's over the passages, whose numbers are `clusters`, or Wilson's over
    as many passages where all are alike.
    """

    pack: Pack
    prompting: str
    engine: str
    value: float
    stderr: float
    low: float
    high: float
    scores: tuple[float, ...]
    rows: tuple[dict[str, Any], ...]
    clusters: list[int] | None = None


def score_packs(
    model: Llama,
    tokenizer: Tokenizer,
    packs: Sequence[Pack],
    *,
    chat: bool = False,
    max_new_tokens: int = MAX_NEW_TOKENS,
    engine: bool | None = None,
) -> list[PackResult]:
    """Every pack on the model, in the order given.

    `chat` sends the prompts of packs of kind "generate" through the chat template; choices are always ranked as plain text,
    so that models before and after fine-tuning answer the same question. `engine` None uses lm-eval where it is installed.
    Raises RecipeError for a metric that the pack's kind does not have.
    """
    for pack in packs:
        known = CHOICE_METRICS if pack.kind == "multiple_choice" else TEXT_METRICS
        if pack.metric not in known:
            raise RecipeError(
                f"pack {pack.name!r} ({pack.path}) has the metric {pack.metric!r}; {pack.kind} has {', '.join(known)}."
            )
    adapter = GristmillLM(model, tokenizer, max_new_tokens=max_new_tokens)
    use_engine = engine_is_installed() if engine is None else engine
    ask = _through_engine if use_engine else _asked_here
    return [ask(adapter, pack, chat and pack.kind == "generate") for pack in packs]


def engine_is_installed() -> bool:
    """Whether lm-eval and what it needs at import are there."""
    return all(importlib.util.find_spec(name) is not None for name in ("lm_eval", "datasets", "requests", "sacrebleu"))


def engine_versions() -> dict[str, str | None]:
    """Versions of everything a score depends on besides the model; None for what is not installed."""
    return {name: _version(name) for name in ("gristmill", "lm-eval", "datasets", "torch", "tokenizers", "numpy")}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


# ── with lm-eval ─────────────────────────────────────────────────────────────────────────────────────────────────────


def load_engine() -> tuple[Any, Any]:
    """lm-eval's `evaluate` and `TaskManager`, imported with every way to a hub closed."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1")
    from lm_eval.api.model import LM
    from lm_eval.evaluator import evaluate
    from lm_eval.tasks import TaskManager

    LM.register(GristmillLM)
    return evaluate, TaskManager


def task_config(pack: Pack, items: Path, cache: Path, *, max_new_tokens: int) -> dict[str, Any]:
    """The pack as an lm-eval task. Fields are named, never templates, so a text with braces stays what it is."""
    config: dict[str, Any] = {
        "task": f"pack-{pack.sha256[:16]}",
        "dataset_path": "parquet",
        "dataset_kwargs": {"data_files": {"test": str(items)}, "cache_dir": str(cache)},
        "test_split": "test",
        "num_fewshot": 0,
        "doc_to_text": "prompt",
        "target_delimiter": "",
        "metadata": {"version": pack.version},
    }
    metric = {"aggregation": "mean", "higher_is_better": True}
    if pack.kind == "multiple_choice":
        config |= {"output_type": "multiple_choice", "doc_to_choice": "choices", "doc_to_target": "answer"}
        config["metric_list"] = [{"metric": name, **metric} for name in CHOICE_METRICS]
        return config
    pattern, which = (LAST_NUMBER, -1) if pack.metric == "number_match" else (WHOLE_TEXT, 0)
    steps = [
        {"function": "regex", "regex_pattern": pattern, "group_select": which, "fallback": NO_MATCH},
        {"function": "take_first"},
    ]
    return config | {
        "output_type": "generate_until",
        "doc_to_target": "target",
        "generation_kwargs": {"until": ["\n"], "do_sample": False, "max_gen_toks": max_new_tokens},
        "filter_list": [{"name": "answer", "filter": steps}],
        "metric_list": [{"metric": "exact_match", **metric}],
    }


def ask_engine(adapter: GristmillLM, pack: Pack, *, chat: bool) -> list[dict[str, Any]]:
    """lm-eval's sample of each item, in the order of the pack: what the adapter answered (`resps`), and the engine's metrics."""
    evaluate, task_manager = load_engine()
    with tempfile.TemporaryDirectory(prefix="gristmill-evaluate-") as name:
        folder = Path(name)
        rows = [{key: getattr(item, key) for key in ITEM_SCHEMA.names} for item in pack.items]
        pq.write_table(pa.Table.from_pylist(rows, schema=ITEM_SCHEMA), folder / "items.parquet")
        config = task_config(pack, folder / "items.parquet", folder / "cache", max_new_tokens=adapter.max_new_tokens)
        (folder / "task.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
        with contextlib.redirect_stderr(io.StringIO()):  # progress bars that have no other switch
            tasks = task_manager(include_path=name, include_defaults=False).load([config["task"]])
            found = evaluate(lm=adapter, task_dict=tasks, apply_chat_template=chat, log_samples=True)
    return sorted(found["samples"][config["task"]], key=lambda sample: sample["doc_id"])


def _through_engine(adapter: GristmillLM, pack: Pack, chat: bool) -> PackResult:
    samples = ask_engine(adapter, pack, chat=chat)
    rows = [_engine_row(item, sample) for item, sample in zip(pack.items, samples, strict=True)]
    return _result(pack, chat, f"lm-eval {_version('lm-eval')}", rows)


def _engine_row(item: Item, sample: Mapping[str, Any]) -> dict[str, Any]:
    if item.answer is not None:
        return _choice_row(item, [response[0] for response in sample["resps"]])
    written, read = str(sample["resps"][0][0]), str(sample["filtered_resps"][0])
    return _text_row(item, written, read, float(sample["exact_match"]))


# ── without ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _asked_here(adapter: GristmillLM, pack: Pack, chat: bool) -> PackResult:
    if pack.kind == "multiple_choice":
        asked = [AskedText((item.prompt, choice)) for item in pack.items for choice in item.choices]
        answers = iter(adapter.loglikelihood(asked))
        rows = [_choice_row(item, [next(answers) for _ in item.choices]) for item in pack.items]
    else:
        settings = {"until": ["\n"], "max_gen_toks": adapter.max_new_tokens}
        contexts = [
            adapter.apply_chat_template([{"role": "user", "content": item.prompt}]) if chat else item.prompt
            for item in pack.items
        ]
        texts = adapter.generate_until([AskedText((context, settings)) for context in contexts])
        rows = [_judge_text(item, text, pack.metric) for item, text in zip(pack.items, texts, strict=True)]
    engine = "gristmill (lm-eval is not installed)" if not engine_is_installed() else "gristmill"
    return _result(pack, chat, engine, rows)


def _judge_text(item: Item, text: str, metric: str) -> dict[str, Any]:
    read = last_number(text) if metric == "number_match" else text.strip()
    return _text_row(item, text, NO_MATCH if read is None else read, float(read == item.target))


def last_number(text: str) -> str | None:
    """The last number in a text, as written, or None."""
    found = re.findall(LAST_NUMBER, text)
    return found[-1] if found else None


# ── both ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _choice_row(item: Item, answers: Sequence[tuple[float, bool]]) -> dict[str, Any]:
    """What is kept of one item: enough to pair it with another model's, and to read what went wrong."""
    logps = [float(logp) for logp, _ in answers]
    return {
        "id": item.id,
        "prompt": item.prompt,
        "choices": list(item.choices),
        "answer": item.answer,
        "logps": logps,
        "greedy": [bool(greedy) for _, greedy in answers],
        "metrics": {metric: float(right) for metric, right in judge_choices(item, logps).items()},
    }


def _text_row(item: Item, written: str, read: str, right: float) -> dict[str, Any]:
    return {
        "id": item.id,
        "prompt": item.prompt,
        "target": item.target,
        "response": written,
        "read": read,
        "metrics": {"exact_match": right},
    }


def _result(pack: Pack, chat: bool, engine: str, rows: Sequence[dict[str, Any]]) -> PackResult:
    metric = pack.metric if pack.kind == "multiple_choice" else "exact_match"
    scores = [row["metrics"][metric] for row in rows]
    mean, stderr = mean_stderr(scores)
    low, high = wilson_interval(sum(scores), len(scores))
    clusters = passages_of(pack.items)
    if clusters is not None:
        found = ratio_of_sums(sums_by_cluster(scores, clusters), sums_by_cluster(np.ones(len(scores)), clusters))
        stderr, low, high = found.stderr, max(0.0, found.low), min(1.0, found.high)
        if not stderr:  # passages that are all alike show no spread, which is no certainty
            low, high = wilson_interval(found.value * found.count, found.count)
    return PackResult(
        pack=pack,
        prompting="chat" if chat else "plain",
        engine=engine,
        value=mean,
        stderr=stderr,
        low=low,
        high=high,
        scores=tuple(scores),
        rows=tuple(rows),
        clusters=clusters,
    )
