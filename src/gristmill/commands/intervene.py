"""COMMANDS intervene, rewind: a change in the middle of a run's pretraining, as a numbered file of the run or as a fork of the recipe.

    now ──→ the change, checked against the recipe, what is trained and the epoch budget ──→ interventions/001.yaml, or NAME.yaml

Nothing is trained here: the next `gristmill run` resumes from the newest checkpoint that the change leaves as it was. It is held from before
the file is written, for a run at work removes old ones. With the change the file keeps when it was decided and what was measured last, for
whoever asks later what it rested on.
"""

from __future__ import annotations

import datetime
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gristmill.display import plain_table
from gristmill.errors import ArtifactError, RecipeError
from gristmill.graph.machine import Machine
from gristmill.graph.state import States
from gristmill.pipeline import hashes_of, open_states
from gristmill.planning.budget import SelectionBudget, check_budget, token_budget
from gristmill.recipe.interventions import CHANGES, keep_intervention, with_change, with_interventions
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.changes import PEAK_LR, SKIP_STEPS
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.section import PATTERNS, RUN_NAME
from gristmill.recipe.schema.training import Pretrain
from gristmill.remake import PRETRAIN, ResumePoint, resume_point, seconds_at_stake, steps_to_resume_from
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.durable import atomic_path
from gristmill.store.heartbeat import read_beat
from gristmill.store.jsonl import read_log
from gristmill.store.store import RunLinks, Store
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.tokenize import selection_tokens
from gristmill.train.monitor import METRICS
from gristmill.train.outputs import last_measured
from gristmill.units import counted, scale, seconds


@dataclass(frozen=True, kw_only=True)
class Moment:
    """Where pretraining is: steps done, what was measured last (metric → value), and after which step; None before the first time."""

    step: int
    measured: Mapping[str, float]
    measured_after: int | None

    @classmethod
    def of(cls, links: RunLinks) -> Moment:
        """By the run's log, or by its checkpoints where the log ends before them."""
        folder = links.artefact(PRETRAIN) or links.unfinished(PRETRAIN)
        lines = [] if folder is None else read_log(folder / METRICS)
        steps = [line["step"] for line in lines] + [
            ref.step for ref in CheckpointIndex(links.store, PRETRAIN).own(links)
        ]
        return cls(
            step=max(steps, default=0),
            measured=last_measured(lines),
            measured_after=max((line["step"] for line in lines if line["kind"] == "eval"), default=None),
        )


def intervene(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    settings: Mapping[str, Any],
    after_step: int | None,
    why: str,
    fork: str | None,
    overrides: Sequence[str],
    remake: Sequence[str] = (),
    console: Console,
) -> Path:
    """Says what the change does to the budget, what is trained again and where pretraining resumes; then writes it. Returns the file.

    settings: of `settings_of`. after_step: None for the steps that are done at this moment. fork: the name of another run, which then
    shares what both have in common. overrides: those that the recipe was loaded with, which the run needs again. remake: "pretrain", or
    "all", where it may start from the beginning. Raises RecipeError where nothing is trained yet, for a change that does not fit, for one
    that breaks the epoch cap, and where all would start over and nobody agreed to that; then nothing is written.
    """
    links = RunLinks(Store(machine.runs_dir), loaded.recipe.name)
    before = with_interventions(loaded, links.folder)
    hashes = hashes_of(loaded, machine, say=lambda line: None)
    states = open_states(before, links, hashes)
    now = Moment.of(links)
    pretrain = before.recipe.pretrain
    if not now.step:
        now = replace(now, step=_steps_shared(states, pretrain, machine))
    if not now.step:
        raise RecipeError(
            f"nothing of {loaded.recipe.name} is trained yet, so there is no middle to change. Edit {loaded.path.name} itself."
        )
    if after_step is None and now.step >= pretrain.total_tokens // pretrain.global_batch_tokens:
        raise RecipeError(
            f"the pretraining of {loaded.recipe.name} is finished: its {counted(now.step, 'step')} are done, so no stage is still to come.\n"
            "  --after-step N says after which step the change comes; what follows N is then trained again. With --fork NAME it\n"
            "  becomes another run, and this one stays as it is."
        )
    at = now.step if after_step is None else after_step
    _check_place(before, settings, at)
    change = {"after_step": at, "set": dict(settings), "why": why}
    became = with_change(before, change, origin="the change")
    tokens = links.artefact("tokenize") or states["tokenize"].folder
    budgets = [_budget(one.recipe, tokens, run=links.folder) for one in (before, became)]
    check_budget(budgets[1], became.recipe.pretrain)
    noted = {
        "at": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "step": now.step,
        "measured_after_step": now.measured_after,
        "measured": dict(now.measured),
    }
    console.print(_budget_table(*budgets))
    if fork is not None:
        so_far = [one.model_dump(mode="json", exclude_unset=True) for one in pretrain.changes]
        return write_fork(
            loaded, {"changes": [*so_far, change]}, fork, machine=machine, overrides=overrides, console=console
        )
    states = open_states(became, links, hashes)
    point = _held_resume_point(states, machine)
    if point is not None:
        if not point.step and not {PRETRAIN, "all"}.intersection(remake):
            steps = steps_to_resume_from(open_states(before, links, hashes), machine)
            raise RecipeError(_all_starts_over(point, at, now.step, steps, states, machine))
        if point.step < now.step:
            console.print(Text(_trained_again(point, now.step, states, machine)))
    path = keep_intervention(links.folder, change, noted)
    console.print(Text(f"wrote {path}"))
    _say_what_next(point, links, _command(loaded.path, overrides, machine), console)
    return path


def _check_place(loaded: LoadedRecipe, settings: Mapping[str, Any], at: int) -> None:
    """Raises RecipeError for a change before one that is there already, and for one that passes over more data than is left to read. Data
    may be passed over before other changes."""
    pretrain = loaded.recipe.pretrain
    left = pretrain.total_tokens // pretrain.global_batch_tokens - at
    if 0 < left <= settings.get(SKIP_STEPS, 0):
        raise RecipeError(
            f"--skip {settings[SKIP_STEPS]:,} would pass over the data of all steps that are left, or of more: {counted(left, 'step')} after step {at:,}. "
            "Give a smaller number."
        )
    last = pretrain.changes[-1] if pretrain.changes else None
    if last is not None and at < last.after_step and settings.keys() != {SKIP_STEPS}:
        place = loaded.origins.get((*CHANGES, len(pretrain.changes) - 1), str(loaded.path))
        raise RecipeError(
            f"a change after step {at:,} would come before one that is there already: {last.in_words}, after step {last.after_step:,} "
            f"({place}).\n  --after-step {last.after_step} puts it behind that one; or remove that one first."
        )


def _steps_shared(states: States, pretrain: Pretrain, machine: Machine) -> int:
    """How many steps other runs have made that a run without any would not make again."""
    if states[PRETRAIN].state == "done":
        return pretrain.total_tokens // pretrain.global_batch_tokens
    point = resume_point(states, machine)
    return 0 if point is None else point.step


def settings_of(
    *, stage: str | None = None, mix: str | None = None, peak_lr: float | None = None, skip: int | None = None
) -> dict[str, Any]:
    """What `pretrain.changes[…].set` takes, of what is given. Raises RecipeError for a mixture that is none."""
    mixture = None if mix is None else read_mixture(mix)
    settings = {f"stages.{stage}.mixture": mixture, PEAK_LR: peak_lr, SKIP_STEPS: skip}
    return {key: value for key, value in settings.items() if value is not None}


def read_mixture(text: str) -> dict[str, float]:
    """The shares of `web=.6,book=.4`. Raises RecipeError for anything else."""
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, equals, share = (word.strip() for word in part.partition("="))
        try:
            value = float(share)
        except ValueError:
            value = math.nan
        if not equals or not name or name in shares or math.isnan(value):
            raise RecipeError(f"--mix {text!r}: {part!r} is no share; expected SOURCE=SHARE, such as web=.6,book=.4")
        shares[name] = value
    return shares


def _command(path: Path, overrides: Sequence[str], machine: Machine) -> str:
    """The command that carries it out, with the options that decide of which run. A fork keeps its own name."""
    kept = [override for override in overrides if not override.startswith("name=")]
    folder = ["--runs-dir", str(machine.runs_dir)] if machine.runs_dir != Machine().runs_dir else []
    return shlex.join(["gristmill", "run", str(path), *kept, *folder])


def _budget(recipe: Recipe, tokens: Path | None, *, run: Path) -> list[SelectionBudget]:
    drawn = {draw.source for stage in recipe.pretrain.as_changed().stages for draw in stage.mixture}
    if tokens is None:
        raise ArtifactError(
            f"{run} has no tokens, so the budget is not known.\n  `gristmill run RECIPE --until tokenize` makes them."
        )
    tokenized = Tokenized(tokens)
    there = sorted(path.name for path in tokens.iterdir() if path.is_dir())
    shards = {name: TokenShard(tokenized.of(name).train) for name in there}
    if missing := sorted(drawn - shards.keys()):
        raise RecipeError(f"{', '.join(missing)} of the mixture has no tokens in {run}; it has {', '.join(there)}.")
    return token_budget(recipe.pretrain, there, selection_tokens(recipe.pretrain, shards))


def _budget_table(before: Sequence[SelectionBudget], after: Sequence[SelectionBudget]) -> Table:
    """Tokens and epochs of each selection without and with the change."""
    table = plain_table("source", "tokens >", "with it >", "unique >", "epochs >", "with it >", "cap >")
    old = {row.selection: row for row in before}
    new = {row.selection: row for row in after}
    for selection in dict.fromkeys([*new, *old]):
        rows = old.get(selection), new.get(selection)
        known = rows[1] or rows[0]
        assert known is not None
        table.add_row(
            str(selection),
            *(scale(row.total_tokens) if row else "·" for row in rows),
            scale(known.unique_tokens or 0),
            *(f"{row.epochs[-1]:.2f}" if row and row.epochs else "·" for row in rows),
            f"{known.max_epochs:g}",
        )
    return table


def write_fork(
    loaded: LoadedRecipe,
    pretrain: Mapping[str, Any],
    name: str,
    *,
    machine: Machine,
    overrides: Sequence[str],
    console: Console,
    description: str | None = None,
) -> Path:
    """Writes a recipe of another name beside this one, which differs from it in these values of `pretrain`, and says which command trains it;
    or says that it is there already. Returns its path. Raises RecipeError for a name that is none, or that is another's."""
    try:
        Recipe.model_validate({**loaded.recipe.model_dump(exclude_unset=True), "name": name})
    except ValidationError:
        raise RecipeError(f"--fork {name!r} is no name of a run; it takes {PATTERNS[RUN_NAME]}.") from None
    path = loaded.path.with_name(f"{name}.yaml")
    described = {} if description is None else {"description": description}
    data = {"extends": loaded.path.name, "name": name, **described, "pretrain": dict(pretrain)}
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    is_there = path.is_file() and path.read_text(encoding="utf-8") == text
    if name == loaded.recipe.name:
        raise RecipeError(f"--fork {name} is the name of this run. Give the fork another name.")
    if not is_there and path.exists():
        raise RecipeError(f"{path} is there already and says something else. Give the fork another name.")
    if not is_there and (machine.runs_dir / name).exists():
        raise RecipeError(f"{machine.runs_dir / name} is a run of this name already. Give the fork another name.")
    if not is_there:
        with atomic_path(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    said = f"{path} is there already and says the same" if is_there else f"wrote {path}"
    console.print(f"{said}; {_command(path, overrides, machine)} trains it", markup=False, highlight=False)
    return path


def _held_resume_point(states: States, machine: Machine) -> ResumePoint | None:
    """Where pretraining would resume; that checkpoint is held for it. A run at work may have removed one that was just found."""
    index = CheckpointIndex(states.run.store, PRETRAIN)
    while True:
        point = resume_point(states, machine)
        if point is None or point.checkpoint is None or index.reserve(states.run, point.checkpoint):
            return point


def _trained_again(point: ResumePoint, done: int, states: States, machine: Machine) -> str:
    last = min(done, point.num_steps)
    return (
        f"steps {point.step + 1:,} to {last:,} are trained again: {last - point.step:,} of the {done:,} that are done, about "
        f"{_at_stake(done, states, machine)} of work"
    )


def _at_stake(done: int, states: States, machine: Machine) -> str:
    return seconds(max(1.0, seconds_at_stake(states, PRETRAIN, machine, steps_done=done)))


def _all_starts_over(
    point: ResumePoint, after_step: int, done: int, steps: Sequence[int], states: States, machine: Machine
) -> str:
    """steps: of checkpoints that fit the recipe without the change."""
    left = [f"{step:,}" for step in steps if after_step < step < point.num_steps]
    others = (
        f"  Left are those of {'step' if len(left) == 1 else 'steps'} {', '.join(left)}: a change after such a step resumes from it.\n"
        if left
        else ""
    )
    return (
        f"no checkpoint of step {after_step:,} or before is left that fits, so all {point.num_steps:,} steps would be trained from the "
        f"beginning; about {_at_stake(done, states, machine)} of work would not be used.\n"
        f"{others}  To start from the beginning: --remake {PRETRAIN}. With --fork NAME it becomes another run, and this one stays as it is."
    )


def _say_what_next(point: ResumePoint | None, links: RunLinks, command: str, console: Console) -> None:
    beat = read_beat(links.folder)
    if beat is not None and beat.is_alive:
        console.print(
            f"The run that is at work does not know of it: stop it now (Ctrl-C saves), then {command}.",
            markup=False,
            highlight=False,
        )
    console.print(
        f"{command}: pretrain {point}" if point else f"{command} carries it out", markup=False, highlight=False
    )
