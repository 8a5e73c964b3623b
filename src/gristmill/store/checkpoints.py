"""Training checkpoints in the store: each once, named after its step and all that shaped it up to there.

    runs/.store/checkpoints/0000120-<prefix>/    a checkpoint, committed, its files read-only
    runs/<run>/checkpoints/pretrain/0000120      a relative link to it, from each run that made or uses it
    runs/<run>/checkpoints/pretrain/for-0000120  one that the run's next training is to find, whatever the present one removes

A prefix is a hash of what shaped the training up to that step; the caller makes it. Two runs that agree up to step 120 have
one checkpoint of it. What a checkpoint holds is the caller's affair too: nothing here reads one, and `find` is one listing
of names. A run links a checkpoint before it verifies or loads it. Looking writes nothing.

A copied run (`cp -rL`) has plain folders in place of the links; they can be read there, but are not found here.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gristmill.errors import ArtifactError, ResourceError
from gristmill.store import artifact
from gristmill.store.artifact import PARTIAL_SUFFIX, make_read_only
from gristmill.store.durable import out_of_space_is_a_resource_error
from gristmill.store.removal import discard_leftovers, held_names, is_held
from gristmill.store.store import CHECKPOINTS, RunLinks, Store, named_by

_NAME = re.compile(r"(\d{7,})-([0-9a-f]+)")
_RESERVED = "for-"


@dataclass(frozen=True, kw_only=True)
class CheckpointRef:
    """A checkpoint by name. folder: in the store."""

    step: int
    prefix: str
    folder: Path


class CheckpointIndex:
    """The checkpoints of a store, as one training step of a run links them."""

    def __init__(self, store: Store, training: str) -> None:
        """`training`: the step whose links these are, such as "pretrain"."""
        self._store = store
        self._links = f"{CHECKPOINTS}/{training}"
        self._folder = store.root / CHECKPOINTS

    def ref(self, step: int, prefix: str) -> CheckpointRef:
        """The checkpoint of that name, there or not."""
        name = f"{step:07d}-{prefix}"
        assert _NAME.fullmatch(name), f"{name!r} is not the name of a checkpoint"
        return CheckpointRef(step=step, prefix=prefix, folder=self._folder / name)

    def all(self) -> list[CheckpointRef]:
        """Every checkpoint of the store, newest step first."""
        names = [path.name for path in self._folder.iterdir()] if self._folder.is_dir() else []
        return sorted(map(self._parse, filter(_NAME.fullmatch, names)), key=_newest_first)

    def find(self, prefix_at: Callable[[int], str]) -> list[CheckpointRef]:
        """Those that training could resume from, newest first: their prefix is what `prefix_at` says of their step."""
        return [ref for ref in self.all() if ref.prefix == prefix_at(ref.step)]

    def own(self, run: RunLinks) -> list[CheckpointRef]:
        """Those that the run links, newest first; links that lead nowhere do not count."""
        links = [path for path in (run.folder / self._links).glob("[0-9]*") if path.is_symlink() and path.is_dir()]
        names = [(named_by(path) or "").removeprefix(f"{CHECKPOINTS}/") for path in links]
        return sorted(map(self._parse, filter(_NAME.fullmatch, names)), key=_newest_first)

    def link(self, run: RunLinks, ref: CheckpointRef) -> bool:
        """Makes the checkpoint one of the run's, so that it stays. False, and nothing changed, when it is not there."""
        with self._store.locks.shared():
            if not ref.folder.is_dir():
                return False
            run.point(self._link_name(ref), f"{CHECKPOINTS}/{ref.folder.name}")
        return True

    def reserve(self, run: RunLinks, ref: CheckpointRef) -> bool:
        """Holds a checkpoint until `release`, however the run prunes those that are its own. False, and nothing changed, when it is not there."""
        with self._store.locks.shared():
            if not ref.folder.is_dir():
                return False
            run.point(f"{self._links}/{_RESERVED}{ref.step:07d}", f"{CHECKPOINTS}/{ref.folder.name}")
        return True

    def release(self, run: RunLinks, *, but: Callable[[CheckpointRef], bool] = lambda ref: False) -> None:
        """Holds nothing in reserve any more but what the caller says."""
        for path in (run.folder / self._links).glob(f"{_RESERVED}*"):
            name = (named_by(path) or "").removeprefix(f"{CHECKPOINTS}/")
            if not (_NAME.fullmatch(name) and but(self._parse(name))):
                path.unlink(missing_ok=True)

    def hold(self, run: RunLinks, names: Iterable[str]) -> None:
        """Makes the named checkpoints the run's, as far as they are there, and no others; nothing stays in reserve."""
        wanted, own = set(map(self._parse, names)), set(self.own(run))
        for ref in own - wanted:
            self.unlink(run, ref)
        for ref in wanted - own:
            self.link(run, ref)
        self.release(run)

    def unlink(self, run: RunLinks, ref: CheckpointRef) -> None:
        """Removes the run's link, if it leads to this checkpoint; the checkpoint stays until `clean`."""
        path = run.folder / self._link_name(ref)
        if path.is_symlink() and named_by(path) == f"{CHECKPOINTS}/{ref.folder.name}":
            path.unlink()

    def save(self, run: RunLinks, ref: CheckpointRef, write: Callable[[Path], Mapping[str, str]]) -> bool:
        """Commits what `write` puts into a folder, and links it. False: it was there already, and only the link is new.

        `write` returns the hashes that it took, for `write_manifest`. What it raises leaves no trace of the checkpoint. A full disk raises ResourceError.
        """
        with out_of_space_is_a_resource_error(ref.folder):
            if self.link(run, ref):
                return False
            with self._store.locks.making(ref.folder, what=f"checkpoint {ref.step}", who=run.name):
                if self.link(run, ref):
                    return False
                working = ref.folder.with_name(ref.folder.name + PARTIAL_SUFFIX)
                shutil.rmtree(working, ignore_errors=True)
                working.mkdir()
                try:
                    artifact.commit(working, ref.folder, known=write(working))
                finally:  # a commit leaves nothing there; what it cannot remove, the next save of this step does
                    shutil.rmtree(working, ignore_errors=True)
                make_read_only(ref.folder)
                self.link(run, ref)
        return True

    def set_damaged_aside(self, ref: CheckpointRef) -> None:
        """Renames a damaged checkpoint, so that it is not found and can be saved anew; `clean` lists what it is now."""
        with self._store.locks.exclusive():
            if ref.folder.is_dir():
                ref.folder.rename(ref.folder.with_name(f"{ref.folder.name}.damaged-{secrets.token_hex(2)}"))

    def prune(
        self,
        run: RunLinks,
        *,
        keep_last: int,
        milestones: Collection[int] = (),
        say: Callable[[str], None] = lambda line: None,
    ) -> list[CheckpointRef]:
        """Unlinks the run's checkpoints but the newest `keep_last` and the milestones; returns those that it deleted.

        Deleted are those that nothing else holds. A checkpoint that lost its last link in another way, or by a prune that
        was killed right then, is left to `clean`. When the store stays in use, or cannot be read or written, nothing more is
        deleted, and `say` reports it and training continues: what was just saved is safe.
        """
        deleted: list[CheckpointRef] = []
        try:
            with self._store.locks.exclusive():
                dropped = [ref for ref in self.own(run)[keep_last:] if ref.step not in milestones]
                for ref in dropped:
                    self.unlink(run, ref)
                held = held_names(self._store)
                for ref in dropped:
                    if not is_held(self._store, ref.folder, held):
                        self._store.discard(ref.folder)
                        deleted.append(ref)
                discard_leftovers(self._store)
            self._store.empty_trash()
        except (ArtifactError, ResourceError, OSError) as error:
            say(f"old checkpoints were not removed: {error}")
        return deleted

    def _link_name(self, ref: CheckpointRef) -> str:
        return f"{self._links}/{ref.step:07d}"

    def _parse(self, name: str) -> CheckpointRef:
        step, _, prefix = name.partition("-")
        return CheckpointRef(step=int(step), prefix=prefix, folder=self._folder / name)


def _newest_first(ref: CheckpointRef) -> tuple[int, str]:
    return -ref.step, ref.prefix
