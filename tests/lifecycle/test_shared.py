"""One store: recipes share what they have in common, copies can be read, and what nobody uses can go."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from whole_runs import (
    OPTIONS,
    WEIGHTS,
    Command,
    edit,
    lines,
    links_of,
    remove_folder,
    running,
    status_of,
    step_names,
    write_recipe,
)

from gristmill.graph.outputs import content_files, hashes_in
from gristmill.select.outputs import Selected
from gristmill.store.artifact import MANIFEST, RECORD
from gristmill.store.durable import read_json

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it

CURATION = [*(f"extract/{name}" for name in ("manuals", "glosses", "novel", "code")), "classifier/edu",
            "score/manuals", *(f"{step}/{name}" for name in ("manuals", "glosses", "novel", "code")
                               for step in ("signatures", "contamination")), "duplicates", "select"]  # fmt: skip


# ── two recipes ──────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("section", "until", "made"),
    [
        ({"tokenizer": {"vocab_size": 500}}, "tokenizer", ["tokenizer"]),
        ({"pretrain": {"optimizer": {"peak_lr": 0.02}}}, "pretrain", ["pretrain"]),
    ],
)
def test_a_second_recipe_over_the_same_sources_links_their_curation(
    done_project: Path, gristmill: Command, section: dict[str, object], until: str, made: list[str]
) -> None:
    write_recipe(done_project, {"extends": "recipe.yaml", "name": "second", **section}, "second.yaml")
    answer = gristmill("run", "second.yaml", "--until", until, *OPTIONS)
    assert answer.code == 0, answer.err
    assert lines(answer.out, "made") == made
    assert lines(answer.out, "done")[: len(CURATION)] == CURATION
    one, other = (done_project / "runs" / name for name in ("tiny", "second"))
    for name in CURATION:
        if (other / name).is_symlink():  # what is read again is linked
            assert (one / name).resolve() == (other / name).resolve()
    assert (other / until).resolve() != (one / until).resolve()
    assert {row["state"] for row in status_of(gristmill).values()} == {"done"}, "the first recipe is no longer done"


@pytest.fixture
def two_recipes(project: Path) -> Path:
    """The project without a run, and second.yaml over the same sources."""
    write_recipe(project, {"extends": "recipe.yaml", "name": "second", "tokenizer": {"vocab_size": 500}}, "second.yaml")
    return project


STEP = "extract/manuals"


def test_of_two_runs_at_once_one_makes_and_the_other_says_whose_work_it_waits_for(two_recipes: Path) -> None:
    with (
        running(two_recipes, "--until", STEP) as maker,
        running(two_recipes, "--until", STEP, recipe="second.yaml") as other,
    ):
        assert [maker.end(), other.end()] == [0, 0], maker.printed + other.printed
    printed = {"tiny": maker.printed, "second": other.printed}
    waited = [name for name, text in printed.items() if "waiting for run" in text]
    assert len(waited) == 1, printed
    maker_name = "second" if waited == ["tiny"] else "tiny"
    assert f"waiting for run '{maker_name}' (process " in printed[waited[0]]
    assert f"which is making {STEP}" in printed[waited[0]]
    assert "by another run" in printed[waited[0]]
    runs = two_recipes / "runs"
    assert (runs / "tiny" / STEP).resolve() == (runs / "second" / STEP).resolve()
    assert len([path for path in (runs / ".store" / STEP).iterdir() if path.is_dir()]) == 1


def test_sigterm_while_waiting_leaves_with_143_and_sigkill_of_the_maker_lets_the_next_go_on(two_recipes: Path) -> None:
    with running(two_recipes, "--until", STEP) as maker:
        maker.wait_for_line(rf"^running +{STEP}")
        assert maker.wait_for(lambda: any((two_recipes / "runs" / ".store" / STEP).glob("*.partial")))
        maker.process.send_signal(signal.SIGSTOP)
        with running(two_recipes, "--until", STEP, recipe="second.yaml") as waiter:
            waiter.wait_for_line("^ +waiting for run 'tiny'")
            waiter.process.send_signal(signal.SIGTERM)
            assert waiter.end() == 143, waiter.printed
            assert "Traceback" not in waiter.printed
        with running(two_recipes, "--until", STEP, recipe="second.yaml") as waiter:
            waiter.wait_for_line("^ +waiting for run 'tiny'")
            maker.kill()
            assert waiter.end() == 0, waiter.printed
        assert lines(waiter.printed, "made") == [STEP]
        assert "by another run" not in waiter.printed
    with running(two_recipes, "--until", STEP) as again:
        assert again.end() == 0, again.printed
    assert lines(again.printed, "running") == []


# ── what was removed ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_intermediate_artefact_can_be_removed_and_comes_back_when_it_is_needed(
    done_project: Path, gristmill: Command, finished_run: Path
) -> None:
    links = links_of(done_project)
    select = (links.folder / "select").resolve()
    remove_folder(select)
    rows = status_of(gristmill)
    assert {row["state"] for row in rows.values()} == {"done"}
    assert [name for name, row in rows.items() if row.get("files") == "removed"] == ["select"]
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, [])
    assert "; its files were removed" in answer.out

    answer = gristmill("run", "recipe.yaml", "tokenizer.vocab_size=600", "--until", "tokenizer", *OPTIONS)
    assert answer.code == 0, answer.err
    assert lines(answer.out, "made") == ["select", "tokenizer"]
    assert "differs from what it was" not in answer.out
    assert content_of_select(select) == content_of_select((finished_run / "select").resolve())


def content_of_select(folder: Path) -> dict[str, str]:
    return content_files(Selected, hashes_in({"manifest": read_json(folder / MANIFEST)}))


def test_a_remake_with_other_bytes_says_so_and_what_may_be_why(done_project: Path, gristmill: Command) -> None:
    links = links_of(done_project)
    identity = links.target("select")
    kept = links.store.root / "records" / "select" / f"{identity}.json"
    record = read_json(kept)
    name = next(name for name in record["manifest"] if name.startswith("novel/train"))
    record["manifest"][name]["sha256"] = "0" * 64
    record["versions"]["pyarrow"] = "0.1"
    kept.chmod(0o644)
    kept.write_text(json.dumps(record), encoding="utf-8")
    remove_folder((links.folder / "select").resolve())
    answer = gristmill("run", "recipe.yaml", "tokenizer.vocab_size=600", "--until", "tokenizer", *OPTIONS)
    assert answer.code == 0, answer.err
    assert (
        f"select differs from what it was in 1 of {len(content_of_select(links.folder / 'select'))} files" in answer.out
    )
    assert name in answer.out
    assert "pyarrow 0.1 →" in answer.out


def test_clean_removes_what_an_undone_edit_left_and_nothing_else(done_project: Path, gristmill: Command) -> None:
    store = done_project / "runs" / ".store"
    before = folders(store)
    edit(done_project, "dpo.beta", 0.3)
    assert gristmill("run", "recipe.yaml", *OPTIONS).code == 0
    edit(done_project, "dpo.beta", 0.5)
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, [])
    left = folders(store) - before
    assert {path.parent.name for path in left} == {"dpo", "evaluate", "export", "report", "checkpoints"}
    asked = gristmill("clean")
    assert (asked.code, folders(store)) == (2, before | left), asked.err
    answer = gristmill("clean", "--yes")
    assert answer.code == 0, answer.err
    assert folders(store) == before, "clean took too much or too little"
    answer = gristmill("run", "recipe.yaml", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, [])
    assert "Nothing to remove" in gristmill("clean", "--yes").out


def folders(store: Path) -> set[Path]:
    """Artefacts and checkpoints."""
    return {path.parent for path in store.rglob(MANIFEST)}


# ── copies, and runs of other versions ───────────────────────────────────────────────────────────────────────────────


def test_a_run_copied_without_its_store_can_be_read_and_is_done(
    done_project: Path, gristmill: Command, finished_run: Path
) -> None:
    copied = done_project / "elsewhere" / "tiny"
    copied.parent.mkdir()
    subprocess.run(["cp", "-rL", "runs/tiny", copied], check=True, cwd=done_project)
    shutil.rmtree(done_project / "runs")
    assert not [path for path in copied.rglob("*") if path.is_symlink()]
    rows = status_of(gristmill, "--runs-dir", "elsewhere")
    assert {row["state"] for row in rows.values()} == {"done"}
    said = gristmill("chat", "elsewhere/tiny", "--prompt", "What is 1 + 1?")
    assert said.code == 0, said.err
    assert said.out == gristmill("chat", finished_run, "--prompt", "What is 1 + 1?").out
    shown = gristmill("inspect", "elsewhere/tiny")
    assert shown.code == 0, shown.err
    assert "near_duplicate" in shown.out
    answer = gristmill("run", "recipe.yaml", "--runs-dir", "elsewhere", *OPTIONS)
    assert (answer.code, lines(answer.out, "running")) == (0, []), answer.err
    assert lines(answer.out, "done") == step_names(done_project)
    assert (copied / "dpo" / WEIGHTS).read_bytes() == (finished_run / "dpo" / WEIGHTS).read_bytes()


def test_a_run_of_version_0_1_is_refused_with_what_to_do(project: Path, gristmill: Command) -> None:
    step = project / "runs" / "tiny" / "extract" / "novel"
    step.mkdir(parents=True)
    (step / MANIFEST).write_text("{}", encoding="utf-8")
    (step / RECORD).write_text(json.dumps({"step": "extract/novel", "fingerprint": "f" * 32}), encoding="utf-8")
    for verb in ("run", "status"):
        answer = gristmill(verb, "recipe.yaml")
        assert answer.code == 1, answer.err
        assert "runs/tiny/extract/novel was made by gristmill 0.1" in answer.err
        assert "Move runs/tiny away, or name another place with --runs-dir" in answer.err
    assert sorted(path.name for path in step.iterdir()) == [MANIFEST, RECORD], "nothing was touched"
