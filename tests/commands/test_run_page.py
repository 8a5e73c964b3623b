"""The page of a run in the middle: written while it trains, at its end, and what stands on it."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Command
from gristmill import live_page
from gristmill.commands import run_page
from gristmill.commands.run_page import Measured, follow_page
from gristmill.graph.progress import Moment, Position
from gristmill.live_page import LivePage
from gristmill.pipeline import steps_of
from gristmill.recipe.interventions import recipe_as_it_became, with_change
from gristmill.recipe.load import load_recipe
from gristmill.report.facts import ChangeMade, Facts
from gristmill.store.heartbeat import Heart
from gristmill.store.jsonl import append_jsonl, read_log, write_jsonl

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it

STEPS, DONE = 28, 17
REFRESH = '<meta http-equiv="refresh" content="30">'
WHY = "it diverged & the <test> says so"


@pytest.fixture
def middle(done_project: Path) -> Path:
    """A run whose pretraining is at step 17 of 28, with a change after step 14, and nothing behind it."""
    run = done_project / "runs" / "tiny"
    shutil.copytree(run / "pretrain", run / "pretrain.unfinished")
    (run / "report.html").unlink(missing_ok=True)
    for name in ("pretrain", "sft", "pairs", "dpo", "evaluate", "export", "report", "synthesize"):
        (run / name).unlink()
    log = run / "pretrain.unfinished" / "metrics.jsonl"
    lines = [line for line in read_log(log) if line["step"] <= DONE]
    log.chmod(0o644)
    write_jsonl(log, lines)
    change = {"after_step": 14, "set": {"optimizer.peak_lr": 5.0e-3}, "why": WHY}
    changed = with_change(load_recipe(run / "recipe.yaml"), change, origin="a test")
    (run / "recipe.yaml").write_text(recipe_as_it_became(changed), encoding="utf-8")
    return run


def beat(run: Path, step: int) -> Heart:
    """A heartbeat of this process at a step of pretraining."""
    heart = Heart(run)
    position = Position(done=step, total=STEPS, unit="step", part="stage decay")
    heart.beat(Moment(step="pretrain", spent_seconds=9.0, position=position, left_seconds=22.0).to_json())
    return heart


def test_it_is_written_when_something_was_measured_and_once_more_when_the_run_ends(
    middle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, pages = middle / "report.html", list[str]()
    heart = beat(middle, DONE)
    log = middle / "pretrain.unfinished" / "metrics.jsonl"

    def look(_seconds: float) -> None:
        pages.append(page.read_text(encoding="utf-8"))
        if len(pages) == 2:
            append_jsonl(log, [{"step": 18, "tokens": 18 * 1024, "kind": "train", "train/loss": 5.0}])
        if len(pages) == 3:
            append_jsonl(log, [{"step": 21, "tokens": 21 * 1024, "kind": "eval", "eval/novel/bits_per_byte": 2.5}])
            beat(middle, 21)
        if len(pages) == 4:
            heart.stop(1)

    monkeypatch.setattr(run_page, "WRITE_SECONDS", 3600.0)
    monkeypatch.setattr(run_page, "MOST_CPU", 1e9)
    assert follow_page(middle, page, sleep=look) == 3
    first, same, trained, measured = pages
    assert first == same == trained != measured
    assert all(REFRESH in text for text in pages)
    assert f"<b>{DONE}</b><span>steps of {STEPS}</span>" in first
    assert f"<b>21</b><span>steps of {STEPS}</span>" in measured
    assert "Running: pretrain: stage decay, step 17 of 28 (61%)" in first
    last = page.read_text(encoding="utf-8")
    assert REFRESH not in last
    assert "The last run ended with exit code 1. As of 20" in last
    titles = [re.findall(r"<h2 [^>]*>([^<]*)", text) for text in (first, last)]
    assert titles[0] == ["Under way", "Token budget", "Pretraining"]
    assert titles[1] == [*titles[0], "What came in", "Quality scores", "Duplicates and contamination"]
    assert not re.search(r'(src|href)="(?!#)|<script|@import', first + last)


def test_half_a_minute_writes_it_too_and_another_process_is_not_followed(
    middle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heart, looks = beat(middle, DONE), 0

    def look(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        if looks == 4:
            heart._who |= {"pid": os.getppid()}
            heart.beat({})

    monkeypatch.setattr(run_page, "WRITE_SECONDS", 0.0)
    monkeypatch.setattr(run_page, "MOST_CPU", 1e9)
    assert follow_page(middle, middle / "report.html", sleep=look) == 4 + 1
    assert looks == 4


def test_it_takes_at_most_a_hundredth_of_a_core(middle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heart, looks = beat(middle, DONE), 0
    clock = {"monotonic": 0.0, "process": 0.0}

    def look(_seconds: float) -> None:
        nonlocal looks
        looks += 1
        clock["monotonic"] += 10.0
        if looks == 60:
            heart.stop(0)

    def page(*_links: object, **_options: bool) -> str:
        clock["process"] += 2.0
        return "a page that takes two seconds"

    monkeypatch.setattr(run_page, "_page", page)
    monkeypatch.setattr(run_page.time, "monotonic", lambda: clock["monotonic"])
    monkeypatch.setattr(run_page.time, "process_time", lambda: clock["process"])
    assert follow_page(middle, middle / "report.html", sleep=look) == 600 / (2 / 0.01) + 1


def test_measurements_are_counted_as_the_log_grows_and_from_its_beginning_where_it_was_cut(tmp_path: Path) -> None:
    measured, log = Measured(), tmp_path / "metrics.jsonl"
    assert measured.look(None) is None
    assert measured.look(tmp_path) is None
    line = {"step": 1, "tokens": 1, "kind": "eval"}
    for count in (1, 2, 3):
        append_jsonl(log, [line, {**line, "kind": "train"}])
        assert [measured.look(tmp_path) for _ in range(2)] == [count, count]
    write_jsonl(log, [line])
    assert measured.look(tmp_path) == 1


def test_a_change_stands_on_every_curve_with_its_number_and_in_a_table_with_its_reason(
    middle: Path, gristmill: Command, tmp_path: Path
) -> None:
    beat(middle, DONE)
    answer = gristmill("inspect", middle, "--page", tmp_path / "page.html")
    assert answer.code == 0, answer.err
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    escaped = "it diverged &amp; the &lt;test&gt; says so"
    said = f"change 1 after step 14: the peak of the learning rate becomes 0.005. {escaped}"
    marks = re.findall(r'<line class="change"[^>]*><title>(.*?)</title>', page)
    assert marks == [said] * 5  # loss, held-out text, rate, gradient norm, the watched pack
    assert page.count(f">1<title>{said}</title></text>") == 5
    assert f'data-label="why">{escaped}</td>' in page
    assert gristmill("inspect", middle, "--follow").code == 2


def test_the_report_is_given_the_changes_outside_its_identity(middle: Path) -> None:
    recipe = load_recipe(middle / "recipe.yaml").recipe
    report = {step.name: step for step in steps_of(recipe)}["report"]
    given: Any = SimpleNamespace(
        config=report.given.config,
        watching=SimpleNamespace(config=report.watching.config, files={}),
        inputs={},
        run=SimpleNamespace(folder=middle),
    )
    what = "the peak of the learning rate becomes 0.005"
    assert Facts.of(given).changes == [ChangeMade(step=14, tokens=14 * 1024, what=what, why=WHY)]
    assert WHY not in str(report.given.config)


def test_the_page_of_a_finished_run_is_its_report(done_project: Path, gristmill: Command, tmp_path: Path) -> None:
    run = done_project / "runs" / "tiny"
    assert gristmill("inspect", run, "--page", tmp_path / "page.html").code == 0
    assert (tmp_path / "page.html").read_bytes() == (run / "report" / "report.html").read_bytes()
    (run / "pretrain").rename(run / "pretrain.before")  # it is remade
    shutil.copytree(run / "pretrain.before", run / "pretrain.unfinished")
    assert gristmill("inspect", run, "--page", tmp_path / "page.html").code == 0
    assert "Under way" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_run_leaves_a_page_that_is_not_under_way_any_more(
    done_project: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = done_project / "runs" / "tiny" / "report.html"
    page.unlink(missing_ok=True)
    monkeypatch.setattr(live_page, "AFTER_SECONDS", 0.0)
    monkeypatch.setattr(live_page, "LAST_SECONDS", 300.0)
    options = ("--until", "pretrain", "--threads", "1", "--processes", "2")
    assert gristmill("run", "recipe.yaml", "pretrain.optimizer.peak_lr=0.008", *options).code == 0
    shown = page.read_text(encoding="utf-8")
    assert REFRESH not in shown
    assert "The last run ended with exit code 0." in shown
    assert f"<b>{STEPS}</b><span>steps of {STEPS}</span>" in shown


def test_a_short_training_starts_no_writer_and_later_steps_bring_a_page_up_to_date(
    middle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_page, "LAST_SECONDS", 300.0)
    beat(middle, DONE).stop(0)
    with LivePage(middle) as page:
        page.begin(trains=False)
        page.begin(trains=True)
    assert not (middle / "report.html").exists()
    (middle / "report.html").write_text("of an earlier run", encoding="utf-8")
    with LivePage(middle) as page:
        page.begin(trains=False)
    assert "steps of 28" in (middle / "report.html").read_text(encoding="utf-8")
