"""What steps write for others reads back as it was; what does not fit is refused with file and key."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gristmill.errors import ArtifactError
from gristmill.evaluate.outputs import Comparison, Figure
from gristmill.export.outputs import CheckedWith, NotChecked, Parity
from gristmill.select.outputs import CopiesOfOne, DuplicateRule, NearDuplicateReport
from gristmill.tokens.stages import Use
from gristmill.train.outputs import PretrainingCounts, StageTime, Start
from gristmill.written import Written

finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
intervals = st.none() | st.tuples(finite, finite)
figures = st.builds(
    Figure, value=finite, stderr=st.none() | finite, interval=intervals, chance=st.none() | finite,
    versions=st.dictionaries(words, st.none() | words), degrees=st.none() | finite,
)  # fmt: skip
comparisons = st.builds(
    Comparison, difference=finite, stderr=st.none() | finite, degrees=finite, interval=intervals, p_value=finite,
    p_adjusted=finite, a=words, b=words,
)  # fmt: skip
checked = st.builds(CheckedWith, max_logit_difference=finite, largest_logit=finite, tolerance=finite)
parities = st.builds(
    Parity, max_logit_change_by_rounding=finite, max_logit_difference_read_back=finite,
    transformers=checked | st.builds(NotChecked),
)  # fmt: skip
environments = st.dictionaries(words, words | st.integers(0, 9), max_size=2)
trainings = st.builds(
    PretrainingCounts,
    training_seconds=finite,
    tokens_per_second=st.none() | finite,
    final=st.dictionaries(words, st.none() | finite, max_size=3),
    environment=environments,
    lineage=st.lists(st.builds(Start, environment=environments, prefix=st.none() | environments), max_size=2).map(
        tuple
    ),
    tokens_by_source=st.dictionaries(words, st.integers(0, 9), max_size=2),
    draws=st.lists(st.builds(Use), max_size=2).map(tuple),
    stages=st.lists(st.builds(StageTime, started_seconds=finite, seconds=finite), max_size=2).map(tuple),
)
clusters = st.builds(CopiesOfOne, weakest_jaccard=finite)
duplicates = st.builds(
    NearDuplicateReport,
    rules=st.builds(DuplicateRule, min_jaccard=finite, min_containment=finite),
    curve=st.just(()),
    sources=st.just({}),
    survivor_source=st.dictionaries(words, st.dictionaries(words, st.integers(0, 9), max_size=2), max_size=2),
    largest_clusters=st.lists(clusters, max_size=2).map(tuple),
)


@given(figures | comparisons | parities | trainings | duplicates)
def test_what_is_written_reads_back_equal(found: Written) -> None:
    on_disk = json.loads(json.dumps(found.to_json(), allow_nan=False))  # type: ignore[misc]
    again = type(found).from_json(on_disk, where="x.json")
    assert again == found
    assert again.to_json() == found.to_json()  # type: ignore[misc]


PARITY: dict[str, Any] = {
    "prompts": ["a"],
    "logit_positions": 1,
    "stored_dtype": "float32",
    "max_logit_change_by_rounding": 0.0,
    "max_logit_difference_read_back": 0.0,
    "transformers": {"checked": False, "why": "w", "command": "c"},
}


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"logit_positions": ...}, "logit_positions"),
        ({"more": 1}, "more"),
        ({"logit_positions": "1"}, "logit_positions"),
        ({"logit_positions": True}, "logit_positions"),
        ({"transformers": {"checked": False, "why": "w"}}, r"transformers\..*command"),
    ],
)
def test_a_missing_unknown_or_wrong_key_names_file_and_key(change: dict[str, Any], key: str) -> None:
    row = {name: value for name, value in {**PARITY, **change}.items() if value is not ...}
    with pytest.raises(ArtifactError, match=rf"parity\.json: {key}: "):
        Parity.from_json(row, where="parity.json")


def test_what_has_its_default_is_not_written() -> None:
    figure = Figure(
        model="m", task="t", metric="acc", value=0.5, stderr=None, interval=None, n=9, chance=None,
        at_or_below_chance=False, kind="held_out", pack_sha256=None, versions={}, prompting="chat",
    )  # fmt: skip
    assert {"prompting", "stderr"} <= figure.to_json().keys()
    assert "window" not in figure.to_json()
