"""How long each step takes on this machine: by the shipped ratios, corrected by what finished steps of the kind took here.

Steps that ran while other processes used the cores correct nothing: forecasts are for idle cores. Each step's record keeps the
forecast made before it ran: the report compares it with the time taken, and later plans learn from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from gristmill.amounts import find_amounts, present_files
from gristmill.graph.cores import NOTABLE
from gristmill.graph.machine import Machine
from gristmill.graph.record import Planned, TrainingForecast
from gristmill.graph.state import States
from gristmill.pipeline import steps_of
from gristmill.planning.cost import count_parameters, pretraining_flops, training_memory
from gristmill.planning.fleet import FleetPlan
from gristmill.planning.ranks import TRAINED, speedup_of_ranks
from gristmill.planning.reading import kept_readings
from gristmill.planning.speed import Speed, hardware_name, has_profile, machine_speed
from gristmill.planning.steps import Amounts, Work, correction, works
from gristmill.preflight import check_files
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.recipe import Recipe
from gristmill.remake import PRETRAIN, ResumePoint, resume_point, work_in
from gristmill.store.store import RunLinks, Store

RECENT_RECORDS = 40  # of a kind of step that are looked at


@dataclass(frozen=True, kw_only=True)
class StepForecast:
    """How long one step takes. work: what it works through. seconds: of the whole step; is_done: it took so long.

    fleet: the devices that it is planned for; "" for this machine.

    resumes: the checkpoint that a training resumes from, if any; its steps are kept.
    num_records: how many finished steps of its kind on this machine the seconds rest on, beside the shipped ratios.
    """

    step: str
    work: Work
    seconds: float
    num_records: int
    fleet: str = ""
    is_done: bool = False
    resumes: ResumePoint | None = None

    @property
    def left_seconds(self) -> float:
        """Of what is still to be made."""
        if self.is_done:
            return 0.0
        return self.seconds if self.resumes is None else self.seconds * (1 - self.resumes.step / self.resumes.num_steps)


def step_forecasts(
    recipe: Recipe, amounts: Amounts, machine: Machine, speed: Speed, states: States | None, links: RunLinks
) -> tuple[StepForecast, ...]:
    """The forecast of every step of the recipe, in the order of the table."""
    work = works(recipe, amounts, machine)
    corrections = Corrections(links.store, machine, speed)
    forecasts = [corrections.step_forecast(step.name, work[step.name]) for step in steps_of(recipe)]
    return tuple(forecasts) if states is None else tuple(_as_it_is(made, states, machine) for made in forecasts)


def by_ranks(forecasts: Sequence[StepForecast], machine: Machine) -> tuple[StepForecast, ...]:
    """The forecasts of steps by one process, with the training that is still to be done by the ranks of the machine."""
    faster = speedup_of_ranks(machine)
    return tuple(
        replace(made, seconds=made.seconds / faster) if made.step in TRAINED and not made.is_done else made
        for made in forecasts
    )


def on_fleet(forecasts: Sequence[StepForecast], planned: FleetPlan) -> tuple[StepForecast, ...]:
    """The forecasts, with the training that is still to be done on the devices of a plan."""
    return tuple(
        made
        if made.is_done or made.step not in planned.seconds
        else replace(made, seconds=planned.seconds[made.step], num_records=0, fleet=str(planned.fleet))
        for made in forecasts
    )


def _as_it_is(forecast: StepForecast, states: States, machine: Machine) -> StepForecast:
    """The forecast; of a step that is done what it took, of pretraining with the checkpoint that it resumes from."""
    state = states[forecast.step]
    if forecast.step == PRETRAIN and (point := resume_point(states, machine)) is not None and point.step:
        return replace(forecast, resumes=point)
    if state.state != "done" or state.identity is None:
        return forecast
    record = states.record(forecast.step, state.identity)
    return replace(forecast, is_done=True, seconds=forecast.seconds if record is None else work_in(record))


class Corrections:
    """What finished steps of this machine took over what the shipped ratios say of them, by the ratio they are compared by."""

    def __init__(self, store: Store, machine: Machine, speed: Speed) -> None:
        self._store, self._machine, self._speed = store, machine, speed
        self._done: dict[str, list[tuple[Work, float]]] = {}

    def step_forecast(self, name: str, work: Work) -> StepForecast:
        """The forecast of one step. That of pretraining by a measured speed needs no correction."""
        if name == PRETRAIN and self._speed.is_measured:
            return StepForecast(step=name, work=work, seconds=work.seconds(self._speed.flops_per_second), num_records=0)
        alike = [entry for entry in self._of_kind(name.partition("/")[0]) if entry[0].ratio == work.ratio]
        share = correction(alike, self._speed.flops_per_second)
        seconds = work.seconds(self._speed.flops_per_second) * (1.0 if share is None else share)
        return StepForecast(step=name, work=work, seconds=seconds, num_records=len(alike))

    def _of_kind(self, kind: str) -> list[tuple[Work, float]]:
        """(work, seconds) of the newest records of a kind of step, made with the processes and threads of now on idle cores; of
        extract also what init read."""
        if kind not in self._done:
            records = self._store.recent_records(kind, most=RECENT_RECORDS)
            self._done[kind] = [
                (Work(**record["planned"]["work"]), work_in(record))
                for record in records
                if "planned" in record
                and record.get("busy_cores", NOTABLE) < NOTABLE
                and _is_of(record.get("machine", {}), self._machine)
            ]
            if kind == "extract" and self._machine.ray is None:
                self._done[kind] += kept_readings(self._machine.runs_dir)
        return self._done[kind]


def _is_of(made_with: Mapping[str, Any], machine: Machine) -> bool:
    """Whether a record was made on this machine, with as many processes and threads as now; on a cluster only for its own runs."""
    if made_with.get("ray") not in (None, machine.ray):
        return False
    now = {"processes": machine.processes, "threads": machine.threads, "hardware": hardware_name()}
    return all(made_with.get(key) == value for key, value in now.items())


class Foretold:
    """What is said of each step before it runs, for its record: at a run's beginning the files, before a step what is known then."""

    def __init__(self, loaded: LoadedRecipe, machine: Machine, links: RunLinks) -> None:
        """Raises RecipeError or DataError for files, as far as they are here, whose first rows are not what the recipe says."""
        self._loaded, self._machine, self._links = loaded, machine, links
        self._files = present_files(loaded, links)
        self._speed: Speed | None = None
        check_files(loaded, self._files)

    def of(self, name: str) -> Planned:
        """The forecast of a step that is about to run."""
        [made] = self._forecasts([name])
        return Planned(work=asdict(made.work), seconds=made.seconds, num_records=made.num_records)

    def seconds_of(self, names: Sequence[str]) -> float:
        """How long these steps take together, by what is known now."""
        return sum(made.seconds for made in self._forecasts(names))

    def _forecasts(self, names: Sequence[str]) -> list[StepForecast]:
        amounts = find_amounts(self._loaded, self._files, self._links, None).amounts
        work = works(self._loaded.recipe, amounts, self._machine)
        corrections = Corrections(self._links.store, self._machine, self.speed)
        return [corrections.step_forecast(name, work[name]) for name in names]

    def of_training(self) -> TrainingForecast:
        """What is said of pretraining alone, its memory included."""
        recipe = self._loaded.recipe
        vocab_size = recipe.tokenizer.vocab_size
        flops = pretraining_flops(recipe.model, vocab_size, recipe.pretrain)
        return TrainingForecast(
            parameters=count_parameters(recipe.model, vocab_size),
            pretraining_seconds=flops.with_attention / self.speed.flops_per_second,
            memory_bytes=training_memory(recipe, self._machine.micro_batch_tokens).total,
            speed_source=self.speed.how_known,
        )

    @property
    def speed(self) -> Speed:
        """Of training: measured once a profile is there, else guessed once."""
        if self._speed is None or (not self._speed.is_measured and has_profile(self._machine.runs_dir)):
            recipe = self._loaded.recipe
            self._speed, _ = machine_speed(count_parameters(recipe.model, recipe.tokenizer.vocab_size), self._machine)
        return self._speed
