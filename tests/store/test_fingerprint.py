"""Identity: one stable form for what was asked, and no form at all for what has none."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.store.fingerprint import canonical, derive_seed, differences, fingerprint

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


# Golden: sha256 of the canonical JSON, first 32 hex digits. A change here remakes every artefact of every user.
@pytest.mark.parametrize(
    ("value", "digest"),
    [
        (None, "74234e98afe7498fb5daf1f36ac2d78a"),
        ({}, "44136fa355b3678a1146ad16f7e8649e"),
        ([1, 2.5, "ü", True], "bad6647908c807417f660ae35f8d14ea"),
        ({"b": 1, "a": {"c": None}}, "ff40fc919d741847284ad2ccf59093f5"),
    ],
)
def test_fingerprints_are_pinned(value: object, digest: str) -> None:
    assert fingerprint(value) == digest


def test_whole_floats_and_integers_are_the_same_number() -> None:
    assert fingerprint({"theta": 10000.0}) == fingerprint({"theta": 10000})


def test_a_list_and_a_tuple_are_the_same_sequence_in_the_same_order() -> None:
    assert fingerprint([1, 2]) == fingerprint((1, 2)) != fingerprint([2, 1])


def test_true_is_not_one() -> None:
    assert fingerprint(True) != fingerprint(1)
    assert differences({"on": True}, {"on": 1}) == ["on: true → 1"]


@given(st.dictionaries(st.text(max_size=5), plain, max_size=6), st.randoms())
@settings(deadline=None, max_examples=100)
def test_the_order_of_keys_does_not_matter(value: dict[str, Any], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert fingerprint(dict(items)) == fingerprint(value)


@given(plain)
@settings(deadline=None, max_examples=100)
def test_canonical_is_a_fixed_point(value: Any) -> None:
    once = canonical(value)
    assert canonical(once) == once


@given(plain, plain)
@settings(deadline=None, max_examples=200)
def test_values_differ_exactly_where_differences_says_so(one: Any, other: Any) -> None:
    one, other = canonical(one), canonical(other)
    assert (fingerprint(one) == fingerprint(other)) == (not differences(one, other))


draws = st.dictionaries(
    st.tuples(st.sampled_from(["web", "code", "book"]), st.sampled_from([None, 8, 1024])),
    st.integers(1, 10**6).map(lambda part: part / 10**6),
    min_size=1,
).map(
    lambda shares: [
        {"source": name, "min_document_tokens": least, "weight": weight} for (name, least), weight in shares.items()
    ]
)


@given(draws, draws)
@settings(deadline=None, max_examples=100)
def test_mixtures_differ_in_one_line_by_source_that_names_only_what_changed(one: Any, other: Any) -> None:
    lines = differences({"mixture": one}, {"mixture": other})
    assert (canonical(one) == canonical(other)) == (not lines)
    shares = [{(draw["source"], draw["min_document_tokens"]): draw["weight"] for draw in each} for each in (one, other)]
    changed = sum(shares[0].get(key) != shares[1].get(key) for key in shares[0] | shares[1])
    if changed:
        (line,) = lines
        assert line.startswith("mixture: ")
        assert line.count(" → ") == changed
        assert not any(was == now for was, now in re.findall(r"(\S+) → ([^,\s]+)", line))


def test_a_mixture_is_shown_as_the_recipe_writes_it() -> None:
    old = [{"source": "text", "weight": 0.186335, "min_document_tokens": None}, {"source": "html", "weight": 0.5}]
    new = [{"source": "html", "weight": 0.5}, {"source": "web", "weight": 0.09, "min_document_tokens": 1024}]
    assert differences(old, new, prefix="mixture") == ["mixture: text 0.19 → 0, web ≥1,024 0 → 0.09"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"a": {"b": float("nan")}}, r"config\.a\.b is nan; a fingerprint holds finite numbers only"),
        ([float("inf")], r"config\[0\] is inf"),
        ({"path": Path("x")}, r"config\.path is a path"),
        ({"a": {1, 2}}, r"config\.a is a set, which has no stable form"),
        ({"a": lambda: 1}, r"config\.a is a function"),
        ({"a": object()}, r"config\.a is a object"),
        ({"a": np.float32(1)}, r"config\.a is a float32"),
        (b"bytes", r"config is a bytes"),
    ],
)
def test_what_has_no_stable_form_is_refused_with_its_place(value: object, words: str) -> None:
    with pytest.raises(TypeError, match=words):
        fingerprint(value)


def test_two_keys_that_would_become_one_are_refused() -> None:
    with pytest.raises(TypeError, match="stand for the same key"):
        fingerprint({1: "a", "1": "b"})


def test_differences_are_lines_that_name_each_field() -> None:
    old = {"seed": 8, "stages": [{"tokens": 1}, {"tokens": 2}], "gone": 1}
    new = {"seed": 9, "stages": [{"tokens": 1}, {"tokens": 3}], "added": "x"}
    assert differences(old, new, prefix="pretrain") == [
        'pretrain.added: added, "x"',
        "pretrain.gone: removed, was 1",
        "pretrain.seed: 8 → 9",
        "pretrain.stages[1].tokens: 2 → 3",
    ]


def test_seeds_are_pinned_and_differ_by_name() -> None:
    assert derive_seed(8, "pretrain") == 7_095_225_668_721_839_545
    names = [derive_seed(8, *parts) for parts in [(), ("a",), ("a", "b"), ("ab",), ("a", 1), ("a", "1"), ("b",)]]
    assert len(set(names)) == len(names)
    assert all(0 <= seed < 2**63 for seed in names)
