"""`gristmill run`: carry a plan out, step by step, each committed before the next begins.

What is done and unchanged is skipped, and said so. What drifted is moved aside and remade if that costs under ten minutes
by the records; beyond that the run stops and prints the command that says yes. A signal lets the step save and leave.
"""

from __future__ import annotations

import fcntl
import importlib
import os
import platform
import resource
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from gristmill.errors import ArtifactError, Interrupted, RecipeError, ResourceError
from gristmill.graph.machine import Machine
from gristmill.graph.step import StepContext
from gristmill.pipeline import Planned, hash_files, make_plan, run_folder
from gristmill.recipe.load import LoadedRecipe
from gristmill.store.artifact import (
    PARTIAL_SUFFIX,
    RECORD,
    close_working_folder,
    commit,
    open_working_folder,
    set_aside,
    verify_manifest,
)
from gristmill.store.durable import out_of_space_is_a_resource_error, read_json, write_json
from gristmill.store.fingerprint import derive_seed

CHEAP_SECONDS = 600.0
OLD_FOLDER = ".old"
RECORDED_PACKAGES = ("gristmill", "torch", "numpy", "pyarrow", "tokenizers", "trafilatura", "rensa", "lm_eval")


def run(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    console: Console,
    until: str | None = None,
    remake: Sequence[str] = (),
) -> Path:
    """Make every step of the recipe (or up to `until`) that is missing or drifted. Returns the run's folder."""
    folder = run_folder(machine.runs_dir, loaded.recipe)
    _make_folder(folder)
    with _one_run_at_a_time(folder), _Signals() as signals:
        plan = make_plan(loaded, folder)
        _check_names(plan, until, remake)
        plan = _cut(plan, until)
        _refuse_costly(plan, remake, loaded, folder)
        for planned in plan:
            if planned.state == "done":
                console.print(f"[green]done[/]     {planned.step.name:<20} [dim]unchanged since {_made_at(planned)}[/]")
                continue
            if signals.received is not None:
                raise Interrupted(
                    "stopped between two steps; run the same command to go on.", signal_number=signals.received
                )
            _make(planned, loaded, machine, folder, console, signals)
    return folder


def _make_folder(folder: Path) -> None:
    try:
        with out_of_space_is_a_resource_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(
            f"cannot make the run's folder {folder}: {error.strerror}.\n  Name another place with --runs-dir."
        ) from error


def _check_names(plan: Sequence[Planned], until: str | None, remake: Sequence[str]) -> None:
    names = [planned.step.name for planned in plan]
    asked = [("--until", until)] if until is not None else []
    asked += [("--remake", name) for name in remake if name != "all"]
    for option, name in asked:
        if name not in names:
            raise RecipeError(f"{option} {name!r} is not a step of this recipe; the steps are {', '.join(names)}.")


def _cut(plan: list[Planned], until: str | None) -> list[Planned]:
    """The steps that `until` needs, itself included; all for None."""
    if until is None:
        return plan
    wanted = {until}
    for planned in reversed(plan):
        if planned.step.name in wanted:
            wanted.update(planned.step.inputs)
    return [planned for planned in plan if planned.step.name in wanted]


def _make(
    planned: Planned, loaded: LoadedRecipe, machine: Machine, run: Path, console: Console, signals: _Signals
) -> None:
    step = planned.step
    console.print(f"[yellow]running[/]  {step.name:<20} [dim]{escape('; '.join(planned.reasons))}[/]")
    _check_inputs(planned, run)
    if planned.folder.exists():
        kept = set_aside(planned.folder, run / OLD_FOLDER / step.name)
        console.print(f"         [dim]what it was is kept in {kept}[/]")
    if _stale_partial(planned) and _seconds_begun(planned) > CHEAP_SECONDS:
        kept = set_aside(_partial(planned), run / OLD_FOLDER / step.name)
        console.print(f"         [dim]the unfinished work on what the recipe said before is kept in {kept}[/]")
    working = open_working_folder(planned.folder, planned.fingerprint)
    started = time.monotonic()
    clock = _WorkClock(planned, started)

    def say(line: str) -> None:
        clock.note()
        console.print(f"         [dim]{escape(line)}[/]", highlight=False)

    context = StepContext(
        recipe=loaded.recipe,
        recipe_dir=loaded.folder,
        name=step.name,
        inputs={name: run / name for name in step.inputs},
        out=working,
        machine=machine,
        seed=derive_seed(loaded.recipe.seed, step.name),
        fingerprint=planned.fingerprint,
        say=say,
        should_stop=lambda: signals.received is not None,
    )
    try:
        with out_of_space_is_a_resource_error(working):
            counts = importlib.import_module(step.module).run(context)
    except Interrupted as stopped:
        clock.save()
        raise Interrupted(
            f"{step.name} {str(stopped).rstrip('.')}.\n  Run the same command to go on.",
            signal_number=signals.received or signal.SIGTERM,
        ) from stopped
    _check_files(planned, loaded, run)
    record = _record(planned, counts, machine, clock.total())
    commit(working, planned.folder, record)
    close_working_folder(planned.folder)
    console.print(f"[green]made[/]     {step.name:<20} [dim]{record['wall_seconds']:.1f} s[/]")


def _check_inputs(planned: Planned, run: Path) -> None:
    """Raise ArtifactError when a file of an input is gone or has another size: a step must not make do with less."""
    for name in planned.step.inputs:
        try:
            verify_manifest(run / name, hashes=False)
        except ArtifactError as error:
            raise ArtifactError(
                f"{error}\n  {planned.step.name} reads it. Put it back, or remove {run / name} and run the same command: "
                f"{name} is made again."
            ) from error


def _check_files(planned: Planned, loaded: LoadedRecipe, run: Path) -> None:
    """Raise ArtifactError when an outside file is not what it was when the step was planned: its record would be wrong."""
    now = hash_files(planned.step, loaded.folder, run)
    if changed := [label for label, files in planned.identity["files"].items() if now[label] != files]:
        raise ArtifactError(
            f"files that {planned.step.name} reads ({', '.join(changed)}) changed while it was at work.\n"
            "  Nothing was kept. Let them rest, then run the same command: the step is made from what is there now."
        )


class _WorkClock:
    """Seconds of work on a step over all its attempts, kept in the note beside the working folder."""

    def __init__(self, planned: Planned, started: float) -> None:
        self._note = planned.folder.with_name(f"{planned.folder.name}{PARTIAL_SUFFIX}.json")
        self._fingerprint = planned.fingerprint
        self._before = float(read_json(self._note).get("seconds", 0.0))
        self._started = started
        self._noted = started

    def total(self) -> float:
        return self._before + time.monotonic() - self._started

    def note(self) -> None:
        """Saves the clock when it was not saved for five seconds."""
        if time.monotonic() - self._noted > 5:
            self.save()

    def save(self) -> None:
        write_json(self._note, {"fingerprint": self._fingerprint, "seconds": self.total()})
        self._noted = time.monotonic()


# ── cost of a change ─────────────────────────────────────────────────────────────────────────────────────────────────


def _refuse_costly(plan: Sequence[Planned], remake: Sequence[str], loaded: LoadedRecipe, run: Path) -> None:
    """Stop when a changed recipe would throw away more than ten minutes of work that nobody agreed to remake."""
    lost = {planned.step.name: planned for planned in plan if planned.state == "drifted"}
    lost |= {planned.step.name: planned for planned in plan if planned.state == "missing" and _stale_partial(planned)}
    if not lost or "all" in remake:
        return
    total = sum(_seconds(planned) for name, planned in lost.items() if name not in remake)
    if total <= CHEAP_SECONDS:
        return
    lines = [f"  {name}: {'; '.join(lost[name].reasons)}" for name in lost]
    raise RecipeError(
        f"the recipe changed and {total / 3600:.2f} hours of work in {run} would be made again:\n"
        + "\n".join(lines)
        + f"\n  To do so: {_same_command(loaded)} --remake all   (what is there is moved to {run / OLD_FOLDER}, not deleted)"
        + "\n  To keep it: undo the change, or give the recipe another name."
    )


def _same_command(loaded: LoadedRecipe) -> str:
    """The command that was given, overrides and options included; from Python, the plainest one."""
    if Path(sys.argv[0]).name == "gristmill":
        return shlex.join(["gristmill", *sys.argv[1:]])
    return shlex.join(["gristmill", "run", str(loaded.path)])


def _partial(planned: Planned) -> Path:
    return planned.folder.with_name(f"{planned.folder.name}{PARTIAL_SUFFIX}")


def _note_of(planned: Planned) -> dict[str, Any] | None:
    note = planned.folder.with_name(f"{planned.folder.name}{PARTIAL_SUFFIX}.json")
    return dict(read_json(note)) if note.is_file() else None


def _stale_partial(planned: Planned) -> bool:
    note = _note_of(planned)
    return note is not None and note.get("fingerprint") != planned.fingerprint and _partial(planned).is_dir()


def _seconds(planned: Planned) -> float:
    if planned.state == "drifted":
        return float(read_json(planned.folder / RECORD)["wall_seconds"])
    return _seconds_begun(planned)


def _seconds_begun(planned: Planned) -> float:
    """Seconds of work on an unfinished step; under five where none were noted."""
    return float((_note_of(planned) or {}).get("seconds", 0.0))


# ── record ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _record(planned: Planned, counts: Mapping[str, Any], machine: Machine, seconds: float) -> dict[str, Any]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {
        "step": planned.step.name,
        "fingerprint": planned.fingerprint,
        "identity": dict(planned.identity),
        "counts": dict(counts),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_seconds": round(seconds, 3),
        "peak_memory_bytes": {"process": peak[0] * 1024, "largest_child": peak[1] * 1024},
        "command": sys.argv,
        "machine": {
            "processes": machine.processes,
            "threads": machine.threads,
            "device": machine.device,
            "micro_batch_tokens": machine.micro_batch_tokens,
            "platform": platform.platform(),
            "python": platform.python_version(),
        },
        "versions": {name: found for name in RECORDED_PACKAGES if (found := _version(name)) is not None},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _made_at(planned: Planned) -> str:
    return str(read_json(planned.folder / RECORD)["made_at"])


# ── signals and locks ────────────────────────────────────────────────────────────────────────────────────────────────


class _Signals:
    """The first SIGTERM, SIGUSR1 or Ctrl-C asks the step to save and leave; a second Ctrl-C quits at once."""

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number: int, _frame: object) -> None:
        if self.received is not None and number == signal.SIGINT:
            os.write(2, b"stopped at once; the same command goes on from what was saved\n")
            os._exit(130)  # an exception here could leave a half-imported module and another error in its place
        self.received = number


@contextmanager
def _one_run_at_a_time(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ResourceError(
                f"another run is at work in {folder}; wait for it, or stop it, then try again."
            ) from None
        yield
    finally:
        os.close(descriptor)


def last_model(folder: Path) -> Path:
    """The folder of the newest kind of model a run has: dpo, else sft, else pretrain."""
    for name in ("dpo", "sft", "pretrain"):
        if (folder / name / RECORD).is_file():
            return folder / name / "model"
    raise ArtifactError(f"{folder} holds no finished model yet; run the recipe first.")
