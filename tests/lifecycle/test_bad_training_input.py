"""What people get wrong about a training, through the command line: a message that says what to do, and nothing lost.

Each is asked of a finished run. Whatever is refused leaves the run's model, its checkpoints and its interventions as they were.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from whole_runs import OPTIONS, WEIGHTS, Command, checkpoints_of, forget, lines, running

from gristmill.train import pretrain
from gristmill.train.loss import LossOutput

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it
PRETRAIN = ("run", "recipe.yaml", "--until", "pretrain", *OPTIONS)
WHY = ("--why", "to see what it does")
ABLATE = "ablations={data: {candidates: {dictionary: {glosses: 1}}, endpoint: novel, seeds: 2, tokens: 4096}}"


def left_by(project: Path) -> dict[str, Any]:
    """What a refusal may not touch."""
    run = project / "runs" / "tiny"
    return {
        "model": os.readlink(run / "pretrain"),
        "weights": (run / "pretrain" / WEIGHTS).read_bytes(),
        "checkpoints": [ref.folder.name for ref in checkpoints_of(project)],
        "interventions": sorted(path.name for path in run.glob("interventions/*")),
        "declared": [*run.parent.glob("tiny.*/declared.json")],
    }


REFUSED: dict[str, tuple[tuple[str, ...], int, tuple[str, ...]]] = {
    "a mixture that names an unknown source": (
        (*PRETRAIN, "pretrain.stages.decay.mixture={manuals: 0.9, novels: 0.1}"),
        2,
        ("pretrain.stages[decay].mixture names the source 'novels'; did you mean 'novel'? the recipe has",),
    ),
    "a mixture that reads a source too often": (
        (*PRETRAIN, "pretrain.stages.decay.mixture={manuals: 0.1, novel: 0.9}", "pretrain.max_epochs=0.3", "pretrain.warn_epochs=0.2"),
        2,
        ("pretrain.stages[decay]: novel would be read 0.52 times; the cap is 0.3 epochs", "lower its weight, add text", "allow_epochs"),
    ),
    "a mixture of documents that there are none of": (
        (*PRETRAIN, "pretrain.stages.decay.mixture=[{source: novel, weight: 1, min_document_tokens: 100000}]"),
        2,
        ("novel ≥ 100,000 tokens, which has none", "Take it out of the mixtures, or lower min_document_tokens"),
    ),
    "a decay that is longer than the run": (
        (*PRETRAIN, "pretrain.decay_tokens=40960"),
        2,
        ("decay_tokens 40,960 exceed the 28,672 tokens of all stages", "lower them together with the tokens"),
    ),
    "a number of ranks that does not divide the batch": (
        (*PRETRAIN, "pretrain.optimizer.peak_lr=0.03", "--ranks", "3"),
        2,
        ("--ranks is 3, but a step has 8 sequences of 128 tokens", "Use 2 or 4 ranks, or change pretrain.global_batch_tokens"),
    ),
    "an intervention on a stage that is finished": (
        ("intervene", "recipe.yaml", "--stage", "stable", "--mix", "novel=1", *WHY),
        2,
        ("the pretraining of tiny is finished: its 28 steps are done", "--after-step N", "--fork NAME"),
    ),
    "an intervention on a stage that has begun": (
        ("intervene", "recipe.yaml", "--stage", "decay", "--mix", "novel=1", "--after-step", "18", *WHY),
        2,
        ("stage 'decay' begins at step 14, before after_step 18", "Split the stage at step 18"),
    ),
    "an intervention on a stage that is none": (
        ("intervene", "recipe.yaml", "--stage", "dekay", "--mix", "novel=1", "--after-step", "14", *WHY),
        2,
        ("there is no stage 'dekay'; did you mean 'decay'?",),
    ),
    "an intervention without much of a reason": (
        ("intervene", "recipe.yaml", "--stage", "extension", "--mix", "novel=1", "--after-step", "14", "--why", "because"),
        2,
        ("why is 'because'; expected at least 10 characters",),
    ),
    "an ablation without a trunk": (
        ("ablate", "recipe.yaml", ABLATE, "evaluate.packs=[sums]", "pretrain.optimizer.peak_lr=0.02", *OPTIONS),
        1,
        ("the trunk of tiny.data has no checkpoint at or before step 14", "peak_lr", "--until pretrain` trains it"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_with_what_to_do_and_nothing_is_lost(done_project: Path, gristmill: Command, what: str) -> None:
    command, code, words = REFUSED[what]
    before = left_by(done_project)
    answer = gristmill(*command)
    said = " ".join(answer.err.split())
    assert (answer.code, "Traceback" in said, "Value error" in said) == (code, False, False), said
    for part in words:
        assert part in said, said
    assert "stage stable" not in answer.out, "it trained"
    assert left_by(done_project) == before


def test_a_candidate_with_the_text_of_the_endpoint_is_refused_by_the_document(
    done_project: Path, gristmill: Command
) -> None:
    """Selection keeps the two apart, so it is put there by hand: the held-out shard of one source as the training shard of another."""
    tokens = (done_project / "runs" / "tiny" / "tokenize").resolve()
    for kind in ("bin", "index", "json", "blocks"):
        (tokens / "glosses" / f"train.{kind}").unlink()
        shutil.copy(tokens / "novel" / f"validation.{kind}", tokens / "glosses" / f"train.{kind}")
    before = left_by(done_project)
    answer = gristmill("ablate", "recipe.yaml", ABLATE, "evaluate.packs=[sums]", *OPTIONS)
    assert (answer.code, left_by(done_project)) == (2, before), answer.err
    assert "of the held-out text of novel word for word" in " ".join(answer.err.split())


def test_a_checkpoint_of_another_recipe_is_not_taken_and_the_run_says_what_differs(
    done_project: Path, gristmill: Command
) -> None:
    kept = [ref.folder for ref in checkpoints_of(done_project)]
    answer = gristmill(*PRETRAIN, "pretrain.optimizer.peak_lr=0.02")
    said = " ".join(answer.out.split())
    assert answer.code == 0, answer.err
    assert "starts from the beginning; 28 steps to make; step 28 does not fit: optimizer.peak_lr: 0.01 → 0.02" in said
    assert "pretrain.changes alters the rate from a later step on" in said
    assert all(folder.is_dir() for folder in kept), "what was saved stays until clean"
    answer = gristmill(*PRETRAIN)
    assert (answer.code, lines(answer.out, "made")) == (0, []), "going back is free"


def without_a_number(real: Callable[..., LossOutput], after_calls: int) -> Callable[..., LossOutput]:
    calls: list[None] = []

    def loss(*arguments: Any, **named: Any) -> LossOutput:
        calls.append(None)
        found = real(*arguments, **named)
        return replace(found, loss_sum=found.loss_sum * float("nan")) if len(calls) > after_calls else found

    return loss


def test_no_number_from_the_first_step_on_is_no_matter_of_the_rate(
    done_project: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(done_project, "pretrain")
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "next_token_loss", without_a_number(pretrain.next_token_loss, 0))
        answer = gristmill(*PRETRAIN)
    assert answer.code == 1, answer.err
    assert "the batch of step 2 gave loss nan" in answer.err
    assert "Not one update was made yet, so no rate is at fault" in answer.err
    assert "pretrain.init_from" in answer.err
    assert checkpoints_of(done_project) == []
    assert gristmill(*PRETRAIN).code == 0


def test_no_number_later_on_keeps_the_checkpoints_and_offers_a_lower_rate_from_there(
    done_project: Path, finished_run: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = (finished_run / "pretrain" / WEIGHTS).read_bytes()
    forget(done_project, "pretrain")
    with monkeypatch.context() as patch:
        patch.setattr(pretrain, "next_token_loss", without_a_number(pretrain.next_token_loss, 16))
        answer = gristmill(*PRETRAIN)
    assert answer.code == 1, answer.err
    newest = checkpoints_of(done_project)[0].step
    assert f"resumes from the checkpoint at step {newest}" in answer.err
    assert "optimizer.peak_lr: 0.005" in answer.err
    answer = gristmill(*PRETRAIN)
    assert (answer.code, f"Resuming from step {newest}." in answer.out) == (0, True), answer.err
    assert (done_project / "runs" / "tiny" / "pretrain" / WEIGHTS).read_bytes() == expected


@pytest.mark.slow
def test_a_rank_that_dies_is_named_and_the_same_command_goes_on(done_project: Path, gristmill: Command) -> None:
    forget(done_project, "pretrain")
    with running(done_project, "--until", "pretrain", "--ranks", "2") as run:
        assert run.wait_for(lambda: bool(checkpoints_of(done_project)))
        ranks = [
            child
            for child in psutil.Process(run.process.pid).children(recursive=True)
            if "gristmill.train.ranks.process" in child.cmdline()
        ]
        assert ranks, run.printed
        ranks[-1].send_signal(signal.SIGKILL)
        assert run.end() == 75, run.printed
        said = " ".join(run.printed.split())
        assert "rank 1 of 2" in said
        assert "was ended by SIGKILL" in said
    answer = gristmill(*PRETRAIN, "--ranks", "2")
    assert (answer.code, "Resuming from step" in answer.out) == (0, True), answer.err
