"""Bytes become text in a stated order of trust, whatever they are."""

from __future__ import annotations

import codecs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.data.charset import decode, is_binary, utf16_of
from gristmill.data.record import clean_text

MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
RUSSIAN = "Скажите, пожалуйста, как пройти в библиотеку? Она закрыта на ремонт."


@given(st.binary(max_size=200), st.none() | st.text(max_size=20))
@settings(deadline=None)
def test_any_bytes_under_any_label_give_text_that_can_be_written(payload: bytes, declared: str | None) -> None:
    text, _ = decode(payload, declared)
    text.encode("utf-8")


@given(st.text(st.characters(exclude_categories=["Cs"])))
@settings(deadline=None)
def test_utf8_with_a_mark_is_read_exactly(text: str) -> None:
    assert decode(b"\xef\xbb\xbf" + text.encode()) == (text, "utf-8")


@pytest.mark.parametrize(
    ("payload", "declared", "charset"),
    [
        (RUSSIAN.encode("koi8-r"), "koi8-r", "koi8-r"),
        (b'<meta charset="windows-1251">' + RUSSIAN.encode("cp1251"), None, "cp1251"),
        (b"<?xml version='1.0' encoding='koi8-r'?>" + RUSSIAN.encode("koi8-r"), None, "koi8-r"),
        (RUSSIAN.encode(), None, "utf-8"),
        (RUSSIAN.encode("cp1251"), None, "cp1251"),
        (RUSSIAN.encode("utf-16"), None, "utf-16-le"),
        (b'<meta charset="koi8-r">' + RUSSIAN.encode("cp1251"), "windows-1251", "cp1251"),
        (RUSSIAN.encode(), "iso-8859-1", "utf-8"),
        (RUSSIAN.encode(), "utf-16", "utf-8"),
        (b'<meta charset="utf-16"><p>' + RUSSIAN.encode(), None, "utf-8"),
        (b"<?xml version='1.0' encoding='utf-16le'?>" + RUSSIAN.encode("cp1251"), None, "cp1251"),
        (RUSSIAN.encode("utf-16-be"), "utf-16be", "utf-16-be"),
        (RUSSIAN.encode("utf-16-le"), "iso-8859-1", "utf-16-le"),
        (b'<!-- <meta charset="koi8-r"> --><p>' + RUSSIAN.encode(), None, "utf-8"),
        (
            b"<!--[if IE]><meta charset=koi8-r><![endif]--><meta charset=windows-1251>" + RUSSIAN.encode("cp1251"),
            None,
            "cp1251",
        ),
        (b"<!--><meta charset=koi8-r>" + RUSSIAN.encode("koi8-r"), None, "koi8-r"),
        (b"<!-- <meta charset=koi8-r>" + RUSSIAN.encode(), None, "utf-8"),
        (b"<meta charset=koi8-r><meta charset=windows-1251>" + RUSSIAN.encode("koi8-r"), None, "koi8-r"),
        (b"<p>" + b" " * 5000 + b"<meta charset=koi8-r>" + RUSSIAN.encode(), None, "utf-8"),
        (RUSSIAN.encode(), "utf-7", "utf-8"),
        (RUSSIAN.encode(), "unicode_escape", "utf-8"),
        (RUSSIAN.encode(), "no-such-charset", "utf-8"),
    ],
)
def test_the_charset_that_is_trusted(payload: bytes, declared: str | None, charset: str) -> None:
    text, found = decode(payload, declared)
    assert found == charset
    assert text.endswith(RUSSIAN)


@pytest.mark.parametrize("label", ["utf-16", "utf-16le", "utf-16be"])
@pytest.mark.parametrize("padding", ["", " "])  # an even number of bytes is valid UTF-16, of Chinese characters
def test_a_page_in_ascii_is_not_in_utf16_whatever_it_says(label: str, padding: str) -> None:
    page = f'<html><meta charset="{label}"><p>Hello.</p>{padding}'
    assert decode(page.encode()) == (page, "utf-8")
    assert decode(b"plain words" + padding.encode(), label) == (f"plain words{padding}", "utf-8")


LATIN = st.text(
    st.characters(
        max_codepoint=0x24F, exclude_categories=["Cc", "Cs"], exclude_characters="ĀȀ", include_characters="\t\r\n"
    ),
    min_size=1,
)


@given(text=LATIN, codec=st.sampled_from(["utf-16-le", "utf-16-be"]), cut=st.integers(0, 3))
@settings(deadline=None)
def test_utf16_without_a_mark_is_told_by_its_nuls(text: str, codec: str, cut: int) -> None:
    text = f"word {text}"
    data = text.encode(codec)
    assert utf16_of(data[: len(data) - cut]) == codec
    assert decode(data) == (text, codec)
    assert not is_binary(data)


@given(st.binary(max_size=300))
@settings(deadline=None)
def test_a_stray_nul_makes_no_text_utf16(data: bytes) -> None:
    data = data.replace(b"\0", b"a") + b"words " * 30 + b"\0"
    assert (utf16_of(data) is not None) == data.startswith(MARKS)


@given(st.text(st.characters(exclude_categories=[])))
@settings(deadline=None)
def test_clean_text_can_be_written_and_cleaning_again_changes_nothing(text: str) -> None:
    clean = clean_text(text)
    clean.encode("utf-8")
    assert "\0" not in clean
    assert "\r" not in clean
    assert clean_text(clean) == clean


def test_clean_text_keeps_what_surrounds_a_lone_surrogate() -> None:
    assert clean_text("a\ud800b\0c\r\nd") == "a\ufffdbc\nd"
