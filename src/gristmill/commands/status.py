"""COMMAND status: where a run is, what is next, and which step would be remade and why."""

from __future__ import annotations

import datetime
import json
from collections.abc import Collection, Iterable, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gristmill.commands.follow import (
    Made,
    follow,
    loading_seconds,
    moment_of,
    step_seconds,
    told,
    training_moment,
)
from gristmill.commands.run_folder import print_place
from gristmill.commands.training_page import print_training, training_json
from gristmill.graph.machine import Machine
from gristmill.graph.state import States, StepState
from gristmill.pipeline import hashes_of, kept_steps, open_states
from gristmill.recipe.interventions import RUN_RECIPE, with_interventions
from gristmill.recipe.load import LoadedRecipe, load_recipe
from gristmill.remake import PRETRAIN, ResumePoint, resume_point
from gristmill.report.watching import groups_of_run, table_json, words_of
from gristmill.store.heartbeat import Beat, read_beat, read_beats_of_ranks
from gristmill.store.store import RunLinks, Store
from gristmill.train.events import EVENTS, AnyEvent, line_of, read_events
from gristmill.train.standing.under_way import UnderWay
from gristmill.units import counted

SHOWN_EVENTS = 5
AT_WORK = "at work"
COLOURS = {"done": "green", "missing": "yellow", "drifted": "magenta", "undecided": "yellow", AT_WORK: "cyan"}


def status(
    loaded: LoadedRecipe, machine: Machine, *, console: Console, as_json: bool = False, follows: bool = False
) -> int:
    """Print what the run is doing and one row per step: state, when and how long, and the reason if it will run.

    follows: then show what the run does until it ends. Returns the exit code that it ended with; 0 without `follows`.
    """
    links = RunLinks(Store(machine.runs_dir), loaded.recipe.name)
    said = Console(stderr=True)
    hashes = hashes_of(loaded, machine, say=lambda line: said.print(line, markup=False, highlight=False))
    beat = read_beat(links.folder)
    states = open_states(with_interventions(loaded, links.folder), links, hashes)
    if as_json:
        rows = [
            {
                "step": state.step.name,
                "state": state.state,
                "reasons": list(state.reasons),
                **({"waits_for": list(state.waits_for)} if state.waits_for else {}),
                **_facts(state, links),
            }
            for state in states.all()
        ]
        if (point := resume_point(states, machine)) is not None:
            rows = [
                row | ({"resumes_from": point.step, "steps": point.num_steps} if row["step"] == PRETRAIN else {})
                for row in rows
            ]
        events = [line_of(event) for event in _events(links)]
        rows = [row | ({"events": events} if events and row["step"] == PRETRAIN else {}) for row in rows]
        if (training := _training(loaded, links, states, machine, beat)) is not None:
            told_of = training_json(training, step_seconds=step_seconds(training, training_moment(beat)))
            rows = [row | ({"training": told_of} if row["step"] == PRETRAIN else {}) for row in rows]
        if (groups := groups_of_run(links, loaded.recipe.locked_packs)) is not None:
            rows = [row | ({"groups": table_json(groups)} if row["step"] == PRETRAIN else {}) for row in rows]
        doing = None if beat is None or not beat.is_alive else beat.doing
        rows = [row | ({"running": doing} if doing and doing["step"] == row["step"] else {}) for row in rows]
        console.print_json(json.dumps(rows))
        return 0
    print_place(links, loaded.folder, console)
    if beat is not None and beat.exit_code != 0:
        console.print(escape(told(beat)), highlight=False)
    for rank, of_rank in read_beats_of_ranks(links.folder).items():
        if of_rank.exit_code != 0:
            console.print(escape(f"rank {rank}: {told(of_rank)}"), highlight=False)
    kept = kept_steps(loaded.recipe)
    before = _rows(states, links, machine, kept)
    console.print(_table(before))
    for line in _event_lines(_events(links)):
        console.print(line, markup=False, highlight=False)
    if (training := _training(loaded, links, states, machine, beat)) is not None:
        moment = training_moment(beat)
        print_training(
            training,
            step_seconds=step_seconds(training, moment),
            now=None if moment is None else datetime.datetime.now(),
            console=console,
        )
    if (groups := groups_of_run(links, loaded.recipe.locked_packs)) is not None:
        for line in ("", *words_of(groups)):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    if not follows:
        return 0
    made = Made(links, [*states.steps])
    code = follow(links.folder, console=console, made=made.lines, loading_seconds=loading_seconds())
    states.refresh()
    if (now := _rows(states, links, machine, kept)) != before:
        console.print(_table(now))
    return code


def _training(
    loaded: LoadedRecipe, links: RunLinks, states: States, machine: Machine, beat: Beat | None
) -> UnderWay | None:
    """Pretraining as it is: under way, where it would be resumed, or at its end; None where nothing of it is trained, or its tokens are
    not here."""
    tokens, log = states["tokenize"].folder, links.unfinished(PRETRAIN) or links.artefact(PRETRAIN)
    moment = training_moment(beat)
    if moment is not None and moment.position is not None:
        tokens, step = links.artefact("tokenize"), moment.position.done
        recipe = load_recipe(links.folder / RUN_RECIPE).recipe  # the one that it trains by, whatever was edited since
    elif states[PRETRAIN].state == "done":
        log, recipe = states[PRETRAIN].folder, with_interventions(loaded, links.folder).recipe
        step = sum(stage.tokens for stage in recipe.pretrain.stages) // recipe.pretrain.global_batch_tokens
    else:
        point, recipe = resume_point(states, machine), with_interventions(loaded, links.folder).recipe
        step = 0 if point is None else point.step
        if not step:
            return None
    return None if tokens is None else UnderWay.of(recipe, tokens, log, step=step)


def _events(links: RunLinks) -> list[AnyEvent]:
    """What happened in the run's pretraining so far."""
    folder = links.artefact(PRETRAIN) or links.unfinished(PRETRAIN)
    return [] if folder is None else read_events(folder / EVENTS)


def _event_lines(events: Sequence[AnyEvent]) -> list[str]:
    """The newest events in words, oldest first."""
    shown = [f"{event} ({event.outcome})" if event.outcome else str(event) for event in events[-SHOWN_EVENTS:]]
    earlier = len(events) - len(shown)
    return [*([f"{counted(earlier, 'earlier event')} of pretraining in {EVENTS}"] if earlier else []), *shown]


def _rows(states: States, links: RunLinks, machine: Machine, kept: Collection[str]) -> list[tuple[str, ...]]:
    """Step, state, when it was made, seconds, what will happen and why: of each step; of one that is at work, who makes it."""
    point, working = resume_point(states, machine), _at_work(links)
    rows = list[tuple[str, ...]]()
    for state in states.all():
        facts, who = _facts(state, links), working.get(state.step.name, [])
        words = escape("; ".join(who)) or _words(state, facts, point, is_kept=state.step.name in kept)
        shown = AT_WORK if who else state.state
        rows.append(
            (
                state.step.name,
                f"[{COLOURS[shown]}]{shown}[/]",
                str(facts.get("made_at", ""))[5:16].replace("T", " "),
                f"{facts['wall_seconds']:.1f}" if "wall_seconds" in facts else "",
                words,
            )
        )
    return rows


def _at_work(links: RunLinks) -> dict[str, list[str]]:
    """Step → the processes that make it now, by heartbeats that are alive."""
    found: dict[str, list[str]] = {}
    beats = {"": read_beat(links.folder)} | {
        f"rank {rank}, ": beat for rank, beat in read_beats_of_ranks(links.folder).items()
    }
    for rank, beat in beats.items():
        if beat is not None and beat.is_alive and (moment := moment_of(beat)) is not None:
            found.setdefault(moment.step, []).append(f"{rank}{beat.where}")
    return found


def _table(rows: Iterable[tuple[str, ...]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("step", "state", "made", "seconds"):
        table.add_column(heading, justify="right" if heading == "seconds" else "left", no_wrap=True)
    table.add_column("what will happen and why", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _facts(state: StepState, links: RunLinks) -> dict[str, object]:
    """Of the step's artefact: the one asked for, else the one that the run has."""
    facts: dict[str, object] = {}
    shown = state.identity if state.state == "done" else state.before
    record = None if shown is None else links.record_of(state.step.name, shown)
    if record is not None:
        facts |= {"made_at": record["made_at"], "wall_seconds": record["wall_seconds"]}
    if state.state == "done" and state.folder is None:
        facts["files"] = "removed"
    if state.state != "done" and links.unfinished(state.step.name) is not None:
        facts["begun"] = True
    return facts


def _words(state: StepState, facts: dict[str, object], point: ResumePoint | None, *, is_kept: bool) -> str:
    words = escape("; ".join(state.reasons)) if state.reasons else "[dim]nothing to do[/]"
    if facts.get("files") == "removed":
        words = (
            "its files were removed; run remakes them" if is_kept else "[dim]nothing to do; its files were removed[/]"
        )
    if state.is_made_but_not_linked:
        words = "made earlier; run links it"
    if state.step.name == PRETRAIN and point is not None and (point.step or point.notes):
        return f"{words}; {escape('; '.join([str(point), *point.notes]))}"
    return f"{words}; begun" if facts.get("begun") else words
