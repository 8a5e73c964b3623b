"""Checkpoints: damage anywhere is found, the newest sound one is used, a full disk harms nothing that was saved."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import gristmill.train.checkpoint as checkpoint_module
from gristmill.errors import ArtifactError, Interrupted, ResourceError
from gristmill.model.weights import load_model
from gristmill.train.checkpoint import (
    checkpoint_folders,
    environment,
    environment_changes,
    newest_valid_checkpoint,
    prune,
    read_checkpoint,
    save_checkpoint,
)

HERE = Path(__file__).parent


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, HERE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = load("tiny_run")
FILES = [
    "chat_template.jinja",
    "config.json",
    "generation_config.json",
    "manifest.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
    "tokenizer.json",
    "tokenizer_config.json",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with checkpoints at 8 and 12, and the milestone at 4."""
    folder = tmp_path_factory.mktemp("run")
    tiny.train_run(tiny.open_run(folder))
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "run")
    return tmp_path / "run"


def names(parent: Path) -> list[str]:
    return [folder.name for folder in checkpoint_folders(parent)]


def test_milestones_and_the_newest_two_are_kept(trained: Path) -> None:
    parent = trained / "out" / "checkpoints"
    assert names(parent) == ["step-0000004", "step-0000008", "step-0000012"]
    assert sorted(path.name for path in parent.iterdir()) == names(parent)


def test_prune_says_what_it_removed(run: Path) -> None:
    parent = run / "out" / "checkpoints"
    assert [folder.name for folder in prune(parent, keep_last=1)] == ["step-0000008"]
    assert names(parent) == ["step-0000004", "step-0000012"]


def test_checkpoint_is_a_hugging_face_folder_with_the_rest_beside_it(trained: Path) -> None:
    folder = trained / "out" / "checkpoints" / "step-0000012"
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert load_model(folder).config.vocab_size == 276


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("where", [0.0, 0.37, 0.99])
def test_one_flipped_bit_is_found_and_the_previous_checkpoint_used(run: Path, name: str, where: float) -> None:
    path = run / "out" / "checkpoints" / "step-0000012" / name
    content = bytearray(path.read_bytes())
    content[int(where * (len(content) - 1))] ^= 1 << (len(name) % 7)
    path.write_bytes(content)
    said: list[str] = []
    found = newest_valid_checkpoint(path.parent.parent, say=said.append)
    assert found is not None
    assert found.step == 8
    assert "step-0000012 is damaged and is passed over" in said[0]
    assert "going on from" in said[1]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["absent", "truncated", "zeroed"])
def test_lost_truncated_and_zeroed_files_are_found(run: Path, name: str, damage: str) -> None:
    path = run / "out" / "checkpoints" / "step-0000012" / name
    content = path.read_bytes()
    path.unlink()
    if damage == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "zeroed":
        path.write_bytes(bytes(min(4096, len(content))) + content[4096:])
    with pytest.raises(ArtifactError):
        read_checkpoint(path.parent)


def test_every_bit_of_the_manifest_counts(run: Path) -> None:
    path = run / "out" / "checkpoints" / "step-0000012" / "manifest.json"
    content = path.read_bytes()
    missed = []
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << (place % 8)
        path.write_bytes(changed)
        try:
            read_checkpoint(path.parent)
        except ArtifactError:
            continue
        missed.append((place, chr(content[place]), chr(changed[place])))
    assert not missed


def test_run_goes_on_from_the_sound_one_and_ends_the_same(trained: Path, run: Path) -> None:
    (run / "out" / "checkpoints" / "step-0000012" / "optimizer.safetensors").write_bytes(b"")
    resumed = tiny.open_run(run)
    assert resumed.progress.step == 8
    tiny.train_run(resumed)
    tiny.assert_identical(tiny.state_of(resumed), tiny.state_of(tiny.open_run(trained)))
    assert (run / "out" / "checkpoints" / "damaged" / "step-0000012" / "1").exists()
    assert names(run / "out" / "checkpoints")[-1] == "step-0000012"


def test_damaged_ones_do_not_push_out_the_sound_ones(run: Path) -> None:
    parent = run / "out" / "checkpoints"
    for name in ("step-0000014", "step-0000016"):
        shutil.copytree(parent / "step-0000012", parent / name)
        (parent / name / "config.json").write_text("{}")
    session = tiny.open_run(run)
    with pytest.raises(Interrupted):
        tiny.train_run(session, end_step=16, should_stop=lambda: True)
    assert names(parent) == ["step-0000004", "step-0000012", "step-0000013"]
    assert sorted(path.name for path in (parent / "damaged").iterdir()) == ["step-0000014", "step-0000016"]


def test_none_sound_is_an_error_and_none_at_all_is_a_beginning(run: Path, tmp_path: Path) -> None:
    parent = run / "out" / "checkpoints"
    for folder in checkpoint_folders(parent):
        (folder / "state.json").unlink()
    with pytest.raises(ArtifactError, match=r"no checkpoint in .* is sound"):
        newest_valid_checkpoint(parent)
    assert newest_valid_checkpoint(tmp_path / "nothing") is None


def test_unfinished_folder_is_no_checkpoint_and_goes_at_the_next_save(run: Path) -> None:
    parent = run / "out" / "checkpoints"
    (parent / "step-0000012").rename(parent / "step-0000012.partial")
    resumed = tiny.open_run(run)
    assert resumed.progress.step == 8
    tiny.train_run(resumed)
    assert names(parent) == ["step-0000004", "step-0000008", "step-0000012"]
    assert not list(parent.glob("*.partial"))


def save_again(run: Path, step: int) -> Path:
    session = tiny.open_run(run)
    state: dict[str, Any] = {"progress": session.progress.to_json()}
    return save_checkpoint(
        run / "out" / "checkpoints",
        step,
        model=session.model,
        optimizer=session.optimizer,
        state=state,
        tokenizer_files_from=run / "tokenizer",
    )


@pytest.mark.parametrize("phase", ["save_model", "save_file", "write_json", "commit"])
def test_full_disk_leaves_the_last_checkpoint_and_asks_for_space(
    run: Path, monkeypatch: pytest.MonkeyPatch, phase: str
) -> None:
    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_module, phase, full)
        with pytest.raises(ResourceError, match="disk is full") as caught:
            save_again(run, 16)
    assert caught.value.exit_code == 75
    parent = run / "out" / "checkpoints"
    assert not list(parent.glob("*.partial"))
    found = newest_valid_checkpoint(parent)
    assert found is not None
    assert found.step == 12
    assert save_again(run, 16).name == "step-0000016"


@pytest.mark.parametrize("size_kib", [190, 230, 270, 350])
def test_file_system_that_fills_up_leaves_a_sound_checkpoint(tmp_path: Path, size_kib: int) -> None:
    """The real thing, where this user may mount a small file system in memory."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(small)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(ResourceError, match="disk is full"):
            tiny.train_run(tiny.open_run(small))
        found = newest_valid_checkpoint(small / "out" / "checkpoints")
        assert found is not None
        assert found.step == (8 if size_kib == 350 else 4)
        assert not list((small / "out" / "checkpoints").glob("*.partial"))
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_optimizer_state_of_another_model_is_refused(run: Path) -> None:
    model = tiny.tiny_model()
    model.model.layers = model.model.layers[:1]
    with pytest.raises(ArtifactError, match="fits no parameter"):
        checkpoint_module.load_optimizer_tensors(
            run / "out" / "checkpoints" / "step-0000012" / "optimizer.safetensors", model, tiny.adamw(model)
        )


def test_checkpoint_of_another_recipe_is_refused(run: Path) -> None:
    folder = run / "out" / "checkpoints" / "step-0000012"
    state = json.loads((folder / "state.json").read_text())
    shutil.rmtree(run / "out" / "checkpoints")
    session = tiny.open_run(run)
    save_checkpoint(
        run / "out" / "checkpoints",
        12,
        model=session.model,
        optimizer=session.optimizer,
        state={**state, "fingerprint": "another"},
        tokenizer_files_from=run / "tokenizer",
    )
    with pytest.raises(ArtifactError, match="belongs to fingerprint another"):
        tiny.open_run(run)


def test_resuming_elsewhere_says_what_differs(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(torch, "__version__", "9.9.9")
    tiny.open_run(run, said.append)
    assert any("torch: " in line and '"9.9.9"' in line and "not be bit-identical" in line for line in said)


def test_resuming_on_another_processor_is_said(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(checkpoint_module, "hardware_name", lambda: "Another CPU @ 9 GHz")
    tiny.open_run(run, said.append)
    assert any("hardware: " in line and '"Another CPU @ 9 GHz"' in line for line in said)


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
    assert (second.from_step, second.checkpoint) == (12, "step-0000012")
    assert second["environment"]["hardware"] == "Another CPU @ 9 GHz"
    assert second["environment"] == found["environment"] != first["environment"]


def test_environment_names_each_difference() -> None:
    now = environment(100, "cpu")
    assert environment_changes(now, now) == []
    assert environment_changes(now, {**now, "threads": 99, "micro_batch_tokens": 7}) == [
        "micro_batch_tokens: 100 → 7",
        f"threads: {now['threads']} → 99",
    ]


class Killed(BaseException):
    """The process ends here: nothing after this point happens, not even clean-up."""


def kill_at(number: int, patch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Ends the process at the `number`-th call that changes the disk (before it, or half-way through a write)."""
    calls = 0

    def counting(original: Callable[..., Any], *, half: bool = False) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number:
                if half:
                    result = original(*arguments, **named)
                    path = Path(arguments[1])
                    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
                    del result
                raise Killed
            if calls > number:
                raise Killed
            return original(*arguments, **named)

        return call

    patch.setattr(checkpoint_module, "save_file", counting(checkpoint_module.save_file, half=True))
    patch.setattr(checkpoint_module, "save_model", counting(checkpoint_module.save_model))
    patch.setattr("os.fsync", counting(os.fsync))
    patch.setattr("os.open", counting(os.open))
    patch.setattr("shutil.rmtree", counting(shutil.rmtree))
    patch.setattr(Path, "rename", counting(Path.rename))
    patch.setattr(Path, "replace", counting(Path.replace))
    patch.setattr(Path, "mkdir", counting(Path.mkdir))
    return lambda: calls


def test_killed_at_any_call_of_saving_and_pruning_leaves_a_sound_checkpoint(trained: Path, tmp_path: Path) -> None:
    """Ends a save at each of its calls to the file system in turn, then goes on: nothing is lost, nothing is left over."""
    for number in range(1, 200):
        run = tmp_path / f"run-{number}"
        shutil.copytree(trained, run)
        session = tiny.open_run(run)
        session.progress.step = 16
        was_killed = True
        with pytest.MonkeyPatch.context() as patch:
            total = kill_at(number, patch)
            try:
                session.save(session.progress, stage="only")
                was_killed = False
            except Killed:
                pass
        found = newest_valid_checkpoint(run / "out" / "checkpoints")
        assert found is not None
        assert found.step in ((12, 16) if was_killed else (16,))
        resumed = tiny.open_run(run)
        assert not list((run / "out" / "checkpoints").glob("*.partial"))
        if resumed.progress.step == 12:
            resumed.progress.step = 16
            resumed.save(resumed.progress, stage="only")
            assert names(run / "out" / "checkpoints") == ["step-0000004", "step-0000012", "step-0000016"]
        tiny.assert_identical(tiny.state_of(tiny.open_run(run)), tiny.state_of(session))
        shutil.rmtree(run)
        if not was_killed:
            assert total() < number
            break
    assert 15 < number < 199
