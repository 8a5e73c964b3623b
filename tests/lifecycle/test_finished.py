"""What can be done with a run and with a folder of one's own text: inspect, chat, init."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from whole_runs import OPTIONS, step_names

from gristmill.forecast import make_forecast
from gristmill.graph.machine import Machine
from gristmill.recipe.load import load_recipe
from gristmill.report.summary import print_summary
from gristmill.store.artifact import RECORD
from gristmill.store.durable import read_json
from gristmill.store.fingerprint import fingerprint

SAMPLE = Path(__file__).parents[2] / "samples" / "quickstart"
Command = Callable[..., Any]
pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it


def test_every_step_left_a_complete_record_and_the_run_a_report_and_a_model(finished_run: Path) -> None:
    records = {name: read_json(finished_run / name / RECORD) for name in step_names(finished_run.parents[1])}
    assert len(records) == 26
    for name, record in records.items():
        assert record["step"] == name
        assert record["identity"] == (finished_run / name).readlink().name
        assert record["identity"] == fingerprint({"step": name, **record["document"]})
        assert {"resolved", "watching", "counts", "wall_seconds", "command", "machine", "versions"} <= record.keys()
    page = (finished_run / "report" / "report.html").read_text(encoding="utf-8")
    assert "<script src" not in page
    assert "http" not in "".join(re.findall(r'(?:src|href)="([^"]*)"', page))
    model = finished_run / "export" / "model"
    assert json.loads((model / "config.json").read_text(encoding="utf-8"))["model_type"] == "llama"
    assert (model / "model.safetensors").is_file()


def test_the_end_of_a_run_names_the_steps_of_training_as_plan_does(finished_run: Path) -> None:
    out = io.StringIO()
    print_summary(finished_run, step_names(finished_run.parents[1]), Console(file=out, width=200))
    planned = make_forecast(load_recipe(finished_run.parents[1] / "recipe.yaml"), Machine(runs_dir=finished_run.parent))
    assert f" tokens in {sum(planned.stage_steps):,} steps, " in out.getvalue()


def test_inspect_of_a_run_shows_each_step_and_its_reasons(finished_run: Path, gristmill: Command) -> None:
    answer = gristmill("inspect", finished_run)
    assert answer.code == 0, answer.err
    for words in ("extract/manuals", "select", "synthesize", "held_out_item", "corrupt_member", "near_duplicate"):
        assert words in answer.out
    answer = gristmill("inspect", finished_run, "--rejected", "--source", "manuals", "--reason", "near_duplicate")
    assert answer.code == 0, answer.err
    assert "against the limit 0.7" in answer.out
    assert "copy of" in answer.out
    answer = gristmill("inspect", finished_run, "--reason", "nonsense")
    assert answer.code == 1
    assert "'nonsense'; the reasons are" in answer.err


def test_inspect_of_raw_files_says_what_they_hold(tiny_project: Path, gristmill: Command) -> None:
    answer = gristmill("inspect", tiny_project / "data")
    assert answer.code == 0, answer.err
    for words in ("warc", "jsonl", "text"):
        assert words in answer.out.lower()
    assert gristmill("inspect", tiny_project / "nothing").code == 2


def test_chat_answers_once_on_standard_output_alone(finished_run: Path, gristmill: Command) -> None:
    answers = [
        gristmill("chat", target, "--prompt", "What is 1 + 1?") for target in (finished_run, finished_run / "dpo")
    ]
    assert [answer.code for answer in answers] == [0, 0]
    assert answers[0].out == answers[1].out
    assert answers[0].out.strip()
    assert answers[0].err == ""
    exported = gristmill("chat", finished_run / "export" / "model", "--prompt", "What is 1 + 1?")
    assert exported.out == answers[0].out, "the exported model speaks as the trained one"


def test_chat_with_a_run_that_has_no_model_says_what_makes_one(tmp_path: Path, gristmill: Command) -> None:
    answer = gristmill("chat", tmp_path, "--prompt", "hi")
    assert answer.code == 1
    assert "holds no model" in answer.err
    assert "gristmill run" in answer.err


# ── init ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def texts(tmp_path: Path, tiny: Any) -> Path:
    """Somebody's folder: chapters as text files, and some pages of notes in Markdown."""
    tiny.write_sample(tmp_path / "sample")
    folder = tmp_path / "my texts"
    (folder / "notes").mkdir(parents=True)
    for number, chapter in enumerate(tiny.chapters(30)):
        (folder / f"{number:02d}.txt").write_text(chapter, encoding="utf-8")
    glosses = tiny.rows(tmp_path / "sample" / "glosses.jsonl.gz")
    for number in range(12):
        lines = (f"- {row['text']}\n" for row in glosses[number * 40 : (number + 1) * 40])
        (folder / "notes" / f"{number}.md").write_text("# Words\n\n" + "".join(lines), encoding="utf-8")
    return folder


def test_recipe_of_init_plans_and_runs_as_it_is_and_again_does_nothing(
    texts: Path, tmp_path: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = gristmill("init", "mymodel", "--data", texts)
    assert answer.code == 0, answer.err
    recipe = Path("mymodel/recipe.yaml")
    assert "gristmill plan mymodel/recipe.yaml" in answer.out
    planned = gristmill("plan", recipe, "--json")
    assert planned.code == 0, planned.err
    budget = json.loads(planned.out)
    assert budget
    small = ("pretrain.stages.stable.tokens=16384", "pretrain.stages.decay.tokens=4096")
    small += ("pretrain.decay_tokens=4096", "pretrain.warmup_tokens=2048", "pretrain.watch.every_tokens=10240")
    small += ("pretrain.checkpoint_every_tokens=10240", "tokenizer.vocab_size=512", "model.num_hidden_layers=2")
    answer = gristmill("run", recipe, *small, *OPTIONS)
    assert answer.code == 0, answer.err
    assert (tmp_path / "runs" / "mymodel" / "report" / "report.html").is_file()
    again = gristmill("run", recipe, *small, *OPTIONS)
    assert again.code == 0, again.err
    assert "running" not in again.out
    answer = gristmill("chat", "runs/mymodel", "--prompt", "The ")
    assert answer.code == 0
    assert "is a base model" in answer.err
    answer = gristmill("init", "mymodel", "--data", texts)
    assert answer.code == 2
    assert "exists already; nothing was changed" in answer.err


def test_init_over_too_little_text_says_how_much_is_needed(
    tmp_path: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("texts").mkdir()
    Path("texts/one.txt").write_text("A short text.\n", encoding="utf-8")
    answer = gristmill("init", "mymodel", "--data", "texts")
    assert answer.code == 1
    assert "a model needs at least 20,000" in answer.err
    assert not Path("mymodel/recipe.yaml").exists()


def test_init_without_data_makes_the_folder_and_says_where_to_put_files(
    tmp_path: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = gristmill("init", "mymodel")
    assert answer.code == 2
    assert "mymodel/data" in answer.err
    assert Path("mymodel/data").is_dir()
