"""On real texts the rules decide as the code that made FineWeb does, with the same reason. scripts/ask_datatrove.py asked it."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import pytest
from rule_texts import rule_texts

from gristmill.extract.judge import judge

FOUND = Path(__file__).with_name("datatrove.tsv")
PACKS = ("gopher_repetition@1", "gopher_quality@1", "c4@1", "fineweb@1")


@pytest.fixture(scope="module")
def decided() -> list[tuple[str, dict[str, str]]]:
    """(text, datatrove's decisions)"""
    with FOUND.open(newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file, delimiter="\t")}
    texts = dict(rule_texts())
    assert texts.keys() == rows.keys(), "ask again: python scripts/ask_datatrove.py"
    assert all(_hash_of(text) == rows[name]["sha256"] for name, text in texts.items())
    assert len(texts) >= 2000
    return [(text, rows[name]) for name, text in texts.items()]


@pytest.mark.parametrize("every", [3, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("pack", PACKS)
def test_texts_are_decided_as_datatrove_decides_them(
    pack: str, every: int, decided: list[tuple[str, dict[str, str]]]
) -> None:
    """every: how many texts there are for each that is judged."""
    decided = decided[::every]
    verdicts = [judge(text, [pack]) for text, _ in decided]
    theirs = [row[pack] for _, row in decided]
    assert [verdict.drop.reason if verdict.drop else "-" for verdict in verdicts] == theirs
    assert len(set(theirs)) >= 3  # a table without decisions would prove nothing
    if pack == "c4@1":
        left = [_hash_of(verdict.text) if verdict.drop is None else "-" for verdict in verdicts]
        assert left == [row["left by c4@1"] for _, row in decided]


def _hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
