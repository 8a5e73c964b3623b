"""Parameters and operations are exact; hours, memory and disk are estimates that say what they rest on."""

from __future__ import annotations

import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import ArtifactError
from gristmill.graph.machine import usable_cpus
from gristmill.model.config import LlamaConfig
from gristmill.model.transformer import Llama
from gristmill.model.weights import init_weights
from gristmill.planning.cost import (
    count_parameters,
    flops_per_token,
    kept_bytes_in_bfloat16,
    kept_per_token,
    matrices_of_a_layer,
    pretraining_flops,
    run_disk,
    step_memory,
    steps_of,
    training_memory,
)
from gristmill.planning.estimate import bytes_per_token, text_bytes_of
from gristmill.planning.speed import (
    PROFILE,
    Profile,
    SpeedPoint,
    add_speed_point,
    guessed_speed,
    hardware_name,
    load_note,
    measure_matmul,
    read_profile,
    training_speed,
    write_profile,
)
from gristmill.recipe.schema.recipe import Recipe
from gristmill.recipe.schema.training import ModelSection
from gristmill.units import in_units

SHAPES = {  # hidden, feed-forward, layers, heads, key/value heads: huggingface/smollm, text/pretraining/smollm2/*.yaml
    134_515_008: (576, 1536, 30, 9, 3),
    361_821_120: (960, 2560, 32, 15, 5),
    1_711_376_384: (2048, 8192, 24, 32, 32),
}


def model(hidden: int, ffn: int, layers: int, heads: int, kv_heads: int, *, tied: bool = True) -> ModelSection:
    return ModelSection(
        hidden_size=hidden,
        intermediate_size=ffn,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        initializer_range=0.02,
        tie_word_embeddings=tied,
        max_position_embeddings=8192,
    )


def point(parameters: int, flops_per_second: float) -> SpeedPoint:
    return SpeedPoint(
        parameters=parameters,
        seq_len=256,
        micro_batch_tokens=2048,
        tokens_per_second=1.0,
        flops_per_second=flops_per_second,
        measured_by="doctor",
    )


@pytest.mark.parametrize("parameters", SHAPES)
def test_the_three_smollm2_shapes_have_exactly_their_parameters(parameters: int) -> None:
    assert count_parameters(model(*SHAPES[parameters]), 49_152) == parameters


def test_untied_embeddings_count_twice() -> None:
    shape = SHAPES[134_515_008]
    assert count_parameters(model(*shape, tied=False), 49_152) - count_parameters(model(*shape), 49_152) == 49_152 * 576


def test_operations_are_six_for_every_weight_that_a_token_passes_and_attention_on_top() -> None:
    shape, vocab_size = model(4, 8, 1, 2, 2), 10
    matrices = 4 * 4 * 4 + 3 * 4 * 8 + 10 * 4
    assert flops_per_token(shape, vocab_size, seq_len=0) == 6 * matrices
    assert flops_per_token(shape, vocab_size, seq_len=16) - 6 * matrices == 6 * 1 * 4 * 16


def test_both_counts_of_operations_agree_where_attention_and_norms_are_small(small: dict[str, Any]) -> None:
    small["model"] |= {"hidden_size": 512, "intermediate_size": 2048}
    recipe = Recipe.model_validate(small)
    flops = pretraining_flops(recipe.model, recipe.tokenizer.vocab_size, recipe.pretrain)
    assert flops.six_nd < flops.with_attention < 1.2 * flops.six_nd


def test_steps_are_whole_and_cover_the_stages(small: dict[str, Any]) -> None:
    assert steps_of(Recipe.model_validate(small).pretrain) == [800, 200]


# ── speed ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_profile_comes_back_as_it_was_written(tmp_path: Path) -> None:
    profile = Profile(hardware="cpu x", device="cpu", threads=2, matmul_flops=1e11, points=(point(10**6, 3e10),))
    write_profile(tmp_path / "runs", profile)
    assert read_profile(tmp_path / "runs") == profile


def test_without_a_profile_there_is_none(tmp_path: Path) -> None:
    assert read_profile(tmp_path) is None


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 1}', '{"version": 1, "points": [{"parameters": 3}]}'])
def test_a_damaged_profile_is_told_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / PROFILE).write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"\.profile\.json"):
        read_profile(tmp_path)


def test_a_point_of_the_same_shape_replaces_the_older_one() -> None:
    profile = Profile(hardware="x", device="cpu", threads=1, matmul_flops=1.0, points=(point(5, 1.0), point(9, 2.0)))
    assert add_speed_point(profile, point(5, 3.0)).points == (point(9, 2.0), point(5, 3.0))


@given(st.integers(10**5, 10**10))
@settings(deadline=None, max_examples=60)
def test_speed_lies_between_the_measured_ones_and_rises_with_them(parameters: int) -> None:
    points = (point(10**8, 4e10), point(10**6, 1e10))
    speed = training_speed(parameters, points).flops_per_second
    assert 1e10 <= speed <= 4e10
    assert training_speed(parameters + 1, points).flops_per_second >= speed


def test_speed_at_a_measured_size_is_the_measured_one() -> None:
    points = (point(10**6, 1e10), point(10**7, 2e10), point(10**8, 4e10))
    assert training_speed(10**7, points).flops_per_second == pytest.approx(2e10)
    assert training_speed(10**5, points).flops_per_second == pytest.approx(1e10)


def test_a_guess_says_that_it_is_one() -> None:
    speed = guessed_speed(10**7, 1e11, threads=1)
    assert 0 < speed.flops_per_second < 1e11
    assert not speed.is_measured
    assert "estimated" in speed.how_known
    assert "gristmill doctor" in speed.how_known


def test_what_was_measured_on_busy_cores_says_so_and_never_replaces_what_idle_ones_reached() -> None:
    idle, busy = point(10**6, 3e10), replace(point(10**6, 1e10), busy_cores=1.4)
    profile = Profile(hardware="x", device="cpu", threads=2, matmul_flops=1e11, points=())
    assert add_speed_point(add_speed_point(profile, busy), idle).points == (idle,)
    assert add_speed_point(add_speed_point(profile, idle), busy).points == (idle,)
    assert add_speed_point(add_speed_point(profile, busy), busy).points == (busy,)
    assert "busy; idle cores are faster" in training_speed(10**6, [busy]).how_known
    assert training_speed(10**6, [busy, replace(idle, parameters=10**7)]).flops_per_second == 3e10
    assert "those of idle cores, and about" in load_note(1.0, training_speed(10**6, [idle]))
    assert "uncertain, and shorter on idle cores" in load_note(1.0, training_speed(10**6, [busy]))
    guess = guessed_speed(10**7, 1e11, threads=2)
    assert "those of idle cores, and about" in load_note(1.0, guess)
    assert load_note(0.1, guess) == ""


def test_what_the_cpu_time_of_one_thread_tells_is_an_idle_speed_until_idle_cores_were_measured() -> None:
    busy = replace(point(10**6, 1e10), busy_cores=1.4)
    by_cpu_time, idle = replace(busy, is_by_cpu_time=True, flops_per_second=2e10), point(10**6, 3e10)
    profile = Profile(hardware="x", device="cpu", threads=2, matmul_flops=1e11, points=())
    for less, more in ((busy, by_cpu_time), (by_cpu_time, idle)):
        assert add_speed_point(add_speed_point(profile, less), more).points == (more,)
        assert add_speed_point(add_speed_point(profile, more), less).points == (more,)
    speed = training_speed(10**6, [by_cpu_time])
    assert speed.how_known.endswith("by the CPU time of one thread")
    assert "those of idle cores, and about" in load_note(1.0, speed)


def test_a_load_on_the_cores_hardly_changes_the_speed_of_a_matmul() -> None:
    """Beside twice as many busy processes as cores the clock would show a third of it."""
    alone = max(measure_matmul() for _ in range(3))  # the best, as virtual cores are slower at times by themselves
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * usable_cpus())]
    try:
        beside = max(measure_matmul() for _ in range(3))
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert 0.6 < beside / alone < 1.6


def test_the_hardware_has_a_name() -> None:
    assert hardware_name() == hardware_name() != ""


# ── memory and disk ──────────────────────────────────────────────────────────────────────────────────────────────────


def kept_by_autograd(shape: ModelSection, *, tokens: int, in_bfloat16: bool) -> int:
    """Bytes of every storage that the forward pass saves, weights aside, with documents of several lengths."""
    vocab_size = 300
    config = LlamaConfig(
        **shape.model_dump(), vocab_size=vocab_size, head_dim=shape.hidden_size // shape.num_attention_heads
    )
    llama = init_weights(Llama(config), 0)
    weights = {parameter.untyped_storage().data_ptr() for parameter in llama.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage
        return tensor

    ids = torch.arange(tokens)
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=in_bfloat16),
    ):
        llama(ids, ids % 8, [7, tokens - 7])
    return sum(storage.nbytes() for storage in kept.values())


def test_what_is_counted_as_kept_is_what_autograd_keeps() -> None:
    shape = model(32, 88, 3, 4, 2)
    assert kept_by_autograd(shape, tokens=24, in_bfloat16=False) == 4 * 24 * kept_per_token(shape)


@pytest.mark.parametrize("shape", [(32, 88, 3, 4, 2), (64, 100, 2, 4, 4), (48, 64, 1, 3, 1)])
def test_what_is_counted_as_kept_in_bfloat16_is_what_autocast_keeps_beside_its_copies_of_the_matrices(
    shape: tuple[int, int, int, int, int],
) -> None:
    section = model(*shape)
    copies = 2 * section.num_hidden_layers * matrices_of_a_layer(section)
    expected = 24 * kept_bytes_in_bfloat16(section) + copies
    assert kept_by_autograd(section, tokens=24, in_bfloat16=True) == expected


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("shape", SHAPES.values())
def test_memory_holds_weights_and_moments_and_grows_with_the_micro_batch(
    shape: tuple[int, int, int, int, int], accumulates: bool
) -> None:
    section = model(*shape)
    parameters = count_parameters(section, 49_152)
    sizes = [step_memory(section, 49_152, tokens=2**power, accumulates=accumulates) for power in range(8, 17)]
    assert {(memory.weights, memory.moments) for memory in sizes} == {(4 * parameters, 8 * parameters)}
    assert [memory.total for memory in sizes] == sorted(memory.total for memory in sizes)
    assert all(memory.gradients >= 4 * parameters for memory in sizes if accumulates)


def test_gradients_that_are_added_up_stand_beside_the_activations() -> None:
    section, tokens = model(*SHAPES[134_515_008]), 4096
    once, often = (step_memory(section, 49_152, tokens=tokens, accumulates=several) for several in (False, True))
    assert often.gradients - once.gradients == 4 * count_parameters(section, 49_152)


def test_with_few_tokens_the_peak_is_when_all_gradients_are_made() -> None:
    section = model(*SHAPES[134_515_008])
    memory = step_memory(section, 49_152, tokens=32, accumulates=False)
    assert memory.gradients == 4 * (count_parameters(section, 49_152) + 49_152 * 576)


def test_blocks_that_go_back_to_the_system_leave_no_holes() -> None:
    section = model(512, 1408, 8, 8, 4)
    holes = [step_memory(section, 4096, tokens=2**power, accumulates=True).holes for power in (11, 12, 13, 14, 16)]
    narrow, wide = (
        8 * (6 * 512 + 256) * 4,
        8 * 3 * 1408 * 4,
    )  # bytes a token; 2**13 tokens of the wide ones are over 32 MiB
    assert holes[:3] == [2**11 * (narrow + wide), 2**12 * (narrow + wide), 2**13 * narrow]
    assert holes[4] == 0


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or torch.version.cuda is not None,
    reason="the framework's part is that of torch's CPU build on Linux",
)
def test_a_fresh_process_that_trains_takes_what_was_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(__file__).parents[2] / "benchmarks"
    monkeypatch.syspath_prepend(folder)
    benchmark = runpy.run_path(str(folder / "training_memory.py"))
    row = benchmark["measure"]("1.6M", 256, 1024, 1)
    assert row["planned_bytes"] == pytest.approx(row["measured_bytes"], rel=0.2)


def test_a_micro_batch_is_at_least_one_sequence_and_at_most_the_global_batch(small: dict[str, Any]) -> None:
    recipe = Recipe.model_validate(small)
    assert training_memory(recipe, 1) == training_memory(recipe, 512)
    assert training_memory(recipe, 10**9) == training_memory(recipe, 1024)


def test_disk_counts_two_bytes_a_token_while_the_vocabulary_fits(small: dict[str, Any]) -> None:
    assert run_disk(Recipe.model_validate(small), 0, 1000).shards == 2000
    small["tokenizer"]["vocab_size"] = 65_537
    assert run_disk(Recipe.model_validate(small), 0, 1000).shards == 4000


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (999.9, "1 kB"),
        (1_234_567, "1.23 MB"),
        (999_999_976_704, "1 TB"),
        (2.5e18, "2.5 EB"),
    ],
)
def test_units_never_show_a_thousand_of_one_where_one_of_the_next_is_meant(value: float, text: str) -> None:
    assert in_units(value, "B") == text


# ── tokens from bytes ────────────────────────────────────────────────────────────────────────────────────────────────


def test_estimates_count_every_file_and_every_file_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    for name in ("a.txt", "tree/b.txt", "tree/c.txt"):
        (tmp_path / name).write_bytes(b"x" * 100)
    assert text_bytes_of([tmp_path / "a.txt", tmp_path / "tree"], "text") == 300


def test_compressed_files_hold_more_text_than_plain_ones(tmp_path: Path) -> None:
    for name in ("a.txt", "a.txt.gz"):
        (tmp_path / name).write_bytes(b"x" * 100)
    assert text_bytes_of([tmp_path / "a.txt.gz"], "text") > 2 * text_bytes_of([tmp_path / "a.txt"], "text")


def test_a_larger_vocabulary_needs_fewer_tokens_and_never_more_than_bytes() -> None:
    sizes = [300, 1024, 4096, 16_384, 49_152]
    rates = [bytes_per_token(size) for size in sizes]
    assert rates == sorted(rates)
    assert rates[0] >= 1
    assert 4.0 < rates[-1] < 5.0
