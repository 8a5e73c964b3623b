"""The verb clean: shows, asks, removes; unfinished work only when asked for; nothing without consent."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from gristmill.commands.clean import clean
from gristmill.errors import RecipeError
from gristmill.store.checkpoints import CheckpointIndex
from gristmill.store.durable import write_json
from gristmill.store.store import RunLinks, Store

USED, LEFT, HALF = "1" * 32, "2" * 32, "3" * 32
Clean = Callable[..., str]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One artefact in use, one left over with a checkpoint, and one piece of unfinished work that no run points to."""
    store = Store(tmp_path / "runs")
    run = RunLinks(store, "mine")
    for identity in (USED, LEFT):
        (store.open_work("select", identity) / "a.bin").write_bytes(b"\0" * 2_000_000)
        store.commit("select", identity, {"wall_seconds": 7200.0})
    run.link("select", USED)
    index = CheckpointIndex(store, "pretrain")
    index.save(run, index.ref(5, "ab"), lambda folder: None)
    index.unlink(run, index.ref(5, "ab"))
    half = store.open_work("tokenize", HALF)
    write_json(half.with_name(f"{half.name}.json"), {"fingerprint": HALF, "seconds": 180.0})
    return store


@pytest.fixture
def call(store: Store) -> Clean:
    def call(**options: bool) -> str:
        printed = io.StringIO()
        clean(store.runs_dir, console=Console(file=printed, width=160), **options)
        return printed.getvalue()

    return call


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """A person at a terminal who types this."""
    stdin = io.StringIO(text)
    monkeypatch.setattr(stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stdin", stdin)


def is_there(store: Store) -> tuple[bool, bool, bool, bool]:
    """(in use, left over, the checkpoint, unfinished)."""
    checkpoint = CheckpointIndex(store, "pretrain").ref(5, "ab").folder
    half = store.folder("tokenize", HALF).with_name(f"{HALF}.partial")
    return store.is_there("select", USED), store.is_there("select", LEFT), checkpoint.is_dir(), half.is_dir()


def test_on_consent_what_no_run_uses_goes_and_unfinished_work_stays(
    store: Store, call: Clean, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(monkeypatch, "y\n")
    printed = call()
    assert "remove 1 artefact and 1 checkpoint, 2 MB? [y/N]" in printed
    assert "Removed 1 artefact and 1 checkpoint, 2 MB. Their records stay." in printed
    assert is_there(store) == (True, False, False, True)
    assert store.record("select", LEFT) is not None


def test_the_table_tells_size_and_work_and_unfinished_work_apart(call: Clean, monkeypatch: pytest.MonkeyPatch) -> None:
    answer(monkeypatch, "n\n")
    spared, offered = call().split("what no run in")
    assert "only with --unfinished" in " ".join(spared.split())
    assert "tokenize" in spared
    assert "3.0 min" in spared
    assert LEFT[:12] in offered
    assert "2 MB" in offered
    assert "2.0 h" in offered
    assert "0000005-ab" in offered
    assert "tokenize" not in offered
    assert USED[:12] not in spared + offered


@pytest.mark.parametrize("text", ["n\n", "\n", "", "yep\n"])
def test_without_a_clear_yes_nothing_goes(
    store: Store, call: Clean, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    answer(monkeypatch, text)
    assert "Nothing was removed." in call()
    assert is_there(store) == (True, True, True, True)


def test_without_a_terminal_yes_must_be_given(store: Store, call: Clean, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n"))
    with pytest.raises(RecipeError, match=r"Add --yes to remove 1 artefact and 1 checkpoint, 2 MB\.$") as caught:
        call()
    assert caught.value.exit_code == 2
    assert "?" not in str(caught.value)
    assert is_there(store) == (True, True, True, True)
    assert "Removed" in call(yes=True)
    assert is_there(store) == (True, False, False, True)


def test_unfinished_work_goes_when_it_is_asked_for(store: Store, call: Clean) -> None:
    assert "Removed 1 artefact and 1 checkpoint and 1 unfinished folder" in call(yes=True, unfinished=True)
    assert is_there(store) == (True, False, False, False)


def test_nothing_to_remove_is_said_and_leftovers_of_a_kill_go(store: Store, call: Clean) -> None:
    call(yes=True)
    (store.root / ".trash" / "x").mkdir()
    assert "Nothing else to remove: runs use the rest of the store." in call()
    assert list((store.root / ".trash").iterdir()) == []


def test_a_store_that_runs_use_up_is_told_as_such(store: Store, call: Clean) -> None:
    call(yes=True, unfinished=True)
    assert call() == "Nothing to remove: runs use everything in the store.\n"


def test_each_row_tells_its_work_and_what_made_it(store: Store, call: Clean, monkeypatch: pytest.MonkeyPatch) -> None:
    other = "4" * 32
    store.open_work("tokenize", other)
    command = ["/usr/bin/gristmill", "run", "mine.yaml", "pretrain.stages.decay.tokens=2048"]
    store.commit("tokenize", other, {"wall_seconds": 10_800.0, "command": command})
    write_json(CheckpointIndex(store, "pretrain").ref(5, "ab").folder / "state.json", {"run": "mine"})
    answer(monkeypatch, "n\n")
    rows = {line.split()[1]: line for line in call().partition("what no run in")[2].splitlines()[2:5]}
    assert "2.0 h" in rows[LEFT[:12]]
    assert "3.0 h" in rows[other[:12]]
    assert rows[other[:12]].rstrip().endswith("gristmill run mine.yaml pretrain.stages.decay.tokens=2048")
    assert rows["0000005-ab"].rstrip().endswith("run mine")


def test_a_folder_without_a_store_is_left_as_it_is(tmp_path: Path) -> None:
    printed = io.StringIO()
    clean(tmp_path / "runs", console=Console(file=printed, width=160))
    assert "nothing to remove" in printed.getvalue()
    assert list(tmp_path.iterdir()) == []
