"""The flow of documents and bytes: its sums are those of the ledgers, and of the rows that the steps left."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import gristmill
from gristmill.data.ledger import Count, Ledger, SourceLedger
from gristmill.extract.judge import PACKS, reasons_of
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.report.facts import Caps, Facts, Labels
from gristmill.report.flow import (
    EXTRACTION,
    SELECTION,
    STEPS,
    Flow,
    flow_of,
    flows_of,
    step_of_extraction,
    together,
)
from gristmill.report.flow_blocks import fetched, reasons, source_by_source, whole_flow
from gristmill.report.origins import FetchedFrom, Origin, origins_of
from gristmill.units import in_bytes

STEPS_OF_EXTRACTION = STEPS[: STEPS.index("rules") + 1]
PACKAGE = Path(gristmill.__file__).parent
sizes = st.integers(0, 1000)
reasons_lost = st.dictionaries(
    st.sampled_from([*EXTRACTION, "of_my_own", "top_2_gram"]), st.tuples(sizes, sizes), max_size=5
)
reasons_left = st.dictionaries(st.sampled_from([*SELECTION, "of_old"]), st.tuples(sizes, sizes), max_size=5)


@st.composite
def ledgers(draw: st.DrawFn) -> tuple[SourceLedger, SourceLedger, Count]:
    """The ledgers of extraction and selection of one source, in sequence, and what is held out."""
    both, kept = Ledger(), (draw(sizes), draw(sizes))
    held = Count(documents=draw(st.integers(0, kept[0])), num_bytes=draw(st.integers(0, kept[1])))
    for step, lost in (("select", draw(reasons_left)), ("extract", draw(reasons_lost))):
        came = [*kept]
        both.add(step, "kept", kept[1], documents=kept[0])
        for number, (reason, (documents, size)) in enumerate(lost.items()):
            kind = "failed" if step == "extract" and number % 2 else "dropped"
            both.add(step, kind, size, reason=reason, documents=documents)
            came = [came[0] + documents, came[1] + size]
        gone = draw(sizes)
        if step == "select":
            both.edit(step, gone, reason="repeated_line", documents=min(kept[0], 3))
        else:
            both.skip(step, gone, reason="blank_line")
        kept = (came[0], came[1] + gone)
        both.saw(step, kept[1], documents=kept[0])
    both.check()
    return both.source("extract"), both.source("select"), held


def check(flow: Flow) -> None:
    """What one step passes on the next takes in; no step passes on more than it took."""
    for step, after in zip(flow.steps, flow.steps[1:]):
        assert step.kept == after.came_in
        assert 0 <= step.kept.documents <= step.came_in.documents
        assert 0 <= step.kept.num_bytes <= step.came_in.num_bytes
    assert [step.step for step in flow.steps] == list(STEPS)


@given(st.lists(ledgers(), min_size=1, max_size=3))
def test_a_flow_begins_and_ends_as_its_ledgers_do_and_flows_add_up(
    made: list[tuple[SourceLedger, SourceLedger, Count]],
) -> None:
    flows = [flow_of(extracted, selected, held_out=held) for extracted, selected, held in made]
    for flow, (extracted, selected, _) in zip(flows, made):
        check(flow)
        assert flow.came_in == extracted.came_in
        assert flow.kept == selected.total("kept")
    whole = together(flows)
    check(whole)
    for one in ("came_in", "kept", "train", "held_out"):
        parts: list[Count] = [getattr(flow, one) for flow in flows]
        assert getattr(whole, one) == Count(
            documents=sum(part.documents for part in parts), num_bytes=sum(part.num_bytes for part in parts)
        )
    assert whole.shown == [step for step in whole.steps if step.lost_something]


def test_every_reason_of_a_rule_belongs_to_the_rules() -> None:
    assert {step_of_extraction(reason) for pack in PACKS for reason in reasons_of(pack)} == {"rules"}
    assert step_of_extraction("rule_error:my.py:ValueError", failed=True) == "rules"
    assert step_of_extraction("timeout", failed=True) == "read"


def literals(node: ast.AST) -> set[str]:
    return {one.value for one in ast.walk(node) if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def dropped_by(path: Path) -> set[str]:
    """The reasons that a reader drops records for: of calls with kind="dropped", also through a variable `reason` of the function."""
    found: set[str] = set()
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        assigned = [
            node.value
            for node in ast.walk(function)
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "reason"
        ]
        for call in (node for node in ast.walk(function) if isinstance(node, ast.Call)):
            keywords = {key.arg: key.value for key in call.keywords}
            if "kind" not in keywords or literals(keywords["kind"]) != {"dropped"}:
                continue
            reason = keywords.get("reason") or call.args[1]
            for value in [reason] if isinstance(reason, ast.Constant) else assigned:
                found |= literals(value)
    return found


def test_every_reason_of_a_reader_and_of_selection_has_its_step() -> None:
    """A reason that is new in these files has to be given its step."""
    of_readers = {reason for path in (PACKAGE / "formats").glob("*.py") for reason in dropped_by(path)}
    assert {"binary_file", "no_cues", "http_status", "not_html", "other_extension", "navigation"} <= of_readers
    read = {reason for reason, step in EXTRACTION.items() if step == "read"}
    assert sorted(of_readers - read) == []
    rejections = ast.walk(ast.parse((PACKAGE / "select" / "reasons.py").read_text(encoding="utf-8")))
    of_selection = {
        reason
        for node in rejections
        if isinstance(node, ast.keyword) and node.arg == "reason"
        for reason in literals(node.value)
    }
    assert sorted(of_selection ^ SELECTION.keys()) == []


@pytest.fixture
def facts(finished_run: Path) -> Facts:
    """The facts of the finished run, as its report got them."""
    steps = {step.name: step for step in steps_of(load_recipe(finished_run / "recipe.yaml").recipe)}
    report = steps.pop("report")
    made = {name: step.outputs(finished_run / name) for name, step in steps.items()}
    return Facts(Labels(**report.given.config["labels"]), Caps(**report.watching.config["caps"]), made)


def counted(paths: Iterable[Path], column: str | None = None) -> dict[str, Count]:
    """Rows and their payload bytes, by a column, "" without one."""
    found: dict[str, Count] = {}
    for path in paths:
        for row in pq.read_table(path).to_pylist():
            found.setdefault("" if column is None else row[column], Count()).add(1, row["bytes_in"])
    return found


def test_the_flow_of_a_run_is_that_of_the_rows_of_all_its_shards(facts: Facts, finished_run: Path) -> None:
    flows = flows_of(facts)
    assert list(flows) == facts.sources
    for source, flow in flows.items():
        extracted, selected = finished_run / "extract" / source, finished_run / "select" / source
        left = (
            counted(extracted.glob("rejected-*.parquet"), "reason"),
            counted(selected.glob("rejected-*.parquet"), "reason"),
        )
        kept = counted(extracted.glob("documents-*.parquet"))[""]
        train, held = (counted(selected.glob(f"{side}-*.parquet")).get("", Count()) for side in ("train", "validation"))
        assert (flow.train, flow.held_out) == (train, held)
        by_step = {step.step: step for step in flow.steps}
        assert by_step["rules"].kept == kept
        for rows, is_extraction in zip(left, (True, False)):
            steps = [step for step in flow.steps if (step.step in STEPS_OF_EXTRACTION) == is_extraction]
            lost = [part for step in steps for part in (step.dropped, step.failed)]
            assert sum(part.documents for part in lost) == sum(count.documents for count in rows.values())
            assert sum(part.num_bytes for part in lost) == sum(count.num_bytes for count in rows.values())
            assert sum((step.reasons for step in steps), Counter()) == Counter(
                {why: n.documents for why, n in rows.items()}
            )
    whole = together(flows.values())
    page = (finished_run / "report" / "report.html").read_text(encoding="utf-8")
    for count in (whole.came_in, whole.train):
        assert f">{count.documents:,}</text>" in page
        assert f">{in_bytes(count.num_bytes)}</text>" in page


def test_licences_are_those_of_the_recipe_the_place_and_the_rows(facts: Facts, finished_run: Path) -> None:
    card = (finished_run / "export" / "model" / "README.md").read_text(encoding="utf-8")
    for source, origin in origins_of(facts).items():
        rows = [
            row
            for path in finished_run.glob(f"select/{source}/[tv]*.parquet")
            for row in pq.read_table(path).to_pylist()
        ]
        assert origin.documents == len(rows)
        assert origin.licences == Counter(row["license"] for row in rows if row["license"])
        assert f"| {source} | {origin.licence_words} |" in card
    fetched = FetchedFrom(
        place="the Hub, a/b", files=1, num_bytes=2, num_items=None, failed={}, commit="c0ffee", licence="odc-by"
    )
    known = Origin(
        licence="unknown", fetched=fetched, documents=99, licences=Counter({f"L{n}": 9 - n for n in range(7)})
    )
    assert known.licence_words == (
        "unknown; where it was fetched: odc-by; stated for 42 of 99 documents: L0 9, L1 8, L2 7, L3 6, L4 5, 2 others"
    )


def test_bytes_that_no_document_left_with_have_a_row_of_their_own() -> None:
    """Pages that failed to be fetched, bytes between records, text that kept documents lost."""
    made, both = Ledger(), []
    made.saw("extract", 100, documents=3)
    made.add("extract", "kept", 60, documents=2)
    made.add("extract", "dropped", 30, reason="blocked_domain")
    made.skip("extract", 10, reason="blank_line")
    made.saw("select", 60, documents=2)
    made.add("select", "kept", 35)
    made.add("select", "dropped", 20, reason="only_repeated")
    made.edit("select", 5, reason="repeated_paragraph")
    made.check()
    both = (made.source("extract"), made.source("select"))
    flow = flow_of(*both, held_out=Count())
    place = FetchedFrom(
        place="Common Crawl CC-MAIN-2024-10, x.org", files=1, num_bytes=99, num_items=3, failed={"not_found": 2}, commit="", licence="",
    )  # fmt: skip
    said = "".join([
        *fetched({"web": Origin(licence="x", fetched=place, documents=1)}), whole_flow({"web": flow}), source_by_source({"web": flow}),
        *reasons({"web": both}),
    ])  # fmt: skip
    for words in (
        "not found 2", ">URL lists</text>", ">repeated text</text>", "1 kept document lost a part", "blocked domain",
        "repeated paragraph (taken out of kept documents)", "blank line (no document)", ">−25 B</text>", ">35 B</text>",
    ):  # fmt: skip
        assert words in said, words
    assert ">rules</text>" not in said, "a step that lost nothing has no row"
