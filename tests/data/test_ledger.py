"""The ledger adds up, or says where it does not."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.ledger import REJECTED_SCHEMA, Ledger, check_failures, check_loss, in_sequence, rejected_row
from gristmill.errors import DataError

FATES = st.lists(
    st.tuples(
        st.sampled_from(["web", "books"]),
        st.sampled_from(["kept", "dropped", "failed"]),
        st.sampled_from(["too_short", "timeout"]),
        st.integers(0, 10**12),
    ),
    max_size=30,
)


def ledger_of(fates: list[tuple[str, str, str, int]]) -> Ledger:
    ledger = Ledger()
    for source, kind, reason, num_bytes in fates:
        ledger.saw(source, num_bytes)
        ledger.add(source, kind, num_bytes, reason="" if kind == "kept" else reason)  # type: ignore[arg-type]
    return ledger


@given(FATES)
@settings(deadline=None)
def test_a_fate_for_everything_seen_adds_up_and_survives_json(fates: list[tuple[str, str, str, int]]) -> None:
    ledger = ledger_of(fates)
    ledger.check()
    assert Ledger.from_json(ledger.to_json()).to_json() == ledger.to_json()


@given(FATES, FATES)
@settings(deadline=None)
def test_merging_ledgers_is_counting_all_at_once(first: list, second: list) -> None:  # type: ignore[type-arg]
    ledger = ledger_of(first)
    ledger.merge(ledger_of(second))
    assert ledger.to_json() == ledger_of(first + second).to_json()


def test_two_steps_in_sequence_make_one_account_that_adds_up() -> None:
    first = ledger_of([("web", "kept", "", 5), ("web", "kept", "", 3), ("web", "dropped", "copy", 7)])
    second = ledger_of([("web", "kept", "", 5), ("web", "dropped", "copy", 3)])
    ledger = Ledger()
    ledger.sources["web"] = in_sequence(first.source("web"), second.source("web"))
    ledger.check()
    assert ledger.source("web").reasons("dropped")["copy"].to_json() == {"documents": 2, "bytes": 10}


def test_a_document_without_a_fate_is_named_with_its_source() -> None:
    ledger = ledger_of([("web", "kept", "", 5)])
    ledger.saw("web", 7)
    with pytest.raises(AssertionError, match=r"'web' does not add up: documents in 2, kept 1"):
        ledger.check()


def test_bytes_must_add_up_though_documents_do() -> None:
    ledger = Ledger()
    ledger.saw("web", 7)
    ledger.add("web", "kept", 6)
    with pytest.raises(AssertionError, match="num_bytes in 7, kept 6"):
        ledger.check()


def test_would_drop_is_counted_apart_from_the_sum() -> None:
    ledger = ledger_of([("web", "kept", "", 5)])
    ledger.add("web", "would_drop", 5, reason="too_few_words")
    ledger.check()
    assert ledger.to_json()["sources"]["web"]["would_drop"] == {"too_few_words": {"documents": 1, "bytes": 5}}


def test_a_rejected_row_has_the_columns_of_the_schema_and_a_short_excerpt() -> None:
    row = rejected_row(id="a", source="web", step="extract", reason="timeout", bytes_in=3, text="x" * 1000)
    assert list(row) == REJECTED_SCHEMA.names
    assert row["excerpt"] == "x" * 300


@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 10), st.sampled_from([None, 0.0, 0.3, 0.5, 1.0]))
def test_a_loss_is_limited_by_documents_and_by_bytes(kept: int, dropped: int, failed: int, limit: float | None) -> None:
    ledger = Ledger()
    for kind, count, size in (("kept", kept, 3), ("dropped", dropped, 1), ("failed", failed, 5)):
        ledger.saw("web", count * size, documents=count)
        for _ in range(count):
            ledger.add("web", kind, size, reason="" if kind == "kept" else "some")
    documents, num_bytes = kept + dropped + failed, 3 * kept + dropped + 5 * failed
    allowed = limit is None or (dropped + failed <= limit * documents and dropped + 5 * failed <= limit * num_bytes)
    if allowed:
        check_loss(ledger.source("web"), "web", max_loss=limit)
    else:
        with pytest.raises(DataError, match=r"source 'web' loses .*(?s:.)*raise sources\.web\.max_loss"):
            check_loss(ledger.source("web"), "web", max_loss=limit)


def test_failures_are_limited_by_documents_and_by_bytes() -> None:
    ledger = Ledger()
    ledger.saw("web", 100, documents=10)
    ledger.add("web", "kept", 20, documents=9)
    ledger.add("web", "failed", 80, reason="corrupt_file")
    check_failures(ledger, "web", max_failed=0.8)
    with pytest.raises(
        DataError, match=r"1 of 10 documents of source 'web', 80 of 100 bytes, failed; the limit is 0\.79"
    ):
        check_failures(ledger, "web", max_failed=0.79)
