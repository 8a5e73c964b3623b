"""The two sides of a comparison: what each model was measured on, in its run's evaluation or here."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import xxhash
from rich.console import Console

from gristmill.commands.compare_targets import Target, selects_alike
from gristmill.errors import ArtifactError, RecipeError
from gristmill.evaluate.bench import Bench, held_out_texts, measure, measured_texts
from gristmill.evaluate.compare import ItemScores
from gristmill.evaluate.harness import engine_versions
from gristmill.evaluate.outputs import Evaluated, Figure
from gristmill.graph.machine import Machine
from gristmill.recipe.interventions import RUN_RECIPE
from gristmill.recipe.load import load_recipe
from gristmill.store.artifact import RECORD
from gristmill.store.durable import read_json
from gristmill.store.fingerprint import fingerprint
from gristmill.train.checkpoint import OPTIMIZER
from gristmill.train.runtime import ThreadsByLoad
from gristmill.units import counted, in_bytes, seconds

KEPT_IN = "compared"  # a folder of the run whose packs and text were used


@dataclass(frozen=True, kw_only=True)
class Side:
    """A model with what it was measured on. figures and scores: by task. hashes: source → of each document that was read, a hash of its text.

    holds_out: source → the hashes of all text that its run holds out; None where that is known to be what it was measured on, or not known at all.
    packs: the hashes of packs that its run kept out of its text, likewise. left_out: why it cannot be asked a task.
    """

    target: Target
    figures: Mapping[str, Figure]
    scores: Mapping[str, ItemScores]
    hashes: Callable[[str], list[bytes]]
    is_measured_here: bool = False
    holds_out: Callable[[str], Collection[bytes]] | None = None
    packs: Collection[str] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()

    @property
    def model(self) -> str:
        """What the run calls it, or its address."""
        return self.target.measured_as or self.target.address


def sides_of(
    targets: tuple[Target, Target], *, on: Path | None, window: int | None, machine: Machine, console: Console
) -> tuple[Side, Side]:
    """Both models with their scores. What has to be measured is, on the packs and held-out text of one run; how long that takes is said before.

    Raises RecipeError or ArtifactError where there is no run to measure on.
    """
    if on is None and window is None and all(target.measured_as for target in targets):
        a, b = (_as_evaluated(target) for target in targets)
        return a, b
    bench = Bench.of(_bench_run(targets, on))
    machine = replace(machine, runs_dir=bench.folder.absolute().parent)
    wanted = [target for target in targets if not _is_measured(target, bench, window)]
    for target in wanted:
        asked = bench.without(_locked(target))
        items = sum(len(pack.items) for pack in asked.packs.values())
        packs = f"{counted(items, 'item')} of {counted(len(asked.packs), 'pack')} and " if asked.packs else ""
        console.print(
            f"{target.address} is measured on {packs}{in_bytes(asked.num_bytes)} of held-out text of {asked.folder}: about "
            f"{seconds(asked.seconds(target.model_dir, machine, window=window))}",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    if wanted:
        ThreadsByLoad(machine)
    a, b = (
        _measured_here(target, bench, machine, window=window, console=console)
        if target in wanted
        else _as_evaluated(target)
        for target in targets
    )
    return a, b


def _bench_run(targets: Sequence[Target], on: Path | None) -> Path:
    """The run whose packs and held-out text are used."""
    runs = [on] if on is not None else [target.run for target in targets if target.run is not None]
    measured = next((run for run in runs if (run / "evaluate").is_dir()), None)
    if measured is not None:
        return measured
    if runs:
        raise ArtifactError(f"{runs[0]} was not evaluated.\n  `gristmill run RECIPE --until evaluate` does it.")
    raise RecipeError(
        f"neither {targets[0].address} nor {targets[1].address} is of a run. Name one whose packs and held-out text are to be used: "
        "--on runs/quickstart."
    )


def _is_measured(target: Target, bench: Bench, window: int | None) -> bool:
    """Whether the evaluation of the run has it already."""
    is_own = target.run is not None and target.run.resolve() == bench.folder.resolve()
    return is_own and target.measured_as is not None and window in (None, bench.window)


def _locked(target: Target) -> list[str]:
    """Packs that the model is not measured on yet: those that the recipe of its run keeps for the end, as long as that was not evaluated."""
    run = target.run
    if run is None or (run / "evaluate").is_dir() or not (run / RUN_RECIPE).is_file():
        return []
    return load_recipe(run / RUN_RECIPE).recipe.locked_packs


def _as_evaluated(target: Target) -> Side:
    """A model of a run, as the run's own evaluation has it."""
    assert target.run is not None
    assert target.measured_as is not None
    run, evaluated = target.run, Evaluated(target.run / "evaluate")
    scores: dict[str, ItemScores] = evaluated.scores_of(target.measured_as)
    figures = {one.task: one for one in evaluated.figures if one.model == target.measured_as and one.task in scores}

    def hashes(source: str) -> list[bytes]:
        return [_hash(text) for text in measured_texts(run, source, scores[source]["sizes"] or [])]

    return Side(target=target, figures=figures, scores=scores, hashes=hashes)


def _measured_here(target: Target, bench: Bench, machine: Machine, *, window: int | None, console: Console) -> Side:
    evaluated = str(read_json(bench.folder / "evaluate" / RECORD)["identity"])
    asked = {
        "model": _hash_of_files(target.model_dir),
        "evaluated": evaluated,
        "window": window,
        "versions": engine_versions(),
    }
    locked = _locked(target)
    found = measure(
        bench.without(locked),
        target.model_dir,
        machine,
        name=target.address,
        window=window,
        keep_in=bench.folder / KEPT_IN / fingerprint(asked),
        say=lambda line: console.print(line, markup=False, highlight=False, soft_wrap=True),
    )
    run, holds_out, packs = target.run, None, None
    notes = [] if found.note is None else [found.note]
    asked_window, trained = window or bench.window, target.trained_length
    if trained is not None and asked_window is not None and trained < asked_window:
        notes.append(
            f"{target.address} was trained on sequences of {trained:,} tokens and is read in windows of {asked_window:,}; --window {trained} "
            "reads both within its length"
        )
    if run is None:
        notes.append(f"what {target.address} was trained on is not known here: held-out text and items may be among it")
    elif not (run.resolve() == bench.folder.resolve() or selects_alike(run, bench.folder)):

        def holds_out(source: str) -> Collection[bytes]:
            return {_hash(text) for text in held_out_texts(run, source)}

        packs = _packs_of(run)
    return Side(
        target=replace(target, measured_as=None),
        figures=found.figures,
        scores=found.scores,
        hashes=lambda source: [_hash(text) for text in bench.texts[source]],
        is_measured_here=True,
        holds_out=holds_out,
        packs=packs,
        left_out={
            **found.left_out,
            **{name: f"{name}, which the recipe of {run} keeps for the end: packs.{name}.locked" for name in locked},
        },
        notes=notes,
    )


def _packs_of(run: Path) -> set[str]:
    """The hashes of the packs that a run was measured on, which it holds out."""
    if not (run / "evaluate").is_dir():
        return set()
    return {
        figure.pack_sha256
        for figure in Evaluated(run / "evaluate").figures
        if figure.pack_sha256 and figure.kind == "held_out"
    }


def _hash(text: str) -> bytes:
    return xxhash.xxh3_128_digest(text.encode())


def _hash_of_files(folder: Path) -> dict[str, str]:
    """Of the files of a model folder that a measurement depends on."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.name in ("config.json", "tokenizer.json") or (path.suffix == ".safetensors" and path.name != OPTIMIZER):
            digest = xxhash.xxh3_128()
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
            found[path.name] = digest.hexdigest()
    return found
