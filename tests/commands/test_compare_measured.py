"""Models that no evaluation knows are measured where they are compared: on the same items and documents, by the same numbers."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from gristmill.commands import compare_sides
from gristmill.commands.compare import compare_models
from gristmill.errors import ArtifactError, RecipeError
from gristmill.evaluate.bench import Bench
from gristmill.graph.machine import Machine
from gristmill.recipe.interventions import recipe_as_it_became
from gristmill.recipe.load import load_recipe
from gristmill.statistics import paired_difference
from gristmill.units import in_bytes
from models import random_llama, save, small_tokenizer


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, with plain folders in place of links."""
    for step in ("evaluate", "select", "tokenize", "pretrain", "checkpoints"):
        shutil.copytree(finished_run / step, tmp_path / "runs" / "a" / step)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "runs" / "a"


@pytest.fixture
def stranger(tmp_path: Path) -> Path:
    """A Hugging Face folder with a tokenizer of its own."""
    tokenizer = small_tokenizer()
    return save(tmp_path / "stranger", random_llama(tokenizer, seed=4, context=128), tokenizer)


def said(a: Path | str, b: Path | str, *, as_json: bool = False, **options: Any) -> str:
    console = Console(file=StringIO(), width=200)
    asked = {"model": "pretrain", "on": None, "window": None, **options}
    compare_models(str(a), str(b), machine=Machine(threads=1), console=console, as_json=as_json, **asked)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def found(a: Path | str, b: Path | str, **options: Any) -> dict[str, Any]:
    return dict(json.loads(said(a, b, as_json=True, **options)))


def rows_of(told: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["task"]: row for row in told["rows"]}


def test_a_copy_of_a_runs_model_measured_here_scores_what_its_evaluation_says_item_by_item(
    run: Path, tmp_path: Path
) -> None:
    shutil.copytree(run / "pretrain" / "model", tmp_path / "copy")
    rows = rows_of(found(run, tmp_path / "copy"))
    assert set(rows) == {"wordnet-cloze", "sums", "manuals", "glosses", "novel", "code"}
    for row in rows.values():
        assert row["b"] == pytest.approx(row["a"], rel=1e-6)
        assert row["verdict"] not in ("better", "worse")


def test_a_checkpoint_is_named_by_its_step_or_its_folder_and_the_last_one_is_the_runs_model(run: Path) -> None:
    by_step = found(run, f"{run}@28")
    by_folder = found(run, run / "checkpoints" / "pretrain" / "0000028")
    assert by_step["rows"] == by_folder["rows"]
    assert by_step["b"]["run"] == str(run)
    assert all(row["b"] == pytest.approx(row["a"], rel=1e-6) for row in by_step["rows"])
    assert rows_of(found(f"{run}@14", f"{run}@28"))["glosses"]["verdict"] == "better"
    with pytest.raises(ArtifactError, match="has no checkpoint after step 15; it has those after steps 14, 22, 25, 28"):
        found(run, f"{run}@15")


def test_the_bits_of_a_model_with_another_tokenizer_are_those_that_transformers_computes(
    run: Path, stranger: Path
) -> None:
    told = found(run, stranger)
    row = rows_of(told)["glosses"]
    texts = Bench.of(run).texts["glosses"]
    model, tokenizer = AutoModelForCausalLM.from_pretrained(stranger), AutoTokenizer.from_pretrained(stranger)
    bits, sizes = [], []
    for text in texts:
        ids = tokenizer.encode(text, add_special_tokens=False)
        total = 0.0
        for begin in range(0, len(ids), 128):
            end = min(begin + 128, len(ids))
            seen = [tokenizer.eos_token_id, *ids][max(0, end - 128) : end + 1]
            with torch.no_grad():
                logps = torch.log_softmax(model(torch.tensor([seen[:-1]])).logits[0].double(), dim=-1)
            new = seen[-(end - begin) :]
            total -= sum(float(logps[len(logps) - len(new) + k, token]) for k, token in enumerate(new))
        bits.append(total / np.log(2))
        sizes.append(len(text.encode()))
    assert row["items"] == len(texts)
    assert row["b"] == pytest.approx(sum(bits) / sum(sizes), rel=1e-4)
    ours = json.loads((run / "evaluate" / "models" / "pretrain.json").read_text(encoding="utf-8"))["scores"]["glosses"]
    assert row["comparison"]["p_value"] == pytest.approx(
        paired_difference(bits, ours["amounts"], sizes=sizes).p_value, rel=1e-3
    )
    assert any("reads windows of 128 tokens, all its context, and not of 256" in note for note in told["notes"])
    assert any("was trained on is not known here" in note for note in told["notes"])


def test_a_pack_whose_answers_do_not_fit_the_context_is_left_out_and_the_rest_is_measured(
    run: Path, tmp_path: Path
) -> None:
    tokenizer = small_tokenizer()
    short = save(tmp_path / "short", random_llama(tokenizer, seed=4, context=16), tokenizer)
    told = found(run, short)
    assert "glosses" in rows_of(told)
    [line] = [line for line in told["left_out"] if line.startswith("wordnet-cloze")]
    assert line.endswith("tokens to " + str(short) + ", and its context 16")


def test_what_was_measured_once_is_not_measured_again(
    run: Path, stranger: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = found(run, stranger)
    first = next((run / "compared").iterdir())
    (first / "novel.json").unlink()  # as if it had been killed there
    asked: list[int] = []
    real = compare_sides.measure
    monkeypatch.setattr(compare_sides, "measure", lambda *args, **named: real(*args, **{**named, "say": asked.append}))
    assert found(run, stranger)["rows"] == before["rows"]
    monkeypatch.setattr(
        "gristmill.evaluate.bench.bits_of_documents", lambda *args, **named: pytest.fail("measured again")
    )
    assert found(run, stranger)["rows"] == before["rows"]


def test_the_time_is_told_before_a_model_is_measured(run: Path, stranger: Path) -> None:
    lines = said(run, stranger).splitlines()
    size = in_bytes(Bench.of(run).num_bytes)
    assert lines[0].startswith(
        f"{stranger} is measured on 80 items of 2 packs and {size} of held-out text of {run}: about "
    )
    assert lines[1].startswith(f"{stranger} on wordnet-cloze: ")


def test_two_folders_are_measured_on_the_run_that_is_named_and_refused_without_one(run: Path, stranger: Path) -> None:
    with pytest.raises(RecipeError, match=r"neither .* is of a run. Name one .*--on runs/quickstart"):
        found(stranger, stranger)
    rows = rows_of(found(stranger, stranger, on=run))
    assert {row["comparison"]["difference"] for row in rows.values()} == {0}


def test_another_window_is_measured_for_both(run: Path) -> None:
    assert [line for line in found(run, f"{run}@14")["notes"] if "--window 128 reads both within its length" in line]
    assert not found(run, f"{run}@14", window=128)["notes"]
    rows = rows_of(found(run, f"{run}@28", window=32))
    usual = rows_of(found(run, f"{run}@28"))
    assert all(row["a"] == row["b"] for row in rows.values())
    assert rows["novel"]["a"] > usual["novel"]["a"]  # less is seen


def test_documents_that_the_run_of_a_checkpoint_trains_on_and_packs_that_it_does_not_hold_out_are_left_out(
    run: Path,
) -> None:
    other = run.with_name("b")
    shutil.copytree(run, other)
    path = next((other / "select" / "glosses").glob("validation-*.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.slice(5), path)
    shutil.rmtree(other / "evaluate")
    told = found(run, f"{other}@28")
    whole = rows_of(found(run, f"{run}@28"))["glosses"]
    rows = rows_of(told)
    assert (rows["glosses"]["items"], rows["glosses"]["of"]) == (whole["items"] - 5, [whole["items"]] * 2)
    assert rows["novel"]["items"] == 1
    assert [line for line in told["left_out"] if "sums" in line] == [
        f"sums, whose items the run of {other}@28 does not hold out"
    ]


def test_before_the_end_of_its_run_no_checkpoint_is_measured_on_a_locked_pack(
    run: Path, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that it is compared with was evaluated, on a pack that both keep for the end."""
    monkeypatch.setattr(compare_sides, "selects_alike", lambda one, other: True)
    other = run.with_name("b")
    shutil.copytree(run, other)
    recipe = load_recipe(finished_run / "recipe.yaml", ["packs.sums.locked=true"])
    (other / "recipe.yaml").write_text(recipe_as_it_became(recipe), encoding="utf-8")
    assert "sums" in rows_of(found(run, f"{other}@25")), "its run is at its end"
    shutil.rmtree(other / "evaluate")
    told = found(run, f"{other}@28")
    assert set(rows_of(told)) == {"wordnet-cloze", "manuals", "glosses", "novel", "code"}
    assert told["left_out"] == [f"sums, which the recipe of {other} keeps for the end: packs.sums.locked"]
    assert not [path for path in (run / "compared").rglob("sums.json") if "@28" in path.read_text(encoding="utf-8")]


def test_a_difference_that_neighbouring_checkpoints_show_too_is_not_called_better(run: Path, tmp_path: Path) -> None:
    def log(values: list[float]) -> None:
        lines = [
            {"step": 5 + k, "tokens": 1024 * (5 + k), "kind": "eval", "eval/glosses/bits_per_byte": value}
            for k, value in enumerate(values)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        for folder in (run / "pretrain", run / "checkpoints" / "pretrain" / "0000025"):
            (folder / "metrics.jsonl").write_text(text, encoding="utf-8")

    log([4.0] * 4)
    row = rows_of(few := found(run, f"{run}@25"))["glosses"]
    assert (row["verdict"], row["noise"]) == ("worse", None)
    assert any("not known of wordnet-cloze, sums, manuals, glosses" in line for line in few["noise"])
    log([4.0, 4.001] * 4)
    row = rows_of(quiet := found(run, f"{run}@25"))["glosses"]
    assert row["verdict"] == "worse"
    assert 0 < row["noise"] < row["comparison"]["difference"]
    assert "by how far each of the last 8 evaluations of A and the last 8 evaluations of B" in quiet["noise"][0]
    log([4.0, 4.5] * 4)
    row = rows_of(found(run, f"{run}@25"))["glosses"]
    assert row["verdict"] == "within checkpoint noise"
    assert row["comparison"]["verdict"] == "worse"
    assert "so it is not called worse" in row["words"]
