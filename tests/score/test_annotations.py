"""Annotations: what a line must hold, small classes, agreement."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.errors import DataError
from gristmill.score.agreement import agreement
from gristmill.score.annotations import merge_small_classes, read_annotations


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" if isinstance(row, dict) else row + "\n" for row in rows))
    return path


def row(name, label, **more):
    return {"record_id": name, "url": f"https://x.org/{name}", "label": label, **more}


def test_lines_are_read_in_order_with_blank_ones_skipped(tmp_path):
    found = read_annotations(write(tmp_path / "a.jsonl", row("b", 2, reason="thin"), "", {"url": "u", "label": 5}))
    assert [(a.record_id, a.url, a.label, a.reason) for a in found] == [
        ("b", "https://x.org/b", 2, "thin"),
        (None, "u", 5, ""),
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "a.jsonl:2 is not JSON"),
        ("[]", "a.jsonl:2: expected an object, found list"),
        (row("b", 6), "label is 6, expected a whole number from 0 to 5"),
        (row("b", True), "label is True"),
        (row("b", 2.0), "label is 2.0"),
        ({"label": 1}, "neither record_id nor url"),
        (row("b", 1, score=3), r"unknown keys \['score'\]"),
        (row("a", 1), "'a' was labelled before"),
        ({"url": 3, "label": 1}, "url is 3, expected a text"),
    ],
)
def test_a_bad_line_is_named(line, message, tmp_path):
    with pytest.raises(DataError, match=message):
        read_annotations(write(tmp_path / "a.jsonl", row("a", 1), line))


def test_a_file_that_is_missing_or_empty_is_refused(tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        read_annotations(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="holds no annotations"):
        read_annotations(write(tmp_path / "a.jsonl", ""))


def test_small_classes_go_to_their_smaller_neighbour():
    labels = [0] * 50 + [1] * 80 + [2] * 30 + [3] * 12 + [4] * 5 + [5] * 1
    assert merge_small_classes(labels, min_class_size=20) == {0: 0, 1: 1, 2: 2, 3: 2, 4: 2, 5: 2}
    assert merge_small_classes(labels, min_class_size=5) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 4}
    assert merge_small_classes(labels, min_class_size=1) == {n: n for n in range(6)}


@given(st.lists(st.integers(0, 5), min_size=1, max_size=120), st.integers(1, 30))
@settings(max_examples=60, deadline=None)
def test_merged_classes_are_large_enough_ordered_and_idempotent(labels, size):
    target = merge_small_classes(labels, min_class_size=size)
    merged = [target[label] for label in labels]
    counts = Counter(merged)
    assert len(counts) == 1 or min(counts.values()) >= size
    assert list(target.values()) == sorted(target.values())
    assert merge_small_classes(merged, min_class_size=size) == {label: label for label in counts}


def test_agreement_joins_by_record_id_or_url(tmp_path):
    first = read_annotations(write(tmp_path / "a.jsonl", *(row(f"d{i}", i % 4) for i in range(40))))
    second = read_annotations(
        write(tmp_path / "b.jsonl", *({"url": f"https://x.org/d{i}", "label": (i % 4) + (i == 3)} for i in range(20)))
    )
    found = agreement(first, second)
    assert found.count == 20
    assert found.equal_share == pytest.approx(0.95)
    assert found.kappa.value < found.quadratic_kappa.value < 1
    assert found.kappa.low <= found.kappa.value <= found.kappa.high


def test_agreement_on_nothing_is_refused(tmp_path):
    first = read_annotations(write(tmp_path / "a.jsonl", row("a", 1)))
    second = read_annotations(write(tmp_path / "b.jsonl", row("b", 1)))
    with pytest.raises(DataError, match="none of the documents"):
        agreement(first, second)
