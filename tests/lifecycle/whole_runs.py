"""What tests of whole runs share: what must be equal in two of them, and a run that can be killed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager
from pathlib import Path
from typing import Any

import yaml

from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.store.artifact import MANIFEST, RECORD, verify_manifest
from gristmill.store.checkpoints import CheckpointIndex, CheckpointRef
from gristmill.store.durable import read_json
from gristmill.store.jsonl import read_log
from gristmill.store.store import RunLinks, Store

SCRIPT = Path(sys.executable).with_name("gristmill")
OPTIONS = ("--threads", "1", "--processes", "2")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
SECONDS = 300.0  # no step of the tiny recipe takes a tenth of it
WEIGHTS = "model/model.safetensors"
Command = Callable[..., Any]


# A valid override for each field that no identity knows: those of OUTSIDE in tests/graph/test_identity.py.
HARMLESS = {
    "AllowEpochs.max, AllowEpochs.reason, Pretrain.allow_epochs": "pretrain.allow_epochs={novel: {max: 9, reason: a small source}}",
    "Finetune.sample_prompts": "sft.sample_prompts=['Who are you?']",
    "NearDuplicates.max_source_loss": "select.near_duplicates.max_source_loss=0.95",
    "PackRef.locked": "packs.sums.locked=true",
    "Pretrain.checkpoint_every_tokens": "pretrain.checkpoint_every_tokens=9216",
    "Pretrain.max_epochs": "pretrain.max_epochs=4.5",
    "Pretrain.sample_prompts": "pretrain.sample_prompts=[Once]",
    "Pretrain.warn_epochs": "pretrain.warn_epochs=3.5",
    "Pretrain.watch": "pretrain.watch={every_tokens: 1024}",
    "Source.max_loss": "sources.novel.max_loss=0.99",
    "Source.max_failed": "sources.novel.max_failed=0.25",
    "Source.unique_tokens": "sources.novel.unique_tokens=30000",
    "Watch.every_tokens": "pretrain.watch.every_tokens=3072",
    "Watch.max_items": "pretrain.watch.max_items=7",
    "Watch.max_share": "pretrain.watch.max_share=0.9",
    "Watch.packs": "pretrain.watch.packs=[]",
    "Watch.packs_every_tokens": "pretrain.watch.packs_every_tokens=4096",
    "Watch.reference": "pretrain.watch.reference=runs/tiny/pretrain",
    "Watch.stage_packs": "pretrain.watch.stage_packs=[]",
    "Watch.validation_bytes": "pretrain.watch.validation_bytes=900",
}


# ── a project ────────────────────────────────────────────────────────────────────────────────────────────────────────


def step_names(project: Path) -> list[str]:
    """The steps of its recipe, in order."""
    return [step.name for step in steps_of(load_recipe(project / "recipe.yaml").recipe)]


def read_recipe(project: Path) -> dict[str, Any]:
    """The recipe as plain values."""
    found: dict[str, Any] = yaml.safe_load((project / "recipe.yaml").read_text(encoding="utf-8"))
    return found


def write_recipe(project: Path, recipe: Mapping[str, Any], name: str = "recipe.yaml") -> None:
    """Puts plain values back as the recipe."""
    (project / name).write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")


def edit(project: Path, key: str, value: Any) -> None:
    """Changes one value in recipe.yaml itself; numbers in the key are places in a list."""
    recipe = read_recipe(project)
    *parents, last = key.split(".")
    place: Any = recipe
    for part in parents:
        place = place[int(part) if part.isdecimal() else part]
    place[last] = value
    write_recipe(project, recipe)


def lines(printed: str, word: str) -> list[str]:
    """The steps that stand behind "running", "done" or "made"."""
    return re.findall(rf"^{word} +(\S+)", printed, re.MULTILINE)


def status_of(gristmill: Command, *arguments: object) -> dict[str, Mapping[str, Any]]:
    """Step → its row of `status --json`."""
    answer = gristmill("status", "recipe.yaml", *arguments, "--json")
    assert answer.code == 0, answer.err
    return {row["step"]: row for row in json.loads(answer.out)}


def links_of(project: Path, name: str = "tiny") -> RunLinks:
    """The links of a run in the project's runs folder."""
    return RunLinks(Store(project / "runs"), name)


def checkpoints_of(project: Path, name: str = "tiny", training: str = "pretrain") -> list[CheckpointRef]:
    """The checkpoints that the run links, newest first."""
    links = links_of(project, name)
    return CheckpointIndex(links.store, training).own(links)


def forget(project: Path, *names: str) -> None:
    """As if the steps had never been made: their links, artefacts and records go, and the checkpoints of trainings."""
    links = links_of(project)
    for name in names:
        identity = links.target(name)
        assert identity is not None, name
        for ref in checkpoints_of(project, training=name):
            CheckpointIndex(links.store, name).unlink(links, ref)
            remove_folder(ref.folder)
        links.withdraw(name)
        remove_folder(links.store.folder(name, identity))
        # Absent where a kill came between the commit and its record.
        (links.store.root / "records" / name / f"{identity}.json").unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """`rm -r`."""
    subprocess.run(["rm", "-r", "-f", folder], check=True)


def change_record(project: Path, step: str, **values: Any) -> None:
    """Writes values into the record of a step that is done."""
    links = links_of(project)
    identity = links.target(step)
    assert identity is not None, step
    for path in (links.folder / step / RECORD, links.store.root / "records" / step / f"{identity}.json"):
        changed = {**read_json(path), **values}
        path.chmod(0o644)
        path.write_text(json.dumps(changed), encoding="utf-8")


# ── what must be equal ───────────────────────────────────────────────────────────────────────────────────────────────


TIMINGS = {
    "seconds",
    "started_seconds",
    "wait_seconds",
    "training_seconds",
    "tokens_per_second",
    "pretraining_seconds",  # of the estimate, which a short measurement of the machine made
    "speed_source",
}
ANCESTRY = {"origin", "lineage", "checkpoints"}  # which run trained what, and which checkpoints a signal left
DURATION = re.compile(r"\d[\d.,]*\s*(?:ms|s|min|minutes|h|hours)\b")
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT[\d:+]+")


def without_timings(value: Any) -> Any:
    """The value without what a clock has put in, and without whose work it is."""
    if isinstance(value, dict):
        return {
            key: without_timings(item)
            for key, item in value.items()
            if key not in TIMINGS | ANCESTRY and not key.startswith("throughput/")
        }
    return [without_timings(item) for item in value] if isinstance(value, list) else value


def page_without_timings(text: str) -> str:
    """A report without durations, and without its cost section, which says nothing but durations and memory."""
    cost = re.compile(r'<h2 id="cost">.*?(?=<h2 )', re.DOTALL)
    return DURATION.sub("", MOMENT.sub("", cost.sub("", text)))


def content(step: Path) -> dict[str, Any]:
    """File → what must be equal: its hash, or for the few files that a clock writes into, their content without that."""
    verify_manifest(step)
    found: dict[str, Any] = {}
    for name, entry in read_json(step / MANIFEST).items():
        path = step / name
        if name in ("metrics.jsonl", "samples.jsonl", "events.jsonl"):
            found[name] = [without_timings(line) for line in read_log(path)]
        elif name.endswith((".html", "README.md")):
            found[name] = page_without_timings(path.read_text(encoding="utf-8"))
        else:
            found[name] = entry["sha256"]
    return found


def assert_same_run(one: Path, other: Path, steps: list[str]) -> None:
    """Every artefact of two runs holds the same, under the same identity, and was counted the same."""
    for name in steps:
        left, right = content(one / name), content(other / name)
        assert left.keys() == right.keys(), name
        different = [file for file in left if left[file] != right[file]]
        assert not different, f"{name}: {different}"
        records = [read_json(run / name / RECORD) for run in (one, other)]
        if name not in ("report", "export"):  # they read all notes, timings too
            for key in ("identity", "document"):
                assert records[0][key] == records[1][key], f"{name}: {key}"
        counts = [without_timings(record["counts"]) for record in records]
        if name != "report":  # which counts its own bytes, durations among them
            assert counts[0] == counts[1], name


# ── a run in this process, and one that can be killed ─────────────────────────────────────────────────────────────────


def run_here(gristmill: Command, folder: Path, *arguments: str) -> str:
    """A whole run in this process, which spares the imports of another; returns what it printed."""
    with chdir(folder):
        answer = gristmill("run", "recipe.yaml", *arguments, *OPTIONS)
    assert answer.code == 0, answer.err
    printed: str = answer.out
    return printed


class Running:
    """`gristmill run` as a process group of its own; what it prints can be waited for."""

    def __init__(self, folder: Path, *arguments: str, recipe: str = "recipe.yaml") -> None:
        self.log = folder / f"{recipe}.log"
        self._out = self.log.open("w", encoding="utf-8")
        self.process = subprocess.Popen(
            [SCRIPT, "run", recipe, *OPTIONS, *arguments],
            cwd=folder,
            stdout=self._out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **ONE_THREAD},
            start_new_session=True,
        )

    @property
    def printed(self) -> str:
        """All that it has printed so far."""
        return self.log.read_text(encoding="utf-8")

    def wait_for(self, what: Callable[[], bool]) -> bool:
        """True as soon as it holds; False when the process ended before. Fails after SECONDS."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            if what():
                return True
            if self.process.poll() is not None:
                return what()
            time.sleep(0.005)
        raise AssertionError(f"nothing happened in {SECONDS} s; it printed:\n{self.printed}")

    def wait_for_line(self, pattern: str) -> None:
        """Until it has printed a line that begins like this."""
        assert self.wait_for(lambda: re.search(pattern, self.printed, re.MULTILINE) is not None), self.printed

    def end(self) -> int:
        """Its exit code, once it has ended."""
        return self.process.wait(timeout=SECONDS)

    def kill(self) -> None:
        """SIGKILL to the main process alone, as the kernel does when memory runs out."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Ends the whole group."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._out.close()


@contextmanager
def running(folder: Path, *arguments: str, recipe: str = "recipe.yaml") -> Iterator[Running]:
    """A run under way; what is left of it is killed in the end."""
    run = Running(folder, *arguments, recipe=recipe)
    try:
        yield run
    finally:
        run.close()
