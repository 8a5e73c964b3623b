"""The forecast: what a recipe will take, worked out before anything starts.

    recipe ─→ amounts (counted, declared or estimated) ─→ budget: tokens and epochs by source and stage
           └→ parameters, operations ─→ hours of every step on this machine, memory, disk, money

Reads the recipe, the sizes of its files, and what earlier steps left; starts nothing, writes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from gristmill.amounts import DOCUMENT_BYTES, Found, SourceFacts, find_amounts, source_files
from gristmill.cautions import machine_cautions, recipe_cautions
from gristmill.changed import RecipeChange, recipe_changes
from gristmill.data.outside import NotHashedYet
from gristmill.durations import StepForecast, by_ranks, on_fleet, step_forecasts
from gristmill.errors import RecipeError
from gristmill.extract.not_read import in_a_line, not_read_beside
from gristmill.extract.outputs import Extracted
from gristmill.graph.cores import CoreWatch
from gristmill.graph.machine import Machine
from gristmill.graph.state import States
from gristmill.pipeline import hashes_of, open_states, repeated_sources
from gristmill.planning.budget import Selection, SelectionBudget, check_budget, token_budget
from gristmill.planning.cost import (
    Disk,
    Flops,
    Memory,
    count_parameters,
    pretraining_flops,
    run_disk,
    steps_of,
    training_memory,
)
from gristmill.planning.devices import Fleet
from gristmill.planning.fetches import FetchFacts, Told
from gristmill.planning.fleet import FleetPlan, plan_fleet
from gristmill.planning.ranks import check_ranks, rank_note
from gristmill.planning.speed import Speed, load_note, machine_speed
from gristmill.planning.steps import Amounts
from gristmill.preflight import check_files
from gristmill.recheck import check_finished
from gristmill.recipe.interventions import FOLDER, with_interventions
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.curation import NearDuplicates
from gristmill.recipe.schema.recipe import Recipe
from gristmill.select import repeated
from gristmill.select.dedup import disk_bytes
from gristmill.store.store import RunLinks, Store
from gristmill.units import counted

WORD_BYTES = 6  # of English text, the space included
SIMILARITIES = (0.5, 0.6, 0.7, 0.8, 0.9)
HASHED_WITHOUT_ASKING = 256_000_000  # bytes: a second or less; a plan of terabytes answers at once


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A piece of the learning-rate schedule, in tokens and steps."""

    name: Literal["warm-up", "stable", "decay"]
    tokens: int
    steps: float


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """Everything that `gristmill plan` says of a recipe. hours: of all steps, done ones too. price: of those on this machine.

    fleet: what training takes on devices that are not here, if they were asked for. changes: what is asked otherwise than of the run
    that is there.

    held_out: by source, documents, None where they are not counted, and bytes.
    found_duplicates: (Jaccard similarity, chance that the pair is found); empty when near-duplicates stay.
    missing: files that the recipe names and that are not on this machine; unique_tokens then counts as declared.
    states: the state of each step; None where files of the recipe are missing. busy_cores: those that other processes used while
    it was made; the hours are those of idle ones.
    """

    recipe: Recipe
    budget: tuple[SelectionBudget, ...]
    sources: Mapping[str, SourceFacts]
    fetches: Mapping[str, FetchFacts]
    stage_steps: tuple[int, ...]
    phases: tuple[Phase, ...]
    parameters: int
    flops: Flops
    speed: Speed
    steps: tuple[StepForecast, ...]
    hours: float
    memory: Memory
    disk: Disk
    price: float | None
    found_duplicates: tuple[tuple[float, float], ...]
    warnings: tuple[str, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...]
    states: States | None
    busy_cores: float
    held_out: Mapping[str, tuple[int | None, float]] = field(default_factory=dict)
    fleet: FleetPlan | None = None
    changes: tuple[RecipeChange, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types; the recipe by its name."""
        return {
            "recipe": self.recipe.name,
            "tokens": self.recipe.pretrain.total_tokens,
            "steps": sum(self.stage_steps),
            "stages": [
                {"name": stage.name, "tokens": stage.tokens, "steps": steps}
                for stage, steps in zip(self.recipe.pretrain.stages, self.stage_steps)
            ],
            "schedule": [asdict(phase) for phase in self.phases],
            "budget": [_budget_json(row, self.sources) for row in self.budget],
            "sources": {name: asdict(facts) for name, facts in self.sources.items()},
            "fetches": {name: asdict(facts) for name, facts in self.fetches.items()},
            "parameters": self.parameters,
            "flops": asdict(self.flops),
            "speed": asdict(self.speed),
            "steps_seconds": {
                step.step: {
                    "seconds": step.seconds,
                    "work": step.work.words,
                    "on": step.fleet or "this machine",
                    "records": step.num_records,
                    "done": step.is_done,
                    "left_seconds": step.left_seconds,
                }
                for step in self.steps
            },
            "hours": self.hours,
            "busy_cores": self.busy_cores,
            "memory_bytes": {**asdict(self.memory), "total": self.memory.total},
            "disk_bytes": {**asdict(self.disk), "total": self.disk.total},
            "price": self.price,
            "devices": None if self.fleet is None else self.fleet.to_json(),
            "changes": [asdict(change) for change in self.changes],
            "found_duplicates": [list(point) for point in self.found_duplicates],
            "warnings": list(self.warnings),
            "missing": list(self.missing),
            "notes": list(self.notes),
        }


def make_forecast(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    price_per_hour: float | None = None,
    told: Mapping[str, Told] | None = None,
    fleet: Fleet | None = None,
) -> Forecast:
    """The forecast of the recipe with the interventions of its run. fleet: devices that training is planned for, instead of this
    machine. told: by servers, of sources that are to be fetched; nothing is asked here. Sources beyond their cap are in it, with that
    verdict; `check_caps` refuses them. So are files that are missing; `check_present` does.

    Raises RecipeError or DataError for files whose first rows are not what the recipe says; see `preflight`.
    """
    cores, links = CoreWatch(), RunLinks(Store(machine.runs_dir), loaded.recipe.name)
    written, loaded = loaded, with_interventions(loaded, links.folder)
    recipe = loaded.recipe
    check_ranks(recipe.pretrain, machine.ranks)
    files = source_files(loaded, links)
    missing = check_files(loaded, files)
    states, notes = _states(loaded, machine, links)
    notes += _interventions_in_words(written.recipe, recipe, links)
    found = find_amounts(loaded, files, links, states, told=told)
    budget = tuple(token_budget(recipe.pretrain, list(recipe.sources), found.unique))
    vocab_size = recipe.tokenizer.vocab_size
    parameters = count_parameters(recipe.model, vocab_size)
    flops = pretraining_flops(recipe.model, vocab_size, recipe.pretrain)
    speed, speed_notes = machine_speed(parameters, machine)
    memory, disk = training_memory(recipe, machine.micro_batch_tokens), _disk(recipe, found, states)
    present = [source.read for name, source in recipe.sources.items() if files[name] and source.fetch is None]
    notes += in_a_line(not_read_beside(loaded.folder, present, has_chat=recipe.chat is not None), loaded.path)
    steps = step_forecasts(recipe, found.amounts, machine, speed, states, links)
    planned = None if fleet is None else plan_fleet(recipe, {step.step: step.work for step in steps}, fleet)
    steps = by_ranks(steps, machine) if planned is None else on_fleet(steps, planned)
    hours = sum(step.seconds for step in steps) / 3600
    hours_here = sum(step.seconds for step in steps if not step.fleet) / 3600
    busy = cores.busy_cores() or 0.0
    load = load_note(busy, speed)
    return Forecast(
        recipe=recipe,
        budget=budget,
        sources=found.facts,
        fetches=found.fetches,
        stage_steps=tuple(steps_of(recipe.pretrain)),
        phases=_phases(recipe),
        parameters=parameters,
        flops=flops,
        speed=speed,
        steps=steps,
        hours=hours,
        memory=memory,
        disk=disk,
        price=None if price_per_hour is None else price_per_hour * hours_here,
        found_duplicates=_duplicate_curve(recipe.select.near_duplicates),
        warnings=(
            *recipe_cautions(recipe, budget, found),
            *([load] if load and not all(step.is_done for step in steps) else []),
            *machine_cautions(None if planned is not None else memory, disk, machine),
        ),
        missing=tuple(missing),
        notes=(*notes, *speed_notes, *([rank_note(machine)] if machine.ranks > 1 and planned is None else [])),
        states=states,
        busy_cores=busy,
        held_out=found.held_out,
        fleet=planned,
        changes=() if states is None else recipe_changes(states, steps),
    )


def _states(loaded: LoadedRecipe, machine: Machine, links: RunLinks) -> tuple[States | None, list[str]]:
    """The states of the steps, and notes; None where files are not on this machine, or where it would take long to read them."""
    hashes = hashes_of(loaded, machine, max_bytes=HASHED_WITHOUT_ASKING)
    states = open_states(loaded, links, hashes)
    try:
        states.all()
    except RecipeError:
        return None, []
    except NotHashedYet as unread:
        return None, [f"{unread}, so what a change would remake is not told here; run hashes them"]
    return states, []


def _interventions_in_words(written: Recipe, recipe: Recipe, links: RunLinks) -> list[str]:
    """How many interventions the recipe has beside what is written in its file; nothing where there are none."""
    added = len(recipe.pretrain.changes) - len(written.pretrain.changes)
    if not added:
        return []
    verb = "is" if added == 1 else "are"
    return [
        f"{counted(added, 'intervention')} of the run {verb} in these figures: {links.folder / FOLDER}; "
        f"gristmill recipe {links.folder} prints the recipe with them"
    ]


def _duplicate_curve(duplicates: NearDuplicates | None) -> tuple[tuple[float, float], ...]:
    """Chance that MinHash LSH proposes a pair of documents, by their Jaccard similarity."""
    if duplicates is None:
        return ()
    bands, rows = duplicates.num_bands, duplicates.rows_per_band
    return tuple((similarity, 1 - (1 - similarity**rows) ** bands) for similarity in SIMILARITIES)


def check_present(made: Forecast) -> None:
    """Raises RecipeError, as a run would, for files that are missing."""
    if made.missing:
        lines = "\n".join(made.missing)
        raise RecipeError(
            f"{lines}\n  Put the files there, or change the paths. `gristmill plan --without-files` plans without them; unique_tokens then "
            "counts as declared."
        )


def check_caps(made: Forecast) -> None:
    """Raises RecipeError for a source that would be read more often than its cap, or that lost more to one document than the
    recipe allows now, and DataError for one of which more failed."""
    if made.states is not None:
        check_finished(made.recipe, made.states, made.states.steps)
    try:
        check_budget(made.budget, made.recipe.pretrain)
    except RecipeError as error:
        estimated = [name for name, facts in made.sources.items() if facts.how_known == "estimated"]
        if not estimated:
            raise
        raise RecipeError(
            f"{error}\n  Unique tokens of {', '.join(estimated)} are estimated from bytes; if you know better, declare "
            "unique_tokens in the source."
        ) from None


# ── how long and how much ────────────────────────────────────────────────────────────────────────────────────────────


def _disk(recipe: Recipe, found: Found, states: States | None) -> Disk:
    """Bytes of all that a run leaves, and of what it needs while it works."""
    return run_disk(
        recipe,
        found.amounts.all_text,
        sum(found.unique.get(Selection(name), 0) for name in recipe.sources),
        fetched=round(sum(found.amounts.fetch_bytes.values())),
        **_selection_disk(recipe, found.amounts, states),
    )


def _selection_disk(recipe: Recipe, amounts: Amounts, states: States | None) -> dict[str, int]:
    """Bytes of signatures, which stay, and of the searches for duplicates and for repeated text while they run: for the documents that
    extract kept where it has run, else for as many as the text makes at DOCUMENT_BYTES each."""
    text_bytes = amounts.all_text
    folders = [] if states is None else [states[f"extract/{name}"].folder for name in recipe.sources]
    kept = [Extracted(folder) for folder in folders if folder is not None]
    if len(kept) == len(recipe.sources):
        rows = [count for extracted in kept for count in extracted.ledger.sources.values()]
        documents = sum(row.total("kept").documents for row in rows)
    else:
        documents = round(text_bytes / DOCUMENT_BYTES)
    near = recipe.select.near_duplicates or NearDuplicates()
    words = text_bytes / WORD_BYTES / max(1, documents)
    found = disk_bytes(documents, num_bands=near.num_bands, ngrams_per_document=words)
    disk = {"signatures": found["prints"], "search": found["search"]}
    if (section := recipe.select.repeated_text) is not None:
        text_bytes = sum(amounts.text_bytes[name] for name in repeated_sources(recipe, section))
        units = repeated.num_units(text_bytes, documents, min_words=section.min_words)
        disk["repeated"] = repeated.disk_bytes(documents, units, share_lost=section.max_loss)
    return disk


def _phases(recipe: Recipe) -> tuple[Phase, ...]:
    section = recipe.pretrain
    stable = section.total_tokens - section.warmup_tokens - section.decay_tokens
    batch = section.global_batch_tokens
    return (
        Phase(name="warm-up", tokens=section.warmup_tokens, steps=section.warmup_tokens / batch),
        Phase(name="stable", tokens=stable, steps=stable / batch),
        Phase(name="decay", tokens=section.decay_tokens, steps=section.decay_tokens / batch),
    )


def _budget_json(row: SelectionBudget, sources: Mapping[str, SourceFacts]) -> dict[str, Any]:
    return {
        **asdict(row),
        "selection": row.selection._asdict(),
        "total_tokens": row.total_tokens,
        "how_known": sources[row.selection.source].how_known if row.unique_tokens is not None else "unknown",
        "verdict": row.verdict,
    }
