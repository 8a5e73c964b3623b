"""A run that continues from a released model, through the command line: here the model of a finished run, moved away from it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from whole_runs import OPTIONS, Command, lines, read_recipe, write_recipe

from gristmill.store.durable import read_json

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it
CONTINUED = "continued.yaml"


@pytest.fixture
def continued(done_project: Path) -> dict[str, Any]:
    """A recipe over the same text that continues from released/, without chat; `write_recipe` puts it back."""
    shutil.copytree((done_project / "runs/tiny/pretrain/model").resolve(), done_project / "released")
    recipe = read_recipe(done_project)
    for section in ("chat", "sft", "pairs", "dpo"):
        del recipe[section]
    mixture = {"manuals": 0.75, "novel": 0.25}
    recipe["name"] = "continued"
    recipe["model"]["rope_theta"] = 100_000.0  # where the finished run left it
    recipe["evaluate"]["packs"] = []
    recipe["pretrain"] |= {
        "init_from": "released",
        "stages": [{"name": "mixed", "tokens": 8192, "seq_len": 256, "mixture": mixture}],
        "warmup_tokens": 1024,
        "decay_tokens": 4096,
        "optimizer": {"peak_lr": 2.0e-3},
    }
    write_recipe(done_project, recipe, CONTINUED)
    return recipe


def test_the_start_is_measured_as_its_own_run_measured_it_and_what_came_of_it_is_compared_with_it(
    done_project: Path, continued: dict[str, Any], gristmill: Command
) -> None:
    answer = gristmill("run", CONTINUED, *OPTIONS)
    assert answer.code == 0, answer.err
    made = lines(answer.out, "made")
    assert made[0] == "start"
    assert {"tokenizer", "pretrain", "evaluate", "report"} <= {*made}
    assert "tokenize" not in made  # the text was tokenized with this tokenizer before

    def bits(run: str, model: str) -> dict[str, float]:
        rows = read_json(done_project / "runs" / run / "evaluate" / "results.json")
        return {row["task"]: row["value"] for row in rows if row["model"] == model and row["metric"] == "bits_per_byte"}

    assert bits("continued", "start") == pytest.approx(bits("tiny", "pretrain"), abs=1e-6)
    assert bits("continued", "pretrain")["manuals"] < bits("continued", "start")["manuals"]
    compared = read_json(done_project / "runs/continued/evaluate/comparisons.json")
    assert {(row["a"], row["b"], row["task"]) for row in compared} == {
        ("pretrain", "start", source) for source in bits("continued", "start")
    }


def test_a_model_of_another_shape_is_refused_by_plan_and_run_with_the_line_and_both_values(
    done_project: Path, continued: dict[str, Any], gristmill: Command
) -> None:
    continued["model"]["intermediate_size"] = 112
    write_recipe(done_project, continued, CONTINUED)
    text = (done_project / CONTINUED).read_text(encoding="utf-8").splitlines()
    line = next(number for number, line in enumerate(text, start=1) if "init_from" in line)
    for verb in ("plan", "run"):
        answer = gristmill(verb, CONTINUED)
        assert answer.code == 2, answer.err
        assert f"{CONTINUED}:{line}: pretrain.init_from is not as expected" in answer.err
        assert "model.intermediate_size is 112, the released model has 96" in answer.err
        assert "Traceback" not in answer.err


def test_a_folder_that_is_not_there_is_told_by_plan_and_refused_by_run(
    done_project: Path, continued: dict[str, Any], gristmill: Command
) -> None:
    shutil.rmtree(done_project / "released")
    answer = gristmill("plan", CONTINUED)
    assert "released" in answer.out + answer.err
    assert "pretrain.init_from" in answer.out + answer.err
    answer = gristmill("run", CONTINUED, *OPTIONS)
    assert answer.code == 2, answer.err
    assert "released/config.json" in answer.err
