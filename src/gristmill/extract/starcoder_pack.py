"""StarCoder's rules about files of source code, by their extension.

Sources: the table of extensions that BigCode published with its filters (`preprocessing/visual_inspection.csv` of bigcode-dataset, a row
a language and extension), for StarCoder (Li et al. 2023, arXiv 2305.06161, section 3). Comments: SantaCoder (Ben Allal et al. 2023,
arXiv 2301.03988, section 3). Sizes of data files: as DeepSeek-Coder restates StarCoder's rules (Guo et al. 2024, arXiv 2401.14196,
section 2.1).

The table is by language and extension; a file's language is known here by its extension only. So rows are left out whose extension is
that of another language: .1, .3 and .mustache of Dockerfiles, .cmake and .txt of makefiles; of files without an extension only those
named Dockerfile and Makefile are known.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable
from dataclasses import replace

from gristmill.extract.comments import comment_share
from gristmill.extract.measures import Measures
from gristmill.extract.rules import Rule, at_least, at_most

# Extensions that are kept; a file of any other is dropped.
_INCLUDED = """
    ada adb ads agda als g4 applescript scpt a51 asm nasm aug auk awk gawk mawk nawk bat cmd bsv c h cake cs cshtml
    c++ cc cp cpp cxx h++ hh hpp hxx inl ipp tcc tpp boot clj cljc cljs cljx cmake _coffee cjsx coffee cson iced asd
    lisp lsp ny css cu cuh dart dockerfile ex exs elm el emacs erl escript hrl yrl fs fsi fsx f f03 f08 f90 f95 for
    fpp fp frag fsh fshader geom glsl glslv shader vert vsh vshader go groovy gtpl gvy hs hsc htm html xht xhtml idr
    lidr thy java jsp es6 js jsm pac sjs xsjslib jl json kt kts hlean lean lagda litcoffee lhs lua nse wlua mak
    makefile mk mpl markdown md mkd mkdn ron ma mathematica mt nb wl matlab eliom eliomi ml ml4 mli mll mly dfm lpr pas
    perl pl pm psgi t ctp php phpt ps1 psd1 psm1 prolog yap proto bzl gyp py pyde pyw r rd rsx scrbl rst rmd builder
    gemspec jbuilder podspec rabl rake rb rbw ru ruby thor rs sas sbt scala scm sld sps bash bats command ksh sh
    tmux tool zsh st sol rq sparql cql db2 ddl pkb pks plb plsql prc sql udf stan fun sml ado do doh mata matah sv
    svh vh adp tcl tm csh tcsh bbx bib cbx dtx ins lbx mkii mkiv mkvi sty tex thrift ts tsx veo vhd vhdl vhi vho vhw
    bas frm vb vba vbhtml vbs xsl xslt y yacc yaml yml zig
"""
INCLUDED = frozenset(_INCLUDED.split())
_ANY_LINES = """
    asm bsv cmake markdown md mkd mkdn ron ma nb matlab r rst rmd sql ado do bbx bib cbx dtx ins lbx mkii mkiv mkvi
    sty tex frm json
"""
ANY_LINES = frozenset(_ANY_LINES.split())
LONGEST_LINE = {"fsh": 500.0}
ANY_CHARACTERS = frozenset({"ma", "nb", "sas", "frm"})
LETTERS = dict.fromkeys(
    ["ads", "aug", "fp", "mpl", "ma", "nb", "wl", "matlab", "scm", "sld", "sps", "prc", "sv", "vhd", "bas", "y"], 0.25
)
LETTERS |= dict.fromkeys(("json", "yaml", "yml"), 0.5)
XML_LANGUAGES = frozenset({"xsl", "xslt"})
PAGES = frozenset({"htm", "html", "xht", "xhtml"})
DATA = frozenset({"json", "yaml", "yml"})

_NOT_SHOWN = re.compile(
    r"<(script|style)\b.*?(?:</\1\s*>|\Z)|<!--.*?(?:-->|\Z)|<[a-z/!?][^>]*(?:>|\Z)", re.DOTALL | re.IGNORECASE
)


@functools.lru_cache(maxsize=1)  # two rules ask it of a file
def visible_text(page: str) -> str:
    """The text of a page of HTML between its tags, without scripts and styles."""
    return html.unescape(_NOT_SHOWN.sub("", page))


def _lines(text: Measures) -> list[int]:
    return [*map(len, text.text.splitlines())] or [0]


def _share(text: Measures, holds: Callable[[str], bool]) -> float:
    return sum(map(holds, text.text)) / text.num_characters


def _where(extensions: frozenset[str] | dict[str, float], rule: Rule) -> Rule:
    """The rule, for files with these extensions; by their own limits where they have some."""
    limits = extensions if isinstance(extensions, dict) else dict.fromkeys(extensions, rule.limit)
    return replace(rule, limit_of=lambda text: limits.get(text.extension))


_LINED = dict.fromkeys(INCLUDED - ANY_LINES, 1000.0) | LONGEST_LINE
_COMMENTED = frozenset({"bzl", "gyp", "py", "pyde", "pyw", "java", "es6", "js", "jsm", "pac", "sjs", "xsjslib"})

STARCODER = (
    at_most("unlisted_extension", 0, lambda text: float(text.extension not in INCLUDED)),
    _where(_LINED, at_most("line_too_long", 1000, lambda text: max(_lines(text)))),
    _where(
        INCLUDED - ANY_LINES,
        at_most("lines_too_long_on_average", 100, lambda text: sum(_lines(text)) / len(_lines(text))),
    ),
    _where(
        INCLUDED - ANY_CHARACTERS, at_least("too_few_letters_and_digits", 0.25, lambda text: _share(text, str.isalnum))
    ),
    _where(LETTERS, at_least("too_few_letters", 0.25, lambda text: _share(text, str.isalpha))),
    _where(_COMMENTED, at_least("too_few_comments", 0.01, lambda text: comment_share(text.text, text.extension))),
    _where(_COMMENTED, at_most("too_many_comments", 0.8, lambda text: comment_share(text.text, text.extension))),
    _where(INCLUDED - XML_LANGUAGES, at_most("xml_header", 0, lambda text: float("<?xml version=" in text.text[:100]))),
    _where(
        PAGES,
        at_least("too_little_visible_text", 0.2, lambda text: len(visible_text(text.text)) / text.num_characters),
    ),
    _where(PAGES, at_least("too_few_visible_characters", 100, lambda text: len(visible_text(text.text)))),
    _where(DATA, at_least("data_file_too_short", 50, lambda text: len(text.text))),
    _where(DATA, at_most("data_file_too_long", 5000, lambda text: len(text.text))),
)
