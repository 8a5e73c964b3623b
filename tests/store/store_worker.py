"""One run of test_store_processes.py: random operations on a shared store, with every file operation drawn out.

python store_worker.py RUNS_DIR RUN SEED OPERATIONS. Exits with 1, and says why, when a link that it was given leads nowhere
or to something damaged.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gristmill.errors import ResourceError
from gristmill.store import artifact, checkpoints, locks, removal, store
from gristmill.store.artifact import verify_manifest
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.removal import removable, remove
from gristmill.store.store import RunLinks, Store

IDENTITIES = [digit * 32 for digit in "0123"]
STEPS = ["select", "extract/manuals"]
PREFIXES = ["aa", "bb"]


def draw_out(owner: Any, name: str, chance: random.Random) -> None:
    """Sleep for up to 3 ms before and after each call, so that other processes and kills come in between."""
    original: Callable[..., Any] = getattr(owner, name)

    @functools.wraps(original)
    def slow(*args: Any, **kwargs: Any) -> Any:
        time.sleep(chance.random() * 0.003)
        result = original(*args, **kwargs)
        time.sleep(chance.random() * 0.003)
        return result

    setattr(owner, name, slow)


class Worker:
    """A run that makes, links, reads, prunes and cleans at random."""

    def __init__(self, runs_dir: Path, name: str, chance: random.Random) -> None:
        self.store = Store(runs_dir)
        self.index = CheckpointIndex(self.store, "pretrain")
        self.run = RunLinks(self.store, name)
        self.chance = chance

    def make(self) -> None:
        """The order of calls that store.py gives."""
        step, identity = self.chance.choice(STEPS), self.chance.choice(IDENTITIES)
        if not self.run.link(step, identity):
            with self.store.making(step, identity, who=self.run.name):
                if not self.run.link(step, identity):
                    self.run.mark_unfinished(step, identity)
                    working = self.store.open_work(step, identity)
                    (working / "a.txt").write_text(f"{step} {identity}" * 100, encoding="utf-8")
                    (working / "b.txt").write_text("b", encoding="utf-8")
                    lineage = [{"checkpoint": ref.folder.name} for ref in self.index.own(self.run)[:1]]
                    assert self.store.commit(step, identity, {"wall_seconds": 1.0, "lineage": lineage})
                    assert self.run.link(step, identity), f"{step}/{identity} was taken away while it was being made"
        assert self.run.target(step) == identity

    def read(self) -> None:
        """Everything that this run links is there and sound. Nobody else writes in its folder."""
        for step in STEPS:
            path = self.run.folder / step
            if path.is_symlink():
                verify_manifest(path)
        for link in (self.run.folder / "checkpoints" / "pretrain").glob("0*"):
            verify_manifest(link)
            assert (link / "model").read_text(encoding="utf-8") == link.readlink().name

    def withdraw(self) -> None:
        self.run.withdraw(self.chance.choice(STEPS))

    def leave_unfinished(self) -> None:
        step, identity = self.chance.choice(STEPS), self.chance.choice(IDENTITIES)
        with self.store.making(step, identity, who=self.run.name):
            self.run.mark_unfinished(step, identity)
            (self.store.open_work(step, identity) / "half").write_text("half", encoding="utf-8")
            found = self.run.unfinished(step)
            assert found is not None
            assert (found / "half").is_file(), "unfinished work was taken away"

    def clean(self) -> None:
        items = [item for item in removable(self.store) if self.chance.random() < 0.7]
        with contextlib.suppress(ResourceError):
            remove(self.store, items)

    def save(self) -> None:
        ref = self.index.ref(self.chance.randint(1, 5), self.chance.choice(PREFIXES))

        def write(folder: Path) -> dict[str, str]:
            (folder / "model").write_text(ref.folder.name, encoding="utf-8")
            return {}

        self.index.save(self.run, ref, write)

    def resume(self) -> None:
        prefix = self.chance.choice(PREFIXES)
        for ref in self.index.find(lambda step: prefix):
            if self.index.link(self.run, ref):
                verify_manifest(self.run.folder / "checkpoints" / "pretrain" / f"{ref.step:07d}")
                return

    def prune(self) -> None:
        self.index.prune(self.run, keep_last=2, milestones={self.chance.randint(1, 5)})


def main() -> None:
    runs_dir, name, seed, operations = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    chance = random.Random(f"{name} {seed}")
    locks.MAKING_POLL_SECONDS = locks.STORE_POLL_SECONDS = 0.005
    for owner, of in [(os, "replace"), (Path, "rename"), (Path, "symlink_to"), (Path, "unlink"), (Path, "mkdir")]:
        draw_out(owner, of, chance)
    drawn_out = [(store, "is_committed"), (artifact, "write_manifest")]
    for module, of in [*drawn_out, (removal, "held_names"), (checkpoints, "held_names")]:
        draw_out(module, of, chance)
    worker = Worker(runs_dir, name, chance)
    worker.read()  # what a killed one before left
    print("ready", flush=True)
    verbs = [worker.make, worker.make, worker.withdraw, worker.leave_unfinished, worker.clean, worker.save]
    verbs += [worker.save, worker.resume, worker.prune]
    for _ in range(operations):
        chance.choice(verbs)()
        worker.read()


if __name__ == "__main__":
    main()
