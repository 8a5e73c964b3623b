"""What a run would remake: the work that is at stake, and the checkpoint that pretraining would resume from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from gristmill import units
from gristmill.errors import ArtifactError
from gristmill.graph.machine import Machine
from gristmill.graph.state import States, StepState
from gristmill.planning.speed import hardware_name
from gristmill.recipe.schema.training import Pretrain
from gristmill.store.artifact import PARTIAL_SUFFIX
from gristmill.store.checkpoints import CheckpointIndex, CheckpointRef
from gristmill.store.durable import read_json
from gristmill.store.fingerprint import derive_seed, differences
from gristmill.train.course import Course, course_of
from gristmill.train.prefix import NumberFormat, number_format, prefix_differences, prefix_id, prefixes

PRETRAIN = "pretrain"
TOKENS = "tokens of "
STATE = "state.json"  # of a checkpoint
CHEAP_SECONDS = 600.0  # of finished work that a run remakes without asking


@dataclass(frozen=True, kw_only=True)
class Remake:
    """A step that a run may make. seconds: of work, finished or begun, that is then not used or is done again."""

    step: str
    reasons: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """Pretraining has `num_steps` steps and resumes after `step`; 0 when it starts from the beginning.

    notes: what else there is to resume from, and why it is not taken. checkpoint: None from the beginning.
    """

    step: int
    num_steps: int
    notes: tuple[str, ...] = ()
    checkpoint: CheckpointRef | None = None

    def __str__(self) -> str:
        left = f"{self.num_steps - self.step:,} steps to make"
        if not self.step:
            return f"starts from the beginning; {left}"
        return f"resumes from step {self.step:,} of {self.num_steps:,}; {left}"


def remakes(states: States, machine: Machine, *, wanted: Iterable[str], kept: Collection[str]) -> list[Remake]:
    """What a run of the `wanted` steps may make, in the order of the table: an upper bound while steps are undecided.

    kept: steps that are made again when their files were removed; others only for a step that reads them.
    """
    found: dict[str, Remake] = {}

    def bring(name: str, *, bytes_wanted: bool) -> None:
        state = states[name]
        is_there = state.folder is not None or not bytes_wanted
        if name in found or (state.state == "done" and is_there):
            return
        reasons = state.reasons or ("its files were removed",)
        found[name] = Remake(step=name, reasons=reasons, seconds=seconds_at_stake(states, name, machine))
        for needed in states.steps[name].inputs:
            bring(needed, bytes_wanted=True)

    for name in wanted:
        bring(name, bytes_wanted=name in kept)
    return [found[name] for name in states.steps if name in found]


def remade_words(ahead: Iterable[Remake]) -> str:
    """How much work a run would remake at most, and whether it asks first; "" where there is none."""
    most = sum(remake.seconds for remake in ahead)
    if not most:
        return ""
    asks = "run asks first" if most > CHEAP_SECONDS else f"above {units.seconds(CHEAP_SECONDS)} run asks first"
    return f"at most {units.seconds(most)} of work would be remade; nothing is deleted; {asks} (--remake agrees)"


def seconds_at_stake(states: States, name: str, machine: Machine, *, steps_done: int = 0) -> float:
    """Seconds of work on a step, finished or begun, that would not be used any more, or be done again, if it were made now.

    Of pretraining, only what comes after the checkpoint that it would resume from. steps_done: of it, where more are known to be done than
    a checkpoint was saved of.
    """
    state, links = states[name], states.run
    if state.state == "done":
        made = None if state.identity is None else states.record(name, state.identity)
        return 0.0 if made is None else work_in(made)
    record = None if state.before is None else links.record_of(name, state.before)
    if record is not None:
        seconds, steps = work_in(record), record["counts"].get("steps")
    else:
        seconds, steps = _begun(states, state), None
    if name != PRETRAIN or not seconds:
        return seconds
    point, own = resume_point(states, machine), CheckpointIndex(links.store, PRETRAIN).own(links)
    if record is None and own:
        seconds = max(seconds, _trained_seconds(own[0]))
    done = steps or max(steps_done, *(ref.step for ref in own), 0)
    return seconds if point is None or not done else seconds * max(0.0, 1.0 - point.step / done)


def work_in(record: Mapping[str, Any]) -> float:
    """Seconds of work in an artefact; of a training also what it inherited with the checkpoint that it resumed from."""
    return max(float(record.get("wall_seconds", 0.0)), float(record.get("counts", {}).get("training_seconds", 0.0)))


def _begun(states: States, state: StepState) -> float:
    """Seconds of unfinished work on a step under another identity than its present one."""
    begun = states.run.unfinished(state.step.name)
    if begun is None:
        return 0.0
    working = begun.resolve()
    if state.identity is not None and working.name == f"{state.identity}{PARTIAL_SUFFIX}":
        return 0.0
    try:
        return float(read_json(working.with_name(f"{working.name}.json")).get("seconds", 0.0))
    except ArtifactError:
        return 0.0


def _trained_seconds(ref: CheckpointRef) -> float:
    """Seconds of training up to a checkpoint, with those of the trainings that it goes back to."""
    return float(_state_of(ref).get("progress", {}).get("seconds", 0.0))


def resume_point(states: States, machine: Machine) -> ResumePoint | None:
    """Where pretraining would resume; None while its inputs are not made, or when it is done.

    Reads the names of checkpoints, and of those that fit or were the run's own what they were made with.
    """
    state = states[PRETRAIN]
    if state.identity is None or state.state == "done":
        return None
    index = CheckpointIndex(states.run.store, PRETRAIN)
    newest, notes = None, list[str]()
    for arithmetic in _formats(machine):
        prefix_at = _prefixes_in(arithmetic, states, state)
        for ref in index.find(partial(_id_at, prefix_at)):
            if newest is not None and ref.step <= newest.step:
                break
            if not (changes := _changes_of_other_run(states, ref, machine)):
                newest = ref
            elif not notes:
                notes.append(
                    f"step {ref.step:,} of another run fits, made with other {', '.join(changes)}; run with those"
                )
        if newest is None:
            notes += _why_from_the_beginning(states, index, prefix_at, arithmetic)
    step, num_steps = 0 if newest is None else newest.step, _course(state).num_steps
    return ResumePoint(step=step, num_steps=num_steps, notes=tuple(notes), checkpoint=newest)


def steps_to_resume_from(states: States, machine: Machine) -> list[int]:
    """The steps, in order, of which there is a checkpoint that fits, done or not; none while the inputs of pretraining are not made."""
    state, index = states[PRETRAIN], CheckpointIndex(states.run.store, PRETRAIN)
    if state.identity is None:
        return []
    fitting = [
        ref
        for arithmetic in _formats(machine)
        for ref in index.find(partial(_id_at, _prefixes_in(arithmetic, states, state)))
    ]
    return sorted({ref.step for ref in fitting if not _changes_of_other_run(states, ref, machine)})


def _prefixes_in(arithmetic: NumberFormat, states: States, state: StepState) -> Callable[[int], dict[str, Any] | None]:
    given = state.step.given
    texts = {
        role.removeprefix(TOKENS): _content(states, state, role) for role in given.inputs if role.startswith(TOKENS)
    }
    return prefixes(
        _course(state),
        given.config["model"],
        given.config["pretrain"],
        vocabulary=_content(states, state, "vocabulary"),
        texts=texts,
        seed=derive_seed(given.config["seed"], PRETRAIN),
        number_format=arithmetic,
        start=_content(states, state, "start") if "start" in given.inputs else None,
    )


def _course(state: StepState) -> Course:
    section: Pretrain = state.step.given.config["pretrain"]
    return course_of(section, rope_theta=state.step.given.config["model"].rope_theta)


def _content(states: States, state: StepState, role: str) -> str:
    content = states.content(state.step.given.inputs[role])
    assert content is not None, f"{state.step.name} has an identity, but {role} is not known"
    return content


def _changes_of_other_run(states: States, ref: CheckpointRef, machine: Machine) -> list[str]:
    """How another run's checkpoint was made otherwise than this machine would; it is then offered and not taken."""
    state = _state_of(ref)
    if state.get("run") == states.run.name:
        return []
    made_with = {"ranks": 1, "replicas": 1, **state.get("environment", {})}
    now = {
        "torch": version("torch"),
        "threads": machine.threads_of_a_rank,
        "micro_batch_tokens": machine.micro_batch_tokens,
    }
    now |= {"ranks": machine.ranks, "replicas": machine.replicas}
    if machine.device != "auto":
        now["device"] = machine.device
    if made_with.get("device") == "cpu":
        now["hardware"] = hardware_name()
    return differences({key: made_with.get(key) for key in now}, now)


def _why_from_the_beginning(
    states: States,
    index: CheckpointIndex,
    prefix_at: Callable[[int], dict[str, Any] | None],
    arithmetic: NumberFormat,
) -> list[str]:
    """What shaped the newest checkpoint of the run otherwise than the recipe does now."""
    before = states[PRETRAIN].before
    record = None if before is None else states.record(PRETRAIN, before)
    names = {entry["checkpoint"] for entry in (record or {}).get("lineage") or ()}
    names |= {ref.folder.name for ref in index.own(states.run)}
    last = next((ref for ref in index.all() if ref.folder.name in names), None)
    if last is None:
        return []
    was, now = _state_of(last).get("prefix", {}), prefix_at(last.step)
    if was.get("number_format") != arithmetic:
        return []
    if now is None:
        return [f"step {last.step:,} does not fit: it lies beyond the end"]
    changed = prefix_differences(was, now)
    hint = ""
    if any(line.startswith("optimizer.peak_lr") for line in changed):
        hint = "; pretrain.changes alters the rate from a later step on"
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    return [f"step {last.step:,} does not fit: {', '.join(changed[:3])}{more}{hint}"] if changed else []


def _state_of(ref: CheckpointRef) -> dict[str, Any]:
    try:
        return dict(read_json(ref.folder / STATE))
    except (ArtifactError, TypeError, ValueError):
        return {}


def _id_at(prefix_at: Callable[[int], dict[str, Any] | None], step: int) -> str:
    prefix = prefix_at(step)
    return "" if prefix is None else prefix_id(prefix)


def _formats(machine: Machine) -> list[NumberFormat]:
    """What the machine trains in; for "auto", either, because looking for a GPU would import torch."""
    return ["float32", "bfloat16"] if machine.device == "auto" else [number_format(machine.device)]
