"""What `status` says of a pretraining: the budget agrees with the trace to the token, in the middle and after a rewind."""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from whole_runs import OPTIONS, Command

from gristmill.commands.status import status
from gristmill.commands.trace import trace_step
from gristmill.graph.machine import Machine
from gristmill.graph.progress import Moment, Position
from gristmill.graph.share import Share
from gristmill.recipe.load import load_recipe
from gristmill.store.heartbeat import Heart
from gristmill.store.jsonl import append_jsonl, read_log
from gristmill.store.store import RunLinks, Store
from gristmill.train.outputs import Pretrained

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it

WHY = "the loss spiked, as a test says"
STEPS = 28
Cells = Counter[tuple[str, str]]


def training_of(gristmill: Command) -> dict[str, Any]:
    """What `status --json` says of pretraining."""
    answer = gristmill("status", "recipe.yaml", "--json")
    assert answer.code == 0, answer.err
    (row,) = (row for row in json.loads(answer.out) if row["step"] == "pretrain")
    return dict(row["training"])


def in_cells(training: dict[str, Any], key: str = "read_tokens") -> Cells:
    """(stage, source) → tokens, by the ledger; selections of one source together."""
    found = Cells()
    for row in training["budget"]:
        found.update({(stage, row["source"]): cell[key] for stage, cell in row["stages"].items()})
    return +found


def traced(run: Path, steps: range) -> Cells:
    """The same, document by document, by `trace`."""
    found = Cells()
    for step in steps:
        out = io.StringIO()
        one = Share(rank=0, size=1)
        trace_step(run, step, share=one, console=Console(file=out, width=200), as_json=True, whole=False)
        for part in map(json.loads, out.getvalue().splitlines()):
            found[part["stage"], part["source"]] += part["end"] - part["first"] + 1
    return found


def test_the_budget_in_the_middle_is_what_its_steps_read(done_project: Path, gristmill: Command) -> None:
    run = done_project / "runs" / "tiny"
    options = ("--stage", "decay", "--mix", "manuals=.5,glosses=.2,novel=.1,code=.2", "--after-step", "14")
    assert gristmill("intervene", "recipe.yaml", *options, "--why", WHY).code == 0
    training = training_of(gristmill)
    assert (training["step"], training["steps"], training["tokens"]) == (14, STEPS, 14 * 1024)
    assert in_cells(training) == traced(run, range(1, 15))
    assert sum(row["read_tokens"] for row in training["budget"]) == training["tokens"]
    assert {one["kind"]: one["step"] for one in reversed(training["ahead"])} == {
        "checkpoint": 15, "measurement": 21, "extension": 22, "end": STEPS,
    }  # fmt: skip
    assert gristmill("run", "recipe.yaml", "--until", "pretrain", *OPTIONS).code == 0
    assert in_cells(training, "planned_tokens") == traced(run, range(1, STEPS + 1)) == in_cells(training_of(gristmill))


def test_after_a_rewind_the_ledger_has_what_was_trained_on_and_not_what_was_passed_over(
    done_project: Path, gristmill: Command
) -> None:
    run = done_project / "runs" / "tiny"
    before = in_cells(training_of(gristmill))
    assert gristmill("rewind", "recipe.yaml", "--to", "20", "--skip", "2", "--why", WHY).code == 0
    assert gristmill("run", "recipe.yaml", "--until", "pretrain", *OPTIONS).code == 0
    training, counts = training_of(gristmill), Pretrained(run / "pretrain").counts
    assert in_cells(training) == traced(run, range(1, STEPS + 1)) != before
    by_source = Counter[str]()
    for (_, source), tokens in in_cells(training).items():
        by_source[source] += tokens
    assert by_source == counts.tokens_by_source
    assert training["ahead"] == []


def test_a_run_at_work_is_told_by_its_heartbeat_with_the_time_of_what_comes(
    done_project: Path, gristmill: Command
) -> None:
    run = done_project / "runs" / "tiny"
    position = Position(done=17, total=STEPS, unit="step", part="stage decay")
    Heart(run).beat(Moment(step="pretrain", spent_seconds=9.0, position=position, left_seconds=22.0).to_json())
    training = training_of(gristmill)
    assert (training["step"], training["stage"], training["step_seconds"]) == (17, "decay", 2.0)
    assert in_cells(training) == traced(run, range(1, 18))
    assert {one["kind"]: one["seconds"] for one in training["ahead"]}["end"] == 22.0
    assert training["measured"][0]["since_tokens"] == 7 * 1024
    (groups,) = (
        row["groups"] for row in json.loads(gristmill("status", "recipe.yaml", "--json").out) if "groups" in row
    )
    assert groups["columns"] == ["stable", "decay", "extension"]
    last = {row["group"]: row["cells"][-1] for row in groups["rows"]}
    assert last["held-out text"]["step"] == STEPS
    shown = " ".join(gristmill("status", "recipe.yaml").out.split())
    assert "pretrain: step 17 of 28, stage decay; 17.4k of 28.7k tokens nothing looks wrong" in shown
    assert "28 about 22 s, " in shown


def test_what_the_log_has_of_steps_that_are_trained_again_does_not_count(
    done_project: Path, gristmill: Command
) -> None:
    events = done_project / "runs" / "tiny" / "pretrain" / "events.jsonl"
    happened = [{"step": step, "tokens": step * 1024, "kind": "not_finite", "loss": None, "grad_norm": 1.0, "text": None} for step in (3, 20)]  # fmt: skip
    append_jsonl(events, happened)
    assert "in 2 steps, last in step 20" in training_of(gristmill)["wrong"][0]["what"]
    assert gristmill("rewind", "recipe.yaml", "--to", "16", "--skip", "2", "--why", WHY).code == 0
    training = training_of(gristmill)
    assert training["step"] == 14
    assert [found["what"] for found in training["wrong"] if "20" in found["what"]] == []
    assert "in 1 step, last in step 3" in training["wrong"][0]["what"]


def test_a_page_of_eighty_columns_holds_it_and_no_tensor_is_read(done_project: Path) -> None:
    run, out = done_project / "runs" / "tiny", io.StringIO()
    for path in (done_project / "runs" / ".store").rglob("*.safetensors"):
        path.chmod(0o644)
        path.write_bytes(b"")
    append_jsonl(run / "pretrain" / "events.jsonl", [{"step": 3, "tokens": 3072, "kind": "not_finite", "loss": None, "grad_norm": 1.0, "text": None}])  # fmt: skip
    status(load_recipe(done_project / "recipe.yaml"), Machine(), console=Console(file=out, width=80))
    page = out.getvalue().partition("\npretrain: ")[2]
    assert all(len(line) <= 80 for line in page.splitlines() if "looks wrong" not in line)
    assert "looks wrong: loss or gradient not finite in 1 step, last in step 3" in page
    for title in ("Tokens, read and still to read", "Read in each stage, of its plan", "Measured, and the change"):
        assert f"\n{title}" in page
    last = [line for line in read_log(run / "pretrain" / "metrics.jsonl") if line["kind"] == "eval"][-1]
    assert f"manuals bits per byte {last['eval/manuals/bits_per_byte']:.3f}" in " ".join(page.split())


def test_the_step_at_work_is_told_with_its_process_while_its_heartbeat_lives(
    done_project: Path, gristmill: Command
) -> None:
    links, heart = RunLinks(Store(done_project / "runs"), "tiny"), Heart(done_project / "runs" / "tiny")
    shorter = ("pretrain.stages.extension.tokens=5120",)

    def row() -> list[str]:
        shown = gristmill("status", "recipe.yaml", *shorter).out
        (found,) = (line.split() for line in shown.splitlines() if line.startswith("pretrain "))
        return found

    links.set_aside("pretrain")
    links.mark_unfinished("pretrain", "1" * 32)
    links.store.open_work("pretrain", "1" * 32)
    assert row()[1] == "drifted"
    position = Position(done=17, total=STEPS, unit="step", part="stage decay")
    heart.beat(Moment(step="pretrain", spent_seconds=9.0, position=position).to_json())
    assert row()[1:3] == ["at", "work"]
    assert f"process {os.getpid()}" in " ".join(row())
    heart.beat(Moment(step="sft", spent_seconds=9.0).to_json())
    assert row()[1] == "drifted"
    heart.beat(Moment(step="pretrain", spent_seconds=9.0, position=position).to_json())
    heart.stop(1)
    assert row()[1] == "drifted"
    rank = Heart(done_project / "runs" / "tiny", rank="0/2")
    rank.beat(Moment(step="pretrain", spent_seconds=9.0, position=position).to_json())
    assert f"rank 0/2, process {os.getpid()}" in " ".join(row())


def test_before_anything_is_trained_nothing_is_said_of_it(project: Path, gristmill: Command) -> None:
    answer = gristmill("status", "recipe.yaml", "--json")
    (row,) = (row for row in json.loads(answer.out) if row["step"] == "pretrain")
    assert "training" not in row
