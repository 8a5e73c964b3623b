"""A run that was copied without its files, and one that is under way, are told for what they are."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.commands.inspect import inspect
from gristmill.commands.model_folder import find_model
from gristmill.errors import ArtifactError
from gristmill.store.store import RunLinks, Store

IDENTITY = "1" * 32


def look(target: Path) -> None:
    inspect(target, rejected=False, source=None, reason=None, samples=1, console=Console(file=io.StringIO()))


@pytest.fixture
def run(tmp_path: Path) -> RunLinks:
    """A run with one artefact of curation and a model."""
    store = Store(tmp_path / "runs")
    run = RunLinks(store, "mine")
    for step in ("extract/web", "pretrain"):
        (store.open_work(step, IDENTITY) / "ledger.json").write_text("{}")
        store.commit(step, IDENTITY, {})
        run.link(step, IDENTITY)
    return run


@pytest.mark.parametrize("command", [find_model, look])
@pytest.mark.parametrize("removed", ["pretrain", "extract"])
def test_a_copy_whose_links_lead_nowhere_is_told_how_to_copy(
    run: RunLinks, tmp_path: Path, command: Callable[[Path], object], removed: str
) -> None:
    copy = tmp_path / "deeper" / "elsewhere" / "copy"
    shutil.copytree(run.folder, copy, symlinks=True)
    shutil.rmtree(copy / removed) if removed == "extract" else (copy / removed).unlink()
    with pytest.raises(ArtifactError, match=r"leads nowhere(.|\n)*cp -rL"):
        command(copy)


def test_links_of_other_kinds_may_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Some text.\n")
    (tmp_path / "b.txt").symlink_to("gone.txt")
    look(tmp_path)


@pytest.mark.parametrize("step", ["pretrain", "sft", "dpo"])
@pytest.mark.parametrize("suffix", [".unfinished", ".before"])
def test_a_model_that_is_being_remade_is_not_called_absent(run: RunLinks, step: str, suffix: str) -> None:
    run.withdraw("pretrain")
    (run.folder / f"{step}{suffix}").symlink_to(f"../.store/{step}/{IDENTITY}")
    with pytest.raises(ArtifactError, match=rf"its {step} is being remade.*(.|\n)*gristmill run"):
        find_model(run.folder)
