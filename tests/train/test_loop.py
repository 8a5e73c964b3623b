"""The loop's promises: exact resuming, watchers that do not disturb, accumulation, nothing but finite steps applied."""

from __future__ import annotations

import itertools
import json
import math
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny_run as tiny
import torch

from gristmill.errors import ArtifactError, DataError, Interrupted
from gristmill.store.jsonl import read_log
from gristmill.tokens.batch import Batch
from gristmill.train import loop
from gristmill.train.loop import Hook, Interval, Progress, TrainingDiverged
from gristmill.train.loss import LossOutput, next_token_loss
from gristmill.train.monitor import METRICS
from gristmill.train.optimizer_step import take_step

HERE = Path(__file__).parent
LOSS = partial(next_token_loss, source_names=("web", "code"))


def without_timings(path: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if not k.startswith("throughput/")} for line in read_log(path)]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Any:
    session = tiny.open_run(tmp_path_factory.mktemp("unbroken"))
    return tiny.train_run(session, hooks=[tiny.measuring_hook(session)])


@pytest.mark.parametrize("stop_after", [1, 4, 5, 11])
def test_stopped_and_resumed_equals_never_stopped_bit_for_bit(tmp_path: Path, unbroken: Any, stop_after: int) -> None:
    session = tiny.open_run(tmp_path)
    with pytest.raises(Interrupted):
        tiny.train_run(
            session,
            hooks=[tiny.measuring_hook(session)],
            should_stop=lambda: session.progress.step == stop_after,
        )
    resumed = tiny.open_run(tmp_path)
    assert resumed.progress.step == stop_after
    tiny.train_run(resumed, hooks=[tiny.measuring_hook(resumed)])
    tiny.assert_identical(tiny.state_of(resumed), tiny.state_of(unbroken))
    assert without_timings(resumed.out / METRICS) == without_timings(unbroken.out / METRICS)


def test_killed_with_sigkill_and_resumed_equals_never_stopped_bit_for_bit(tmp_path: Path, unbroken: Any) -> None:
    killed = subprocess.run([sys.executable, HERE / "tiny_run.py", tmp_path, "10"], check=False, timeout=120)
    assert killed.returncode == -signal.SIGKILL
    assert [line["step"] for line in read_log(tmp_path / "out" / METRICS) if line["kind"] == "train"] == [3, 6, 9]
    resumed = tiny.open_run(tmp_path)
    assert resumed.progress.step == 8
    tiny.train_run(resumed, hooks=[tiny.measuring_hook(resumed)])
    tiny.assert_identical(tiny.state_of(resumed), tiny.state_of(unbroken))
    assert without_timings(resumed.out / METRICS) == without_timings(unbroken.out / METRICS)


def test_watchers_do_not_disturb(tmp_path: Path, unbroken: Any) -> None:
    bare = tiny.train_run(tiny.open_run(tmp_path), save_every=None, log_every=1)
    tiny.assert_identical(tiny.state_of(bare), tiny.state_of(unbroken))


def test_hooks_run_after_the_save_of_their_step_and_once_each(tmp_path: Path) -> None:
    session = tiny.open_run(tmp_path)
    seen: list[tuple[int, bool]] = []

    def note(progress: Progress) -> None:
        assert not torch.is_grad_enabled()
        assert not session.model.training
        seen.append((progress.step, any(ref.step == progress.step for ref in session.checkpoints.kept())))

    tiny.train_run(session, hooks=[Hook(at=lambda step: step % 4 == 0, run=note)])
    assert seen == [(0, False), (4, True), (8, True), (12, True)]
    assert session.model.training


def test_gradient_accumulation_equals_one_batch() -> None:
    outcomes, weights = [], []
    for micro_batch_tokens in (1000, 20, 1):
        model = tiny.tiny_model()
        optimizer = torch.optim.SGD(model.parameters())
        outcomes.append(
            take_step(
                model,
                optimizer,
                tiny.batch_at(0),
                LOSS,
                lr=0.1,
                micro_batch_tokens=micro_batch_tokens,
                max_grad_norm=1e9,
            )
        )
        weights.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    for outcome, weight in zip(outcomes[1:], weights[1:]):
        assert outcome.loss == pytest.approx(outcomes[0].loss, rel=1e-6)
        assert outcome.grad_norm == pytest.approx(outcomes[0].grad_norm, rel=1e-6)
        assert float((weight - weights[0]).abs().max()) < 1e-6


def test_loss_is_the_mean_over_the_tokens_that_count() -> None:
    model, batch = tiny.tiny_model(), tiny.batch_at(3)
    x_ND = model.hidden(
        torch.from_numpy(batch.tokens_N), torch.from_numpy(batch.positions_N), batch.document_lengths.tolist()
    )
    nll_N = torch.nn.functional.cross_entropy(model.logits(x_ND), torch.from_numpy(batch.targets_N), reduction="none")
    mask_N = torch.from_numpy(batch.loss_mask_N)
    expected = float((nll_N.detach() * mask_N).sum() / mask_N.sum())
    outcome = take_step(model, tiny.adamw(model), batch, LOSS, lr=0.0, micro_batch_tokens=20, max_grad_norm=1.0)
    assert outcome.loss == pytest.approx(expected, rel=1e-5)


def poisoned(value: float, where: str) -> Any:
    """The loss, with `value` in it and in its gradient, in its value alone, or (not a number) in its gradient alone."""

    def loss_fn(model: Any, batch: Batch) -> LossOutput:
        output = LOSS(model, batch)
        weight = next(model.parameters())
        poison = {
            "both": (weight.flatten()[0] * 0 + 1) * value,
            "value": torch.tensor(value),
            "gradient": torch.where(torch.tensor(True), weight.sum() * 0, torch.sqrt(weight.sum() * 0 - 1)),
        }[where]
        return LossOutput(loss_sum=output.loss_sum + poison, sums=output.sums)

    return loss_fn


@pytest.mark.parametrize(
    ("value", "where"), [(math.nan, "both"), (math.inf, "both"), (math.inf, "value"), (0.0, "gradient")]
)
def test_step_that_is_not_finite_changes_nothing(tmp_path: Path, value: float, where: str) -> None:
    session = tiny.train_run(tiny.open_run(tmp_path), save_every=None)
    before = tiny.state_of(session)
    outcome = take_step(
        session.model,
        session.optimizer,
        tiny.batch_at(0),
        poisoned(value, where),
        lr=0.1,
        micro_batch_tokens=20,
        max_grad_norm=1.0,
    )
    assert not outcome.applied
    tiny.assert_identical(before, tiny.state_of(session))


def test_a_step_that_is_turned_down_changes_nothing_and_is_asked_about_with_what_it_found(tmp_path: Path) -> None:
    session = tiny.train_run(tiny.open_run(tmp_path), save_every=None)
    before, asked = tiny.state_of(session), list[Any]()
    outcome = take_step(
        session.model,
        session.optimizer,
        tiny.batch_at(0),
        LOSS,
        lr=0.1,
        micro_batch_tokens=20,
        max_grad_norm=1.0,
        accepts=lambda found: bool(asked.append(found)),
    )
    assert not outcome.applied
    tiny.assert_identical(before, tiny.state_of(session))
    (found,) = asked
    assert found == outcome
    assert found.averages["loss"] == pytest.approx(outcome.loss, rel=1e-6)
    assert found.averages.keys() == {"loss", "grad_norm", "loss/web", "loss/code"}


def spoiled(steps: set[int], session: Any) -> Any:
    """Batches that put an infinite weight in the model's way at these steps, and take it out again at the next."""
    weight = session.model.model.norm.weight

    def batches(step: int) -> Batch:
        with torch.no_grad():
            if step in steps:
                batches.kept = float(weight[0])  # type: ignore[attr-defined]
                weight[0] = math.inf
            elif step - 1 in steps:
                weight[0] = batches.kept  # type: ignore[attr-defined]
        return tiny.batch_at(step)

    return batches


def test_third_bad_step_in_a_hundred_stops_and_names_the_steps(tmp_path: Path) -> None:
    session = tiny.open_run(tmp_path)
    with pytest.raises(TrainingDiverged, match=r"batch of step 8 gave loss nan.*\[2, 5, 8\]"):
        tiny.train_run(session, batches=spoiled({2, 5, 8}, session))


def test_two_bad_steps_are_skipped_counted_and_out_of_the_averages(tmp_path: Path) -> None:
    session = tiny.open_run(tmp_path)
    tiny.train_run(session, batches=spoiled({2, 5}, session))
    lines = [line for line in read_log(session.out / METRICS) if line["kind"] == "train"]
    assert [line.get("train/skipped_steps", 0) for line in lines] == [1, 1, 0, 0]
    assert all(math.isfinite(line["train/loss"]) for line in lines)
    assert session.progress.step == tiny.END


def test_bad_steps_count_for_a_hundred_steps_and_no_longer(tmp_path: Path) -> None:
    session = tiny.open_run(tmp_path)
    session.progress.skipped_steps = [-150, -96, -95]
    tiny.train_run(session, batches=spoiled({4}, session))
    assert session.progress.skipped_steps == [-95, 4]


def test_batch_in_which_nothing_counts_is_refused() -> None:
    model, batch = tiny.tiny_model(), tiny.batch_at(0)
    empty = Batch(**{**vars(batch), "loss_mask_N": np.zeros_like(batch.loss_mask_N)})
    with pytest.raises(DataError, match="no token or pair that counts"):
        take_step(model, tiny.adamw(model), empty, LOSS, lr=0.1, micro_batch_tokens=50, max_grad_norm=1.0)


def test_metrics_are_averages_over_the_steps_since_the_last_line(tmp_path: Path) -> None:
    each = tiny.train_run(tiny.open_run(tmp_path / "each"), log_every=1)
    thirds = tiny.train_run(tiny.open_run(tmp_path / "thirds"), log_every=3)
    single, averaged = read_log(each.out / METRICS), read_log(thirds.out / METRICS)
    units = [tiny.batch_at(step).num_units for step in range(tiny.END)]
    for number, line in enumerate(averaged):
        part = slice(3 * number, 3 * number + 3)
        expected = np.average([row["train/loss"] for row in single[part]], weights=units[part])
        assert line["train/loss"] == pytest.approx(expected, rel=1e-12)
        assert line["train/lr"] == pytest.approx(np.mean([row["train/lr"] for row in single[part]]))
        assert {"train/web/loss", "train/code/loss", "train/grad_norm", "throughput/tok_per_sec"} <= line.keys()
        assert 0 <= line["throughput/data_wait_frac"] <= 1


def test_a_line_holds_what_its_steps_gave(tmp_path: Path) -> None:
    """Each number of the first line against the step itself; a loss function need not report the loss."""

    def without_sums(model: Any, batch: Batch) -> LossOutput:
        output = LOSS(model, batch)
        return LossOutput(loss_sum=output.loss_sum, sums={"extra": (torch.tensor(3.0, dtype=torch.float64), 2.0)})

    session = tiny.train_run(tiny.open_run(tmp_path), log_every=1, loss_fn=without_sums)
    model, lines = tiny.tiny_model(), read_log(session.out / METRICS)
    outcome = take_step(
        model, tiny.adamw(model), tiny.batch_at(0), LOSS, lr=1e-2, micro_batch_tokens=24, max_grad_norm=0.5
    )
    assert lines[0]["train/loss"] == pytest.approx(outcome.loss, rel=1e-12)
    assert lines[0]["train/grad_norm"] == outcome.grad_norm
    assert lines[0]["train/extra"] == 1.5
    assert [line["train/lr"] for line in lines] == [1e-2 * (1 - step / 20) for step in range(tiny.END)]
    averaged = tiny.train_run(tiny.open_run(tmp_path / "five"), log_every=5, loss_fn=without_sums)
    losses = [line["train/loss"] for line in lines]
    units = [tiny.batch_at(step).num_units for step in range(tiny.END)]
    found = [(line["step"], line["train/loss"]) for line in read_log(averaged.out / METRICS)]
    spans = [slice(0, 5), slice(5, 10), slice(10, 12)]
    expected = [np.average(losses[span], weights=units[span]) for span in spans]
    assert [step for step, _ in found] == [5, 10, 12]
    assert [loss for _, loss in found] == pytest.approx(expected, rel=1e-12)


def test_speed_and_wait_are_those_of_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock by which a batch takes one second and the rest of its step three."""
    ticks = itertools.accumulate(itertools.cycle([10, 1, 3]))
    monkeypatch.setattr(loop, "time", SimpleNamespace(perf_counter=lambda: next(ticks), process_time=lambda: 0.0))
    session = tiny.train_run(tiny.open_run(tmp_path), log_every=3, save_every=None)
    assert session.progress.seconds == 4 * tiny.END
    tokens = [tiny.batch_at(step).num_tokens for step in range(tiny.END)]
    assert session.progress.tokens == sum(tokens)
    for number, line in enumerate(read_log(session.out / METRICS)):
        assert line["throughput/tok_per_sec"] == sum(tokens[3 * number : 3 * number + 3]) / 12
        assert line["throughput/data_wait_frac"] == 0.25
        assert line["tokens"] == sum(tokens[: 3 * number + 3])


def test_losses_are_the_golden_ones(tmp_path: Path) -> None:
    """A change that moves them says by how much and why, and makes the file anew by the command in tiny_run.py."""
    golden = json.loads((HERE / "golden_losses.json").read_text())
    found = tiny.losses(tiny.train_run(tiny.open_run(tmp_path), log_every=1, save_every=None))
    assert found == pytest.approx(golden, rel=1e-4)


def test_progress_survives_json_exactly() -> None:
    progress = Progress(
        step=3, sample=5, tokens=7, skipped_steps=[1], interval=Interval(skipped=1, sums={"loss": (0.1, 3.0)})
    )
    progress.start_in({"threads": 2})
    assert Progress.from_json(json.loads(json.dumps(progress.to_json()))) == progress


@pytest.mark.parametrize("change", [{"sample": None}, {"future": 1}])
def test_progress_of_another_version_is_refused(change: dict[str, Any]) -> None:
    value = {**Progress().to_json(), **change}
    with pytest.raises(ArtifactError, match=r"another version of gristmill: (sample|future)"):
        Progress.from_json({name: field for name, field in value.items() if field is not None})


def test_a_line_of_lineage_for_each_other_environment_or_run() -> None:
    here, there = {"threads": 1}, {"threads": 2}
    progress = Progress()
    progress.start_in(here)
    progress.step = 4
    progress.start_in(here, checkpoint="step-4")
    assert len(progress.lineage) == 1
    progress.start_in(here, checkpoint="other/step-4", of_other_run=True)
    assert not progress.mixed_environments
    progress.step = 6
    progress.start_in(there, checkpoint="step-6")
    progress.step = 8
    progress.start_in(here, checkpoint="step-8")
    assert progress.mixed_environments
    assert progress.lineage == [
        {"from_step": 0, "environment": here, "checkpoint": None},
        {"from_step": 4, "environment": here, "checkpoint": "other/step-4"},
        {"from_step": 6, "environment": there, "checkpoint": "step-6"},
        {"from_step": 8, "environment": here, "checkpoint": "step-8"},
    ]


def test_the_sample_follows_what_the_batch_took_and_survives_resuming(tmp_path: Path) -> None:
    session = tiny.open_run(tmp_path)
    tiny.train_run(session, end_step=5, save_every=5)
    assert (session.progress.step, session.progress.sample) == (5, 5 * tiny.DOCUMENTS)
    session.progress.sample += 100  # as data that is passed over
    tiny.train_run(session, end_step=7, save_every=7)
    resumed = tiny.open_run(tmp_path)
    assert (resumed.progress.step, resumed.progress.sample) == (7, 7 * tiny.DOCUMENTS + 100)
