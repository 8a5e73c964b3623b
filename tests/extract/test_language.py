"""Language identification by the model in the package."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.record import clean_text
from gristmill.extract.language import MODEL_PATH, detect_language, is_too_short

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
