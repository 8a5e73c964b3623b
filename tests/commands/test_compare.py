"""Two runs' models on what both were measured on: the same items, the same documents, and nothing that one of them trains on."""

from __future__ import annotations

import json
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import stats

from gristmill.commands import compare
from gristmill.commands.compare import compare_models
from gristmill.errors import ArtifactError, DataError, RecipeError
from gristmill.evaluate.noise import Noise
from gristmill.graph.machine import Machine
from gristmill.statistics import holm, smallest_detectable


@pytest.fixture
def two_runs(finished_run: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Copies of the finished run, with plain folders in place of links."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for step in ("evaluate", "select", "tokenize"):
            shutil.copytree(finished_run / step, tmp_path / name / step)
    for path in tmp_path.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tmp_path / "a", tmp_path / "b"


def shown(
    a: Path | str,
    b: Path | str,
    *,
    model: str | None = "pretrain",
    as_json: bool = False,
    on: Path | None = None,
    window: int | None = None,
) -> str:
    console = Console(file=StringIO(), width=200)
    compare_models(
        str(a),
        str(b),
        model=model,
        on=on,
        window=window,
        machine=Machine(threads=1),
        console=console,
        as_json=as_json,
    )
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def found(a: Path | str, b: Path | str, **options: Any) -> dict[str, Any]:
    return dict(json.loads(shown(a, b, as_json=True, **options)))


def scores(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "evaluate" / "models" / "pretrain.json").read_text(encoding="utf-8"))["scores"])


def change(run: Path, task: str, amounts: list[float], sizes: list[int] | None = None) -> None:
    path = run / "evaluate" / "models" / "pretrain.json"
    kept = json.loads(path.read_text(encoding="utf-8"))
    kept["scores"][task] = {"amounts": amounts, "sizes": sizes}
    path.write_text(json.dumps(kept), encoding="utf-8")


def test_a_run_and_its_copy_are_the_same_on_every_item(two_runs: tuple[Path, Path]) -> None:
    rows = found(*two_runs)["rows"]
    assert {row["task"] for row in rows} == {"wordnet-cloze", "sums", "manuals", "glosses", "novel", "code"}
    for row in rows:
        assert (row["a"], row["comparison"]["difference"]) == (row["b"], 0)
        assert "the same on each of" in row["words"] or "neither is above guessing" in row["words"]


def test_a_pack_is_compared_item_by_item_as_by_a_paired_t_interval_and_mcnemars_exact_test(
    two_runs: tuple[Path, Path],
) -> None:
    a, b = two_runs
    before = np.array(scores(a)["wordnet-cloze"]["amounts"])
    rng = np.random.default_rng(1)
    after = np.where(rng.random(len(before)) < 0.6, 1.0, before)
    change(b, "wordnet-cloze", after.tolist())
    rows = found(a, b)["rows"]
    (row,) = [one for one in rows if one["task"] == "wordnet-cloze"]
    peer = stats.ttest_rel(after, before)
    gained, lost = int((after > before).sum()), int((after < before).sum())
    assert row["comparison"]["p_value"] == pytest.approx(stats.binomtest(gained, gained + lost).pvalue)
    assert row["comparison"]["interval"] == pytest.approx(list(peer.confidence_interval(0.95)))
    assert row["comparison"]["p_adjusted"] == pytest.approx(
        holm([one["comparison"]["p_value"] for one in rows])[rows.index(row)]
    )
    assert (row["a"], row["b"]) == (pytest.approx(before.mean()), pytest.approx(after.mean()))
    error = peer.confidence_interval(0.95).high - peer.confidence_interval(0.95).low
    assert row["smallest"] > error / 2


def test_the_released_model_that_a_run_continued_is_compared_as_the_run_measured_it(
    two_runs: tuple[Path, Path],
) -> None:
    """Nothing is measured here: the folder of its step may even be gone."""
    run, _ = two_runs
    evaluated = run / "evaluate"
    rows = json.loads((evaluated / "results.json").read_text(encoding="utf-8"))
    released = [{**row, "model": "start"} for row in rows if row["model"] == "pretrain"]
    (evaluated / "results.json").write_text(json.dumps(released + rows), encoding="utf-8")
    kept = scores(run)
    (evaluated / "models" / "start.json").write_text(json.dumps({"records": [], "scores": kept}), encoding="utf-8")
    change(run, "novel", [bits - 1 for bits in kept["novel"]["amounts"]], kept["novel"]["sizes"])
    (run / "start").mkdir()
    told = found(run / "start", run)
    assert (told["a"]["model"], told["b"]["model"]) == ("start", "pretrain")
    (row,) = [one for one in told["rows"] if one["task"] == "novel"]
    count = len(kept["novel"]["amounts"])
    assert row["comparison"]["difference"] == pytest.approx(-count / sum(kept["novel"]["sizes"]))
    assert not (run / "compared").exists()


def test_documents_are_paired_by_their_text_where_each_holds_out_its_own(two_runs: tuple[Path, Path]) -> None:
    a, b = two_runs
    kept = scores(b)["glosses"]
    path = next((b / "select" / "glosses").glob("validation-*.parquet"))
    table = pq.read_table(path)
    measured = len(kept["amounts"])
    order = np.random.default_rng(2).permutation(measured)[: measured - 2]  # in another order, and without two of them
    pq.write_table(table.take(np.concatenate([order, np.arange(measured, len(table))])), path)
    amounts = [kept["amounts"][k] * 1.01 for k in order]
    change(b, "glosses", amounts, [kept["sizes"][k] for k in order])
    (row,) = [one for one in found(a, b)["rows"] if one["task"] == "glosses"]
    assert (row["items"], row["of"]) == (measured - 2, [measured, measured - 2])
    assert row["b"] / row["a"] == pytest.approx(1.01)
    assert row["words"].startswith("glosses: B is worse than A, by ")
    assert "B is better than A" in shown(b, a)


def test_what_is_not_the_same_is_left_out_with_the_reason(two_runs: tuple[Path, Path]) -> None:
    a, b = two_runs
    results = b / "evaluate" / "results.json"
    rows = json.loads(results.read_text(encoding="utf-8"))
    for row in rows:
        row |= {"sums": {"pack_sha256": "0" * 64}, "novel": {"window": 7}}.get(row["task"], {})
    results.write_text(json.dumps(rows), encoding="utf-8")
    left_out = found(a, b)["left_out"]
    assert left_out == [
        "sums, of which the packs differ",
        "novel, read in windows of 256 and of 7 tokens; --window N reads both in windows of N",
    ]
    path = next((b / "select" / "code").glob("validation-*.parquet"))
    table = pq.read_table(path)
    pq.write_table(table.slice(1), path)
    with pytest.raises(ArtifactError, match="was evaluated on other held-out text of code than it has now"):
        found(a, b)


def test_what_cannot_be_compared_is_refused(two_runs: tuple[Path, Path]) -> None:
    a, b = two_runs
    with pytest.raises(RecipeError, match="has no model 'sftt'; it has pretrain, sft, dpo"):
        shown(a, b, model="sftt")
    with pytest.raises(RecipeError, match="does not exist"):
        shown(a, b.with_name("nobody"))
    for task in scores(b):
        change(b, task, [], [])
    path = b / "evaluate" / "models" / "pretrain.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "scores": {}}), encoding="utf-8")
    with pytest.raises(DataError, match="were measured on nothing that is the same"):
        shown(a, b)
    shutil.rmtree(b / "evaluate")
    with pytest.raises(ArtifactError, match="was not evaluated"):
        shown(a, b)


@pytest.mark.parametrize("count", [6, 40])
def test_the_smallest_detectable_difference_is_found_four_times_in_five(count: int) -> None:
    rng = np.random.default_rng(count)
    sigma, trials = 2.0, 4000
    shift = smallest_detectable(sigma / count**0.5, count - 1)
    assert shift is not None
    drawn = rng.normal(shift, sigma, (trials, count))
    share = float((stats.ttest_1samp(drawn, 0.0, axis=1).pvalue < 0.05).mean())
    assert share == pytest.approx(0.8, abs=0.03)
    assert shift * count**0.5 / sigma == pytest.approx(stats.t.ppf([0.975, 0.8], count - 1).sum())
    assert smallest_detectable(None, 5) is None
    assert smallest_detectable(1.0, 0.1) is None


def test_of_a_side_without_a_log_the_noise_is_taken_from_the_other_and_that_is_said() -> None:
    known = Noise(sd=0.01, degrees=3.0, evaluations=8)
    words = compare._noise_words({"web": [known, None], "code": [known, None], "novel": [known, known]})
    assert words[1:] == [
        "Of B it is not known on web, code, and taken to be as large as that of A: it has no log of its training."
    ]
    words = compare._noise_words({"web": [2, known]})
    assert words[1:] == [
        "Of A it is not known on web, and taken to be as large as that of B: measured 2 times on the way with one length of sequences, and it takes 5."
    ]
    assert len(compare._noise_words({"web": [known, known]})) == 1
