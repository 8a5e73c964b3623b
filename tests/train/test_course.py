"""The course against slow references: the rate of the plain schedule, sequences counted one by one."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import course_recipes as made
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.recipe.schema.training import Pretrain
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.stream import Stream
from gristmill.train.course import Course, Peak, course_of
from gristmill.train.schedule import wsd

T = made.T


def course(data: Mapping[str, Any]) -> Course:
    return course_of(Pretrain.model_validate(data), rope_theta=10_000.0)


def changed(*changes: tuple[int, dict[str, Any]], **more: Any) -> dict[str, Any]:
    return made.base() | {"changes": [made.change(*one) for one in changes]} | more


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TokenShard]:
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(3)
    for first, name in enumerate(made.SOURCES):
        with ShardWriter(folder / name, tokenizer_sha256="a" * 64, vocab_size=1000, eos_id=0) as writer:
            for length in rng.integers(1, 14, size=20).tolist():
                writer.add(300 * first + rng.integers(1, 300, size=length), num_bytes=length)
    return {name: TokenShard(folder / name) for name in made.SOURCES}


def test_a_recipe_without_changes_has_its_schedule_bit_for_bit() -> None:
    plain = wsd(peak_lr=4e-3, warmup_tokens=2 * T, total_tokens=15 * T, decay_tokens=4 * T)
    rates = [course(made.base()).lr_of_step(step) for step in range(15)]
    assert rates == [plain.lr_at((step + 1) * T) for step in range(15)]


@settings(deadline=None, max_examples=150)
@given(data=made.recipes(max_edits=6))
def test_no_rate_is_zero_before_the_last_step(data: dict[str, Any]) -> None:
    found = course(data)
    rates = [found.lr_of_step(step) for step in range(found.num_steps)]
    assert min(rates[:-1], default=1.0) > 0
    assert rates[-1] == 0


@settings(deadline=None, max_examples=150)
@given(data=made.recipes(max_edits=6))
def test_the_rate_is_the_schedules_with_the_peak_that_was_said_last(data: dict[str, Any]) -> None:
    section, found = Pretrain.model_validate(data), course(data)
    for step in range(found.num_steps):
        said = [section.optimizer.peak_lr]
        said += [one.set["optimizer.peak_lr"] for one in section.changes
                 if "optimizer.peak_lr" in one.set and one.after_step <= step]  # fmt: skip
        schedule = wsd(
            peak_lr=said[-1],
            warmup_tokens=section.warmup_tokens,
            total_tokens=section.total_tokens,
            decay_tokens=section.decay_tokens,
            shape=section.decay_shape,
        )
        assert found.lr_of_step(step) == schedule.lr_at((step + 1) * T)
        assert found.tokens_done(step) == step * T
    assert found.total_tokens == section.total_tokens == found.tokens_done(found.num_steps)


def test_a_new_peak_scales_warm_up_and_decay_alike() -> None:
    before, after = course(made.base()), course(changed((1, {"optimizer.peak_lr": 2e-3})))
    rates = [(before.lr_of_step(step), after.lr_of_step(step)) for step in range(15)]
    assert rates[0][0] == rates[0][1]
    assert all(new == pytest.approx(old / 2) for old, new in rates[1:])


def test_peaks_that_change_nothing_are_no_peaks() -> None:
    said = ((3, 4e-3), (5, 2e-3), (5, 3e-3), (7, 3e-3), (9, 1e-3))
    found = course(changed(*((step, {"optimizer.peak_lr": peak}) for step, peak in said)))
    assert found.peaks == (
        Peak(after_step=0, peak_lr=4e-3),
        Peak(after_step=5, peak_lr=3e-3),
        Peak(after_step=9, peak_lr=1e-3),
    )


@settings(deadline=None, max_examples=150)
@given(data=made.recipes(max_edits=6))
def test_steps_and_skips_share_out_all_sequences_in_order(data: dict[str, Any]) -> None:
    """One by one: before each step, what its changes skip; then its own batch."""
    section, found = Pretrain.model_validate(data), course(data)
    sample = step = 0
    passed: list[int] = []
    for number, stage in enumerate(section.stages):
        assert found.segments[number].first_sample == sample
        per_step = T // stage.seq_len
        for _ in range(stage.tokens // T):
            skipped = sum(one.skip_steps for one in section.changes if one.after_step == step) * per_step
            passed += range(sample, sample + skipped)
            assert {found.step_of_sample(one) for one in range(sample, sample + skipped)} <= {None}
            sample += skipped
            assert found.sample_of_step(step) == sample
            assert {found.step_of_sample(one) for one in range(sample, sample + per_step)} == {step}
            assert found.segment_at(step) is found.segments[number]
            assert [one for skip in found.skipped_before(step) for one in skip] == passed
            sample, step = sample + per_step, step + 1
    assert found.num_steps == step
    assert found.sample_of_step(step) == sample == sum(stage.num_samples for stage in found.stream_stages())


@settings(deadline=None, max_examples=60)
@given(data=made.recipes(max_edits=6), share=st.floats(0, 1))
def test_the_account_leaves_out_what_was_skipped(
    shards: dict[str, TokenShard], data: dict[str, Any], share: float
) -> None:
    found = course(data)
    stream, until = Stream(shards, found.stream_stages(), seed=5), round(share * found.num_steps)
    counted = Counter[str]()
    for step in range(until):
        batch = stream.batch_at(found.sample_of_step(step), T)
        assert batch.num_tokens == T
        counted.update(stream.source_names[source] for source in batch.source_N.tolist())
    sample, skipped = found.sample_of_step(until), found.skipped_before(until)
    drawn = Counter[str]()
    for use in stream.uses_before(sample, skipped=skipped):
        drawn[use.source] += use.tokens_drawn
    assert drawn == counted
    assert drawn.total() == until * T


def test_a_stage_to_come_draws_by_its_new_mixture() -> None:
    mixture = {"web": 0.5, "book": 0.5}
    found = course(changed((6, {"stages.two.mixture": mixture})))
    assert [(draw.source, draw.weight) for draw in found.segments[1].draws] == [("web", 0.5), ("book", 0.5)]
    edited = made.base()
    edited["stages"][1]["mixture"] = mixture
    assert found == course(edited)


def test_the_rope_base_is_the_models_until_a_stage_sets_one_then_that() -> None:
    data = made.base()
    data["stages"][1]["rope_theta"] = 20_000.0
    del data["stages"][2]["rope_theta"]
    assert [segment.rope_theta for segment in course(data).segments] == [10_000.0, 20_000.0, 20_000.0]


def test_steps_outside_the_course_are_refused() -> None:
    found = course(made.base())
    for call in (found.segment_at, found.lr_of_step, found.sample_of_step):
        for step in (-1, 16):
            with pytest.raises(IndexError):
                call(step)
    with pytest.raises(IndexError):
        found.lr_of_step(15)


@pytest.mark.parametrize("module", ["course", "prefix"])
def test_neither_needs_torch(module: str) -> None:
    code = f"import sys, gristmill.train.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
