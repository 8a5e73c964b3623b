"""The trainings of an ablation as runs of the store: which are made, and what they were measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gristmill.ablate.design import Design, Trial
from gristmill.ablate.draws import held_out_draws
from gristmill.ablate.outcome import Measured, measured_of
from gristmill.evaluate.extension import Extension, extensions_of
from gristmill.evaluate.outputs import Evaluated
from gristmill.select.outputs import Selected
from gristmill.select.words import Int64
from gristmill.store.fingerprint import differences
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard
from gristmill.train.outputs import Pretrained

MODEL = "pretrain"


def measured(design: Design, store: Store) -> list[Measured]:
    """Every task that the runs of all arms and seeds were measured on. Raises ArtifactError where the held-out documents are not there."""
    names = [arm.name for arm in design.arms]
    found = {(trial.arm.name, trial.seed): _evaluated(trial, store) for trial in design.trials}
    runs_AS = [[found[name, seed].scores_of(MODEL) for seed in range(1, design.ablation.seeds + 1)] for name in names]
    figures = {
        key: {figure.task: figure for figure in one.figures if figure.model == MODEL} for key, one in found.items()
    }
    return [
        measured_of(
            task,
            runs_AS,
            metric=figures[names[0], 1][task].metric,
            is_at_chance=all(one[task].at_or_below_chance for one in figures.values()),
            draw_D=draws_of(design.trials[0], store, task),
        )
        for task in runs_AS[0][0]
    ]


def draws_of(trial: Trial, store: Store, task: str) -> Int64 | None:
    """Which held-out documents of a source are one draw (draws.py), by the text of a training; None for a pack."""
    source = trial.loaded.recipe.sources.get(task)
    if source is None:
        return None
    links = RunLinks(store, trial.loaded.recipe.name)
    tokens, made_from = links.artefact("tokenize"), links.made_from("tokenize")
    assert tokens is not None, f"{trial.loaded.recipe.name} has no tokens"
    text = Selected(made_from.get("select", links.folder / "select"), source=task)
    return held_out_draws(text, TokenShard(Tokenized(tokens).of(task).validation), source.read)


def extensions(design: Design, store: Store) -> dict[str, Extension]:
    """What the extension did at each position, by training that extends the context: "extension.1"."""
    found = {}
    for trial in design.trials:
        folder = RunLinks(store, trial.loaded.recipe.name).artefact(MODEL)
        for extension in (
            [] if folder is None or not trial.arm.stages else extensions_of(Pretrained(folder).long_contexts)
        ):
            found[f"{trial.arm.name}.{trial.seed}"] = extension
    return found


def seconds_of(design: Design, store: Store, steps: Sequence[str]) -> float:
    """What these steps of all trials took, the trunk's share of pretraining left out."""
    total = 0.0
    for trial in design.trials:
        links = RunLinks(store, trial.loaded.recipe.name)
        for step in steps:
            identity = links.target(step)
            record = None if identity is None else links.record_of(step, identity)
            total += 0.0 if record is None else float(record["wall_seconds"])
    return total


def other_environments(design: Design, store: Store) -> list[str]:
    """What trainings were made with otherwise than the first, "control.1, dictionary.2: threads: 1 → 2"; the noise has none of that in it."""
    first: Mapping[str, Any] | None = None
    found: dict[str, list[str]] = {}
    for trial in design.trials:
        links = RunLinks(store, trial.loaded.recipe.name)
        identity = links.target(MODEL)
        record = None if identity is None else links.record_of(MODEL, identity)
        if record is None:
            continue
        made_with = record["counts"]["environment"]
        first = made_with if first is None else first
        if changed := differences(first, made_with):
            found.setdefault(", ".join(changed), []).append(f"{trial.arm.name}.{trial.seed}")
    return [f"{', '.join(trials)}: {changed}" for changed, trials in found.items()]


def _evaluated(trial: Trial, store: Store) -> Evaluated:
    folder = RunLinks(store, trial.loaded.recipe.name).artefact("evaluate")
    assert folder is not None, f"{trial.loaded.recipe.name} was not measured"
    return Evaluated(folder)
