"""What the report knows: everything read from the records, metrics and accounts that the steps of a run left behind."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

from gristmill.data.document import read_batches
from gristmill.data.ledger import REJECTED_SCHEMA
from gristmill.data.packs import packs_by_name
from gristmill.graph.step import OutsideFiles
from gristmill.planning.budget import Reading, Selection, asked_tokens, epochs_read
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.durable import read_json
from gristmill.store.jsonl import read_jsonl, read_log
from gristmill.tokens.shards import TokenShard
from gristmill.units import in_bytes, scale, seconds

VERSION = 1  # of every step that uses it: rises when the meaning of what it computes changes

SAMPLES_PER_REASON = 2
NOT_RECORDED = "not recorded"


class Facts:
    """The facts of one run. `inputs` are what its steps left, in the order in which they were made."""

    def __init__(
        self, recipe: Recipe, inputs: Mapping[str, Any], *, watched: Mapping[str, OutsideFiles] | None = None
    ) -> None:
        self.recipe = recipe
        self._watched = watched or {}
        self.inputs = inputs
        self.records: dict[str, dict[str, Any]] = {name: made.record for name, made in inputs.items()}

    def has(self, step: str) -> bool:
        """True when the run made this step."""
        return step in self.inputs

    # ── the head of the page ──

    @property
    def name(self) -> str:
        return self.recipe.name

    @property
    def description(self) -> str:
        return self.recipe.description

    @property
    def sentence(self) -> str:
        """What was made, in one sentence."""
        steps = {"sft": "fine-tuned on conversations", "dpo": "aligned by preference optimisation"}
        after = ", ".join(words for step, words in steps.items() if self.has(step))
        return (
            f"A model of {scale(self.parameters)} parameters, trained on {scale(self.counts('pretrain')['tokens'])} tokens drawn from "
            f"{scale(self.unique_tokens)} unique ones of {len(self.sources)} sources{', ' + after if after else ''}, "
            f"in {seconds(self.wall_seconds)} of work."
        )

    @property
    def tiles(self) -> list[dict[str, str]]:
        """The figures on top of the page."""
        came = sum(fates["in"]["documents"] for fates in self.ledgers.values())
        kept = sum(fates["kept"]["documents"] for fates in self.ledgers.values())
        best = self.final_bits
        return [
            {"value": f"{kept:,} / {came:,}", "label": "documents kept of those that came in"},
            {"value": scale(self.unique_tokens), "label": "unique training tokens"},
            {"value": scale(self.counts("pretrain")["tokens"]), "label": "tokens trained on"},
            {"value": scale(self.parameters), "label": "parameters"},
            *([{"value": best, "label": "bits per byte, held-out text, mean of sources"}] if best else []),
            {"value": seconds(self.wall_seconds), "label": "work of all steps"},
        ]

    @property
    def parameters(self) -> int:
        return int(self.counts("pretrain")["parameters"])

    @property
    def wall_seconds(self) -> float:
        return sum(float(record["wall_seconds"]) for record in self.records.values())

    @property
    def sources(self) -> list[str]:
        return list(self.recipe.sources)

    @property
    def licenses(self) -> dict[str, str]:
        return {name: source.license for name, source in self.recipe.sources.items()}

    def counts(self, step: str) -> dict[str, Any]:
        """What the step counted."""
        counts: dict[str, Any] = self.records[step]["counts"]
        return counts

    # ── data ──

    @cached_property
    def ledgers(self) -> dict[str, dict[str, Any]]:
        """Per source, extraction and selection as one account: in, kept at the end, dropped and failed by reason."""
        chosen = read_json(self.inputs["select"].accounts)["sources"]
        joined: dict[str, dict[str, Any]] = {}
        for source in self.sources:
            first, second = (
                read_json(self.inputs[f"extract/{source}"].accounts)["sources"][source],
                chosen[source],
            )
            fates: dict[str, Any] = {"in": first["in"], "kept": second["kept"]}
            for kind in ("dropped", "failed", "would_drop"):
                fates[kind] = {**first[kind], **second[kind]}
                fates[f"{kind}_documents"] = sum(count["documents"] for count in fates[kind].values())
            joined[source] = fates
        return joined

    @cached_property
    def rejected_samples(self) -> list[dict[str, Any]]:
        """A few rejected documents of every source and reason."""
        files = [path for source in self.sources for path in self.inputs[f"extract/{source}"].rejected]
        files.append(self.inputs["select"].rejected)
        found: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for path in files:
            for batch in read_batches(path, columns=REJECTED_SCHEMA.names):
                for row in batch.to_pylist():
                    kept = found.setdefault((row["source"], row["reason"]), [])
                    if len(kept) < SAMPLES_PER_REASON:
                        kept.append(row)
        return [row for rows in found.values() for row in rows]

    @cached_property
    def classifiers(self) -> dict[str, dict[str, Any]]:
        return {name: read_json(self.inputs[f"classifier/{name}"].report) for name in self.recipe.classifiers}

    @property
    def thresholds(self) -> dict[str, dict[str, Any]]:
        return {name: threshold.model_dump() for name, threshold in self.recipe.select.min_scores.items()}

    @cached_property
    def near_duplicates(self) -> dict[str, Any] | None:
        path = self.inputs["select"].near_duplicates
        return dict(read_json(path)) if path.is_file() and self.recipe.select.near_duplicates is not None else None

    @cached_property
    def decontamination(self) -> dict[str, Any]:
        return dict(read_json(self.inputs["select"].decontamination))

    # ── tokens and training ──

    @property
    def unique_tokens(self) -> int:
        return sum(TokenShard(self.inputs["tokenize"].of(source).train).num_tokens for source in self.sources)

    @property
    def warn_epochs(self) -> float:
        return self.recipe.pretrain.warn_epochs

    @property
    def max_epochs(self) -> float:
        return self.recipe.pretrain.max_epochs

    @property
    def token_budget(self) -> dict[str, dict[str, Any]]:
        """Per selection: unique tokens, tokens planned by the recipe, tokens drawn, epochs as the cap counts them."""
        planned = {selection: sum(tokens) for selection, tokens in asked_tokens(self.recipe.pretrain).items()}
        draws = self.counts("pretrain")["draws"]
        readings = [
            Reading(Selection(draw["source"], draw["min_document_tokens"]), draw["seq_len"], draw["tokens_drawn"])
            for draw in draws
        ]
        unique = {reading.selection: draw["unique_tokens"] for reading, draw in zip(readings, draws)}
        epochs = epochs_read(readings, unique)
        return {
            str(selection): {
                "unique": unique[selection],
                "planned": planned[selection],
                "drawn": sum(reading.tokens for reading in readings if reading.selection == selection),
                "epochs": epochs[selection],
            }
            for selection in unique
        }

    @property
    def stages(self) -> list[dict[str, Any]]:
        """The stages in order, with their stretch of the token axis."""
        took = self.counts("pretrain")["stages"]
        rows, at = [], 0
        for number, stage in enumerate(self.recipe.pretrain.as_changed().stages):
            mixture = ", ".join(
                f"{draw.source}{f' ≥ {draw.min_document_tokens:,}' if draw.min_document_tokens else ''} {draw.weight:.0%}"
                for draw in stage.mixture
            )
            rows.append(
                {
                    "name": stage.name,
                    "tokens": stage.tokens,
                    "seq_len": stage.seq_len,
                    "mixture": mixture,
                    "first_token": at,
                    "last_token": at + stage.tokens,
                    "seconds": took[number]["seconds"] if number < len(took) else None,
                }
            )
            at += stage.tokens
        return rows

    def metrics(self, step: str, kind: str) -> list[dict[str, Any]]:
        """Lines of a training step's diary of one kind."""
        return [line for line in read_log(self.inputs[step].metrics) if line["kind"] == kind]

    def samples(self, step: str) -> list[dict[str, Any]]:
        """Texts that the model wrote."""
        return read_log(self.inputs[step].samples) if self.has(step) else []

    @property
    def watched_packs(self) -> dict[str, float | None]:
        """Watched pack → chance."""
        watched = packs_by_name(self._watched, self.recipe.pretrain.watch.packs)
        return {name: pack.chance for name, pack in watched.items()}

    # ── after pretraining ──

    @property
    def chat_kinds(self) -> dict[str, int]:
        kinds: dict[str, int] = {}
        for line in read_jsonl(self.inputs["synthesize"].conversations):
            kinds[line["kind"]] = kinds.get(line["kind"], 0) + 1
        return kinds

    @property
    def pair_report(self) -> dict[str, Any]:
        return dict(read_json(self.inputs["pairs"].report))

    @cached_property
    def results(self) -> list[dict[str, Any]]:
        return list(read_json(self.inputs["evaluate"].results))

    @cached_property
    def comparisons(self) -> list[dict[str, Any]]:
        return list(read_json(self.inputs["evaluate"].comparisons))

    @property
    def final_bits(self) -> str:
        """Mean over sources of the pretrained model's bits per byte."""
        rows = [row for row in self.results if row["model"] == "pretrain" and row["metric"] == "bits_per_byte"]
        return f"{sum(row['value'] for row in rows) / len(rows):.3f}" if rows else ""

    # ── cost and proof ──

    @property
    def planned_against_real(self) -> list[tuple[str, str, str]]:
        """What `plan` would have said on this machine, beside what happened."""
        real = self.counts("pretrain")
        memory = self.records["pretrain"]["peak_memory_bytes"]["process"]
        plan = self.records["pretrain"].get("forecast", {})
        took = f"{seconds(plan['pretraining_seconds'])} ({plan['speed_source']})" if plan else NOT_RECORDED
        return [
            ("tokens", f"{self.recipe.pretrain.total_tokens:,}", f"{real['tokens']:,}"),
            ("parameters", f"{plan['parameters']:,}" if plan else NOT_RECORDED, f"{real['parameters']:,}"),
            ("pretraining", took, seconds(real["training_seconds"])),
            ("peak memory of pretraining", in_bytes(plan["memory_bytes"]) if plan else NOT_RECORDED, in_bytes(memory)),
        ]

    @property
    def parity_words(self) -> list[tuple[str, str]]:
        """The checks of the exported folder, in words."""
        parity = read_json(self.inputs["export"].parity)
        rows = [
            ("read back by gristmill", f"largest difference of logits {parity['max_logit_difference_read_back']:.1e}"),
            ("rounding of the weights", f"changes logits by at most {parity['max_logit_change_by_rounding']:.1e}"),
        ]
        other = parity["transformers"]
        if other["checked"]:
            equal, compared, tied = (sum(other[f"greedy_tokens_{kind}"]) for kind in ("equal", "compared", "tied"))
            words = f"{equal} of {compared} greedy tokens equal"
            if tied:
                words += f", {tied} {'tie' if tied == 1 else 'ties'} within {other['tolerance']:.1g}"
            rows.append(
                (
                    f"transformers {other['version']}",
                    f"largest difference of logits {other['max_logit_difference']:.1e}; {words}",
                )
            )
        else:
            rows.append(("transformers", f"{other['why']}: {other['command']}"))
        return rows


# ── figures in words ─────────────────────────────────────────────────────────────────────────────────────────────────


def plus_minus(value: float | None) -> str:
    """A measured value, or nothing."""
    return "" if value is None else f"{value:.3g}"


def bits(row: Mapping[str, Any] | None) -> str:
    """A bits-per-byte record with the half width of its interval."""
    if row is None:
        return ""
    if not row["interval"]:
        return f"{row['value']:.3f}"
    return f"{row['value']:.3f} ± {(row['interval'][1] - row['interval'][0]) / 2:.3f}"
