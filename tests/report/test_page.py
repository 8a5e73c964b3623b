"""The page of a finished run: one file, made from records, with every part of the lifecycle on it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from gristmill.evaluate.outputs import Figure
from gristmill.report.blocks import quote, table
from gristmill.report.facts import bits
from gristmill.store.durable import read_json


@pytest.fixture
def page(finished_run: Path) -> str:
    return (finished_run / "report" / "report.html").read_text(encoding="utf-8")


def test_page_fetches_nothing_and_runs_nothing(page: str) -> None:
    assert not re.search(r'(src|href)="(?!#)', page)
    assert "<script" not in page
    assert "@import" not in page


def test_page_is_well_formed(page: str) -> None:
    open_tags: list[str] = []
    void = {"meta", "link", "br", "hr", "img", "input", "line", "circle", "rect", "polyline"}

    class Check(HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in void:
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in void:
                assert open_tags.pop() == tag

    Check().feed(page)
    assert open_tags == []


def test_page_has_every_part(page: str) -> None:
    for title in (
        "What came in", "Quality scores", "Duplicates and contamination", "Token budget", "Pretraining",
        "Conversation and preference", "Evaluation", "Cost", "Provenance",
    ):  # fmt: skip
        assert f">{title}</h2>" in page


def test_page_shows_what_the_ledgers_hold(page: str, finished_run: Path) -> None:
    for ledger in finished_run.glob("extract/*/ledger.json"):
        for source, fates in read_json(ledger)["sources"].items():
            assert f"<td>{source}</td>" in page
            assert f"<td class=n>{fates['in']['documents']:,}</td>" in page
            for reason in fates["dropped"]:
                assert reason.replace("_", " ") in page


def test_text_of_documents_and_models_is_escaped() -> None:
    evil = "<img src=x onerror=alert(1)>"
    assert "<img" not in table(("a",), [(evil,)])
    assert "<img" not in quote(evil, evil)


def figure(*, interval: tuple[float, float] | None) -> Figure:
    return Figure(
        model="m", task="t", metric="bits_per_byte", value=2.0, stderr=None, interval=interval, n=9, chance=None,
        at_or_below_chance=False, kind="held_out", pack_sha256=None, versions={},
    )  # fmt: skip


def test_bits_show_half_the_interval() -> None:
    assert bits(figure(interval=(1.9, 2.1))) == "2.000 ± 0.100"
    assert bits(figure(interval=None)) == "2.000"
    assert bits(None) == ""
