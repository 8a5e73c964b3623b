"""Equal prefixes mean equal training: the same rates and the same sequences, whatever else the recipes say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import course_recipes as made
import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from conftest import at_length
from gristmill.recipe.schema.section import Outside, marker
from gristmill.recipe.schema.training import ModelSection, Optimizer, Pretrain
from gristmill.store.fingerprint import derive_seed
from gristmill.tokens.shards import ShardWriter, TokenShard
from gristmill.tokens.stream import Stream
from gristmill.train import prefix as prefix_module
from gristmill.train.course import Course, course_of
from gristmill.train.prefix import (
    SHAPE,
    STEPPING,
    milestones,
    number_format,
    prefix_at,
    prefix_differences,
    prefix_id,
    prefixes,
    stream_seed,
)

T = made.T
Data = dict[str, Any]
MODEL: Data = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "initializer_range": 0.1, "max_position_embeddings": 64,
}  # fmt: skip
CONTENTS = {"web": "1" * 32, "code": "2" * 32, "book": "3" * 32}
GIVEN: Data = {"vocabulary": "a" * 64, "number_format": "float32", "seed": 7, "texts": CONTENTS}


def course(data: Data, rope_theta: float = 10_000.0) -> Course:
    return course_of(Pretrain.model_validate(data), rope_theta=rope_theta)


def prefix(step: int, data: Data, *, model: Mapping[str, Any] | None = None, **given_instead: Any) -> Data:
    shape = ModelSection.model_validate(MODEL | dict(model or {}))
    return prefix_at(
        step,
        course=course(data, shape.rope_theta),
        model=shape,
        section=Pretrain.model_validate(data),
        **GIVEN | given_instead,
    )


def base(**changed: Any) -> Data:
    return dict(made.base() | changed)


def with_stage(number: int, **changed: Any) -> Data:
    data = made.base()
    data["stages"][number] |= changed
    return dict(data)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, TokenShard]]:
    """Two texts of every source."""
    folder, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(3)
    found: list[dict[str, TokenShard]] = []
    for number in range(2):
        for name in made.SOURCES:
            path = folder / f"{name}-{number}"
            with ShardWriter(path, tokenizer_sha256="a" * 64, vocab_size=1000, eos_id=0) as writer:
                for length in rng.integers(1, 14, size=20).tolist():
                    writer.add(rng.integers(1, 1000, size=length), num_bytes=length)
        found.append({name: TokenShard(folder / f"{name}-{number}") for name in made.SOURCES})
    return found


# ── the law ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def trained_on(step: int, data: Data, shards: Mapping[str, TokenShard]) -> list[Any]:
    """What the first `step` steps are given: rate, rope base and every array of the batch, sources by name."""
    found = course(data)
    stream = Stream(shards, found.stream_stages(), seed=stream_seed(GIVEN["seed"]))
    given_to: list[Any] = []
    for done in range(step):
        batch = stream.batch_at(found.sample_of_step(done), T)
        arrays = (batch.tokens_N, batch.targets_N, batch.positions_N, batch.document_lengths, batch.loss_mask_N)
        names = [stream.source_names[source] for source in batch.source_N.tolist()]
        rope_theta = found.segment_at(done).rope_theta
        given_to.append((found.lr_of_step(done), rope_theta, [array.tolist() for array in arrays], names))
    return given_to


@settings(deadline=None, max_examples=150)
@given(first=made.recipes(max_edits=3), data=st.data())
def test_equal_prefixes_mean_equal_rates_and_equal_sequences(
    texts: list[dict[str, TokenShard]], first: Data, data: st.DataObject
) -> None:
    second = data.draw(made.recipes(start=first, min_edits=1, max_edits=2))
    other_text = data.draw(st.sampled_from([None, None, None, None, None, *made.SOURCES]))
    shards = texts[0], texts[0] | ({other_text: texts[1][other_text]} if other_text else {})
    least = min(course(first).num_steps, course(second).num_steps)
    step = max(0, least - data.draw(st.integers(0, 20)))
    old, new = (
        prefix(step, recipe, texts={name: shard.facts.tokens_sha256 for name, shard in held.items()})
        for recipe, held in zip((first, second), shards)
    )
    assert (prefix_differences(old, new) == []) == (old == new) == (prefix_id(old) == prefix_id(new))
    event(f"equal: {old == new}, of equal recipes: {first == second}")
    if old == new:
        assert trained_on(step, first, shards[0]) == trained_on(step, second, shards[1])


test_equal_prefixes_mean_equal_rates_and_equal_sequences_at_length = at_length(
    test_equal_prefixes_mean_equal_rates_and_equal_sequences,
    given(first=made.recipes(max_edits=3), data=st.data()),
    max_examples=1000,
)


@settings(deadline=None, max_examples=100)
@given(data=made.recipes(max_edits=4), share=st.floats(0, 1), more=st.integers(1, 5))
def test_a_recipe_that_goes_on_otherwise_has_the_same_prefix(data: Data, share: float, more: int) -> None:
    """Cut where it stands, with another stage behind and another decay in it."""
    found, section = course(data), Pretrain.model_validate(data).as_changed()
    step = round(share * found.num_steps)
    stages, left = [], step
    for stage in section.stages:
        stages += [stage.model_copy(update={"tokens": min(left * T, stage.tokens)})] if left > 0 else []
        left -= stage.tokens // T
    other = section.model_dump() | {"stages": [stage.model_dump() for stage in stages]}
    other["changes"] = [one for one in other["changes"] if one["after_step"] < step]
    decays = found.tokens_done(step) > found.total_tokens - section.decay_tokens
    if length := found.num_steps - step if decays else more + 1 + section.warmup_tokens // T:
        last = {"name": "otherwise", "tokens": length * T, "seq_len": 12, "mixture": made.MIXTURES[3]}
        other["stages"].append(last)
    if not decays:
        other |= {"decay_tokens": T, "decay_shape": "one_minus_sqrt"}
    assert prefix(step, other) == prefix(step, data)


# ── what lies ahead, and what shapes nothing ─────────────────────────────────────────────────────────────────────────

AT = 9  # in the second stage, before the decay, which begins after step 11


@pytest.mark.parametrize(
    "other",
    [
        base(decay_tokens=2 * T),
        base(decay_tokens=6 * T),
        base(decay_shape="one_minus_sqrt"),
        with_stage(1, tokens=50 * T),
        with_stage(2, tokens=50 * T, seq_len=12, mixture=made.MIXTURES[3], rope_theta=9e5),
        base(stages=made.base()["stages"][:2], decay_tokens=2 * T),
        with_stage(0, name="other"),
        with_stage(1, name="other"),
        base(watch={"every_tokens": 5}, checkpoint_every_tokens=77, sample_prompts=["x"], max_epochs=99.0),
        base(changes=[made.change(AT, {"optimizer.peak_lr": 1e-3, "skip_steps": 3})]),
        base(changes=[made.change(5, {"stages.three.mixture": made.MIXTURES[3]})]),
        base(changes=[made.change(5, {"optimizer.peak_lr": 4e-3})]),
        base(changes=[made.change(6, {"stages.two.mixture": made.MIXTURES[1]})]),
    ],
)
def test_what_lies_ahead_and_what_shapes_nothing_is_not_in_it(other: Data) -> None:
    assert prefix(AT, other) == prefix(AT, base())


def test_room_for_a_longer_context_and_text_of_sources_to_come_are_not_in_it() -> None:
    longer = {"max_position_embeddings": 4096}
    assert prefix(15, base(), model=longer) == prefix(15, base())
    assert prefix(11, base(), texts=CONTENTS | {"book": "new"}) == prefix(11, base())
    assert prefix(11, base(), texts={name: CONTENTS[name] for name in ("web", "code")}) == prefix(11, base())
    assert prefix(12, base(), texts=CONTENTS | {"book": "new"}) != prefix(12, base())


def test_a_stage_ahead_is_in_it_from_its_first_step_on() -> None:
    other = with_stage(2, mixture=made.MIXTURES[3])
    assert [prefix(step, other) == prefix(step, base()) for step in (10, 11, 12, 13)] == [True, True, False, False]


def test_the_decay_is_in_it_once_a_step_has_used_it() -> None:
    other = base(decay_shape="one_minus_sqrt")
    assert [prefix(step, other) == prefix(step, base()) for step in (10, 11, 12, 15)] == [True, True, False, False]
    assert [course(other).lr_of_step(step) == course(base()).lr_of_step(step) for step in (10, 11, 12)] == [
        True, False, False
    ]  # fmt: skip


def test_a_change_is_in_it_from_the_step_after_on() -> None:
    for values in ({"optimizer.peak_lr": 1e-3}, {"skip_steps": 1}):
        other = base(changes=[made.change(5, values)])
        assert [prefix(step, other) == prefix(step, base()) for step in (4, 5, 6)] == [True, True, False]


# ── what lies behind ─────────────────────────────────────────────────────────────────────────────────────────────────


def of_twice_the_batch() -> Data:
    data = base(global_batch_tokens=2 * T)
    for stage in data["stages"]:
        stage["tokens"] *= 2
    return data


def optimizer(**changed: Any) -> Data:
    return base(optimizer=made.base()["optimizer"] | changed)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (optimizer(peak_lr=3e-3), "optimizer.peak_lr: 0.004 → 0.003"),
        (optimizer(beta1=0.8), "optimizer.beta1: 0.9 → 0.8"),
        (optimizer(beta2=0.9), "optimizer.beta2: 0.95 → 0.9"),
        (optimizer(eps=1e-6), "optimizer.eps: 1e-08 → 1e-06"),
        (optimizer(weight_decay=0.1), "optimizer.weight_decay: 0.01 → 0.1"),
        (optimizer(decay_embeddings=False), "optimizer.decay_embeddings: true → false"),
        (optimizer(max_grad_norm=2.0), "optimizer.max_grad_norm: 1 → 2"),
        (base(warmup_tokens=3 * T), "warmup_tokens: 48 → 72"),
        (base(z_loss=1e-4), "z_loss: added, 0.0001"),
        (base(on_spike="skip"), 'on_spike: added, {"skip": 1}'),
        (with_stage(0, seq_len=8), "stage from step 0.seq_len: 4 → 8"),
        (with_stage(0, rope_theta=20_000.0), "stage from step 0.rope_theta: 10000 → 20000"),
        (with_stage(0, mixture=made.MIXTURES[1]), "stage from step 0.weight of web: 0.7 → 0.6"),
        (with_stage(0, mixture=made.MIXTURES[2]), 'stage from step 0.sources in order[0]: "web" → "code"'),
        (with_stage(0, mixture=made.MIXTURES[5]), "stage from step 0.weight of web ≥ 8 tokens: added, 0.125"),
        (with_stage(1, mixture=made.MIXTURES[4]), "stage from step 6.weight of book: added, 0.5"),
        (with_stage(0, tokens=5 * T), "stage from step 5: added, "),
        (base(decay_tokens=8 * T), 'decay: "not begun" → "linear, 192 tokens from token 168 on"'),
        (
            base(changes=[made.change(4, {"optimizer.peak_lr": 1e-3})]),
            "optimizer.peak_lr after step 4: added, 0.001",
        ),
        (base(changes=[made.change(4, {"skip_steps": 2})]), "sequences skipped after step 4: added, 12"),
        (of_twice_the_batch(), "stage from step 0.batch_tokens: 24 → 48"),
    ],
)
def test_what_shaped_the_steps_before_is_in_it_and_is_said(other: Data, said: str) -> None:
    old, new = prefix(AT, base()), prefix(AT, other)
    assert prefix_id(old) != prefix_id(new)
    assert any(line.startswith(said) for line in prefix_differences(old, new)), prefix_differences(old, new)


@pytest.mark.parametrize("policy", ["rewind", "stop"])
def test_what_is_done_about_a_spike_is_not_in_it_where_it_changes_no_update(policy: str) -> None:
    assert prefix(AT, base(on_spike=policy)) == prefix(AT, base(on_spike="log")) == prefix(AT, base())


@pytest.mark.parametrize(
    ("name", "value"),
    [("hidden_size", 32), ("intermediate_size", 32), ("num_hidden_layers", 2), ("num_attention_heads", 4),
     ("num_key_value_heads", 2), ("rms_norm_eps", 1e-6), ("tie_word_embeddings", False), ("initializer_range", 0.2),
     ("rope_theta", 20_000.0)],
)  # fmt: skip
def test_the_models_shape_is_in_it(name: str, value: Any) -> None:
    assert prefix(1, base(), model={name: value}) != prefix(1, base())
    if name != "rope_theta":  # which says nothing before a step
        assert prefix(0, base(), model={name: value}) != prefix(0, base())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("vocabulary", "b" * 64),
        ("number_format", "bfloat16"),
        ("seed", 8),
        ("texts", CONTENTS | {"code": "new"}),
    ],
)
def test_what_is_given_besides_the_recipe_is_in_it(name: str, value: Any) -> None:
    assert prefix(AT, base(), **{name: value}) != prefix(AT, base())
    if name != "texts":
        assert prefix(0, base(), **{name: value}) != prefix(0, base())


def test_of_first_weights_their_seed_is_in_it_or_the_released_model() -> None:
    new, one, other = (prefix(AT, base(), start=start) for start in (None, "b" * 32, "c" * 32))
    assert len({prefix_id(found) for found in (new, one, other)}) == 3
    assert prefix_differences(one, other) == [f'weights.released: "{"b" * 32}" → "{"c" * 32}"']
    wider = prefix(AT, base(), start="b" * 32, model={"initializer_range": 0.2})
    assert wider == one  # no weight is drawn


def test_weights_and_order_have_seeds_of_their_own() -> None:
    found = prefix(0, base())
    assert (found["weights"]["seed"], found["stream_seed"]) == (derive_seed(7, "weights"), derive_seed(7, "stream"))


def test_the_prefixes_of_a_training_end_with_it() -> None:
    model, section = ModelSection.model_validate(MODEL), Pretrain.model_validate(base())
    at = prefixes(course(base()), model, section, **GIVEN)
    assert [at(step) for step in (0, 9, 15)] == [prefix(step, base()) for step in (0, 9, 15)]
    assert at(16) is None


def test_milestones_are_the_ends_of_stages_and_the_last_step_before_the_decay() -> None:
    assert milestones(course(base())) == {6, 11, 15}
    assert milestones(course(base(decay_tokens=6 * T))) == {6, 9, 11, 15}


def test_products_are_bfloat16_on_cuda_alone() -> None:
    assert [number_format(device) for device in ("cpu", "cuda", "cuda:1", "mps")] == [
        "float32", "bfloat16", "bfloat16", "float32"
    ]  # fmt: skip


def test_which_documents_a_draw_takes_is_in_it() -> None:
    old, new = (prefix(AT, with_stage(0, mixture=made.MIXTURES[number])) for number in (5, 6))
    assert prefix_id(old) != prefix_id(new)
    assert "stage from step 0.weight of web ≥ 6 tokens: added, 0.125" in prefix_differences(old, new)


def test_no_field_is_forgotten() -> None:
    """A new field has to be put in, or named here as one that shapes no weight or is read off the course."""
    elsewhere = {"initializer_range", "rope_theta", "max_position_embeddings"}
    assert {*SHAPE, *elsewhere} == set(ModelSection.model_fields)
    assert {*STEPPING, "peak_lr"} == set(Optimizer.model_fields)
    of_the_course = {"stages", "global_batch_tokens", "warmup_tokens", "decay_tokens", "decay_shape", "changes"}
    of_the_step = {"seed"}  # it is in the weights' and the stream's
    outside = {name for name, field in Pretrain.model_fields.items() if marker(field, Outside) is not None}
    assert {"optimizer", "z_loss", "on_spike", *of_the_course, *of_the_step, *outside} == set(Pretrain.model_fields)


def test_two_prefixes_of_one_course_differ_by_their_step() -> None:
    assert prefix_differences(prefix(8, base()), prefix(9, base())) == ["step: 8 → 9"]


def test_steps_outside_the_course_have_none() -> None:
    for step in (-1, 16):
        with pytest.raises(IndexError):
            prefix(step, base())


def test_the_versions_of_all_that_shapes_training_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = prefix(AT, base())
    for part in ("pretrain", "loop", "transformer", "stream"):
        with monkeypatch.context() as patched:
            patched.setattr(prefix_module, "version_of", lambda module, part=part: 99 if module.endswith(part) else 1)
            other = prefix(AT, base())
        assert [name.rpartition(".")[2] for name, value in other["version"].items() if value == 99] == [part]
        assert prefix_id(other) != prefix_id(before)


def test_the_version_of_prefixes_is_in_each(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [prefix_id(prefix(step, base())) for step in (0, AT, 15)]
    monkeypatch.setattr(prefix_module, "PREFIX_VERSION", prefix_module.PREFIX_VERSION + 1)
    after = [prefix_id(prefix(step, base())) for step in (0, AT, 15)]
    assert not set(before) & set(after)
