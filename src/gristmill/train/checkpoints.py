"""The checkpoints of one training: which it keeps, and from which it resumes.

Checkpoints are in the store, each under all that shaped it. A run resumes from the newest sound one whose prefix is its own,
whoever saved it. What one checkpoint holds is checkpoint.py; where all of them lie is store/checkpoints.py.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gristmill.errors import ArtifactError
from gristmill.graph.progress import Position, Report, unreported
from gristmill.graph.step import StepContext
from gristmill.planning.cost import KEEP_CHECKPOINTS
from gristmill.store.checkpoints import CheckpointIndex, CheckpointRef
from gristmill.store.fingerprint import fingerprint
from gristmill.store.store import RunLinks
from gristmill.train.checkpoint import Checkpoint, environment_changes, read_checkpoint


@dataclass(frozen=True, kw_only=True)
class Checkpoints:
    """Where a training keeps its checkpoints, and which it may resume from.

    step: the name of the step that trains; identity: of it. prefix_at: all that shapes the training up to a step, as plain JSON; None
    beyond the end. milestones: steps whose checkpoints stay.
    """

    step: str
    index: CheckpointIndex
    run: RunLinks
    identity: str
    prefix_at: Callable[[int], Mapping[str, Any] | None]
    milestones: Collection[int] = ()

    @classmethod
    def of(
        cls,
        ctx: StepContext,
        prefix_at: Callable[[int], Mapping[str, Any] | None],
        *,
        milestones: Collection[int] = (),
    ) -> Checkpoints:
        """Those of a step."""
        index = CheckpointIndex(ctx.run.store, ctx.name)
        return cls(
            step=ctx.name, index=index, run=ctx.run, identity=ctx.identity, prefix_at=prefix_at, milestones=milestones
        )

    def ref(self, step: int) -> CheckpointRef:
        """The name of this training's checkpoint at a step."""
        return self.index.ref(step, self._prefix(step))

    def kept(self) -> list[CheckpointRef]:
        """Those that the run links now, newest first."""
        return self.index.own(self.run)

    def newest_sound(
        self, now: Mapping[str, Any], *, say: Callable[[str], None], progress: Report = unreported
    ) -> Checkpoint | None:
        """The newest checkpoint with the training's prefix whose every file is sound; the run then links it.

        Those that other runs saved in another environment than `now` are not taken; the newest is offered. A damaged one is set
        aside and passed over. Raises ArtifactError when all of the run's own are damaged: starting anew in silence would throw work away.
        """
        own = set(self.kept())
        damaged: list[str] = []
        is_offered = False
        for ref in self.index.find(self._prefix):
            if not self.index.link(self.run, ref):
                continue
            progress(Position.doing(f"checking the checkpoint of step {ref.step:,}"))
            try:
                found = read_checkpoint(ref.folder)
            except ArtifactError as error:
                say(f"checkpoint {ref.folder} is damaged and is passed over: {error}")
                damaged += [f"{ref.folder.name}: {error}"] if ref in own else []
                self.index.unlink(self.run, ref)
                self.index.set_damaged_aside(ref)
                continue
            changes = environment_changes(found.state["environment"], now)
            if changes and ref not in own and found.state["run"] != self.run.name:
                self.index.unlink(self.run, ref)
                if not is_offered:
                    say(
                        f"Run {found.state['run']!r} has a checkpoint at step {ref.step:,} that fits, but it was trained "
                        f"with different {', '.join(changes)}. To use it, run with those."
                    )
                is_offered = True
                continue
            if damaged:
                say(f"Resuming from {ref.folder}, the newest checkpoint that is sound.")
            self._let_go_others(resumed=ref)
            return found
        if damaged:
            raise ArtifactError(
                "no checkpoint of this training is sound:\n  "
                + "\n  ".join(damaged)
                + "\n  They were set aside. Run the same command again to start from the beginning."
            )
        self._let_go_others(resumed=None)
        return None

    def save(self, step: int, write: Callable[[Path], Mapping[str, str]], *, say: Callable[[str], None]) -> None:
        """Commits a checkpoint, unless the store has it, and lets the ones go that are no longer kept."""
        self.index.save(self.run, self.ref(step), write)
        self.index.prune(self.run, keep_last=KEEP_CHECKPOINTS, milestones=self.milestones, say=say)

    def _let_go_others(self, *, resumed: CheckpointRef | None) -> None:
        """Unlinks the run's checkpoints of other prefixes: they are of a training that the recipe no longer asks for, and stay
        in the store until `clean`. What was reserved is let go where it is taken now or does not fit; what fits and lies before it is
        for a change that was written after this training read the recipe."""
        for ref in self.kept():
            if ref.prefix != self._prefix(ref.step):
                self.index.unlink(self.run, ref)
        self.index.release(
            self.run,
            but=lambda ref: resumed is not None and ref.step < resumed.step and ref.prefix == self._prefix(ref.step),
        )

    def _prefix(self, step: int) -> str:
        return fingerprint(self.prefix_at(step))
