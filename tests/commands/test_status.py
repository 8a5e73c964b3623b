"""`gristmill status` of a run with many sources, in the width of a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import yaml
from rich.console import Console

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


def test_a_step_is_one_line_of_eighty_columns_and_says_how_many_it_waits_for(tmp_path: Path) -> None:
    source = {"read": {"format": "text", "paths": ["*.txt"]}, "license": "CC0-1.0"}
    (tmp_path / "a.txt").write_text("The miller walked down to the river.\n", encoding="utf-8")
    small = yaml.safe_load((Path(__file__).parents[1] / "recipe" / "small.yaml").read_text(encoding="utf-8"))
    for section in ("packs", "classifiers", "chat", "sft", "pairs", "dpo", "evaluate"):
        small.pop(section)
    small |= {"sources": dict.fromkeys(FORMATS, source), "select": {}}
    small["pretrain"]["watch"]["packs"] = []
    stage = small["pretrain"]["stages"][0]
    small["tokenizer"].pop("mixture")
    small["pretrain"].pop("allow_epochs")
    small["pretrain"] |= {"stages": [{**stage, "mixture": {"text": 1.0}}]}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(small, sort_keys=False), encoding="utf-8")
    loaded, out = load_recipe(tmp_path / "recipe.yaml"), io.StringIO()
    status(loaded, Machine(runs_dir=tmp_path), console=Console(file=out, width=80))
    head, _, table = out.getvalue().partition("what will happen and why")
    assert head.split()[-4:] == ["step", "state", "made", "seconds"]
    rows = table.strip().splitlines()
    assert [row.split()[0] for row in rows] == [step.name for step in steps_of(loaded.recipe)]
    assert "waits for extract (13)" in out.getvalue()
