"""Language identification by the model in the package."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.document import DOCUMENT_SCHEMA, Document
from gristmill.data.record import clean_text
from gristmill.data.write import write_rows
from gristmill.extract.language import (
    MODEL_PATH,
    SAMPLE_DOCUMENTS,
    UNTOLD,
    Languages,
    detect_language,
    is_too_short,
    language_of,
    languages_in,
)

TEXTS = {
    "en": "The miller walked down to the river,\nwhere the great wheel had stood still since autumn.",
    "de": "Der Müller ging zum Fluss hinunter,\nwo das große Rad seit dem Herbst stillstand.",
    "fr": "Le meunier descendit vers la rivière,\noù la grande roue était arrêtée depuis l'automne.",
    "ru": "Мельник спустился к реке,\nгде большое колесо стояло с самой осени.",
    "ja": "粉屋は川へ下りていった。大きな水車は秋からずっと止まったままだった。",
}


@pytest.mark.parametrize("language", TEXTS)
def test_sentences_of_two_lines_are_told(language: str) -> None:
    found, score = detect_language(TEXTS[language])
    assert found == language
    assert 0.65 < score <= 1.0


def test_line_ends_count_as_blanks() -> None:
    assert detect_language(TEXTS["en"].replace("\n", " ")) == detect_language(TEXTS["en"])


def test_a_text_of_a_few_letters_is_too_short_to_tell() -> None:
    assert detect_language("house, home (noun)") == (None, 0.0)
    assert is_too_short("1234567890 " * 100)
    assert not is_too_short("a" * 20)


def shard_of(path: Path, texts: list[tuple[str, str, str | None]]) -> Path:
    """Documents of (id, text, language that the filter told)."""
    rows = [Document(id=n, source="s", text=t, origin="o", bytes_in=1, language=told).row() for n, t, told in texts]
    write_rows(path, DOCUMENT_SCHEMA, rows)
    return path


def test_languages_are_shares_of_bytes_and_those_that_the_filter_told_are_believed(tmp_path: Path) -> None:
    told = [("en", None), ("de", None), ("ru", "xx"), ("short", None)]
    shards = [
        shard_of(tmp_path / f"{n}.parquet", [(name, TEXTS.get(name, "A few."), language)])
        for n, (name, language) in enumerate(told)
    ]
    sizes = {"en": len(TEXTS["en"]), "de": len(TEXTS["de"].encode()), "xx": len(TEXTS["ru"].encode()), "?": 6}
    found = languages_in(shards)
    assert found.shares == pytest.approx({language: size / sum(sizes.values()) for language, size in sizes.items()})
    assert (found.documents, found.of_documents) == (4, 4)
    weighted = languages_in(shards, weights=[3.0, 1.0, 1.0, 1.0])
    assert weighted.shares["en"] == pytest.approx(3 * sizes["en"] / (2 * sizes["en"] + sum(sizes.values())))
    assert languages_in([]).shares == {}


def test_languages_that_lie_in_blocks_are_told_by_documents_from_all_over(tmp_path: Path) -> None:
    blocks = [("en", 1600), ("de", 1200), ("fr", 1200)]
    texts = [(f"{name}{i}", f"{TEXTS[name]} {i}", None) for name, count in blocks for i in range(count)]
    found = languages_in([shard_of(tmp_path / "all.parquet", texts)])
    sizes = {name: sum(len(text.encode()) for key, text, _ in texts if key.startswith(name)) for name, _ in blocks}
    for name, _ in blocks:
        assert found.shares[name] == pytest.approx(sizes[name] / sum(sizes.values()), abs=0.06)  # 4 standard errors
    assert (found.documents, found.of_documents) == (SAMPLE_DOCUMENTS, 4000)


def test_a_book_is_told_by_its_middle() -> None:
    title = "The Programmer's Manual. Published by the Inter-University Accelerator Centre of New Delhi. " * 12
    assert language_of(title + TEXTS["fr"] * 100) == "fr"
    assert language_of("Too few.") == "?"


def test_a_language_of_few_bytes_makes_no_source_one_of_several() -> None:
    assert Languages.of([("en", 96), ("de", 4)], of_documents=2).choice() == ""
    assert Languages.of([("en", 50), ("?", 50)], of_documents=2).choice() == ""
    said = Languages.of([("de", 20), ("en", 60), ("fr", 2), ("?", 18)], of_documents=9).choice()
    assert said.startswith("in several languages, by bytes: en 73%, de 24% (4 of 9 documents); all are kept")
    assert said.endswith("`language: {keep: [en]}` of the source drops the other 27%")


@given(st.text(st.characters(exclude_categories=[])).map(clean_text))
@settings(deadline=None, max_examples=100)
def test_any_text_gets_an_answer(text: str) -> None:
    language, score = detect_language(text + " these are twenty letters")
    assert language is not None
    assert 0.0 <= score <= 1.0


def test_the_model_is_the_one_that_the_notice_names() -> None:
    notice = (MODEL_PATH.parent / "NOTICE").read_text()
    assert hashlib.sha256(MODEL_PATH.read_bytes()).hexdigest() in notice
    assert "CC BY-SA 3.0" in notice


def test_formulas_are_in_no_language() -> None:
    formula = (
        r"+{\it m2}\,{\frac {d^{2}}{d{t}^{2}}}{\it x2} \left( t \right) \cos \left( {\it th1} \left( t \right) \right) "
    )
    assert language_of(formula * 40) == UNTOLD
    assert language_of("This is a plain text about mills, and about those who work in them all day long. " * 3) == "en"
