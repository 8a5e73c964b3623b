"""STEP evaluate: every model of the recipe on task packs, held-out text and trained items, with error bars and comparisons.

    results.json        one record a figure: model, task, metric, value, stderr, interval, n, chance, at_or_below_chance, …
    comparisons.json    every two models on the same items: paired difference, interval, p-value (Holm over all), verdict
    items/<model>/      one file a task, one line an item
    models/<model>.json what is done of a model; a killed run resumes with the next one

`kind` is "held_out", or "recall" for what was trained on. A figure whose interval does not lie wholly above chance is marked
at_or_below_chance: it is shown grey and decides nothing. The compressor xz is listed as a model, "xz", on the same
text. A task is a pack or a source: the recipe gives no pack the name of a source.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Literal

from gristmill.data.packs import Pack, packs_by_name
from gristmill.evaluate import recall
from gristmill.evaluate.compare import ItemScores, compare
from gristmill.evaluate.compression import PrimedXz
from gristmill.evaluate.harness import INSTALL, PackResult, engine_is_installed, engine_versions, score_packs
from gristmill.evaluate.outputs import YARDSTICK, Figure
from gristmill.evaluate.pieces import Pieces, PieceTimes
from gristmill.graph.step import StepContext, by_source
from gristmill.model.transformer import Llama
from gristmill.model.weights import load_model
from gristmill.planning.steps import XZ_MOST
from gristmill.recipe.schema.evaluation import Evaluate as EvaluateSection
from gristmill.statistics import at_or_below_chance
from gristmill.store.durable import read_json, write_json
from gristmill.store.fingerprint import derive_seed
from gristmill.store.jsonl import read_jsonl, write_jsonl
from gristmill.synthesize.outputs import Conversations, in_words
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.tokenizer import Tokenizer
from gristmill.train.outputs import BITS, CHAT_STEPS, ModelFolder
from gristmill.train.runtime import choose_device
from gristmill.train.scorer import BitsPerByte, bits_per_byte
from gristmill.units import counted

VERSION = 5
FEWEST_PRIMING = 64  # documents of a source that xz chooses from: of few long ones it reads the beginnings

TOKENS = "tokens of "  # roles, each followed by a source
GREETING = "greeting"


def run(ctx: StepContext) -> dict[str, Any]:
    """Measures each model, then compares them. Returns how much was measured, and with what."""
    if not engine_is_installed():
        ctx.say(f"evaluate: lm-eval is not installed, so packs are asked without it. To use it: {INSTALL}")
    section: EvaluateSection = ctx.config["evaluate"]
    tokenizer = Tokenizer.load(ctx.inputs["tokenizer"].files)
    packs = packs_by_name(ctx.files, section.packs)
    models: dict[str, ModelFolder] = by_source(ctx.inputs, "model ")
    parts: dict[str, dict[str, Any]] = {}
    texts = [min(section.validation_bytes, shard.num_bytes) for _, shard in _validation(ctx)]
    training_bytes = sum(shard.num_bytes for shard in _training(ctx)) if section.xz_yardstick else 0
    of_model, of_xz = dict[str, list[float]](), list[float]()
    for name, trained in models.items():
        times = PieceTimes.of(trained.model, ctx.machine, window=ctx.config["window"], training_bytes=training_bytes)
        of_model[name] = times.of_model(packs.values(), texts, chat=name in CHAT_STEPS)
        of_xz = times.of_xz(texts) if section.xz_yardstick else []
    pieces = Pieces(ctx, seconds=[*chain.from_iterable(of_model.values()), *of_xz])
    for name, trained in models.items():
        done = ctx.out / "models" / f"{name}.json"
        if not done.is_file():
            model = load_model(trained.model, device=choose_device(ctx.machine.device)).eval()
            done.parent.mkdir(parents=True, exist_ok=True)
            write_json(done, _measure(ctx, name, model, tokenizer, packs, pieces))
        else:
            pieces.skip(len(of_model[name]))
        parts[name] = read_json(done)
    results = [
        Figure.from_json(row, where=ctx.out / "models" / f"{name}.json")
        for name, part in parts.items()
        for row in part["records"]
    ]
    if section.xz_yardstick:
        results += _xz_figures(ctx, tokenizer, pieces)
    comparisons = compare({name: part["scores"] for name, part in parts.items()}, results)
    write_json(ctx.out / "results.json", [found.to_json() for found in results])
    write_json(ctx.out / "comparisons.json", [found.to_json() for found in comparisons])
    return {
        "models": list(parts),
        "figures": len(results),
        "figures_at_or_below_chance": sum(found.at_or_below_chance for found in results),
        "items": sum(len(scores["amounts"]) for part in parts.values() for scores in part["scores"].values()),
        "comparisons": len(comparisons),
        "engine": engine_versions(),
    }


def figure(
    *,
    model: str,
    task: str,
    metric: str,
    value: float,
    stderr: float | None,
    interval: tuple[float, float] | None,
    n: int,
    kind: Literal["held_out", "recall"],
    chance: float | None = None,
    pack_sha256: str | None = None,
    **more: Any,
) -> Figure:
    """One figure of results.json; `more` are its later fields. A number that does not exist (the error of a single item) is
    None."""
    known = interval is not None and all(map(math.isfinite, interval))
    return Figure(
        model=model,
        task=task,
        metric=metric,
        value=value,
        stderr=stderr if stderr is not None and math.isfinite(stderr) else None,
        interval=interval if known else None,
        n=n,
        chance=chance,
        at_or_below_chance=interval is not None and known and at_or_below_chance(interval, chance),
        kind=kind,
        pack_sha256=pack_sha256,
        versions=engine_versions(),
        **more,
    )


# ── one model ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _measure(
    ctx: StepContext, name: str, model: Llama, tokenizer: Tokenizer, packs: Mapping[str, Pack], pieces: Pieces
) -> dict[str, Any]:
    """Everything about one model: figures, and the item scores that comparisons pair."""
    figures: list[Figure] = []
    scores: dict[str, ItemScores] = {}
    chat = name in CHAT_STEPS
    window: int = ctx.config["window"]  # positions beyond it were never trained
    for task, pack in packs.items():
        pieces.begin(f"{name} on {task}")
        (result,) = score_packs(model, tokenizer, [pack], chat=chat)
        figures.append(pack_figure(name, task, result, held_out=ctx.config["held_out"][task]))
        scores[task] = scores_of_pack(result)
        _write_items(ctx, name, task, result.rows)
        ctx.say(f"evaluate: {name} on {task}: {said(figures[-1])}")
    for source, shard in _validation(ctx):
        pieces.begin(f"{name} on {source}")
        bits = bits_per_byte(model, tokenizer, shard, max_bytes=ctx.config["evaluate"].validation_bytes, window=window)
        figures.append(bits_figure(name, source, bits, window=window))
        scores[source] = scores_of_text(bits)
        ctx.say(f"evaluate: {name} on {source}: {said(figures[-1])}")
    if chat:
        figures += _recall_figures(ctx, name, model, tokenizer, pieces)
    return {"records": [found.to_json() for found in figures], "scores": scores}


def pack_figure(name: str, task: str, result: PackResult, *, held_out: bool) -> Figure:
    """What a model scored on a pack."""
    return figure(
        model=name,
        task=task,
        metric=result.pack.metric,
        value=result.value,
        stderr=result.stderr,
        interval=(result.low, result.high),
        n=len(result.scores),
        kind="held_out" if held_out else "recall",
        chance=result.pack.chance,
        pack_sha256=result.pack.sha256,
        engine=result.engine,
        prompting=result.prompting,
    )


def bits_figure(name: str, source: str, bits: BitsPerByte, *, window: int) -> Figure:
    """What a model needs for held-out text. window: the longest input."""
    return figure(
        model=name,
        task=source,
        metric=BITS,
        value=bits.value,
        stderr=bits.stderr,
        interval=(bits.low, bits.high),
        n=bits.num_documents,
        kind="held_out",
        degrees=bits.degrees,
        num_bytes=bits.num_bytes,
        window=window,
    )


def scores_of_text(bits: BitsPerByte) -> ItemScores:
    """Bits and bytes of each document, for comparisons."""
    return {"amounts": list(bits.document_bits), "sizes": list(bits.document_bytes)}


def scores_of_pack(result: PackResult) -> ItemScores:
    """The score of each item, for comparisons."""
    scores: ItemScores = {"amounts": list(result.scores), "sizes": None}
    return scores if result.clusters is None else {**scores, "clusters": result.clusters}


def _recall_figures(ctx: StepContext, name: str, model: Llama, tokenizer: Tokenizer, pieces: Pieces) -> list[Figure]:
    pieces.begin(f"{name} asked in chat")
    conversations: Conversations = ctx.inputs["conversations"]
    questions = recall.trained_questions(conversations.trained, greeting_ids=_greeting_ids(ctx))
    held_out = packs_by_name(ctx.files, [name for name, is_held_out in ctx.config["held_out"].items() if is_held_out])
    questions += recall.held_out_sums(held_out.values(), seed=derive_seed(ctx.config["seed"], "held-out sums"))
    fitting, num_too_long = recall.within_context(questions, tokenizer, model.config.max_position_embeddings)
    figures: list[Figure] = []
    for task, asked in recall.spread_by_task(fitting).items():
        pieces.leave_if_asked()
        replies = recall.ask(model, tokenizer, asked)
        _write_items(ctx, name, task, [reply.to_json() for reply in replies])
        for metric, found in recall.summarize(replies).items():
            figures.append(
                figure(
                    model=name,
                    task=task,
                    metric=metric,
                    value=found.value,
                    stderr=math.sqrt(found.value * (1 - found.value) / found.count),
                    interval=(found.low, found.high),
                    n=found.count,
                    kind="held_out" if task == recall.HELD_OUT_SUMS else "recall",
                    prompting="chat",
                    too_long=num_too_long,
                )
            )
            ctx.say(f"evaluate: {name} on {in_words(task)}: {said(figures[-1])}")
    return figures


def _greeting_ids(ctx: StepContext) -> frozenset[str]:
    """The hand-written conversations whose topic is greeting, by the ids that synthesize gives them."""
    rows = (row for path in ctx.files["conversations"].paths for row in read_jsonl(path))
    return frozenset(f"everyday/{row['id']}" for row in rows if row.get("topic") == GREETING)


# ── xz ───────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _xz_figures(ctx: StepContext, tokenizer: Tokenizer, pieces: Pieces) -> list[Figure]:
    """What xz, primed with training text of all sources, needs for the validation text that the models were scored on."""
    pieces.begin("xz on the training text")
    shards = _training(ctx)
    all_bytes = sum(shard.num_bytes for shard in shards)
    primed = PrimedXz(text for shard in shards for text in _spread_texts(shard, tokenizer, all_bytes))
    figures: list[Figure] = []
    for source, shard in _validation(ctx):
        pieces.begin(f"xz on {source}")
        found = primed.score(_first_texts(shard, tokenizer, ctx.config["evaluate"].validation_bytes))
        figures.append(
            figure(
                model=YARDSTICK,
                task=source,
                metric=BITS,
                value=found.value,
                stderr=None,
                interval=None,
                n=found.num_documents,
                kind="held_out",
                num_bytes=found.num_bytes,
                training_bytes=found.training_bytes,
                all_training_bytes=all_bytes,
            )
        )
        ctx.say(f"evaluate: xz on {source}: {said(figures[-1])}")
    return figures


def _spread_texts(shard: TokenShard, tokenizer: Tokenizer, all_bytes: int) -> Iterator[str]:
    """Every document, or every k-th where all sources together exceed what xz is primed with, FEWEST_PRIMING at least where there are so
    many; decoded only when taken."""
    stride = max(1, min(math.ceil(all_bytes / XZ_MOST), shard.num_documents // FEWEST_PRIMING))
    return (tokenizer.decode(shard.document(number)[:-1]) for number in range(0, shard.num_documents, stride))


def _first_texts(shard: TokenShard, tokenizer: Tokenizer, max_bytes: int) -> Iterator[str]:
    """Whole documents from the front until `max_bytes` bytes are reached: the ones that bits_per_byte scores."""
    total = 0
    for number in range(shard.num_documents):
        if total >= max_bytes:
            return
        tokens = shard.document(number)[:-1]
        if len(tokens):
            total += tokenizer.num_bytes(tokens)
            yield tokenizer.decode(tokens)


# ── small parts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _training(ctx: StepContext) -> list[TokenShard]:
    return [TokenShard(tokens.train) for tokens in by_source(ctx.inputs, TOKENS).values()]


def _validation(ctx: StepContext) -> Iterator[tuple[str, TokenShard]]:
    for source, tokens in by_source(ctx.inputs, TOKENS).items():
        shard = TokenShard(tokens.validation)
        if shard.num_bytes:
            yield source, shard


def _write_items(ctx: StepContext, model: str, task: str, rows: Sequence[Mapping[str, Any]]) -> None:
    path = ctx.out / "items" / model / f"{task}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)


def said(found: Figure) -> str:
    """A figure in words: 0.412 [0.385, 0.440] acc (300 items, chance 0.250)."""
    interval = "" if found.interval is None else " [{:.3f}, {:.3f}]".format(*found.interval)
    chance = "" if found.chance is None else f", chance {found.chance:.3f}"
    grey = ": at or below chance" if found.at_or_below_chance else ""
    return f"{found.value:.3f}{interval} {found.metric} ({counted(found.n, 'item')}{chance}{grey})"
