"""One rank of an array: makes its share of the shards of every step that maps shards and whose inputs are committed, and ends.

    gristmill run recipe.yaml --array 0/3      made: a share of extract/…; nothing is committed
    gristmill run recipe.yaml --array 1/3      at the same time, on another node
    gristmill run recipe.yaml --until extract  commits; then the array again, for signatures, contamination and score

Ranks share the locks of the run and of the step, so they wait for each other nowhere; a run without a share of its own, and
`clean`, find the step in use.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gristmill.errors import ArtifactError
from gristmill.graph.machine import Machine
from gristmill.graph.share import Share, ShareDone
from gristmill.graph.state import StepState, by_kind, needed_by
from gristmill.provenance import WorkClock
from gristmill.rank_notes import note_of_rank
from gristmill.recipe.load import LoadedRecipe
from gristmill.runner import Run, given_command, opened


def run_rank(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    console: Console,
    until: str | None = None,
    remake: Sequence[str] = (),
) -> Path:
    """Makes the share of `machine.share`; the other arguments are those of `run`. Returns the run's folder."""
    assert machine.share is not None, "a run without a share is runner.run"
    with opened(loaded, machine, console=console, until=until, remake=remake) as (under_way, last):
        rank = _Rank(under_way, machine.share)
        rank.carry_out(last)
        console.print(rank.what_next(), highlight=False, markup=False)
    return under_way.links.folder


class _Rank:
    def __init__(self, under_way: Run, share: Share) -> None:
        self.run, self.share = under_way, share
        self.made, self.waits = list[str](), list[str]()

    def carry_out(self, last: Sequence[str]) -> None:
        """Makes the shares that can be made now."""
        run = self.run
        wanted = run.begin(last, set(last))
        for name in wanted:
            state = run.states[name]
            if state.state == "done":
                if not state.is_linked and state.identity is not None and state.folder is not None:
                    run.links.link(name, state.identity)  # so that it stays while shares of what follows are made
            elif not state.step.maps_shards:
                continue
            elif state.identity is None or any(run.states[needed].folder is None for needed in state.step.inputs):
                self.waits.append(name)
            else:
                run.leave_if_asked()
                run.refuse_costly(state)
                self._make_share(state)
                self.made.append(name)

    def _make_share(self, state: StepState) -> None:
        run, step, identity = self.run, state.step, state.identity
        assert identity is not None, step.name
        run.console.print(f"[yellow]running[/]  {step.name:<22} [dim]rank {self.share}[/]", highlight=False)
        with run.store.making_shards(step.name, identity, who=run.links.name):
            if run.store.is_there(step.name, identity):
                run.console.print(f"[green]done[/]     {step.name:<22} [dim]by another run[/]", highlight=False)
                return
            run.links.mark_unfinished(step.name, identity)
            working = run.store.open_work_beside_ranks(step.name, identity)
            clock = WorkClock(note_of_rank(working, self.share))
            try:
                run.do(state, working, clock, run.foretold.of(step.name).seconds / self.share.size, 0.0)
            except ShareDone as done:
                self._check_files(state)
                clock.save(done=True)
                told = f"rank {self.share}: {done}, {clock.total():.1f} s"
                run.console.print(f"[green]shared[/]   {step.name:<22} [dim]{told}[/]", highlight=False)
            else:
                raise AssertionError(f"{step.name} maps shards and did not end with the share of its rank")

    def _check_files(self, state: StepState) -> None:
        assert state.document is not None, state.step.name
        if changed := self.run.changed_files(state.step, state.document):
            raise ArtifactError(
                f"files that {state.step.name} reads ({', '.join(changed)}) changed while rank {self.share} ran.\n"
                "  Start the ranks again once the files stop changing."
            )

    def what_next(self) -> str:
        """What the rank made, and which command goes on when all ranks have ended."""
        did = (
            f"Rank {self.share} made its share of {', '.join(by_kind(self.made))}."
            if self.made
            else "Nothing to share."
        )
        command = shlex.join(_without(given_command(self.run.loaded), "--array", "--until"))
        if not self.waits:
            return f"{did} When all ranks have ended, this makes the rest:\n  {command}"
        between = [name for name in needed_by(self.run.states, self.waits) if name not in self.waits]
        kinds = dict.fromkeys(
            name.partition("/")[0] for name in (*self.made, *between) if self.run.states[name].state != "done"
        )
        commands = "".join(f"\n  {command} --until {kind}" for kind in kinds)
        return f"{did} When all ranks have ended:{commands}\nThen the same array again, for {', '.join(by_kind(self.waits))}."


def _without(command: Sequence[str], *options: str) -> list[str]:
    """A command without options that have a value, in whichever way it was written."""
    kept: list[str] = []
    words = iter(command)
    for word in words:
        if word in options:
            next(words, None)
        elif word.partition("=")[0] not in options:
            kept.append(word)
    return kept
