"""The plain table from a recipe to its steps, and what is to be done about each.

Every step is (name, module, config, inputs, files). Its fingerprint covers the literals of the recipe that it uses, the
content of outside files, the fingerprints of its inputs, and the integer VERSION in its module, which rises when the
meaning of the output changes. Nothing here knows what a step does; `commands/run.py` carries a plan out.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gristmill.errors import RecipeError, ResourceError
from gristmill.graph.step import resolve, resolve_files, visible_files
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.recipe import Recipe
from gristmill.store.artifact import RECORD, is_committed
from gristmill.store.durable import file_sha256, read_json, write_json
from gristmill.store.fingerprint import canonical, differences, fingerprint

State = Literal["done", "missing", "drifted"]
FILE_HASHES = ".file-hashes.json"  # in the run's folder
PACK_FILES = ("pack.yaml", "items.jsonl")


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the lifecycle.

    config: the literals of the recipe that define its output. inputs: steps whose artefacts it reads.
    files: outside files by what they are for → paths or globs of the recipe.
    """

    name: str
    module: str
    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Planned:
    """A step with its identity and its state. reasons: in words, why it will run; empty when done."""

    step: Step
    identity: Mapping[str, Any]
    fingerprint: str
    state: State
    reasons: tuple[str, ...]
    folder: Path


def steps_of(recipe: Recipe) -> list[Step]:
    """The table: every step of this recipe, in an order in which they can run."""
    packs = {
        f"pack {name}": tuple(f"{pack.path}/{file}" for file in PACK_FILES)
        for name, pack in sorted(recipe.packs.items())
    }
    held_out = {f"pack {name}": packs[f"pack {name}"] for name, pack in recipe.packs.items() if pack.held_out}
    seed = {"seed": recipe.seed}
    return [
        *_curation(recipe, held_out, seed),
        *_training(recipe, packs, held_out, seed),
        *_results(recipe, packs),
    ]


def _curation(recipe: Recipe, held_out: Mapping[str, tuple[str, ...]], seed: Mapping[str, int]) -> Iterable[Step]:
    for name, source in recipe.sources.items():
        yield Step(
            name=f"extract/{name}",
            module="gristmill.extract.extract",
            config={"source": source.model_dump(exclude={"unique_tokens"})},
            files={"source": tuple(source.read.paths), **held_out},
        )
    for name, classifier in recipe.classifiers.items():
        second = (classifier.second_annotations,) if classifier.second_annotations else ()
        yield Step(
            name=f"classifier/{name}",
            module="gristmill.score.train_classifier",
            config={"classifier": classifier.model_dump(), **seed},
            inputs=(f"extract/{classifier.source}",),
            files={"annotations": (classifier.annotations, *second)},
        )
    for name, threshold in recipe.select.min_scores.items():
        yield Step(
            name=f"score/{name}",
            module="gristmill.score.score",
            inputs=(f"extract/{name}", f"classifier/{threshold.classifier}"),
        )
    yield Step(
        name="select",
        module="gristmill.select.select",
        config={"select": recipe.select.model_dump(), "sources": list(recipe.sources), **seed},
        inputs=(
            *(f"extract/{name}" for name in recipe.sources),
            *(f"score/{name}" for name in recipe.select.min_scores),
        ),
        files=held_out,
    )


def _training(
    recipe: Recipe,
    packs: Mapping[str, tuple[str, ...]],
    held_out: Mapping[str, tuple[str, ...]],
    seed: Mapping[str, int],
) -> Iterable[Step]:
    yield Step(
        name="tokenizer",
        module="gristmill.tokens.train_tokenizer",
        config={"tokenizer": recipe.tokenizer.model_dump(), **seed},
        inputs=("select",),
    )
    yield Step(name="tokenize", module="gristmill.tokens.tokenize", inputs=("select", "tokenizer"))
    yield Step(
        name="pretrain",
        module="gristmill.train.pretrain",
        config={"model": recipe.model.model_dump(), "pretrain": recipe.pretrain.model_dump(), **seed},
        inputs=("tokenizer", "tokenize"),
        files={f"pack {name}": packs[f"pack {name}"] for name in recipe.pretrain.watch.packs},
    )
    if recipe.chat is not None:
        yield Step(
            name="synthesize",
            module="gristmill.synthesize.synthesize",
            config={"chat": recipe.chat.model_dump(), **seed},
            inputs=("select",),
            files={"conversations": tuple(recipe.chat.conversations), **held_out},
        )
    if recipe.sft is not None:
        yield Step(
            name="sft",
            module="gristmill.align.sft",
            config={"sft": recipe.sft.model_dump(), **seed},
            inputs=("tokenizer", "pretrain", "synthesize"),
        )
    if recipe.pairs is not None:
        yield Step(
            name="pairs",
            module="gristmill.align.make_pairs",
            config={"pairs": recipe.pairs.model_dump(), **seed},
            inputs=("tokenizer", "sft", "synthesize"),
            files=held_out,
        )
    if recipe.dpo is not None:
        yield Step(
            name="dpo",
            module="gristmill.align.dpo",
            config={"dpo": recipe.dpo.model_dump(), **seed},
            inputs=("tokenizer", "sft", "pairs"),
        )


def _results(recipe: Recipe, packs: Mapping[str, tuple[str, ...]]) -> Iterable[Step]:
    models = model_steps(recipe)
    chat = ("synthesize",) if recipe.chat is not None else ()
    yield Step(
        name="evaluate",
        module="gristmill.evaluate.evaluate",
        config={
            "evaluate": recipe.evaluate.model_dump(),
            "held_out": {name: recipe.packs[name].held_out for name in recipe.evaluate.packs},
        },
        inputs=("select", "tokenizer", "tokenize", *chat, *models),
        files={f"pack {name}": packs[f"pack {name}"] for name in recipe.evaluate.packs},
    )
    before = [step.name for step in (*_curation(recipe, {}, {}), *_training(recipe, packs, {}, {}))]
    yield Step(
        name="export",
        module="gristmill.export.export",
        config={"export": recipe.export.model_dump(), "name": recipe.name, "description": recipe.description},
        inputs=(*before, "evaluate"),
    )
    yield Step(
        name="report",
        module="gristmill.report.report",
        config={"name": recipe.name, "description": recipe.description},
        inputs=(*before, "evaluate", "export"),
    )


def model_steps(recipe: Recipe) -> list[str]:
    """The steps that leave a model, in order; the last one is what the recipe is for."""
    return ["pretrain", *(name for name in ("sft", "dpo") if getattr(recipe, name) is not None)]


# ── state ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def run_folder(runs_dir: Path, recipe: Recipe) -> Path:
    """Where a recipe's artefacts are."""
    return runs_dir / recipe.name


def make_plan(loaded: LoadedRecipe, run: Path) -> list[Planned]:
    """Every step with its state: done, missing, or drifted from what the recipe now says, and why."""
    hashes = _FileHashes(run / FILE_HASHES)
    planned: dict[str, Planned] = {}
    for step in steps_of(loaded.recipe):
        identity = {
            "version": step_version(step.module),
            "config": canonical(step.config),
            "files": hashes.of_step(step, loaded.folder),
            "inputs": {name: planned[name].fingerprint for name in step.inputs},
        }
        mark = fingerprint({"step": step.name, **identity})
        folder = run / step.name
        state, reasons = _state(folder, step, identity, mark, planned)
        planned[step.name] = Planned(
            step=step, identity=identity, fingerprint=mark, state=state, reasons=reasons, folder=folder
        )
    hashes.save()
    return list(planned.values())


def hash_files(step: Step, recipe_dir: Path, run: Path) -> dict[str, dict[str, str]]:
    """Label → name → SHA-256 of the outside files of a step as they are now; what has not changed is not read again."""
    hashes = _FileHashes(run / FILE_HASHES)
    found = hashes.of_step(step, recipe_dir)
    hashes.save()
    return found


def step_version(module: str) -> int:
    """The integer VERSION of a step's module, read without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{module} is in the table but not in the package"
    assert spec.origin is not None, module
    found = re.search(r"^VERSION(?:: int)? = (\d+)$", Path(spec.origin).read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None, f"{module} states no VERSION"
    return int(found[1])


def _state(
    folder: Path, step: Step, identity: Mapping[str, Any], mark: str, planned: Mapping[str, Planned]
) -> tuple[State, tuple[str, ...]]:
    if not is_committed(folder):
        return "missing", ("not made yet",)
    record = read_json(folder / RECORD)
    if record["fingerprint"] == mark:
        return "done", ()
    old = record["identity"]
    reasons = differences(old["config"], identity["config"])
    if old["version"] != identity["version"]:
        reasons.append(f"the code of {step.name} changed its meaning: version {old['version']} → {identity['version']}")
    for label, files in identity["files"].items():
        if old["files"].get(label) != files:
            reasons.append(f"{label}: files changed")
    for name, value in identity["inputs"].items():
        if old["inputs"].get(name) != value:
            reasons.append(f"{name} is remade" if planned[name].state != "done" else f"{name} was remade")
    return "drifted", tuple(reasons) or ("the record is of an older form",)


class _FileHashes:
    """SHA-256 of outside files; a file whose size and time have not changed is not read again."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._known: dict[str, list[Any]] = read_json(cache) if cache.is_file() else {}
        self._changed = False

    def of_step(self, step: Step, recipe_dir: Path) -> dict[str, dict[str, str]]:
        """Those of all files of a step, by what they are for."""
        return {
            label: self.of(recipe_dir, list(patterns), where=f"{step.name}, {label}")
            for label, patterns in sorted(step.files.items())
        }

    def of(self, recipe_dir: Path, patterns: list[str], *, where: str) -> dict[str, str]:
        """Name → SHA-256, for all files that the patterns name, if any; folders are walked, hidden files aside.

        A name is the path relative to the recipe, or, where files lie elsewhere, to the folder that holds them all: it
        says nothing of where that folder lies, and no two files share one.
        """
        paths = resolve_files(recipe_dir, patterns, where=where)
        files = [file for path in paths for file in (visible_files(path) if path.is_dir() else [path])]
        if patterns and not files:
            raise RecipeError(
                f"{where}: {patterns} name folders without a single file below {resolve(recipe_dir, '.')}."
            )
        inside = all(file.is_relative_to(recipe_dir) for file in files)
        start = recipe_dir if inside else Path(os.path.commonpath([file.parent for file in files]))
        return {file.relative_to(start).as_posix(): self._hash(file) for file in files}

    def _hash(self, path: Path) -> str:
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        known = self._known.get(str(path))
        if known is None or known[:2] != stamp:
            known = [*stamp, file_sha256(path)]
            self._known[str(path)] = known
            self._changed = True
        return str(known[2])

    def save(self) -> None:
        """Keep what was learnt beside the run, if there is one."""
        if self._changed and self._cache.parent.is_dir():
            with contextlib.suppress(OSError, ResourceError):  # another's folder, or a full disk: it is only a cache
                write_json(self._cache, self._known)
