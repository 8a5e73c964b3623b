"""Checkpoints: damage anywhere is found, the newest sound one is used, no kill and no full disk harms what was saved."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_run as tiny
import torch

import gristmill.store.artifact as artifact_module
import gristmill.train.checkpoint as checkpoint_module
from gristmill.errors import ArtifactError, Interrupted
from gristmill.model.weights import load_model
from gristmill.store.artifact import verify_manifest
from gristmill.store.durable import file_sha256
from gristmill.train.checkpoint import (
    environment,
    environment_changes,
    read_checkpoint,
)

FILES = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "manifest.json",
    "metrics.jsonl",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


def saved(run: Path, step: int) -> Path:
    """The folder of a checkpoint, there or not."""
    return Path(tiny.checkpoints_in(run).ref(step).folder)


def kept(run: Path) -> list[int]:
    """Steps of the checkpoints that the run links, newest first."""
    return [ref.step for ref in tiny.checkpoints_in(run).kept()]


def in_store(run: Path) -> list[str]:
    return sorted(path.name for path in saved(run, 0).parent.iterdir())


def newest(run: Path, say: Callable[[str], None] = lambda line: None) -> int | None:
    """The step of the checkpoint that the run would be resumed from."""
    found = tiny.checkpoints_in(run).newest_sound(environment(tiny.MICRO_BATCH_TOKENS, "cpu", 1), say=say)
    return None if found is None else int(found.state["progress"]["step"])


def write(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def test_milestones_and_the_newest_two_are_kept(trained: Path) -> None:
    assert kept(trained) == [12, 8, 4]
    assert in_store(trained) == [saved(trained, step).name for step in (4, 8, 12)]


def test_checkpoint_is_a_hugging_face_folder_with_the_rest_beside_it(trained: Path) -> None:
    assert sorted(path.name for path in saved(trained, 12).iterdir()) == FILES
    assert load_model(saved(trained, 12)).config.vocab_size == 276


def test_what_a_rewind_reserved_stays_for_the_training_that_takes_it_though_one_begins_that_does_not_know(
    run: Path,
) -> None:
    checkpoints = tiny.checkpoints_in(run)
    index, links = checkpoints.index, checkpoints.run
    assert index.reserve(links, checkpoints.ref(8))
    assert newest(run) == 12
    assert [ref.step for ref in index.prune(links, keep_last=1)] == [4]
    assert saved(run, 8).is_dir()
    index.set_damaged_aside(checkpoints.ref(12))
    assert newest(run) == 8
    assert [ref.step for ref in index.prune(links, keep_last=0)] == [8], "the training that it was for has taken it"


def test_what_was_reserved_for_another_recipe_is_let_go(run: Path) -> None:
    checkpoints = tiny.checkpoints_in(run)
    index, other = checkpoints.index, checkpoints.index.ref(6, "ab" * 16)
    index.save(checkpoints.run, other, lambda folder: {})
    assert index.reserve(checkpoints.run, other)
    assert newest(run) == 12
    index.link(checkpoints.run, other)
    assert 6 in [ref.step for ref in index.prune(checkpoints.run, keep_last=1)]


# ── damage ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.37, 0.99])
def test_one_flipped_bit_is_found_and_the_previous_checkpoint_used(run: Path, name: str, where: float) -> None:
    path = saved(run, 12) / name
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1 << (len(name) % 7)
    write(path, bytes(content))
    said: list[str] = []
    assert newest(run, said.append) == 8
    assert f"checkpoint {saved(run, 12)} is damaged and is passed over" in said[0]
    assert said[1] == f"Resuming from {saved(run, 8)}, the newest checkpoint that is sound."


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["absent", "truncated", "zeroed"])
def test_lost_truncated_and_zeroed_files_are_found_and_the_previous_checkpoint_used(
    run: Path, name: str, damage: str
) -> None:
    path = saved(run, 12) / name
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        short, zeroed = content[: len(content) // 2], bytes(min(4096, len(content))) + content[4096:]
        write(path, short if damage == "truncated" else zeroed)
    assert newest(run) == 8


def test_every_bit_of_the_manifest_counts(run: Path) -> None:
    path = saved(run, 12) / "manifest.json"
    content = path.read_bytes()
    missed = []
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        write(path, bytes(changed))
        try:
            read_checkpoint(path.parent)
        except ArtifactError:
            continue
        missed.append((place, chr(content[place]), chr(changed[place])))
    assert not missed


@pytest.mark.parametrize("name", ["optimizer.safetensors", "manifest.json"])
def test_run_resumed_from_the_sound_one_ends_the_same_and_saves_the_damaged_one_anew(
    trained: Path, run: Path, name: str
) -> None:
    (saved(run, 12) / name).unlink()
    resumed = tiny.open_run(run)
    assert resumed.progress.step == 8
    tiny.train_run(resumed)
    tiny.assert_identical(tiny.state_of(resumed), tiny.state_of(tiny.open_run(trained)))
    assert kept(run) == [12, 8, 4]
    assert newest(run) == 12
    aside = [found for found in in_store(run) if found.startswith(f"{saved(run, 12).name}.damaged-")]
    assert len(aside) == len(in_store(run)) - 3 == 1


def test_damaged_ones_do_not_push_out_the_sound_ones(run: Path) -> None:
    checkpoints = tiny.checkpoints_in(run)
    for step in (14, 16):
        ref = checkpoints.ref(step)
        tiny.copy(saved(run, 12), ref.folder)
        checkpoints.index.link(checkpoints.run, ref)
        write(ref.folder / "config.json", b"{}")
    assert kept(run) == [16, 14, 12, 8, 4]
    with pytest.raises(Interrupted):
        tiny.train_run(tiny.open_run(run), end_step=16, should_stop=lambda: True)
    assert kept(run) == [13, 12, 4]
    links = tiny.checkpoints_in(run).run.folder / "checkpoints" / "train"
    assert sorted(link.name for link in links.iterdir()) == ["0000004", "0000012", "0000013"]
    assert [found.partition(".")[0] for found in in_store(run) if ".damaged-" in found] == [
        saved(run, 14).name,
        saved(run, 16).name,
    ]


def test_none_sound_is_an_error_once_and_the_next_run_starts_from_the_beginning(trained: Path, run: Path) -> None:
    for step in (4, 8, 12):
        (saved(run, step) / "state.json").unlink()
    with pytest.raises(ArtifactError, match=r"no checkpoint of this training is sound") as caught:
        tiny.open_run(run)
    assert all(saved(run, step).name in str(caught.value) for step in (4, 8, 12))
    said: list[str] = []
    session = tiny.open_run(run, said.append)
    assert said == ["Starting from the beginning. Discarding 4 log lines of an earlier attempt."]
    assert session.progress.step == 0
    tiny.assert_identical(tiny.state_of(tiny.train_run(session)), tiny.state_of(tiny.open_run(trained)))


def test_none_at_all_is_a_beginning_and_nothing_is_said(tmp_path: Path) -> None:
    said: list[str] = []
    assert tiny.open_run(tmp_path, said.append).progress.step == 0
    assert said == []


def test_damaged_checkpoint_of_another_run_is_passed_over(run: Path) -> None:
    for step in (4, 8, 12):
        (saved(run, step) / "state.json").unlink()
    said: list[str] = []
    other = tiny.open_run(run, said.append, checkpoints=tiny.checkpoints_in(run, run="other"), out="other")
    assert other.progress.step == 0
    assert len(said) == 3
    assert all("is damaged and is passed over" in line for line in said)


def test_unfinished_folder_is_no_checkpoint_and_goes_at_the_next_save(run: Path) -> None:
    saved(run, 12).rename(saved(run, 12).with_name(f"{saved(run, 12).name}.partial"))
    resumed = tiny.open_run(run)
    assert resumed.progress.step == 8
    tiny.train_run(resumed)
    assert kept(run) == [12, 8, 4]
    assert in_store(run) == [saved(run, step).name for step in (4, 8, 12)]


def test_optimizer_state_of_another_model_is_refused(run: Path) -> None:
    model = tiny.tiny_model()
    model.model.layers = model.model.layers[:1]
    with pytest.raises(ArtifactError, match="fits no parameter"):
        checkpoint_module.load_optimizer_tensors(saved(run, 12) / "optimizer.safetensors", model, tiny.adamw(model))


# ── where it was computed ────────────────────────────────────────────────────────────────────────────────────────────


def test_resuming_elsewhere_says_what_differs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    monkeypatch.setattr(checkpoint_module, "hardware_name", lambda: "Another CPU @ 9 GHz")
    assert tiny.open_run(run, said.append).progress.step == 12
    for key, value in (("torch", "9.9.9"), ("hardware", "Another CPU @ 9 GHz")):
        assert [line for line in said if f"different {key}: " in line and f'"{value}"; the result will not be' in line]


def test_the_record_tells_of_mixed_environments(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three starts: the first machine, the same again, another one."""
    assert not tiny.open_run(run).finish().mixed_environments
    monkeypatch.setattr(checkpoint_module, "hardware_name", lambda: "Another CPU @ 9 GHz")
    session = tiny.open_run(run)
    tiny.train_run(session, end_step=14, save_every=2)
    found = tiny.open_run(run).finish()
    assert found.mixed_environments
    first, second = found.lineage
    assert (first.from_step, first.checkpoint) == (0, None)
    assert (second.from_step, second.checkpoint) == (12, saved(run, 12).name)
    assert second.environment["hardware"] == "Another CPU @ 9 GHz"
    assert second.environment == found.environment != first.environment
    assert list(found.checkpoints) == [saved(run, step).name for step in (14, 12, 4)]


def test_environment_is_all_that_bit_exact_resuming_depends_on() -> None:
    now = environment(100, "cpu", 1)
    assert now.keys() == {"torch", "cpu_capability", "threads", "micro_batch_tokens", "device", "hardware"}
    assert (now["device"], now["micro_batch_tokens"]) == ("cpu", 100)


def test_environment_names_each_difference() -> None:
    now = environment(100, "cpu", 1)
    assert environment_changes(now, now) == []
    assert environment_changes(now, {**now, "threads": 99, "micro_batch_tokens": 7}) == [
        "micro_batch_tokens: 100 → 7",
        f"threads: {now['threads']} → 99",
    ]


def test_a_save_reads_no_file_of_tensors_to_hash_it(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed: list[str] = []

    def note(path: Path) -> str:
        hashed.append(path.name)
        return file_sha256(path)

    monkeypatch.setattr(artifact_module, "file_sha256", note)
    session = tiny.open_run(run)
    session.progress.step, hashed[:] = 16, []
    session.save(session.progress)
    assert "state.json" in hashed
    assert not {"model.safetensors", "optimizer.safetensors"} & set(hashed)
    verify_manifest(saved(run, 16))
