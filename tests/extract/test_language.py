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
    detect_language,
    in_several_languages,
    is_too_short,
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


def test_languages_are_shares_of_bytes_and_those_that_the_filter_told_are_believed(tmp_path: Path) -> None:
    told = [("en", None), ("de", None), ("ru", "xx"), ("short", None)]
    for number, (name, language) in enumerate(told):
        text = TEXTS.get(name, "A few.")
        one = Document(id=name, source="s", text=text, origin="o", bytes_in=1, language=language)
        write_rows(tmp_path / f"{number}.parquet", DOCUMENT_SCHEMA, [one.row()])
    sizes = {"en": len(TEXTS["en"]), "de": len(TEXTS["de"].encode()), "xx": len(TEXTS["ru"].encode()), "?": 6}
    expected = {language: size / sum(sizes.values()) for language, size in sizes.items()}
    assert languages_in(sorted(tmp_path.iterdir())) == pytest.approx(expected)
    assert languages_in([]) == {}


def test_a_language_of_few_bytes_makes_no_source_one_of_several() -> None:
    assert in_several_languages({"en": 0.96, "de": 0.04}) == ""
    assert in_several_languages({"en": 0.5, "?": 0.5}) == ""
    said = in_several_languages({"de": 0.2, "en": 0.6, "fr": 0.02, "?": 0.18})
    assert said.startswith("in several languages: en 73%, de 24%; ")
    assert "keep: [en]" in said


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
