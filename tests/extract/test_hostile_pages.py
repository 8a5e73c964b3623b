"""Pages that hang a parser, pack a bomb or lie about their charset, in a source: each costs itself, with a reason, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gristmill.data.document import read_documents
from gristmill.extract import extract
from gristmill.extract.outputs import Extracted
from hostile.responses import SLOW_PAGES, WORDS, slow_page, warc_content_encodings, warc_poisoned_charsets

SCALE = 0.01


@pytest.fixture
def extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    import run_extract

    def run(path: Path, **main_text: Any) -> Extracted:
        source = {"read": {"format": "warc", "paths": [str(path)]}, "main_text": main_text, "max_failed": 1.0}
        extract.run(run_extract.context(tmp_path, tmp_path / "out", source))
        left = Extracted(tmp_path / "out")
        left.ledger.check()
        return left

    return run


def texts(left: Extracted) -> list[str]:
    return [document.text for path in left.documents for document in read_documents(path)]


@pytest.mark.parametrize("extractor", SLOW_PAGES)
def test_a_page_that_hangs_its_parser_costs_itself(extractor: str, tmp_path: Path, extracted: Any) -> None:
    left = extracted(slow_page(tmp_path, SLOW_PAGES[extractor]), extractor=extractor, deadline_seconds=1.0)
    failed = left.ledger.source("web").reasons("failed")
    assert {reason: count.documents for reason, count in failed.items()} == {"timeout": 1}
    assert len(texts(left)) == 4


def test_pages_are_read_as_they_are_and_not_as_they_say(tmp_path: Path, extracted: Any) -> None:
    made = warc_poisoned_charsets(tmp_path, SCALE)
    left = extracted(made.path, extractor="resiliparse")
    found = texts(left)
    assert len(found) == made.documents
    assert sum(WORDS in text for text in found) == len(found) - 4, "but for the four pages between which they lie"
    assert {name: count for name, count in left.counts.details.items() if name.startswith("charset:")} == {
        "charset:utf-8": made.documents
    }


def test_each_body_that_is_not_unpacked_has_its_reason(tmp_path: Path, extracted: Any) -> None:
    made = warc_content_encodings(tmp_path, SCALE)
    left = extracted(made.path, extractor="resiliparse")
    failed = left.ledger.source("web").reasons("failed")
    assert {reason: count.documents for reason, count in failed.items()} == made.reasons
    assert len(texts(left)) == made.documents
    assert sum(WORDS in text for text in texts(left)) == len(texts(left)) - 4
