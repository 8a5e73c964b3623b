"""Carry the table of steps out, one after the other, each committed before the next begins.

What is done is linked and skipped. What drifted is made beside what was: nothing is overwritten, and an undone edit finds the
old artefact in the store. A step that took long asks first, when it is decided that it has to be remade.
"""

from __future__ import annotations

import contextlib
import importlib
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from gristmill import units
from gristmill.context import make_context
from gristmill.data.outside import FileHashes, find_step_files
from gristmill.data.patience import UnreachableError, offline_words
from gristmill.data.ray_tasks import ray_session
from gristmill.display import Display, Output
from gristmill.durations import Foretold
from gristmill.errors import ArtifactError, Interrupted, RecipeError
from gristmill.extract.not_read import in_a_line, keep_not_read, not_read_beside
from gristmill.graph.cores import busy_cores
from gristmill.graph.machine import Machine, give_freed_memory_back
from gristmill.graph.outputs import Outputs
from gristmill.graph.peak_memory import PeakMemory
from gristmill.graph.progress import Position
from gristmill.graph.signals import Signals
from gristmill.graph.state import NOT_MADE, States, StepState, needed_by, steps_named
from gristmill.graph.step import PassOver, Reads, Step
from gristmill.live_page import LivePage
from gristmill.pipeline import FILE_HASHES, hashes_of, kept_steps, open_states, steps_of
from gristmill.planning.ranks import check_ranks
from gristmill.planning.speed import load_note
from gristmill.provenance import WorkClock, other_bytes_in_words, provenance_of
from gristmill.rank_notes import take_in_ranks
from gristmill.recheck import check_finished
from gristmill.recipe.interventions import (
    RUN_RECIPE,
    keep_intervention,
    recipe_as_it_became,
    with_change,
    with_interventions,
)
from gristmill.recipe.load import LoadedRecipe
from gristmill.remake import CHEAP_SECONDS, PRETRAIN, remade_words, remakes, resume_point
from gristmill.store.artifact import note_beside, verify_manifest
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.durable import out_of_space_is_a_resource_error, write_text
from gristmill.store.heartbeat import Heart, remove_beats_of_ranks
from gristmill.store.place import run_elsewhere, where_words
from gristmill.store.store import RunLinks, Store
from gristmill.train.outputs import ModelFolder, TrainedModel
from gristmill.train.sinks import check_programs

LAUNCH = "gristmill.train.ranks.launch"  # imports torch
TRIED_SECONDS = 60.0  # a step under a minute is remade to see whether its content changes at all


def run(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    console: Console,
    until: str | None = None,
    remake: Sequence[str] = (),
    brief: bool = False,
) -> Path:
    """Make every step of the recipe (or up to `until`) that is missing or drifted. Returns the run's folder.

    until, remake: a step, or all of a kind, such as "extract". remake: costly steps that may be remade; "all" for all of them.
    brief: nothing is said of steps that are done, nor of files that no source reads.
    """
    with (
        LivePage(machine.runs_dir / loaded.recipe.name) as page,
        opened(loaded, machine, console=console, until=until, remake=remake) as (under_way, last),
    ):
        loaded, folder, under_way.brief = under_way.loaded, under_way.links.folder, brief
        under_way.page = None if brief else page
        remove_beats_of_ranks(folder)
        write_text(folder / RUN_RECIPE, recipe_as_it_became(loaded))
        _say_what_is_not_read(loaded, folder, (lambda line: None) if brief else under_way.display.say)
        under_way.carry_out(last, kept_steps(loaded.recipe) if until is None else set(last))
    return folder


@contextlib.contextmanager
def opened(
    loaded: LoadedRecipe, machine: Machine, *, console: Console, until: str | None, remake: Sequence[str]
) -> Iterator[tuple[Run, list[str]]]:
    """A run under way with its folder locked, and the steps that it is asked for; the arguments are those of `run`."""
    names = [step.name for step in steps_of(loaded.recipe)]
    last = names if until is None else steps_named(names, until, option="--until")
    agreed = {
        name for asked in remake for name in (names if asked == "all" else steps_named(names, asked, option="--remake"))
    }
    with Signals() as signals:
        if isinstance(console, Output):
            console.reader_left = signals.reader_left

        def say(line: str) -> None:
            console.print(f"         [dim]{escape(line)}[/]", highlight=False)

        store = Store(machine.runs_dir, say=say, should_stop=lambda: signals.received is not None)
        links = RunLinks(store, loaded.recipe.name)
        if run_elsewhere(links, loaded.folder) is not None:
            say(where_words(links, loaded.folder))
        _make_folder(store.root)  # first: a folder with a store is no part of a source that lies around it
        _make_folder(links.folder)
        rank = None if machine.share is None else str(machine.share)
        with (
            ray_session(machine.ray),
            store.locks.running(links.folder, as_rank=rank is not None),
            Display(
                console, Heart(links.folder, rank=rank), is_stopping=lambda: signals.received is not None
            ) as display,
        ):
            loaded = with_interventions(loaded, links.folder)
            with _one_at_a_time(store, who=links.name) if rank is not None else contextlib.nullcontext():
                hashes = hashes_of(loaded, machine, say=say, should_stop=lambda: signals.received is not None)
                states = open_states(loaded, links, hashes)
                for name in () if rank is None else needed_by(states, last):
                    _ = states[name]  # hashes its files
            under_way = Run(
                loaded=loaded,
                machine=machine,
                console=console,
                display=display,
                signals=signals,
                store=store,
                links=links,
                states=states,
                hashes=hashes,
                agreed=agreed,
            )
            yield under_way, last


def _one_at_a_time(store: Store, *, who: str) -> contextlib.AbstractContextManager[bool]:
    """Of many ranks that begin at once, one hashes the outside files and the others read what it kept."""
    return store.locks.making(store.root / FILE_HASHES, what="the hashes of outside files", who=who)


def _say_what_is_not_read(loaded: LoadedRecipe, folder: Path, say: Callable[[str], None]) -> None:
    """Tells what lies beside the files of the sources, and keeps it in the run's folder for the report. Of a source whose files are
    gone, what was told stays."""
    with contextlib.suppress(RecipeError):
        reads = [source.read for source in loaded.recipe.sources.values() if source.fetch is None]
        found = not_read_beside(loaded.folder, reads, has_chat=loaded.recipe.chat is not None)
        for line in in_a_line(found, loaded.path):
            say(line)
        keep_not_read(folder, found)


@dataclass(kw_only=True)
class Run:
    """One run under way. agreed: costly steps that may be remade.

    wanted: the steps that it brings, in order; kept: those of them that are made where only their files are gone.
    """

    loaded: LoadedRecipe
    machine: Machine
    console: Console
    display: Display
    signals: Signals
    store: Store
    links: RunLinks
    states: States
    hashes: FileHashes
    agreed: Set[str]
    brief: bool = False
    page: LivePage | None = None
    remade_seconds: float = 0.0
    wanted: list[str] = field(default_factory=list)
    kept: set[str] = field(default_factory=set)
    foretold: Foretold = field(init=False)

    def carry_out(self, last: Sequence[str], kept: set[str]) -> None:
        """Makes the steps of `last` and what they need, in order; those of `kept` also where only their files are gone."""
        wanted = self.begin(last, kept)
        for name in wanted:
            if self.states[name].state != "done":
                self.refuse_costly(self.states[name])
        if any(self.states[name].state != "done" for name in wanted):
            self._say_load()
        self._say_remakes()
        for name in wanted:
            self._bring(name, bytes_wanted=name in self.kept)

    def begin(self, last: Sequence[str], kept: set[str]) -> list[str]:
        """Checks what can be known before anything is made; returns the steps of `last` and what they need, in order."""
        self.wanted, self.kept = needed_by(self.states, last), kept
        check_finished(self.loaded.recipe, self.states, self.wanted)
        check_programs(self.machine.metrics_to)
        if self.machine.ranks > 1 and PRETRAIN in self.wanted and self.states[PRETRAIN].state != "done":
            check_ranks(self.loaded.recipe.pretrain, self.machine.ranks)
        to_fetch = [name for name in self.wanted if name.startswith("fetch/") and self.states[name].state != "done"]
        if self.machine.offline and to_fetch:
            raise UnreachableError(offline_words(to_fetch))
        self.foretold = Foretold(self.loaded, self.machine, self.links)
        return self.wanted

    def _say_remakes(self) -> None:
        ahead = remakes(self.states, self.machine, wanted=self.wanted, kept=self.kept)
        if sum(remake.seconds for remake in ahead) > TRIED_SECONDS:
            self.display.say(remade_words(ahead))

    def _say_load(self) -> None:
        if note := load_note(busy_cores(), self.foretold.speed):
            self.display.say(note)

    def _bring(self, name: str, *, bytes_wanted: bool) -> None:
        """Links a step that is done, makes it otherwise; first the inputs whose files are gone."""
        state = self.states[name]
        if state.state == "done" and (state.folder is not None or not bytes_wanted):
            self._link(state)
            return
        self.leave_if_asked()
        for needed in self.states.steps[name].inputs:
            if self.states[needed].folder is None:
                self._bring(needed, bytes_wanted=True)
        state = self.states[name]  # an input may have been remade with other content
        self.refuse_costly(state)
        while not self._is_made(self.states[name]):
            pass  # with one more intervention each time
        self.states.refresh()

    def _is_made(self, state: StepState) -> bool:
        """Makes a step. False where it asked for a change of the recipe instead, which is then an intervention of the run."""
        try:
            self._make(state)
        except PassOver as over:
            with_change(self.loaded, over.change, origin="")  # raises where it does not fit, before it is written
            path = keep_intervention(self.links.folder, over.change, over.noted)
            self.loaded = with_change(self.loaded, over.change, origin=str(path))
            write_text(self.links.folder / RUN_RECIPE, recipe_as_it_became(self.loaded))
            self.states = open_states(self.loaded, self.links, self.hashes)
            self.display.say(f"{over}. {path} passes over its data.")
            return False
        return True

    def _link(self, state: StepState) -> None:
        name, identity = state.step.name, state.identity
        assert identity is not None, name
        record = self.links.record_of(name, identity)
        if state.folder is not None and not self._take(name, identity):
            self.states.refresh()  # it was removed at this moment
            self._bring(name, bytes_wanted=True)
            return
        if self.brief:
            return
        made_at = "" if record is None else f"unchanged since {record.get('made_at', 'an unknown time')}"
        gone = "" if state.folder is not None else "; its files were removed"
        self.console.print(f"[green]done[/]     {name:<22} [dim]{made_at}{gone}[/]")

    def _take(self, name: str, identity: str) -> bool:
        """Links the artefact and the checkpoints of its own training: those of an edit that was undone are let go."""
        if not self.links.link(name, identity):
            return False
        record = self.links.record_of(name, identity)
        if record is not None and "lineage" in record and (self.links.folder / name).is_symlink():
            CheckpointIndex(self.store, name).hold(self.links, (entry["checkpoint"] for entry in record["lineage"]))
        return True

    def _make(self, state: StepState) -> None:
        step, identity = state.step, state.identity
        assert identity is not None, f"{step.name} is made before its inputs"
        self.console.print(f"[yellow]running[/]  {step.name:<22} [dim]{escape('; '.join(self._why(state)))}[/]")
        known = self.store.record(step.name, identity)
        self.links.set_aside(step.name)
        with self.store.making(step.name, identity, who=self.links.name):
            if self._take(step.name, identity):
                how, record = "by another run", None
            else:
                self.links.mark_unfinished(step.name, identity)
                if self.page is not None:
                    self.page.begin(trains=step.name == PRETRAIN)
                working = self.store.open_work(step.name, identity)
                for line in take_in_ranks(working):
                    self.display.say(f"{step.name}: {line}")
                clock = WorkClock(note_beside(working))
                record = self._work(state, working, clock)
                self.store.commit(step.name, identity, record)
                self.links.link(step.name, identity)
                how = f"{record['wall_seconds']:.1f} s"
        self.console.print(f"[green]made[/]     {step.name:<22} [dim]{how}[/]")
        if record is not None:
            self.remade_seconds += record["wall_seconds"] if state.before is not None else 0.0
            self._say_if_other_bytes(step, known, identity)

    def _why(self, state: StepState) -> list[str]:
        """Why a step is made, and the checkpoint from which pretraining resumes, or why it resumes from none."""
        reasons = state.reasons or ("its files were removed",)
        point = resume_point(self.states, self.machine) if state.step.name == PRETRAIN else None
        if point is None or not (point.step or point.notes):
            return [*reasons]
        return [*(reason for reason in reasons if reason != NOT_MADE), str(point), *point.notes]

    def _work(self, state: StepState, working: Path, clock: WorkClock) -> dict[str, Any]:
        """Runs the step in its working folder; returns the record."""
        step = state.step
        assert state.document is not None, step.name
        planned = self.foretold.of(step.name)
        training = self.foretold.of_training() if step.name == PRETRAIN else None
        try:
            counts, peak = self.do(
                state, working, clock, planned.seconds, self.foretold.seconds_of(self._after(step.name))
            )
        except RecipeError:
            self.links.put_back(step.name)  # refused: nothing is under way
            raise
        if changed := self.changed_files(step, state.document):
            shutil.rmtree(working)
            raise ArtifactError(
                f"files that {step.name} reads ({', '.join(changed)}) changed while it ran.\n"
                "  The output was discarded. Run again once the files stop changing."
            )
        return provenance_of(
            state,
            made_from={needed: self.states[needed].identity for needed in step.inputs},
            counts=counts,
            clock=clock,
            peak=peak,
            planned=planned,
            forecast=training,
            machine=self.machine,
        )

    def do(
        self, state: StepState, working: Path, clock: WorkClock, expected_seconds: float, later_seconds: float
    ) -> tuple[dict[str, Any], PeakMemory]:
        """Runs the step's code in its working folder; returns the counts and the memory it took."""
        step = state.step
        assert state.identity is not None, step.name

        def say(line: str) -> None:
            clock.note()
            self.display.say(line)

        give_freed_memory_back()
        try:
            with (
                out_of_space_is_a_resource_error(working),
                self.display.following(
                    step.name, expected_seconds=expected_seconds, later_seconds=later_seconds
                ) as report,
                PeakMemory() as peak,
            ):

                def progress(position: Position) -> None:
                    clock.note()
                    report(position)

                progress(Position.doing("checking its inputs"))
                self._check_inputs(step, hashes=clock.is_new)
                progress(Position.doing("starting"))
                context = make_context(
                    step,
                    identity=state.identity,
                    recipe_dir=self.loaded.folder,
                    open_role=self._open,
                    out=working,
                    machine=self.machine,
                    run=self.links,
                    say=say,
                    progress=progress,
                    should_stop=lambda: self.signals.received is not None,
                )
                if self.machine.ranks > 1 and issubclass(step.outputs, TrainedModel):
                    return importlib.import_module(LAUNCH).run_on_ranks(step.module, context), peak
                return importlib.import_module(step.module).run(context), peak
        except Interrupted as stopped:
            clock.save()
            raise Interrupted(
                f"{step.name}: {str(stopped).rstrip('.')}.\n  Run the same command to resume.",
                signal_number=self.signals.received or signal.SIGTERM,
            ) from stopped

    def _after(self, name: str) -> list[str]:
        """The wanted steps after this one that are not done."""
        after = self.wanted[self.wanted.index(name) + 1 :] if name in self.wanted else []
        return [later for later in after if self.states[later].state != "done"]

    def _open(self, read: Reads) -> Outputs:
        """The outputs that a role refers to, and no others."""
        folder = self.states[read.step].folder
        assert folder is not None, f"{read.step} was not brought before it is read"
        return read.open(folder, content=self.states.content(read) or "")

    def _check_inputs(self, step: Step, *, hashes: bool) -> None:
        """Raise ArtifactError when a file of an input is gone or has another size: a step must not make do with less.

        hashes: compare contents, too: those of all that a training reads, and those of models whoever reads them. A corpus is
        not read once more for a report, nor are tokens, which are checked block by block as they are used.
        """
        for name in step.inputs:
            by_hash = hashes and any(issubclass(made.outputs, ModelFolder) for made in (step, self.states.steps[name]))
            folder = self.states[name].folder
            assert folder is not None, name
            try:
                verify_manifest(folder, hashes=by_hash, but=self.states.steps[name].outputs.checks_itself)
            except ArtifactError as error:
                raise ArtifactError(
                    f"{error}\n  {step.name} reads it. Put it back, or remove {folder.resolve()} and run the same command to "
                    f"remake {name}."
                ) from error

    def changed_files(self, step: Step, document: Mapping[str, Any]) -> list[str]:
        """The labels of outside files that are not what they were when the step's identity was made."""
        now = {label: self.hashes.of(files) for label, files in
               find_step_files(step.given, self.loaded.folder, step.name).items()}  # fmt: skip
        return [label for label, files in document["files"].items() if now[label] != files]

    def _say_if_other_bytes(self, step: Step, known: Mapping[str, Any] | None, identity: str) -> None:
        """A remake of removed files may come out otherwise; then what follows is remade, and this says why."""
        record = self.store.record(step.name, identity)
        if known is None or record is None:
            return
        if told := other_bytes_in_words(step, known, record):
            self.console.print(f"         [yellow]{escape(told)}[/]", highlight=False)

    def leave_if_asked(self) -> None:
        if self.signals.received is not None:
            raise Interrupted(
                "stopped between two steps; run the same command to resume.", signal_number=self.signals.received
            )

    # ── cost of a change ──

    def refuse_costly(self, state: StepState) -> None:
        """Stop when more than ten minutes of finished work would be remade that nobody agreed to remake.

        Asked as soon as it is decided that the step is remade. All that the run may remake counts together, but for the steps
        agreed to; a step under a minute is remade to see whether anything that follows changes.
        """
        name = state.step.name
        if state.identity is None or name in self.agreed:
            return
        ahead = remakes(self.states, self.machine, wanted=self.wanted, kept=self.kept)
        asked = {remake.step: remake for remake in ahead if remake.step not in self.agreed}
        if name not in asked or asked[name].seconds <= TRIED_SECONDS:
            return
        total = self.remade_seconds + sum(remake.seconds for remake in asked.values())
        if total <= CHEAP_SECONDS:
            return
        others = [step for step, remake in asked.items() if step != name and remake.seconds > 0]
        raise RecipeError(
            f"up to {units.seconds(total)} of work in {self.links.folder} would be remade:\n"
            f"  {name}: {'; '.join(asked[name].reasons)}{self._resumes(name)}\n"
            + (f"  and, as far as they change: {', '.join(others)}\n" if others else "")
            + f"  To do so: {shlex.join(given_command(self.loaded))} --remake all   (nothing is deleted: what was made stays in "
            f"{self.store.root})\n  To keep it: undo the change, or give the recipe another name."
        )

    def _resumes(self, name: str) -> str:
        point = resume_point(self.states, self.machine) if name == PRETRAIN else None
        return "" if point is None else f"; {point}"


def _make_folder(folder: Path) -> None:
    try:
        with out_of_space_is_a_resource_error(folder):
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecipeError(
            f"cannot make the run's folder {folder}: {error.strerror}.\n  Name another place with --runs-dir."
        ) from error


def given_command(loaded: LoadedRecipe, verb: str = "run") -> list[str]:
    """The command that was given, overrides and options included; from Python, the plainest one of that verb."""
    if Path(sys.argv[0]).name == "gristmill":
        return ["gristmill", *sys.argv[1:]]
    return ["gristmill", verb, str(loaded.path)]
