"""Manual pages: the words in their order, whatever macros, strings and conditions set them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accounting import read_whole, texts
from gristmill.data.record import Skip
from gristmill.formats.manual_page import text_of
from gristmill.recipe.schema.formats import READERS, ReadMan, reader_of

WORD = st.text("abc", min_size=1, max_size=5)
WORDS = st.lists(WORD, min_size=1, max_size=4).map(" ".join)
SET = {
    "text": "{}",
    "font": r"\fB{}\fP\&",
    "bold": ".B {}",
    "heading": ".SH {}",
    "paragraph": ".PP\n{}",
    "tag": ".TP\n.B {}",
    "item": ".IP {} 4",
    "literal": ".nf\n{}\n.fi",
    "size": r"\s-1{}\s0",
    "comment": '.\\" no words of it\n{} \\" nor these',
    "true": ".if n \\{{\\\n{}\n.\\}}",
    "false": ".if t .B no words\n.ie !n \\{{\\\n.B nor\nthese\n.\\}}\n.el {}",
    "string": ".ds xx {}\n\\*(xx",
    "macro": ".de ZZ\n.I \\\\$1 \\\\$2 \\\\$3 \\\\$4\n..\n.ZZ {}",
    "number": ".nr x 2+3*2\n.if (\\nx=10) {}",
}  # fmt: skip


@given(parts=st.lists(st.tuples(st.sampled_from([*SET]), WORDS), max_size=12))
@settings(deadline=None, max_examples=150)
def test_the_words_come_in_order_and_nothing_else(parts: list[tuple[str, str]]) -> None:
    given_words = [word for kind, words in parts for word in (words.split()[:1] if kind == "item" else words.split())]
    page = "\n".join([".TH X 1", *(SET[kind].format(words) for kind, words in parts)])
    assert text_of(page).text.split() == given_words


def test_a_page_in_man_is_headings_paragraphs_tags_and_literal_lines() -> None:
    page = r"""'\" t
.TH GRIND 1 2026-11-29 "grist 1" "User Commands"
.SH NAME
grind \- turn grain
into \(lqflour\(rq
.SH SYNOPSIS
.B grind
[\fB\-c\fR] \fIgrain\fR ...
.SH DESCRIPTION
.PP
See
.BR sieve (1),
or \(<<\f[B]x\f[]\(>>, at 20\(deC \- \(co \['e]\(:u \[u2014] C:\e \&.
.TP
.B \-c
coarse
.TQ
.BI \-\-count= n
so many
.IP \(bu 2
first
.IP "a longer tag"
.I second
.nf

    keep   this
.fi
.SS More
Write to
.UR https://example.org
us
.UE .
"""
    assert text_of(page).text.split("\n") == [
        "NAME", "grind - turn grain into “flour”", "",
        "SYNOPSIS", "grind [-c] grain ...", "",
        "DESCRIPTION", "See sieve(1), or x, at 20°C - © éü — C:\\ .", "",
        "-c", "coarse", "--count=n", "so many", "",
        "• first", "",
        "a longer tag", "second", "", "    keep   this", "",
        "More", "Write to us <https://example.org>.",
    ]  # fmt: skip


def test_a_page_in_mdoc_is_too() -> None:
    page = r""".Dd November 29, 2026
.Dt GRIND 1
.Os
.Sh NAME
.Nm grind
.Nd turn grain into flour
.Sh SYNOPSIS
.Nm
.Op Fl cv
.Op Fl Fl count Ns = Ns Ar n
.Ar
.In mill.h
.Ft int
.Fn grind "int n" "char *s"
.Sh DESCRIPTION
The
.Nm
utility (see
.Xr sieve 1 ,
.Pa /etc/mill )
grinds.
.Bl -tag -width Ds
.It Fl c
coarse
.It Fl o Xo
.Oo Ar user Ns @ Oc Ns Ar host
.Xc
long
.El
.Bl -bullet
.It
.Dq one
.It
two
.El
.Bd -literal
a  b
.Ed
.Ex -std
"""
    assert text_of(page).text.split("\n") == [
        "NAME", "grind — turn grain into flour", "",
        "SYNOPSIS", "grind [-cv] [--count=n] file ...", "#include <mill.h>", "int", "grind(int n, char *s);", "",
        "DESCRIPTION", "The grind utility (see sieve(1), /etc/mill) grinds.", "",
        "-c", "coarse", "", "-o [user@]host", "long", "",
        "• “one”", "", "• two", "", "a  b", "",
        "The grind utility exits 0 on success, and >0 if an error occurs.",
    ]  # fmt: skip


def test_what_is_drawn_is_left_out_and_counted(tmp_path: Path) -> None:
    table = ".TS\nallbox;\nl l.\nano\ttwo\n.TE\n"
    (tmp_path / "x.7").write_text(f".TH X 7\n.SH ONE\nbefore\n{table}behind\n.EQ\nx sup 2\n.EN\nend\n")
    found = read_whole("man", tmp_path / "x.7")
    assert texts(found) == ["ONE\nbefore behind end"]
    assert {one.reason: one.num_bytes for one in found if isinstance(one, Skip)} == {
        "table": len(table),
        "equation": 16,
    }


def test_a_string_is_read_as_a_copy_and_a_character_by_its_number() -> None:
    page = ".TH X 1\n.ds T< \\\\fB\n.ds T> \\\\fP\n\\*(T<set\\*(T> or \\[char94]net \\[char7]\n"
    assert text_of(page).text == "set or ^net"


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (b".so man1/other.1\n", "link_to_page"),
        (b"Version 2.1: a letter to nobody.\n", "no_manual_page"),
        (b"\x7fELF\2\1\1" + bytes(90), "binary_file"),
        (b".TH X 1\n.de A\n.A\n.A\n..\n.A\n", "endless_macro"),
        (b".TH X 1\n.ds a " + b"x" * 900 + b"\n" + b".as a \\*a\\*a\\*a\n" * 20, "endless_macro"),
    ],
)
def test_what_is_no_page_has_a_reason(tmp_path: Path, page: bytes, reason: str) -> None:
    (tmp_path / "x.1.gz").write_bytes(gzip.compress(page))
    assert texts(read_whole("man", tmp_path / "x.1.gz")) == [f"!{reason}"]


def test_a_page_in_another_charset_is_decoded(tmp_path: Path) -> None:
    (tmp_path / "x.1").write_bytes(".TH X 1\n.SH NAME\nmühle \\- mahlt Körner für die Bäckerei\n".encode("latin-1"))
    assert texts(read_whole("man", tmp_path / "x.1")) == ["NAME\nmühle - mahlt Körner für die Bäckerei"]


@pytest.mark.parametrize(
    "name",
    ["ls.1", "style.9", "after.3tcl", "Bio::Seq.3pm", "ifconfig.8freebsd", "req.1ssl", "stdio.0p", "button.n", "X.3Xt"],
)
def test_sections_with_letters_are_known_plain_and_packed(name: str) -> None:
    suffix = name[name.rindex(".") :]
    for packing in ("", ".gz", ".zst"):
        assert reader_of(name + packing) is ReadMan
        assert ReadMan.suffix_in(name + packing) == suffix + packing


@pytest.mark.parametrize(
    "name", ["film.3gp", "all.7z", "part.7z.zst", "model.3ds", "read.1st", "notes.12a", "a.1-2", "1ssl"]
)
def test_other_suffixes_that_begin_with_a_digit_are_no_sections(name: str) -> None:
    assert not any(reader.suffix_in(name) for reader in READERS.values())
