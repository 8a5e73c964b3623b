"""The report page: sections made of small blocks of HTML, each from records and metrics that the steps left.

A section is a function from `Facts` to blocks. A block is a string of HTML: a table, a figure, a paragraph. Whatever a step
did not leave (a recipe without preference optimisation, say) makes no section.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from gristmill.report.charts import Band, Score, Series, interval_chart, line_chart, share_bar
from gristmill.report.facts import Facts, bits, percent, plus_minus, scale, seconds

TEMPLATE = Path(__file__).with_name("page.html.jinja")
REASONS_SHOWN = 14
SAMPLES_SHOWN = 2


@dataclass(frozen=True, kw_only=True)
class Section:
    """A titled part of the page."""

    title: str
    intro: str
    blocks: Sequence[Markup]

    @property
    def anchor(self) -> str:
        return self.title.lower().replace(" ", "-").replace(",", "")


def render(facts: Facts) -> str:
    """The whole page, one file, nothing fetched."""
    sections = [section for make in SECTIONS if (section := make(facts)) is not None]
    environment = Environment(autoescape=True)
    template = environment.from_string(TEMPLATE.read_text(encoding="utf-8"))
    return template.render(facts=facts, sections=sections)


# ── blocks ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def table(
    headings: Sequence[str], rows: Iterable[Sequence[Any]], *, numbers: Sequence[int] = (), grey: Sequence[bool] = ()
) -> Markup:
    """A table; `numbers` are the columns that are right-aligned, `grey` says which rows are quiet."""
    head = "".join(f"<th{' class=n' if i in numbers else ''}>{escape(text)}</th>" for i, text in enumerate(headings))
    body = []
    for index, row in enumerate(rows):
        cells = "".join(f"<td{' class=n' if i in numbers else ''}>{_cell(value)}</td>" for i, value in enumerate(row))
        quiet = " class=grey" if index < len(grey) and grey[index] else ""
        body.append(f"<tr{quiet}>{cells}</tr>")
    return Markup(
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def figure(svg: str, caption: str) -> Markup:
    """A chart with its caption."""
    return Markup(f"<figure>{svg}<figcaption>{escape(caption)}</figcaption></figure>")


def beside(*blocks: Markup) -> Markup:
    """Blocks side by side where there is room."""
    return Markup(f'<div class="pair">{"".join(f"<div>{block}</div>" for block in blocks)}</div>')


def heading(text: str) -> Markup:
    return Markup(f"<h3>{escape(text)}</h3>")


def paragraph(text: str) -> Markup:
    return Markup(f"<p>{escape(text)}</p>")


def quote(prompt: str, text: str) -> Markup:
    """A text that the model wrote, its prompt in colour."""
    return Markup(f"<blockquote><b>{escape(prompt)}</b>{escape(text)}</blockquote>")


def fold(summary: str, blocks: Iterable[Markup]) -> Markup:
    """Blocks behind a click."""
    return Markup(f"<details><summary>{escape(summary)}</summary>{''.join(blocks)}</details>")


def _cell(value: Any) -> str:
    if isinstance(value, Markup):
        return str(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return escape("" if value is None else str(value))


# ── data ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def what_came_in(facts: Facts) -> Section | None:
    """Per source: documents in, kept, dropped, failed; the reasons; samples of what was dropped."""
    ledgers = facts.ledgers
    rows = []
    for source, fates in ledgers.items():
        came, kept = fates["in"]["documents"], fates["kept"]["documents"]
        bar = share_bar(
            [
                ("kept", kept / max(came, 1)),
                ("dropped", fates["dropped_documents"] / max(came, 1)),
                ("failed", fates["failed_documents"] / max(came, 1)),
            ]
        )
        rows.append(
            (
                source,
                facts.licenses[source],
                came,
                kept,
                fates["dropped_documents"],
                fates["failed_documents"],
                scale(fates["in"]["bytes"]) + "B",
                Markup(bar),
            )
        )
    blocks = [
        table(
            (
                "source",
                "licence",
                "documents in",
                "kept",
                "dropped",
                "failed",
                "raw bytes in",
                "kept · dropped · failed",
            ),
            rows,
            numbers=(2, 3, 4, 5, 6),
        ),
        paragraph(
            "Documents in = kept + dropped by reason + failed, for every source, in documents and in bytes: the steps refuse to commit a ledger that does not add up."
        ),
        heading("Why documents were dropped"),
    ]
    reasons = [
        (source, reason, count["documents"], scale(count["bytes"]) + "B", kind)
        for source, fates in ledgers.items()
        for kind in ("dropped", "failed", "would_drop")
        for reason, count in fates[kind].items()
    ]
    reasons.sort(key=lambda row: (row[4] == "would_drop", -row[2]))
    shown = [
        (s, r.replace("_", " "), n, b, "off here, counted" if k == "would_drop" else k) for s, r, n, b, k in reasons
    ]
    blocks.append(
        table(
            ("source", "reason", "documents", "raw bytes", ""),
            shown[:REASONS_SHOWN],
            numbers=(2, 3),
            grey=[row[4] == "off here, counted" for row in shown],
        )
    )
    if len(shown) > REASONS_SHOWN:
        blocks.append(
            fold(
                f"{len(shown) - REASONS_SHOWN} more reasons",
                [
                    table(
                        ("source", "reason", "documents", "raw bytes", ""),
                        shown[REASONS_SHOWN:],
                        numbers=(2, 3),
                        grey=[row[4] == "off here, counted" for row in shown[REASONS_SHOWN:]],
                    )
                ],
            )
        )
    samples = [
        table(
            ("reason", "id", "measured", "limit", "begins"),
            [
                (
                    row["reason"].replace("_", " "),
                    row["id"],
                    plus_minus(row["value"]),
                    plus_minus(row["limit"]),
                    row["excerpt"][:160],
                )
                for row in facts.rejected_samples
            ],
            numbers=(2, 3),
        )
    ]
    blocks.append(
        fold(f"{len(facts.rejected_samples)} samples of rejected documents, one or two of each reason", samples)
    )
    return Section(
        title="What came in",
        intro="Each source is read, reduced to its main text, filtered by language and by rules with published limits that are chosen for this source.",
        blocks=blocks,
    )


def quality(facts: Facts) -> Section | None:
    """What each classifier learnt, and what each threshold would keep."""
    if not facts.classifiers:
        return None
    blocks: list[Markup] = []
    for name, report in facts.classifiers.items():
        blocks.append(heading(f"Classifier {name}"))
        labels = ", ".join(f"{count} × {label}" for label, count in report["labels"].items())
        blocks.append(
            paragraph(
                f"{report['labelled_documents']} documents of {report['source']} labelled under the rubric {report['rubric']} by: {', '.join(report['annotators'])}. Labels: {labels}. Scored on {report['crop']}; a labelled document is scored by a model that did not see it ({report['num_folds']} folds)."
            )
        )
        merged = {label: target for label, target in report["trained_as"].items() if int(label) != int(target)}
        if merged:
            blocks.append(
                paragraph(
                    "Classes that were too small were merged: "
                    + ", ".join(f"{a} into {b}" for a, b in merged.items())
                    + "."
                )
            )
        agreement = report.get("agreement")
        if agreement:
            blocks.append(
                paragraph(f"{agreement['count']} documents were labelled twice: {_kappa_words(agreement)}.")
            )
        rows = [
            (
                f"above {row['above']:g}",
                percent(row["kept_document_share"]),
                row["kept_documents"],
                scale(row["kept_tokens_estimate"]),
                _with_interval(row["f1"]),
                _with_interval(row["precision"]),
                _with_interval(row["recall"]),
                row["test_documents"],
            )
            for row in report["thresholds"]
        ]
        blocks.append(
            table(
                ("threshold", "documents kept", "", "tokens, estimated", "F1", "precision", "recall", "judged on"),
                rows,
                numbers=(1, 2, 3, 4, 5, 6, 7),
            )
        )
    for source, row in facts.thresholds.items():
        blocks.append(paragraph(f"Used: {source} keeps what scores above {row['above']:g} by {row['classifier']}."))
    return Section(
        title="Quality scores",
        intro="A threshold is a choice between amount and quality; this table is what it was chosen from. Each figure carries its 95 % interval.",
        blocks=blocks,
    )


def _kappa_words(agreement: dict[str, Any]) -> str:
    parts = []
    for key, words in (("kappa", "Cohen's kappa"), ("quadratic_kappa", "quadratic kappa")):
        if key in agreement:
            parts.append(f"{words} {_with_interval(agreement[key])}")
    return ", ".join(parts)


def _with_interval(value: dict[str, Any]) -> str:
    return (
        f"{value['value']:.2f} [{value['low']:.2f}, {value['high']:.2f}]"
        if value.get("low") is not None
        else f"{value['value']:.2f}"
    )


def duplicates_and_contamination(facts: Facts) -> Section | None:
    """Near-duplicates with their evidence; overlap with task packs; planted recall."""
    near, clean = facts.near_duplicates, facts.decontamination
    blocks: list[Markup] = [heading("Duplicates")]
    if near is not None:
        blocks.append(
            paragraph(
                f"{near['candidate_pairs']:,} candidate pairs among {near['documents']:,} documents; each was compared on its full text before anything was removed."
            )
        )
        rows = [
            (
                cluster["source"],
                cluster["survivor"],
                cluster["removed"],
                f"{cluster['weakest_jaccard']:.2f}",
                cluster["excerpt"][:110],
            )
            for cluster in near["largest_clusters"][:6]
        ]
        if rows:
            blocks.append(
                table(("source", "survivor", "copies removed", "least similarity", "begins"), rows, numbers=(2, 3))
            )
        curve = Series(name="found", xs=[p["jaccard"] for p in near["curve"]], ys=[p["found"] for p in near["curve"]])
        blocks.append(
            fold(
                "How likely a pair of a given similarity is found",
                [
                    figure(
                        line_chart(
                            [curve], x_label="Jaccard similarity of word 5-grams", y_label="probability", from_zero=True
                        ),
                        "Theory of the bands used.",
                    )
                ],
            )
        )
    blocks.append(heading("Task packs"))
    rows = [
        (
            name,
            pack["items"],
            f"{pack['found']} of {pack['planted']}",
            pack["unprotected_items"],
            clean["by_pack"].get(name, 0),
        )
        for name, pack in clean["packs"].items()
    ]
    blocks.append(
        table(
            ("pack", "items", "planted and found", "too short to protect", "hits in real text"),
            rows,
            numbers=(1, 2, 3, 4),
        )
    )
    blocks.append(
        paragraph(
            f"Items were planted into copies of real documents and had to be found. {clean['documents_removed']} real documents held an item and were removed."
        )
    )
    hits = [(hit["source"], hit["id"], ", ".join(hit["items"])[:60], hit["excerpt"][:110]) for hit in clean["hits"][:8]]
    if hits:
        blocks.append(fold("The documents that held an item", [table(("source", "document", "item", "span"), hits)]))
    return Section(title="Duplicates and contamination", intro="", blocks=blocks)


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def budget(facts: Facts) -> Section | None:
    """Tokens and epochs, planned against drawn."""
    rows = [
        (name, row["unique"], row["planned"], row["drawn"], f"{row['epochs']:.2f}", _verdict(row["epochs"], facts))
        for name, row in facts.token_budget.items()
    ]
    stages = [
        (
            stage["name"],
            stage["tokens"],
            stage["seq_len"],
            stage["mixture"],
            f"{stage['seconds']:.0f} s" if stage["seconds"] else "",
        )
        for stage in facts.stages
    ]
    blocks = [
        table(("selection", "unique tokens", "planned", "drawn", "epochs", ""), rows, numbers=(1, 2, 3, 4)),
        heading("Stages"),
        table(("stage", "tokens", "sequence length", "mixture", "took"), stages, numbers=(1, 2, 4)),
    ]
    return Section(
        title="Token budget",
        intro=f"Repeating text pays for about four passes. Above {facts.warn_epochs:g} the plan warns, above {facts.max_epochs:g} it refuses, unless the recipe says why.",
        blocks=blocks,
    )


def _verdict(epochs: float, facts: Facts) -> str:
    return (
        "within the cap"
        if epochs <= facts.warn_epochs
        else "repeated a lot"
        if epochs <= facts.max_epochs
        else "allowed by the recipe"
    )


def pretraining(facts: Facts) -> Section | None:
    """Loss per source, schedule, bits per byte, watched packs, text after each stage."""
    train, watched = facts.metrics("pretrain", "train"), facts.metrics("pretrain", "eval")
    bands = [Band(name=stage["name"], start=stage["first_token"], end=stage["last_token"]) for stage in facts.stages]
    losses = [_series(train, f"train/{name}/loss", name) for name in facts.sources]
    rate = [_series(train, "train/lr", "learning rate")]
    norm = [_series(train, "train/grad_norm", "gradient norm")]
    heldout = [_series(watched, f"eval/{name}/bits_per_byte", name, stderr=True) for name in facts.sources]
    blocks = [
        beside(
            figure(
                line_chart(losses, x_label="tokens", y_label="loss, nats per token", bands=bands),
                "Training loss per source, averaged over the steps between two lines of the log.",
            ),
            figure(
                line_chart(heldout, x_label="tokens", y_label="bits per byte", bands=bands),
                "Held-out text, never trained on. Bars are 95 % intervals over documents; the measure does not depend on the tokenizer.",
            ),
        ),
        beside(
            figure(
                line_chart(rate, x_label="tokens", y_label="learning rate", bands=bands, from_zero=True),
                "Warm-up, constant, decay to zero; the context extension is the tail of the decay.",
            ),
            figure(
                line_chart(norm, x_label="tokens", y_label="gradient norm", bands=bands, from_zero=True),
                "Norm of the gradient before clipping.",
            ),
        ),
    ]
    for pack, chance in facts.watched_packs.items():
        line = [_series(watched, f"eval/{pack}/accuracy", pack, stderr=True)]
        blocks.append(
            figure(
                line_chart(line, x_label="tokens", y_label="accuracy", bands=bands, level=chance, level_name="chance"),
                f"{pack}, held-out items scored inside the loop; bars are 95 % intervals.",
            )
        )
    blocks.append(heading("What it wrote after each stage"))
    for sample in facts.samples("pretrain"):
        blocks.append(
            Markup(f'<p class="quiet">{escape(str(sample["stage"]))}, {sample["tokens"]:,} tokens</p>')
            + quote(sample["prompt"], sample["text"])
        )
    return Section(title="Pretraining", intro="", blocks=blocks)


def post_training(facts: Facts) -> Section | None:
    """Conversations, fine-tuning, preference pairs, preference optimisation."""
    if not facts.has("sft"):
        return None
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in facts.chat_kinds.items())
    blocks = [
        paragraph(f"Conversations by kind: {kinds}. The loss counts the assistant's tokens alone."),
        figure(
            line_chart(
                [_series(facts.metrics("sft", "train"), "train/loss", "loss", x="step")],
                x_label="step",
                y_label="loss, nats per token",
                from_zero=True,
            ),
            "Supervised fine-tuning.",
        ),
    ]
    if facts.has("pairs"):
        report = facts.pair_report
        verdicts = ", ".join(f"{count:,} {verdict.replace('_', ' ')}" for verdict, count in report["samples"].items())
        blocks.append(heading("Preference pairs"))
        blocks.append(
            paragraph(
                f"{report['pairs']:,} pairs from {report['prompts']:,} prompts. Sampled answers: {verdicts}. All right: {report['prompts_all_right']:,} prompts, all wrong: {report['prompts_all_wrong']:,}; neither gives a pair."
            )
        )
    if facts.has("dpo"):
        rows = facts.metrics("dpo", "train")
        margin = [
            _series(rows, "rewards/margins", "margin", x="step"),
            _series(rows, "rewards/accuracies", "accuracy", x="step"),
        ]
        blocks.append(
            figure(
                line_chart([one for one in margin if len(one.xs)], x_label="step", y_label="reward"),
                "Direct preference optimisation: the margin between chosen and rejected answers, and how often it is positive.",
            )
        )
    for name in ("sft", "dpo"):
        answers = facts.samples(name)
        if answers:
            blocks.append(heading(f"Asked after {name}"))
            blocks += [quote(f"{sample['prompt']}  →  ", sample["text"]) for sample in answers]
    return Section(
        title="Conversation and preference",
        intro="A model this small speaks the format; sense needs more data and parameters."
        if facts.parameters < 50e6
        else "",
        blocks=blocks,
    )


def _series(rows: Sequence[dict[str, Any]], key: str, name: str, *, x: str = "tokens", stderr: bool = False) -> Series:
    found = [row for row in rows if row.get(key) is not None]
    errors = [float(row.get(f"{key}_stderr") or 0.0) for row in found] if stderr else None
    return Series(name=name, xs=[float(row[x]) for row in found], ys=[float(row[key]) for row in found], stderrs=errors)


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def evaluation(facts: Facts) -> Section | None:
    """Held-out scores, recall of trained items, the xz yardstick, paired comparisons."""
    blocks: list[Markup] = []
    held_out = [row for row in facts.results if row["kind"] == "held_out"]
    by_bits = [row for row in held_out if row["metric"] == "bits_per_byte"]
    accuracy = [row for row in held_out if row["metric"] != "bits_per_byte"]
    if by_bits:
        blocks.append(heading("Bits per byte of held-out text"))
        blocks.append(
            paragraph(
                "Lower is better. xz is given all the training text first, so it stands here as an honest yardstick: what memory of the text alone is worth."
            )
        )
        models = list(dict.fromkeys(row["model"] for row in by_bits))
        tasks = list(dict.fromkeys(row["task"] for row in by_bits))
        found = {(row["model"], row["task"]): row for row in by_bits}
        rows = [
            (
                task,
                *(bits(found.get((model, task))) for model in models),
                max(found[model, task]["n"] for model in models if (model, task) in found),
            )
            for task in tasks
        ]
        blocks.append(table(("source", *models, "documents"), rows, numbers=range(1, len(models) + 2)))
    if accuracy:
        blocks.append(heading("Held-out items"))
        blocks.append(_score_table(accuracy))
        blocks += [
            figure(
                interval_chart(
                    [_score(row) for row in accuracy if row["task"] == task and row["interval"]],
                    x_label=f"{task}",
                    level=_chance(accuracy, task),
                    level_name="chance",
                ),
                "Grey: the interval holds chance, so the score says nothing yet.",
            )
            for task in dict.fromkeys(row["task"] for row in accuracy if row["chance"] is not None)
        ]
    recall = [row for row in facts.results if row["kind"] == "recall"]
    if recall:
        blocks.append(heading("Recall of trained items"))
        blocks.append(
            paragraph(
                "These were in the training conversations: they show that training worked, not that the model can generalise."
            )
        )
        blocks.append(_score_table(recall))
    if facts.comparisons:
        blocks.append(heading("Compared on the same items"))
        rows = [
            (
                row["task"],
                f"{row['a']} − {row['b']}",
                f"{row['difference']:+.3f}",
                _range(row["interval"]),
                row["n"],
                f"{row['p_adjusted']:.3g}",
                row["verdict"],
            )
            for row in facts.comparisons
        ]
        blocks.append(
            table(
                ("task", "", "difference", "95 % interval", "items", "p, Holm", "verdict"),
                rows,
                numbers=(2, 3, 4, 5),
                grey=[row["verdict"].startswith(("at chance", "no evidence")) for row in facts.comparisons],
            )
        )
    return Section(title="Evaluation", intro="", blocks=blocks) if blocks else None


def _score_table(rows: Sequence[dict[str, Any]]) -> Markup:
    shown = [
        (
            row["model"],
            row["task"],
            row["metric"].replace("_", " "),
            f"{row['value']:.3f}",
            _range(row["interval"]),
            row["n"],
            "" if row["chance"] is None else f"{row['chance']:g}",
            "at chance" if row["at_chance"] else "",
        )
        for row in rows
    ]
    return table(
        ("model", "task", "metric", "score", "95 % interval", "items", "chance", ""),
        shown,
        numbers=(3, 4, 5, 6),
        grey=[bool(row["at_chance"]) for row in rows],
    )


def _score(row: dict[str, Any]) -> Score:
    low, high = row["interval"]
    return Score(
        name=f"{row['model']} · {row['metric'].replace('_', ' ')}",
        value=row["value"],
        low=low,
        high=high,
        grey=bool(row["at_chance"]),
    )


def _chance(rows: Sequence[dict[str, Any]], task: str) -> float | None:
    return next((row["chance"] for row in rows if row["task"] == task and row["chance"] is not None), None)


def _range(interval: Sequence[float] | None) -> str:
    return f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""


def cost(facts: Facts) -> Section | None:
    """What was planned against what it took, step by step."""
    rows = [
        (
            record["step"],
            seconds(record["wall_seconds"]),
            scale(max(record["peak_memory_bytes"].values())) + "B",
            record["made_at"],
        )
        for record in facts.records.values()
    ]
    blocks = [
        table(("", "planned", "real"), facts.planned_against_real, numbers=(1, 2)),
        heading("Steps"),
        table(("step", "took", "peak memory so far", "made"), rows, numbers=(1, 2)),
    ]
    return Section(title="Cost", intro="", blocks=blocks)


def provenance(facts: Facts) -> Section | None:
    """Fingerprints, versions, machine, parity of the export."""
    last = next(reversed(facts.records.values()))
    versions = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    machine = ", ".join(f"{key} {value}" for key, value in last["machine"].items())
    parity = [(check, words) for check, words in facts.parity_words]
    rows = [
        (record["step"], Markup(f"<code>{record['fingerprint']}</code>"), record["identity"]["version"])
        for record in facts.records.values()
    ]
    blocks = [
        heading("The exported model"),
        table(("check", "result"), parity),
        heading("Made with"),
        paragraph(versions),
        paragraph(machine),
        fold("Fingerprints of all steps", [table(("step", "fingerprint", "version of the step"), rows, numbers=(2,))]),
    ]
    return Section(title="Provenance", intro="", blocks=blocks)


SECTIONS: tuple[Callable[[Facts], Section | None], ...] = (
    what_came_in, quality, duplicates_and_contamination, budget, pretraining, post_training, evaluation, cost, provenance,
)  # fmt: skip
