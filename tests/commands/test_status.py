"""`gristmill status` of a run with many sources, in the width of a terminal."""

from __future__ import annotations

import io
import re
import subprocess
from pathlib import Path

import yaml
from rich.console import Console

from conftest import SCRIPT, Command
from gristmill.commands.status import status
from gristmill.graph.machine import Machine
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe

FORMATS = (
    "csv",
    "docx",
    "epub",
    "html",
    "jsonl",
    "mail",
    "man",
    "markdown",
    "pdf",
    "rtf",
    "source-code",
    "subtitles",
    "text",
)


def write_recipe(folder: Path) -> Path:
    """A recipe of thirteen sources, with a file."""
    source = {"read": {"format": "text", "paths": ["*.txt"]}, "license": "CC0-1.0"}
    (folder / "a.txt").write_text("The miller walked down to the river.\n", encoding="utf-8")
    small = yaml.safe_load((Path(__file__).parents[1] / "recipe" / "small.yaml").read_text(encoding="utf-8"))
    for section in ("packs", "classifiers", "chat", "sft", "pairs", "dpo", "evaluate"):
        small.pop(section)
    small |= {"sources": dict.fromkeys(FORMATS, source), "select": {}}
    small["pretrain"]["watch"]["packs"] = []
    stage = small["pretrain"]["stages"][0]
    small["tokenizer"].pop("mixture")
    small["pretrain"].pop("allow_epochs")
    small["pretrain"] |= {"stages": [{**stage, "mixture": {"text": 1.0}}]}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(small, sort_keys=False), encoding="utf-8")
    return path


def test_a_step_is_one_line_of_eighty_columns_and_says_how_many_it_waits_for(tmp_path: Path) -> None:
    loaded, out = load_recipe(write_recipe(tmp_path)), io.StringIO()
    status(loaded, Machine(runs_dir=tmp_path), console=Console(file=out, width=80))
    head, _, table = out.getvalue().partition("what will happen and why")
    assert head.split()[-4:] == ["step", "state", "made", "seconds"]
    rows = table.strip().splitlines()
    assert [row.split()[0] for row in rows] == [step.name for step in steps_of(loaded.recipe)]
    assert "waits for extract (13)" in out.getvalue()


def test_following_a_run_tells_each_step_that_ends_and_the_table_as_it_is_then(
    tmp_path: Path, gristmill: Command
) -> None:
    asked = (write_recipe(tmp_path), "--runs-dir", tmp_path / "runs")
    made = ("extract/text", "signatures/text")
    assert gristmill("run", *asked, "--until", "extract/csv").code == 0
    with subprocess.Popen([SCRIPT, "run", *asked, "--until", "signatures/text"], stdout=subprocess.DEVNULL) as run:
        answer = gristmill("status", *asked, "--follow")
    assert answer.code == run.returncode == 0
    lines = answer.out.splitlines()
    assert [line.split()[1] for line in lines if re.match(r"made +\S+ +[\d.]+ s", line)] == [*made]
    tables = answer.out.split("what will happen and why")[1:]
    states = [dict(re.findall(r"^(\S+) +(done|missing|undecided|at work)", table, re.MULTILINE)) for table in tables]
    before, after = ([found[step] for step in ("extract/csv", *made)] for found in states)
    assert before in (["done", "missing", "undecided"], ["done", "at work", "undecided"])
    assert after == ["done", "done", "done"]
