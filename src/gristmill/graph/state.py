"""The state of each step of a recipe: done, missing, drifted, or not decided before something else is made.

The identity of a step covers its code version, its literals, its outside files and the content of its inputs. The content
of an input is known once the input was made, and stays known by its record after its bytes are gone: so an intermediate
artefact can be removed, and an input that is remade to the same bytes remakes nothing.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from gristmill.errors import RecipeError
from gristmill.graph.outputs import content_hash
from gristmill.graph.step import Reads, Step
from gristmill.recipe.schema.section import Section, did_you_mean, plain
from gristmill.store.fingerprint import canonical, differences, fingerprint
from gristmill.store.store import RunLinks

State = Literal["done", "missing", "drifted", "undecided"]
Hashes = Callable[[Step], Mapping[str, Mapping[str, str]]]


NOT_MADE = "not made yet"  # a reason


@dataclass(frozen=True, kw_only=True)
class StepState:
    """A step, its identity and its state.

    document: what the identity was made from; identity: its hash; both None while an input's content is unknown.
    before: the identity of what the run has, or had before a remake began. is_linked: the run's link leads to this artefact.
    folder: the artefact's bytes, if they are there.
    reasons: in words, why the step will run; empty when it is done. waits_for: the steps that are made before it is decided.
    """

    step: Step
    document: Mapping[str, Any] | None
    identity: str | None
    before: str | None
    is_linked: bool
    state: State
    reasons: tuple[str, ...]
    folder: Path | None
    waits_for: tuple[str, ...] = ()

    @property
    def is_made_but_not_linked(self) -> bool:
        """True when the run's folder does not show it: an edit was undone, or another run made it."""
        return self.state == "done" and self.folder is not None and not self.is_linked


class States:
    """The states of all steps of one run, worked out in the order of the table; `refresh` after a step was made.

    Outside files are looked at once: what changes while a run lasts is found by who compares them when a step ends.
    """

    def __init__(self, steps: Sequence[Step], *, run: RunLinks, hashes: Hashes) -> None:
        self.steps = {step.name: step for step in steps}
        self.run, self._hashes = run, hashes
        self._known: dict[str, StepState] = {}
        self._files: dict[str, Mapping[str, Mapping[str, str]]] = {}
        self._records: dict[tuple[str, str], Mapping[str, Any]] = {}

    def all(self) -> list[StepState]:
        """Every step, in the order of the table."""
        return [self[name] for name in self.steps]

    def __getitem__(self, name: str) -> StepState:
        if name not in self._known:
            self._known[name] = self._work_out(self.steps[name])
        return self._known[name]

    def refresh(self) -> None:
        """Forget what was worked out: something was made."""
        self._known.clear()
        self._records.clear()

    def after(self, name: str) -> list[str]:
        """The steps that read, directly or not, what a step makes."""
        found = {name}
        for step in self.steps.values():
            if found.intersection(step.identity_inputs):
                found.add(step.name)
        return [other for other in self.steps if other in found - {name}]

    def _work_out(self, step: Step) -> StepState:
        linked, before = self.run.target(step.name), self.run.before(step.name)
        contents = {role: self.content(read) for role, read in step.given.inputs.items()}
        if None in contents.values():
            unknown = [read.step for role, read in step.given.inputs.items() if contents[role] is None]
            waits = dict.fromkeys(first for name in unknown for first in (self[name].waits_for or (name,)))
            return StepState(
                step=step,
                document=None,
                identity=None,
                before=before,
                is_linked=False,
                state="undecided",
                reasons=(f"waits for {', '.join(by_kind(waits))}",),
                waits_for=tuple(waits),
                folder=None,
            )
        if step.name not in self._files:
            self._files[step.name] = self._hashes(step)
        document = identity_document(step, self._files[step.name], contents)
        identity = fingerprint({"step": step.name, **document})
        done = self.record(step.name, identity) is not None
        state: State = "done" if done else "missing" if before is None else "drifted"
        return StepState(
            step=step,
            document=document,
            identity=identity,
            before=before,
            is_linked=linked == identity,
            state=state,
            reasons=() if done else self._reasons(step, document, before),
            folder=self.run.bytes_of(step.name, identity),
        )

    def content(self, read: Reads) -> str | None:
        """The hash of the content that a role refers to; None while it is not known."""
        state = self[read.step]
        record = None if state.identity is None else self.record(read.step, state.identity)
        if record is None:
            return None
        files = {name: entry["sha256"] for name, entry in record["manifest"].items()}
        return content_hash(read.outputs, files, reads=read.names, source=read.source)

    def record(self, name: str, identity: str) -> Mapping[str, Any] | None:
        """The record of an artefact, read once; None when it was never made."""
        if (name, identity) not in self._records and (found := self.run.record_of(name, identity)) is not None:
            self._records[name, identity] = found
        return self._records.get((name, identity))

    def asked_otherwise(self, name: str) -> list[str]:
        """What is asked of a step otherwise than of the artefact that the run has, inputs aside, in words; empty where it has none.

        Before the step is decided its outside files count as they were then.
        """
        before = self.run.before(name)
        old = None if before is None else self.record(name, before)
        if old is None or not {"document", "resolved"} <= old.keys():
            return []
        step = self.steps[name]
        document = identity_document(step, self._files.get(name, old["document"]["files"]), {})
        return asked_otherwise(old, {"document": document, "resolved": resolved(step.given.config)})

    def _reasons(self, step: Step, document: Mapping[str, Any], before: str | None) -> tuple[str, ...]:
        old = None if before is None else self.record(step.name, before)
        if old is None:
            return (NOT_MADE,)
        if not {"document", "resolved"} <= old.keys():
            return ("the record is of an older form",)
        same = {step for step, identity in old.get("made_from", {}).items() if self[step].identity == identity}
        return tuple(explain(step, old, document, same_inputs=same))


def steps_named(names: Iterable[str], asked: str, *, option: str) -> list[str]:
    """The step of that name, or all of that kind: "extract" means every "extract/SOURCE". Raises RecipeError for neither."""
    names = list(names)
    found = [name for name in names if asked in (name, name.partition("/")[0])]
    if not found:
        kinds = dict.fromkeys(name.partition("/")[0] for name in names)
        raise RecipeError(
            f"{option} {asked!r} is not a step of this recipe; {did_you_mean(asked, [*kinds, *names])}expected a "
            f"kind of step ({', '.join(kinds)}), or one step, such as {names[0]}."
        )
    return found


def needed_by(states: States, last: Iterable[str]) -> list[str]:
    """These steps and all that they need, in the order of the table."""
    wanted = set(last)
    for name in reversed(states.steps):
        if name in wanted:
            wanted.update(states.steps[name].inputs)
    return [name for name in states.steps if name in wanted]


def by_kind(names: Iterable[str]) -> list[str]:
    """ "extract (13)" for the steps of a kind, one by its own name."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        kinds.setdefault(name.partition("/")[0], []).append(name)
    return [found[0] if len(found) == 1 else f"{kind} ({len(found):,})" for kind, found in kinds.items()]


def identity_document(
    step: Step, files: Mapping[str, Mapping[str, str]], contents: Mapping[str, str | None]
) -> dict[str, Any]:
    """All that a step's identity covers, as plain values."""
    return {
        "version": {module: version_of(module) for module in (step.module, *sorted(step.parts))},
        "config": canonical({key: plain(value) for key, value in step.given.config.items()}),
        "files": {label: dict(found) for label, found in sorted(files.items())},
        "inputs": dict(contents),
    }


def resolved(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config with every value, defaults too: what a record keeps, so that differences read "4 → 5"."""
    dumped = {
        key: value.model_dump(warnings=False) if isinstance(value, Section) else value for key, value in config.items()
    }
    return dict(canonical(dumped))


def explain(
    step: Step, old: Mapping[str, Any], document: Mapping[str, Any], *, same_inputs: Collection[str] = ()
) -> list[str]:
    """Why a step that has a record is not done, in words. same_inputs: steps whose artefacts are still the ones it was made from."""
    was = old["document"]
    reasons = asked_otherwise(old, {"document": document, "resolved": resolved(step.given.config)})
    for role in dict.fromkeys([*document["inputs"], *was["inputs"]]):
        if was["inputs"].get(role) == document["inputs"].get(role):
            continue
        if role not in document["inputs"]:
            reasons.append(f"{role} is no longer read")
        elif role not in was["inputs"]:
            reasons.append(f"{role} is new")
        elif step.given.inputs[role].step not in same_inputs:
            reasons.append(f"{role} changed")
    if not reasons and was["inputs"] != document["inputs"]:
        return ["it reads other files of its inputs"]
    return reasons or ["the record is of an older form"]


def asked_otherwise(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two records of a step, its inputs aside: config, versions of the code, outside files; in words."""
    was, document = old["document"], new["document"]
    reasons: list[str] = []
    if was["config"] != document["config"]:
        reasons += differences(_common(old["resolved"], new["resolved"], document["config"]), new["resolved"])
    for module, version in document["version"].items():
        if (earlier := was["version"].get(module)) != version:
            reasons.append(
                f"the code of {module.rpartition('.')[2]} changed its meaning: version {earlier} → {version}"
            )
    for label in dict.fromkeys([*document["files"], *was["files"]]):
        if (reason := _files_changed(was["files"].get(label), document["files"].get(label, {}))) is not None:
            reasons.append(f"{label}: {reason}")
    return reasons


def _common(old: Any, new: Any, asked: Any) -> Any:
    """The old values, and where the old record knows nothing of a key that is not asked for, the new default: it was introduced
    since."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        asked = asked if isinstance(asked, Mapping) else {}
        known = {key: _common(value, new.get(key), asked.get(key)) for key, value in old.items()}
        return known | {key: value for key, value in new.items() if key not in old and key not in asked}
    return old


def _files_changed(old: Mapping[str, str] | None, new: Mapping[str, str]) -> str | None:
    old = old or {}
    names = sorted(name for name in old.keys() | new.keys() if old.get(name) != new.get(name))
    if not names:
        return None
    more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
    what = "added" if names[0] not in old else "removed" if names[0] not in new else "changed"
    return f"{names[0]}{more} {what}"


@cache
def version_of(module: str) -> int:
    """The integer VERSION of a module, read without importing it."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"{module} is in the table but not in the package"
    assert spec.origin is not None, module
    found = re.search(
        r"^VERSION(?:: int)? = (\d+)(?: +#.*)?$", Path(spec.origin).read_text(encoding="utf-8"), re.MULTILINE
    )
    assert found is not None, f"{module} states no VERSION"
    return int(found[1])
