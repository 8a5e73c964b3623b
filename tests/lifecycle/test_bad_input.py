"""What people get wrong, through the command line: the exit code, and a message that says what, where, expected, and next."""

from __future__ import annotations

import errno
import gzip
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from whole_runs import OPTIONS, WEIGHTS, Command, checkpoints_of, forget, lines, links_of, read_recipe, remove_folder
from whole_runs import write_recipe as write

from gristmill.store.artifact import MANIFEST
from gristmill.store.durable import read_json
from gristmill.train import checkpoint

pytestmark = pytest.mark.timeout(600)  # the first test that asks for the finished run makes it
Recipe = dict[str, Any]


@pytest.fixture
def recipe(project: Path) -> Recipe:
    """The tiny recipe as values; `write` puts it back."""
    return read_recipe(project)


def line_of(project: Path, text: str) -> int:
    """The first line of recipe.yaml that holds the text."""
    lines = (project / "recipe.yaml").read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, start=1) if text in line)


def assert_says(answer: Any, code: int, *words: str) -> None:
    """The exit code, every piece of the message on standard error, and no traceback."""
    assert answer.code == code, answer.err
    assert "Traceback" not in answer.err
    for word in words:
        assert word in answer.err, answer.err


# ── the recipe itself ────────────────────────────────────────────────────────────────────────────────────────────────


def test_misspelt_key_is_answered_with_file_line_and_the_key_that_was_meant(
    project: Path, recipe: Recipe, gristmill: Command
) -> None:
    recipe["pretrain"]["warmup_token"] = recipe["pretrain"].pop("warmup_tokens")
    write(project, recipe)
    line = line_of(project, "warmup_token:")
    words = (f"recipe.yaml:{line}: unknown key 'pretrain.warmup_token'", "did you mean 'pretrain.warmup_tokens'?")
    for verb in ("plan", "run", "status"):
        assert_says(gristmill(verb, "recipe.yaml"), 2, *words)


def test_recipe_that_does_not_exist_is_named(project: Path, gristmill: Command) -> None:
    for verb in ("plan", "run", "status"):
        assert_says(gristmill(verb, "recipes/tiny.yaml"), 2, "recipes/tiny.yaml", "does not exist. Name a recipe")


def test_weights_that_do_not_sum_to_one_are_refused_with_the_sum(
    project: Path, recipe: Recipe, gristmill: Command
) -> None:
    recipe["pretrain"]["stages"][1]["mixture"]["code"] = 0.2
    write(project, recipe)
    answer = gristmill("run", "recipe.yaml")
    assert_says(
        answer, 2, f"recipe.yaml:{line_of(project, 'name: decay')}", "'decay' sum to 1.10, not 1 (off by +0.10)"
    )


def test_context_longer_than_the_models_is_refused(project: Path, recipe: Recipe, gristmill: Command) -> None:
    recipe["pretrain"]["stages"][2]["seq_len"] = 512
    write(project, recipe)
    words = "pretrain.stages[extension].seq_len is 512, longer than model.max_position_embeddings 256"
    assert_says(gristmill("plan", "recipe.yaml"), 2, words)


def test_unknown_step_is_answered_with_the_steps_there_are(project: Path, gristmill: Command) -> None:
    answer = gristmill("run", "recipe.yaml", "--until", "pretraining", *OPTIONS)
    assert_says(
        answer,
        2,
        "'pretraining' is not a step",
        "did you mean 'pretrain'?",
        "extract/manuals",
        "tokenize, pretrain, synthesize",
    )


def test_unknown_step_to_remake_is_answered_with_the_steps_there_are(done_project: Path, gristmill: Command) -> None:
    answer = gristmill("run", "recipe.yaml", "--remake", "pretraining", *OPTIONS)
    assert_says(answer, 2, "'pretraining' is not a step", "tokenize, pretrain, synthesize")


def test_override_that_names_no_key_is_refused_as_from_the_command_line(project: Path, gristmill: Command) -> None:
    answer = gristmill("run", "recipe.yaml", "pretrain.optimizer.peak_lrs=1e-3")
    assert_says(
        answer,
        2,
        "command line: unknown key 'pretrain.optimizer.peak_lrs'",
        "did you mean 'pretrain.optimizer.peak_lr'?",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--threads", "0"), ("Invalid value for '--threads'",)),
        (("--processes", "-3"), ("Invalid value for '--processes'",)),
        (("--micro-batch-tokens", "0"), ("Invalid value for '--micro-batch-tokens'",)),
        (("--device", "gpu"), ("'gpu'", "auto, cpu or cuda")),
        (("--runs-dir", "recipe.yaml"), ("cannot make the run's folder recipe.yaml/", "--runs-dir")),
    ],
)
def test_option_that_cannot_be_is_refused_before_anything_runs(
    project: Path, gristmill: Command, options: tuple[str, str], words: tuple[str, ...]
) -> None:
    answer = gristmill("run", "recipe.yaml", *options)
    assert_says(answer, 2, *words)
    assert "running" not in answer.out


# ── the sources ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_source_file_that_is_missing_is_named_before_anything_runs(
    project: Path, recipe: Recipe, gristmill: Command
) -> None:
    recipe["sources"]["novel"]["read"]["paths"] = ["data/novels/*.txt"]
    write(project, recipe)
    for verb in ("plan", "run", "status"):
        answer = gristmill(verb, "recipe.yaml")
        assert_says(answer, 2, "novel", "'data/novels/*.txt' matches no file", "relative to the recipe's folder")
        assert "running" not in answer.out


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("novel.txt", b"", ("holds no documents", "Look at the files")),
        ("glosses.jsonl.gz", gzip.compress(b"", mtime=0), ("holds no documents", "Look at the files")),
        ("manuals.warc.gz", b"", ("holds no documents", "Look at the files")),
        ("code.tar.gz", b"", ("keeps none of its documents", "corrupt_archive", "what to change: the files")),
    ],
)
def test_empty_source_file_is_named_with_what_was_found_in_it(
    project: Path, gristmill: Command, name: str, content: bytes, words: tuple[str, ...]
) -> None:
    (project / "data" / name).write_bytes(content)
    source = name.split(".")[0]
    answer = gristmill("run", "recipe.yaml", "--until", f"extract/{source}", *OPTIONS)
    assert_says(answer, 1, f"the source {source!r}", f"data/{name}", *words)


def test_source_that_keeps_nothing_says_which_rules_took_its_documents(
    project: Path, recipe: Recipe, gristmill: Command
) -> None:
    recipe["sources"]["novel"]["language"] = {"keep": ["fi"], "min_score": 0.65}
    write(project, recipe)
    answer = gristmill("run", "recipe.yaml", "--until", "extract/novel", *OPTIONS)
    assert_says(
        answer,
        1,
        "the source 'novel' (",
        "data/novel.txt) keeps none of its documents",
        "other_language",
        "language, or rules",
    )


def test_source_that_loses_more_than_it_may_stops_and_goes_on_when_it_may(
    project: Path, recipe: Recipe, gristmill: Command
) -> None:
    recipe["select"]["validation"] = {"fraction": 0.01, "min_bytes": 100}
    recipe["sources"]["glosses"]["max_loss"] = 0.0
    write(project, recipe)
    answer = gristmill("run", "recipe.yaml", "--until", "select", *OPTIONS)
    assert_says(answer, 1, "source 'glosses' loses", "dropped: held_out_item", "raise sources.glosses.max_loss")
    recipe["sources"]["glosses"]["max_loss"] = 1.0
    write(project, recipe)
    assert gristmill("run", "recipe.yaml", "--until", "select", *OPTIONS).code == 0


def test_parquet_without_the_named_column_is_answered_with_the_columns_there_are(
    project: Path, recipe: Recipe, gristmill: Command
) -> None:
    pq.write_table(pa.table({"content": ["a text"], "id": ["1"]}), project / "data" / "novel.parquet")
    recipe["sources"]["novel"]["read"] = {"format": "parquet", "paths": ["data/novel.parquet"], "text_column": "text"}
    write(project, recipe)
    answer = gristmill("run", "recipe.yaml", "--until", "extract/novel", *OPTIONS)
    assert_says(answer, 2, "recipe.yaml:", "text_column is 'text'", "novel.parquet has the columns 'content', 'id'")


def test_pattern_that_is_none_is_refused_with_its_line(project: Path, recipe: Recipe, gristmill: Command) -> None:
    recipe["sources"]["novel"]["read"]["split_at"] = "["
    write(project, recipe)
    answer = gristmill("plan", "recipe.yaml")
    assert_says(answer, 2, f"recipe.yaml:{line_of(project, 'split_at')}", "split_at '[' is not a regular expression")


def test_damaged_warc_record_is_counted_and_not_fatal(finished_run: Path) -> None:
    row = read_json(finished_run / "extract" / "manuals" / "ledger.json")["sources"]["manuals"]
    assert row["failed"]["corrupt_member"]["documents"] == 1
    assert row["kept"]["documents"] > 50
    fates = [row["kept"], *row["dropped"].values(), *row["failed"].values()]
    assert row["in"]["documents"] == sum(fate["documents"] for fate in fates)
    assert row["in"]["bytes"] == sum(fate["bytes"] for fate in fates) + sum(row["skipped"].values())


# ── more than there is ───────────────────────────────────────────────────────────────────────────────────────────────


def test_stage_longer_than_its_data_allows_is_refused_by_plan_with_the_line_that_would_allow_it(
    project: Path, recipe: Recipe, gristmill: Command
) -> None:
    recipe["sources"]["novel"]["unique_tokens"] = 600
    write(project, recipe)
    answer = gristmill("plan", "recipe.yaml")
    words = (
        "pretrain.stages[decay]: novel would be read",
        "the cap is 5 epochs",
        "lower its weight, add text",
        "allow_epochs",
    )
    assert_says(answer, 2, *words)


def test_stage_longer_than_its_counted_data_is_refused_before_training(done_project: Path, gristmill: Command) -> None:
    forget(done_project, "pretrain")
    answer = gristmill("run", "recipe.yaml", "pretrain.max_epochs=0.05", "--until", "pretrain", *OPTIONS)
    assert_says(answer, 2, "epochs", "the cap is 0.05", "allow_epochs")
    assert "stage stable" not in answer.out
    longer = "pretrain.stages.stable.tokens=921600"
    answer = gristmill("run", "recipe.yaml", longer, "--until", "pretrain", *OPTIONS)
    assert_says(answer, 2, "pretrain.stages[stable]", "the cap is 5 epochs", "allow_epochs")


def test_vocabulary_larger_than_the_sample_supports_says_how_many_entries_it_gave(
    done_project: Path, gristmill: Command
) -> None:
    answer = gristmill("run", "recipe.yaml", "tokenizer.vocab_size=400000", "--until", "tokenizer", *OPTIONS)
    assert_says(answer, 2, "vocab_size is 400000", "supports only 1", "or less, or train on more text")


# ── the disk ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes. Needs the right to mount one."""
    folder = tmp_path / "small-disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system; the same is tested with a write that fails")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_disk_that_is_full_in_training_leaves_the_last_checkpoint_and_goes_on_when_there_is_room(
    done_project: Path, finished_run: Path, small_disk: Path, gristmill: Command
) -> None:
    forget(done_project, "pretrain")
    runs = small_disk / "runs"
    links = links_of(done_project)
    for step in (
        "extract",
        "classifier",
        "score",
        "signatures",
        "contamination",
        "duplicates",
        "select",
        "tokenizer",
        "tokenize",
    ):
        shutil.copytree(links.folder / step, runs / "tiny" / step, symlinks=True)
        shutil.copytree(links.store.root / step, runs / ".store" / step)
    fill(small_disk, room=3_500_000)  # about two checkpoints
    arguments = ("run", "recipe.yaml", "--until", "pretrain", "--runs-dir", runs, *OPTIONS)
    answer = gristmill(*arguments)
    assert_says(answer, 75, "disk is full while writing", "Free some space and run the same command")
    (small_disk / "ballast").unlink()
    answer = gristmill(*arguments)
    assert answer.code == 0, answer.err
    assert "Resuming from step" in answer.out
    model = f"pretrain/{WEIGHTS}"
    assert (runs / "tiny" / model).read_bytes() == (finished_run / model).read_bytes()


def fill(disk: Path, *, room: int) -> None:
    """A file "ballast" that leaves `room` bytes."""
    free = os.statvfs(disk)
    (disk / "ballast").write_bytes(bytes(free.f_bavail * free.f_frsize - room))


def test_write_that_fails_for_want_of_space_at_a_checkpoint_leaves_75_and_goes_on(
    done_project: Path, finished_run: Path, gristmill: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    forget(done_project, "pretrain")
    real = checkpoint.write_tensors
    saved: list[Path] = []

    def full_at_the_second(path: Path, tensors: Any) -> str:
        saved.append(path.parent)
        if len(saved) == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, tensors)

    monkeypatch.setattr(checkpoint, "write_tensors", full_at_the_second)
    answer = gristmill("run", "recipe.yaml", "--until", "pretrain", *OPTIONS)
    assert_says(answer, 75, "disk is full while writing", "checkpoints/", "Free some space and run the same command")
    (left,) = checkpoints_of(done_project)
    assert left.folder.name == saved[0].name.removesuffix(".partial")
    assert not saved[1].exists(), "nothing is left of the checkpoint that had no room"
    answer = gristmill("run", "recipe.yaml", "--until", "pretrain", *OPTIONS)
    assert answer.code == 0, answer.err
    assert f"Resuming from step {left.step}." in answer.out
    model = f"pretrain/{WEIGHTS}"
    assert (done_project / "runs" / "tiny" / model).read_bytes() == (finished_run / model).read_bytes()


# What is left free lets the step begin and is too little for what it writes.
@pytest.mark.parametrize(
    ("name", "room"),
    [
        ("duplicates", 60_000),
        ("select", 100_000),
        ("tokenizer", 36_000),
        ("tokenize", 50_000),
        ("synthesize", 36_000),
        ("export", 100_000),
    ],
)
def test_disk_that_is_full_in_a_step_leaves_75_and_the_step_is_made_when_there_is_room(
    done_project: Path, finished_run: Path, small_disk: Path, gristmill: Command, name: str, room: int
) -> None:
    forget(done_project, name)
    runs = small_disk / "runs"
    shutil.copytree(done_project / "runs", runs, symlinks=True)
    fill(small_disk, room=room)
    arguments = ("run", "recipe.yaml", "--until", name, "--runs-dir", runs, *OPTIONS)
    answer = gristmill(*arguments)
    assert_says(
        answer, 75, "the disk is full while writing", f".store/{name}/", "Free some space and run the same command"
    )
    (small_disk / "ballast").unlink()
    answer = gristmill(*arguments)
    assert answer.code == 0, answer.err
    assert read_json(runs / "tiny" / name / MANIFEST) == read_json(finished_run / name / MANIFEST)


# ── artefacts that were touched ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("reader", "file"),
    [("select", "extract/manuals:documents-00001.parquet"), ("dpo", "sft:model/model.safetensors")],
)
def test_artefact_that_lost_a_file_or_a_part_of_one_stops_the_step_that_reads_it(
    done_project: Path, gristmill: Command, reader: str, file: str
) -> None:
    forget(done_project, reader)
    run = done_project / "runs" / "tiny"
    name, _, inside = file.partition(":")
    for words in ("bytes; its manifest says", "is missing"):
        path = run / name / inside
        whole = path.read_bytes()
        path.unlink()
        if words != "is missing":
            path.write_bytes(whole[:1000])
        answer = gristmill("run", "recipe.yaml", "--until", reader, *OPTIONS)
        assert_says(answer, 1, inside, words, f"{reader} reads it", "run the same command")
        removed = re.search(r"remove (\S+) and run the same command to remake", answer.err)
        assert removed is not None, answer.err
    assert not (run / reader).exists()
    remove_folder(Path(removed[1]))
    answer = gristmill("run", "recipe.yaml", "--until", reader, *OPTIONS)
    assert answer.code == 0, "what the message says does not help"
    assert lines(answer.out, "made") == [name, reader]


def test_record_that_is_damaged_is_named_with_what_to_do(done_project: Path, gristmill: Command) -> None:
    path = done_project / "runs" / "tiny" / "select" / "record.json"
    text = path.read_text(encoding="utf-8")
    path.unlink()
    path.write_text(text[:100], encoding="utf-8")
    for verb in ("run", "status"):
        assert_says(gristmill(verb, "recipe.yaml"), 1, "record.json is damaged", "Remove its folder and run again")


# ── data of chat and packs ───────────────────────────────────────────────────────────────────────────────────────────


def test_pack_whose_items_were_changed_is_refused(project: Path, gristmill: Command) -> None:
    path = project / "data" / "packs" / "sums" / "items.jsonl"
    path.write_text(path.read_text(encoding="utf-8").replace("What is", "What are", 1), encoding="utf-8")
    answer = gristmill("run", "recipe.yaml", "--until", "contamination/code", *OPTIONS)
    assert_says(answer, 1, "items.jsonl has sha256", "the items were changed", "publish the change as a new version")


def test_conversation_that_does_not_take_turns_is_named(done_project: Path, gristmill: Command) -> None:
    path = done_project / "data" / "chat.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    rows[3]["messages"] = rows[3]["messages"][:1]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    answer = gristmill("run", "recipe.yaml", "--until", "synthesize", *OPTIONS)
    assert_says(answer, 1, "chat.jsonl", rows[3]["id"], "assistant")


def test_classifier_whose_annotations_name_no_document_says_what_to_compare(
    done_project: Path, gristmill: Command
) -> None:
    path = done_project / "data" / "edu.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    other = [{**row, "record_id": f"urn:uuid:{number}", "url": None} for number, row in enumerate(rows)]
    path.write_text("".join(json.dumps(row) + "\n" for row in other), encoding="utf-8")
    answer = gristmill("run", "recipe.yaml", "--until", "classifier/edu", *OPTIONS)
    assert_says(answer, 1, "edu.jsonl", "only 0 of them name a document", "Compare record_id and url")
