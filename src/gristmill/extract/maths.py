"""Formulas: found in a page before the extractor sees it, put back into the text after.

Extractors keep hardly any formula: they discard scripts, alternative texts and MathML. So each formula is
taken out of the tree here and a word that occurs nowhere in the page is left in its place; the extractor carries the
words, and `put_back` writes `$..$`, or `$$..$$` on a line of its own. A formula in a part that the extractor drops
is dropped with it, and counted.

Kinds of markup, counted apart: mathml (annotation, alttext or converted), script (math/tex), asciimath (math/asciimath, between
backticks as AsciiMath writes formulas), image (alternative text), delimiters (\\( \\), \\[ \\], $$ $$, and environments such as
\\begin{align}, in the text of pages that load MathJax or KaTeX).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

from selectolax.lexbor import LexborHTMLParser

from gristmill.extract.formula_places import show_as_text
from gristmill.extract.mathml import mathml_to_latex

_SIGNS = (b"<math", b"math/tex", b"math/asciimath", b"mwe-math", b"mjx-", b"codecogs", b"mimetex", b"latex.php")
_NEEDLES = (
    b"math",
    b"mjx-",
    b"codecogs",
    b"atex",
    b"etex",
    b"<su",
    b'tex"',
    b"tex'",
    b"tex ",
)  # each sign has one of them
_LOADERS = (b"mathjax", b"katex")
_OPENINGS = ("\\(", "\\[", "$$", "\\begin{")
_OPENING_BYTES = (
    *(opening.encode() for opening in _OPENINGS),
    b"&#92;",
    b"&#x5c;",
    b"&bsol;",
    b"&#36;",
    b"&#x24;",
    b"&dollar;",
)
_CLASS = re.compile(rb"class=[\"'](?:[\w\x80-\xff-]+ )*(?:tex|latex|math)[ \"']")
_SUP_OR_SUB = re.compile(rb"<su[bp]\b")
_WRAPPER_CLASSES = frozenset(["katex-display", "katex", "mwe-math-element", "MathJax_Display", "MathJax"])
_IMAGE_CLASSES = frozenset(
    ["tex", "latex", "math", "mwe-math-fallback-image-inline", "mwe-math-fallback-image-display"]
)
_IMAGE_SOURCES = re.compile(
    r"codecogs|mimetex|mathtex|latex\.php|/math/render/|chart\.googleapis.*cht=tx", re.IGNORECASE
)
_DELIMITED = re.compile(
    r"\\\((.{1,2000}?)\\\)|\\\[(.{1,5000}?)\\\]|(?<!\$)\$\$([^$]{1,5000})\$\$|"
    r"(\\begin\{((?:equation|align|alignat|eqnarray|flalign|gather|multline)\*?)\}.{1,5000}?\\end\{\5\})",
    re.DOTALL,
)
_SUP_TEXT = re.compile(r"[-+−]?[0-9]{1,4}|[-+−]?[a-zA-Z]|[0-9a-zA-Z][-+−][0-9a-zA-Z]|[-+−]")
_SUB_TEXT = re.compile(r"[0-9a-zA-Z]{1,3}|[0-9a-zA-Z][-+−][0-9a-zA-Z]")
_VERBATIM = frozenset(["code", "pre", "script", "style", "textarea", "kbd", "samp", "title"])
MAX_FORMULAS = 20_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Formula:
    """LaTeX without delimiters; `display` ones get a line of their own. Of kind asciimath: AsciiMath, which stays as it is."""

    latex: str
    display: bool
    kind: str

    def __str__(self) -> str:
        sign = "`" if self.kind == "asciimath" else "$$" if self.display else "$"
        return f"{sign}{self.latex}{sign}"


@dataclass(frozen=True, kw_only=True, slots=True)
class TakenOut:
    """A page whose formulas are words `<stem><number>z`; put them back with `put_back`."""

    html: str
    stem: str
    formulas: tuple[Formula, ...]

    def counts(self) -> Counter[str]:
        """Formulas found, by kind of markup."""
        return Counter(formula.kind for formula in self.formulas)


def take_out(html: str, lowered: bytes | None = None) -> TakenOut:
    """The page with each formula replaced by a word; the page as it is when it shows no sign of formulas. lowered: it in UTF-8 and lower
    case, where the caller has that.

    Also writes short superscripts and subscripts that are no footnotes as x^2 and a_i, since extractors join them to
    the word before.
    """
    lowered = html.encode("utf-8", "surrogatepass").lower() if lowered is None else lowered
    if not _has_signs(lowered):
        return TakenOut(html=html, stem="", formulas=())
    tree = LexborHTMLParser(html)
    taker = _Taker(stem=unused_word(lowered, "formulaq"))
    scripts = tree.css('script[type^="math/tex"], script[type^="math/asciimath"]')
    if scripts:
        for node in tree.css(".MathJax_Preview, .MathJax_Display, span.MathJax, .MathJax_CHTML, .MathJax_SVG"):
            node.decompose()
        for node in scripts:
            written_as = node.attributes.get("type") or ""
            kind = "asciimath" if written_as.startswith("math/asciimath") else "script"
            taker.take(node, node.text(deep=True), "mode=display" in written_as, kind)
    else:
        for node in tree.css(".MathJax_Preview"):
            node.decompose()
    _take_mathml(tree, taker)
    for node in tree.css("img[alt]"):
        _take_image(node, taker)
    if _loads_maths(lowered):
        _take_delimited(tree, taker)
    show_as_text(tree, list(taker.parents.values()), rf"{taker.stem}\d+z")
    num_scripts = _write_scripts(tree)
    if not taker.formulas and not num_scripts:
        return TakenOut(html=html, stem="", formulas=())
    return TakenOut(html=tree.html or "", stem=taker.stem, formulas=tuple(taker.formulas))


def _has_signs(lowered: bytes) -> bool:
    """Whether a page may hold formulas, or superscripts that are written as such: by plain searches, since nearly every page has none."""
    return any(needle in lowered for needle in _NEEDLES) and (
        any(sign in lowered for sign in _SIGNS)
        or (_loads_maths(lowered) and any(opening in lowered for opening in _OPENING_BYTES))
        or _SUP_OR_SUB.search(lowered) is not None
        or _CLASS.search(lowered) is not None
    )


def _loads_maths(lowered: bytes) -> bool:
    """Whether the page loads MathJax or KaTeX, which typeset what stands between delimiters in its text."""
    return any(loader in lowered for loader in _LOADERS)


def put_back(text: str, taken: TakenOut) -> tuple[str, Counter[str]]:
    """The extracted text with its formulas, and how many of them it holds, by kind. A formula is written once; in the row of a table, on
    its line."""
    if not taken.formulas:
        return text, Counter()
    written: set[int] = set()

    def write(match: re.Match[str]) -> str:
        index = int(match.group(2))
        if index >= len(taken.formulas):
            return match.group(0)
        written.add(index)
        formula = taken.formulas[index]
        if not formula.display or match.string.startswith("| "):
            return f"{match.group(1)}{formula}{match.group(3)}"
        before = "" if match.start() == 0 else "\n"
        after = "" if match.end() == len(match.string) else "\n"
        return f"{before}{formula}{after}"

    word = re.compile(rf"([ \t]{{0,4}}){taken.stem}(\d{{1,6}})z([ \t]{{0,4}})")
    result = "\n".join(word.sub(write, line) if taken.stem in line else line for line in text.split("\n"))
    return result, Counter(taken.formulas[index].kind for index in written)


class _Taker:
    """Collects formulas and leaves words in the tree."""

    def __init__(self, *, stem: str) -> None:
        self.stem = stem
        self.formulas: list[Formula] = []
        self.parents: dict[int, Any] = {}

    def word(self, latex: str, display: bool, kind: str) -> str | None:
        """Registers a formula and returns its word; None for an empty one or beyond MAX_FORMULAS."""
        latex = _tidy(latex)
        if not latex or len(self.formulas) >= MAX_FORMULAS:
            return None
        self.formulas.append(Formula(latex=latex, display=display, kind=kind))
        return f"{self.stem}{len(self.formulas) - 1}z"

    def take(self, node: Any, latex: str, display: bool, kind: str) -> None:
        word = self.word(latex, display, kind)
        if word is not None:
            self.replace(node, f" {word} " if display else word)

    def replace(self, node: Any, text: str) -> None:
        if node.parent is not None:
            self.parents[node.parent.mem_id] = node.parent
        node.replace_with(text)


def unused_word(lowered: bytes, stem: str) -> str:
    """The stem with as many q after it as it takes to be nowhere in the page. lowered: it in UTF-8 and lower case."""
    while stem.encode() in lowered:
        stem += "q"
    return stem


def _take_mathml(tree: LexborHTMLParser, taker: _Taker) -> None:
    for node in tree.css("math"):
        wrapper, display = node, (node.attributes.get("display") or "") == "block"
        parent, climbed = node.parent, 0
        while parent is not None and climbed < 8:
            classes = _classes(parent)
            if parent.tag == "mjx-container" or _WRAPPER_CLASSES.intersection(classes):
                wrapper = parent
            display = display or "katex-display" in classes or (parent.attributes.get("display") or "") == "true"
            parent, climbed = parent.parent, climbed + 1
        taker.take(wrapper, _latex_of(node), display, "mathml")


def _latex_of(math: Any) -> str:
    for annotation in math.css("annotation"):
        if "tex" in (annotation.attributes.get("encoding") or "").lower():
            return str(annotation.text(deep=True))
    return math.attributes.get("alttext") or mathml_to_latex(math)


def _take_image(node: Any, taker: _Taker) -> None:
    attributes, classes = node.attributes, _classes(node)
    display = "mwe-math-fallback-image-display" in classes or _is_in_math_division(node)
    if display or _IMAGE_CLASSES.intersection(classes) or _IMAGE_SOURCES.search(attributes.get("src") or ""):
        taker.take(node, attributes.get("alt") or "", display, "image")


def _is_in_math_division(node: Any) -> bool:
    """Whether an image stands in `<div class="math">`, or in a paragraph there, as Sphinx writes display formulas."""
    above = [node.parent, node.parent.parent if node.parent is not None else None]
    return any(one is not None and one.tag == "div" and "math" in _classes(one) for one in above)


def _classes(node: Any) -> list[str]:
    return (node.attributes.get("class") or "").split()


def _take_delimited(tree: LexborHTMLParser, taker: _Taker) -> None:
    body = tree.body
    if body is None:
        return
    for node in [node for node in body.traverse(include_text=True) if node.tag == "-text"]:
        text = node.text(deep=True)
        if any(opening in text for opening in _OPENINGS) and not _is_verbatim(node):
            written = _DELIMITED.sub(lambda match: _delimited_word(match, taker), text)
            if written != text:
                taker.replace(node, written)


def _delimited_word(match: re.Match[str], taker: _Taker) -> str:
    inline, *displayed, _ = match.groups()
    latex = inline if inline is not None else next(group for group in displayed if group is not None)
    word = taker.word(latex, inline is None, "delimiters")
    if word is None:
        return match.group(0)
    return word if inline is not None else f" {word} "


def _is_verbatim(node: Any) -> bool:
    parent, climbed = node.parent, 0
    while parent is not None and climbed < 50:
        if parent.tag in _VERBATIM:
            return True
        parent, climbed = parent.parent, climbed + 1
    return False


def _write_scripts(tree: LexborHTMLParser) -> int:
    """Replaces <sup>2</sup> by ^2 and <sub>i</sub> by _i where the content is short and no link; returns how many."""
    count = 0
    for node in tree.css("sup, sub"):
        text = node.text(deep=True).strip()
        pattern = _SUP_TEXT if node.tag == "sup" else _SUB_TEXT
        if pattern.fullmatch(text) and node.css_first("a") is None and not _is_linked(node):
            node.replace_with(("^" if node.tag == "sup" else "_") + (text if len(text) == 1 else f"{{{text}}}"))
            count += 1
    return count


def _is_linked(node: Any) -> bool:
    return node.parent is not None and (node.parent.tag == "a" or node.parent.tag in _VERBATIM)


def _tidy(latex: str) -> str:
    """One formula on one line, without delimiters, comment marks of old XHTML pages or Wikipedia's wrapper."""
    latex = latex.replace("% <![CDATA[", "").replace("%]]>", "").strip()
    for opening, closing in (("\\(", "\\)"), ("\\[", "\\]"), ("$$", "$$"), ("$", "$")):
        if latex.startswith(opening) and latex.endswith(closing) and len(latex) >= len(opening) + len(closing):
            latex = latex[len(opening) : -len(closing)]
    for wrapper in ("{\\displaystyle ", "{\\textstyle "):
        if latex.startswith(wrapper) and latex.endswith("}"):
            latex = latex[len(wrapper) : -1]
    lines = (re.sub(r"(?<!\\)%.*", "", line) for line in latex.splitlines())
    return " ".join(" ".join(lines).split())
