"""Each step, run from the files that it declares and no others, leaves what it left: so its identity covers what it reads."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest
from whole_runs import step_names

from gristmill.context import make_context
from gristmill.graph.machine import Machine
from gristmill.graph.outputs import Outputs, content_files, content_hash, hashes_in
from gristmill.graph.step import Reads
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.store.artifact import MANIFEST, write_manifest
from gristmill.store.durable import read_json
from gristmill.store.store import RunLinks, Store

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it

SOURCES = ("manuals", "glosses", "novel", "code")
STEPS = ("classifier/edu", "score/manuals", *(f"{step}/{source}" for source in SOURCES for step in ("signatures", "contamination")),
         "duplicates", "select", "tokenizer", "tokenize", "pretrain", "synthesize", "sft", "pairs",
         "dpo", "evaluate")  # fmt: skip
WITHOUT_INPUTS = {f"extract/{source}" for source in SOURCES}
READS_ALL = {"export", "report"}  # they tell of everything


def test_every_step_is_here_or_reads_all_or_no_other(tiny_project: Path) -> None:
    assert {*STEPS} | WITHOUT_INPUTS | READS_ALL == set(step_names(tiny_project))


@pytest.mark.parametrize("name", STEPS)
def test_a_step_needs_the_files_it_declares_and_no_others(finished_run: Path, tmp_path: Path, name: str) -> None:
    loaded = load_recipe(finished_run.parents[1] / "recipe.yaml")
    step = next(step for step in steps_of(loaded.recipe) if step.name == name)

    def open_role(read: Reads) -> Outputs:
        """A folder of its own for the role, with copies of what it covers."""
        made, folder = finished_run / read.step, tmp_path / "roles" / str(len(list(tmp_path.glob("roles/*"))))
        hashes = hashes_in({"manifest": read_json(made / MANIFEST)})
        for file in filter(read.covers, hashes):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / file, folder / file)
        return read.open(folder, content=content_hash(read.outputs, hashes, reads=read.names, source=read.source))

    out = tmp_path / "out"
    out.mkdir()
    context = make_context(
        step,
        identity="0" * 32,
        recipe_dir=loaded.folder,
        open_role=open_role,
        out=out,
        machine=Machine(processes=1, threads=1, runs_dir=tmp_path / "runs"),
        run=RunLinks(Store(tmp_path / "runs"), "alone"),
    )
    importlib.import_module(step.module).run(context)
    was = content_files(step.outputs, hashes_in({"manifest": read_json(finished_run / name / MANIFEST)}))
    now = content_files(step.outputs, hashes_in({"manifest": write_manifest(out)}))
    assert now == was
