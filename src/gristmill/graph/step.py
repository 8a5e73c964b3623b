"""What a step is, and what it is given when it runs. Every step is `run(ctx) -> counts` and writes into `ctx.out`.

A step sees its own config, the outputs it declares of earlier steps, and its outside files; never the recipe. What it can
see is what its identity covers:

    config    literals that can change its output          watching   what is watched, saved, logged, printed or capped:
    inputs    content of earlier steps, by role                       outside the identity, and without influence on
    files     content of outside files, by label                      the content of what the step leaves
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gristmill.graph.machine import Machine
from gristmill.graph.outputs import EVERY_SOURCE, Outputs
from gristmill.graph.progress import Report
from gristmill.graph.ranks import ONE_RANK, Ranks
from gristmill.store.fingerprint import derive_seed
from gristmill.store.store import RunLinks


@dataclass(frozen=True, kw_only=True)
class Reads:
    """What a role refers to: named outputs of an earlier step, of one source where there is a set per source."""

    step: str
    outputs: type[Outputs]
    names: tuple[str, ...]
    source: str = EVERY_SOURCE

    def open(self, folder: Path, *, content: str = "") -> Outputs:
        """The named outputs in the artefact's folder; nothing else can be reached through them."""
        return self.outputs(folder, reads=self.names, source=self.source, content=content)

    def covers(self, file: str) -> bool:
        """Whether a file of the artefact is one that the role reads."""
        return any(self.outputs.declared[name].matches(file, self.source) for name in self.names)

    def __str__(self) -> str:
        of = "" if self.source == EVERY_SOURCE else f" of {self.source}"
        return f"{self.step}: {', '.join(self.names)}{of}"


def reads(step: str, outputs: type[Outputs], *names: str, source: str = EVERY_SOURCE) -> Reads:
    """The named outputs of a step; all that it declares where none is named."""
    chosen = names or tuple(outputs.declared)
    assert set(chosen) <= outputs.declared.keys(), f"{outputs.__name__} declares {[*outputs.declared]}, not {names}"
    return Reads(step=step, outputs=outputs, names=chosen, source=source)


@dataclass(frozen=True, kw_only=True)
class Given:
    """Config, inputs by role and outside files by label: patterns in the table of steps."""

    config: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Reads] = field(default_factory=dict)
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the lifecycle.

    module: where `run` and VERSION are. parts: other modules with a VERSION whose meaning this step's output depends on.
    outputs: what it leaves. given: what shapes that; watching: what does not. maps_shards: the bulk of its work is a function over
    shards, which ranks of an array can share.
    """

    name: str
    module: str
    outputs: type[Outputs]
    given: Given
    watching: Given = field(default_factory=Given)
    parts: tuple[str, ...] = ()
    maps_shards: bool = False

    @property
    def inputs(self) -> tuple[str, ...]:
        """The steps that it reads, each once."""
        roles = (*self.given.inputs.values(), *self.watching.inputs.values())
        return tuple(dict.fromkeys(role.step for role in roles))

    @property
    def identity_inputs(self) -> tuple[str, ...]:
        """The steps whose content is part of its identity."""
        return tuple(dict.fromkeys(role.step for role in self.given.inputs.values()))


@dataclass(frozen=True, kw_only=True)
class OutsideFiles:
    """Files that the recipe names and no step makes.

    paths: what the patterns name, files and folders → name. files: every file in them → name. A name says nothing of where
    the recipe lies: it is relative to the fixed part of its pattern.
    """

    paths: Mapping[Path, str]
    files: Mapping[Path, str]

    @property
    def only(self) -> Path:
        """The one path, where the recipe names exactly one."""
        (path,) = self.paths
        return path


class PassOver(Exception):
    """Raised by pretraining instead of taking a step, with its state saved: the data of the step is to be passed over.

    change: the change of the recipe that does so, which becomes an intervention of the run; the step then starts once more, and resumes
    where it was. noted: what was known when it was decided.
    """

    def __init__(self, change: Mapping[str, Any], noted: Mapping[str, Any]) -> None:
        super().__init__(change["why"])
        self.change, self.noted = change, noted


def by_source(inputs: Mapping[str, Any], what: str) -> dict[str, Any]:
    """The inputs whose role is `what` followed by a source's name, by that name, in the order of the table."""
    return {role.removeprefix(what): given for role, given in inputs.items() if role.startswith(what)}


@dataclass(frozen=True, kw_only=True)
class Watching:
    """What a step may look at without its identity knowing."""

    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    files: Mapping[str, OutsideFiles]


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """One step of one run.

    name: "extract/manuals". out: the working folder that becomes the artefact; it may hold finished parts that an earlier,
    killed attempt with the same identity left. say: one line for the reader. progress: takes how far the step is. should_stop: true once a signal arrived; save,
    then raise Interrupted. run: the run's folder of links, where training keeps its checkpoints. ranks: the processes that run this
    step together; only the first one's `out`, words and progress are anybody's.
    """

    name: str
    identity: str
    config: Mapping[str, Any]
    inputs: Mapping[str, Any]
    files: Mapping[str, OutsideFiles]
    watching: Watching
    out: Path
    machine: Machine
    run: RunLinks
    say: Callable[[str], None]
    progress: Report
    should_stop: Callable[[], bool]
    ranks: Ranks = ONE_RANK

    @property
    def part(self) -> str:
        """The instance of a per-source step: "manuals" for "extract/manuals"."""
        return self.name.partition("/")[2]

    @property
    def seed(self) -> int:
        """The step's own seed; KeyError for a step whose config has none, because its identity would not know."""
        return derive_seed(self.config["seed"], self.name)
