"""Subtitles: the words of all cues in their order, whatever numbers, times and tags lie between them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole, texts
from gristmill.formats.subtitles import words_of

WORD = st.text("abcé'", min_size=1, max_size=5) | st.sampled_from(["1984", "3", "7:30", "<", "a>b", "&"])
CUES = st.lists(st.lists(st.lists(WORD, min_size=1, max_size=4).map(" ".join), min_size=1, max_size=2), max_size=8)


def subrip(cues: list[list[str]], end: str) -> str:
    blocks = [
        [str(n), f"00:0{n}:01,000 --> 00:0{n}:02,500", *(f"<i>{line}</i>" for line in cue)]
        for n, cue in enumerate(cues, 1)
    ]
    return f"{end}{end}".join(end.join(block) for block in blocks) + end


def webvtt(cues: list[list[str]], end: str) -> str:
    escaped = [[line.replace("&", "&amp;").replace("<", "&lt;") for line in cue] for cue in cues]
    blocks = [
        [f"0{n}:01.000 --> 0{n}:02.500 align:start", *(f"<v Anna><00:01.000>{line}" for line in cue)]
        for n, cue in enumerate(escaped, 1)
    ]
    head = ["WEBVTT - a film", "", "NOTE", "no words of it", "", "STYLE", "::cue {color: red}", ""]
    return end.join([*head, *(f"{end}".join([*block, ""]) for block in blocks)])


@given(cues=CUES, write=st.sampled_from([subrip, webvtt]), end=st.sampled_from(["\n", "\r\n"]))
@settings(deadline=None, max_examples=150)
def test_the_words_of_the_cues_come_in_order_and_nothing_else(cues: list[list[str]], write: object, end: str) -> None:
    numbered = [[f"w{number}", *cue] for number, cue in enumerate(cues)]
    found = words_of(write(numbered, end))  # type: ignore[operator]
    assert (found is None) == (not cues)
    assert (found or "").split() == " ".join(" ".join(cue) for cue in numbered).split()


def test_sentences_go_on_over_cues_and_end_lines() -> None:
    text = "1\n00:00:01,000 --> 00:00:02,000\n{\\an8}The miller walked\ndown to\n\n2\n00:00:02,000 --> 00:00:03,000\nthe river.\n\n"
    text += "3\n00:00:04,000 --> 00:00:05,000\n- Where to?\n\n4\n00:00:05,000 --> 00:00:06,000\n- Home\n\n5\n00:00:06,100 --> 00:00:07,000\n- Home\n"
    assert words_of(text) == "The miller walked down to the river.\n- Where to?\n- Home"


@pytest.mark.parametrize("charset", ["utf-8-sig", "utf-16", "cp1252"])
def test_a_file_is_a_document_in_any_charset_or_a_reason(tmp_path: Path, charset: str) -> None:
    words = "Ein Müller ging über die Brücke, und früh am Morgen hörte er das Wasser."
    data = subrip([[words]], "\n").encode(charset)
    (tmp_path / "x.srt.gz").write_bytes(gzip.compress(data))
    assert texts(read_whole("subtitles", tmp_path / "x.srt.gz")) == [words]
    (tmp_path / "x.srt.gz").write_bytes(gzip.compress(data)[:-9])
    assert texts(read_whole("subtitles", tmp_path / "x.srt.gz")) == ["!corrupt_gzip"]
    (tmp_path / "y.srt").write_bytes(b"A letter to nobody.\n")
    assert texts(read_whole("subtitles", tmp_path / "y.srt")) == ["!no_cues"]
