"""The reference is asked once; what it said is kept exactly and used for the same question alone."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from gristmill.align import reference
from gristmill.align.reference import Logps, Question, asked_once
from gristmill.store.durable import write_json
from gristmill.store.fingerprint import fingerprint

QUESTION = Question(
    model_sha256={"model.safetensors": "a"}, tokenizer_sha256="b", pairs_sha256="c", seq_len=9, number_format="float32"
)
LOGPS: Logps = [(-0.1, -1 / 3), (-123.45678901234567, -0.0)]


def refuse() -> Logps:
    raise AssertionError("the reference was asked again")


def test_a_kept_answer_is_the_same_to_the_bit_and_nobody_is_asked(tmp_path: Path) -> None:
    assert asked_once(tmp_path / "r.json", QUESTION, lambda: LOGPS) == LOGPS
    kept = asked_once(tmp_path / "r.json", QUESTION, refuse)
    assert [[value.hex() for value in pair] for pair in kept] == [[value.hex() for value in pair] for pair in LOGPS]


@pytest.mark.parametrize(
    "other",
    [
        replace(QUESTION, model_sha256={"model.safetensors": "z"}),
        replace(QUESTION, tokenizer_sha256="z"),
        replace(QUESTION, pairs_sha256="z"),
        replace(QUESTION, seq_len=8),
        replace(QUESTION, number_format="bfloat16"),
    ],
)
def test_another_question_is_asked(tmp_path: Path, other: Question) -> None:
    asked_once(tmp_path / "r.json", QUESTION, lambda: LOGPS)
    assert asked_once(tmp_path / "r.json", other, lambda: LOGPS[:1]) == LOGPS[:1]
    assert asked_once(tmp_path / "r.json", other, refuse) == LOGPS[:1]


@pytest.mark.parametrize("damage", ["torn", "changed", "other", "empty"])
def test_a_damaged_file_is_not_believed(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "r.json"
    asked_once(path, QUESTION, lambda: LOGPS)
    text = path.read_text()
    assert "-0.1" in text
    damaged = {"torn": text[:-20], "changed": text.replace("-0.1", "-0.2"), "other": "[]", "empty": "{}"}
    path.write_text(damaged[damage])
    assert asked_once(path, QUESTION, lambda: LOGPS) == LOGPS
    assert json.loads(path.read_text()) == json.loads(text)


def test_an_answer_that_is_no_list_of_pairs_is_not_believed(tmp_path: Path) -> None:
    rows = [[-0.1, -0.2, -0.3]]
    content = {"question": asdict(QUESTION), "logps": rows, "logps_fingerprint": fingerprint(rows)}
    write_json(tmp_path / "r.json", content)
    assert asked_once(tmp_path / "r.json", QUESTION, lambda: LOGPS) == LOGPS


def test_a_question_follows_from_contents(tmp_path: Path) -> None:
    files = ("config.json", "model.safetensors", "more.safetensors", "tokenizer.json", "pairs.jsonl")
    for name in files:
        (tmp_path / name).write_text(name)

    def question() -> Question:
        pairs = tmp_path / "pairs.jsonl"
        return Question.of(model=tmp_path, tokenizer=tmp_path, pairs=pairs, seq_len=4, device="cpu")

    first = question()
    assert first == question()
    assert first.number_format == "float32"
    for name in files:
        (tmp_path / name).write_text(name + "!")
        assert question() != first
        (tmp_path / name).write_text(name)


def test_the_number_format_is_that_of_the_device_that_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("config.json", "tokenizer.json", "pairs.jsonl"):
        (tmp_path / name).write_text(name)
    monkeypatch.setattr(reference, "number_format", str)
    for device in ("cpu", "cuda"):
        found = Question.of(
            model=tmp_path, tokenizer=tmp_path, pairs=tmp_path / "pairs.jsonl", seq_len=4, device=device
        )
        assert found.number_format == device
