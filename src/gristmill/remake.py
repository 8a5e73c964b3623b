"""What a changed recipe would remake: the work that is at stake, and the checkpoint that pretraining would resume from."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any

from gristmill.errors import ArtifactError
from gristmill.graph.machine import Machine
from gristmill.graph.state import States, StepState
from gristmill.recipe.schema.training import Pretrain
from gristmill.store.artifact import PARTIAL_SUFFIX
from gristmill.store.checkpoints import CheckpointIndex, CheckpointRef
from gristmill.store.durable import read_json
from gristmill.store.fingerprint import derive_seed
from gristmill.train.course import course_of
from gristmill.train.prefix import NumberFormat, number_format, prefix_id, prefixes

PRETRAIN = "pretrain"
TOKENS = "tokens of "
STATE = "state.json"  # of a checkpoint


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """Pretraining has `num_steps` steps and resumes after `step`; 0 when it starts from the beginning."""

    step: int
    num_steps: int

    def __str__(self) -> str:
        left = f"{self.num_steps - self.step:,} steps to make"
        if not self.step:
            return f"starts from the beginning; {left}"
        return f"resumes from step {self.step:,} of {self.num_steps:,}; {left}"


def seconds_at_stake(states: States, name: str, machine: Machine) -> float:
    """Seconds of work on a step, finished or begun, that would not be used any more if the step were made now.

    Of pretraining, only what comes after the checkpoint that it would resume from.
    """
    state, links = states[name], states.run
    if state.state == "done":
        return 0.0
    record = None if state.before is None else links.record_of(name, state.before)
    if record is not None:
        seconds, steps = work_in(record), record["counts"].get("steps")
    else:
        seconds, steps = _begun(states, state), None
    if name != PRETRAIN or not seconds:
        return seconds
    point = resume_point(states, machine)
    done = steps or max((ref.step for ref in CheckpointIndex(links.store, PRETRAIN).own(links)), default=0)
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


def resume_point(states: States, machine: Machine) -> ResumePoint | None:
    """Where pretraining would resume; None while its inputs are not made, or when it is done. Reads names, and of other runs what they were trained with."""
    state = states[PRETRAIN]
    if state.identity is None or state.state == "done":
        return None
    given = state.step.given
    section: Pretrain = given.config["pretrain"]
    course = course_of(section, rope_theta=given.config["model"].rope_theta)
    texts = {
        role.removeprefix(TOKENS): _content(states, state, role) for role in given.inputs if role.startswith(TOKENS)
    }
    steps = [0]
    for arithmetic in _formats(machine):
        prefix_at = prefixes(
            course,
            given.config["model"],
            section.optimizer,
            vocabulary=_content(states, state, "vocabulary"),
            texts=texts,
            seed=derive_seed(given.config["seed"], PRETRAIN),
            number_format=arithmetic,
        )
        index = CheckpointIndex(states.run.store, PRETRAIN)
        own = set(index.own(states.run))
        found = (ref for ref in index.find(partial(_id_at, prefix_at)) if ref in own or _is_of(machine, ref))
        steps += [ref.step for ref in itertools.islice(found, 1)]
    return ResumePoint(step=max(steps), num_steps=course.num_steps)


def _content(states: States, state: StepState, role: str) -> str:
    content = states.content(state.step.given.inputs[role])
    assert content is not None, f"{state.step.name} has an identity, but {role} is not known"
    return content


def _is_of(machine: Machine, ref: CheckpointRef) -> bool:
    """Whether another run's checkpoint was trained as this machine would; else it is offered and not taken."""
    try:
        environment = read_json(ref.folder / STATE)["environment"]
        return bool(
            environment["threads"] == machine.threads
            and environment["micro_batch_tokens"] == machine.micro_batch_tokens
            and environment["torch"] == version("torch")
        )
    except (ArtifactError, KeyError, TypeError):
        return False


def _id_at(prefix_at: Callable[[int], dict[str, Any] | None], step: int) -> str:
    prefix = prefix_at(step)
    return "" if prefix is None else prefix_id(prefix)


def _formats(machine: Machine) -> list[NumberFormat]:
    """What the machine trains in; for "auto", either, because looking for a GPU would import torch."""
    return ["float32", "bfloat16"] if machine.device == "auto" else [number_format(machine.device)]
