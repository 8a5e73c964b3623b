"""The main text of a page, the pages that are refused, and formulas that survive, one per kind of markup."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from selectolax.lexbor import LexborHTMLParser

from gristmill.extract.main_text import Extractor, find_main_text, join_source_lines
from gristmill.extract.maths import _SIGNS, _has_signs, put_back, take_out
from gristmill.extract.nesting import _most, deepest_nesting, is_deeper

EXTRACTORS: tuple[Extractor, ...] = ("trafilatura", "resiliparse")
PARAGRAPH = (
    "<p>" + "This is a plain paragraph about the work of millers, long enough to be the main text. " * 3 + "</p>"
)


def page(middle: str, head: str = "") -> str:
    return (
        f"<html><head><title>Mills</title>{head}</head><body><nav><a href='/'>Home</a><a href='/x'>Menu item</a></nav>"
        f"<article><h1>Heading</h1>{PARAGRAPH}<p>We know that {middle} holds for all of the numbers in this example.</p>"
        f"{PARAGRAPH.replace('plain', 'second')}</article><footer>Imprint and cookies</footer></body></html>"
    )


@pytest.mark.parametrize("extractor", EXTRACTORS)
def test_the_article_stays_and_the_frame_goes(extractor: Extractor) -> None:
    found = find_main_text(page("this"), extractor=extractor)
    assert found.reason is None
    assert "We know that this holds for all" in found.text
    assert "Menu item" not in found.text


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("html", ["", "<html></html>", "<script>x</script>", "\0"])
def test_a_page_without_text_is_empty_main_text(extractor: Extractor, html: str) -> None:
    found = find_main_text(html, extractor=extractor)
    assert (found.text, found.reason) == ("", "empty_main_text")


@given(
    st.lists(
        st.sampled_from(
            ["<p>", "</p>", "<math>", "<mfrac>", "<sup>", "text ", "\\(", "<!--", "&lt;", "<", "\0", "\ud800"]
        )
    )
)
@settings(deadline=None, max_examples=100)
def test_any_soup_gets_an_answer(parts: list[str]) -> None:
    for extractor in EXTRACTORS:
        found = find_main_text("".join(parts), extractor=extractor)
        assert (found.reason is None) == (found.text != "")
        found.text.encode("utf-8")


@pytest.mark.parametrize(
    "run",
    [" ", "\n", "<", "<!--", "<pre>", "<pre", "</pre>", "&", "&amp;", "\\(", "$$", "<su", "math ", "\\begin{align}"],
)
def test_long_runs_take_linear_time(run: str) -> None:
    # Nothing is timed: a scan that is quadratic in one of these would take minutes.
    html = f"<script src='mathjax.js'></script>{PARAGRAPH}{run * (200_000 // len(run))}x{PARAGRAPH}"
    found = find_main_text(html, extractor="resiliparse")
    assert found.reason in (None, "nested_too_deeply", "empty_main_text")
    assert "plain" in join_source_lines(html)


def test_source_lines_are_joined_and_verbatim_elements_keep_theirs() -> None:
    html = "<p>one\n   two\n</p><PRE>a\n  b\n<b>\n</b></PRE><p>x\ny</p><textarea>\n"
    assert join_source_lines(html) == "<p>one two </p><PRE>a\n  b\n<b>\n</b></PRE><p>x y</p><textarea>\n"


def test_prose_is_not_hard_wrapped_and_code_is() -> None:
    code = "<pre>for x in y:\n    print(x)\n    print(y)</pre>"
    found = find_main_text(page(f"the\n   <i>value</i>\n   of it</p>{code}<p>also"))
    assert "We know that the value of it" in found.text
    assert "for x in y:\n    print(x)\n    print(y)" in found.text


def test_heading_permalinks_and_blanks_at_line_ends_are_taken_out() -> None:
    found = find_main_text(page("this").replace("Heading", "Heading<a href='#h'>¶</a>"))
    assert "¶" not in found.text
    assert all(line == line.rstrip() for line in found.text.split("\n"))


# ── refused before any parser sees them ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("html", "reason"),
    [
        ("<div>" * 100_000 + PARAGRAPH, "nested_too_deeply"),
        ("<b><i>" * 40_000 + PARAGRAPH, "nested_too_deeply"),
        ("<x-y>" * 1001 + PARAGRAPH, "nested_too_deeply"),
        ("<div " + "a=1 " * 200_000 + ">" + PARAGRAPH, "too_many_attributes"),
        ("".join(f"<body a{n}=1>" for n in range(5001)) + PARAGRAPH, "too_many_attributes"),
        ("".join(f"<HTML a{n}=1>" for n in range(5001)) + PARAGRAPH, "too_many_attributes"),
        ("a" * 10_000_001, "html_too_large"),
    ],
)
def test_hostile_pages_are_refused_before_they_are_parsed(html: str, reason: str) -> None:
    assert find_main_text(html).reason == reason  # parsers take minutes over most of them


def test_depth_is_not_fooled_by_void_and_self_closed_elements() -> None:
    assert deepest_nesting("<br>" * 2000 + "<p>x" * 2000 + '<svg><path d="x"/></svg>' * 2000 + "<br/>" * 2000) == 1
    assert deepest_nesting("<div><span>x</span><span>y</span></div>") == 2


PIECES = ["<div>", "</div>", "<P>", "</p>", "<svg><path/>", "</svg>", "<optgroup>", "</optgroup>", "<optgroups>", "<b", "<", "</", "<!--", "<li/>", "ü", "<a-b x='<i>'>", "</x\n>", "</div/>", "</b />", "<customelement>", "</customelement>", "</customelement/>", "<meta x>", "<br/>", "<tbody", "</tbody >", "<1>", "<html>"]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=60).map("".join), st.integers(0, 6))
def test_a_page_is_cleared_only_where_it_does_not_nest_deeper(html: str, bound: int) -> None:
    depth = deepest_nesting(html)
    lowered = html.encode().lower()
    assert _most(lowered) >= depth
    assert is_deeper(html, lowered, bound) == (depth if depth > bound else None)
    plain = re.sub(r"[\s/]*>", ">", html)
    assert _most(plain.encode().lower()) == deepest_nesting(plain)


def test_a_page_just_below_the_limits_is_read() -> None:
    found = find_main_text("<div>" * 200 + PARAGRAPH + "</div>" * 200, extractor="resiliparse")
    assert "plain paragraph" in found.text


# ── formulas ─────────────────────────────────────────────────────────────────────────────────────────────────────────

KATEX = (
    '<span class="katex"><span class="katex-mathml"><math><semantics><mrow><mi>a</mi></mrow>'
    '<annotation encoding="application/x-tex">\\frac{a}{b} &lt; c</annotation></semantics></math></span>'
    '<span class="katex-html" aria-hidden="true"><span class="mord">ab</span></span></span>'
)
WIKIPEDIA = (
    '<span class="mwe-math-element"><span class="mwe-math-mathml-inline" style="display: none;"><math alttext="x">'
    '<semantics><mi>r</mi><annotation encoding="application/x-tex">{\\displaystyle \\pi r^{2}}</annotation></semantics>'
    '</math></span><img src="x.svg" class="mwe-math-fallback-image-inline" alt="{\\displaystyle \\pi r^{2}}"></span>'
)
MATHJAX = '<script src="https://cdn.example/mathjax@3/tex.js"></script>'
FORMULAS = {
    "delimiters, inline": ("\\(a_i &lt; b\\)", "$a_i < b$", "delimiters"),
    "delimiters, display": ("\\[a_i = b\\]", "\n$$a_i = b$$\n", "delimiters"),
    "delimiters, dollars": ("$$a_i = b$$", "\n$$a_i = b$$\n", "delimiters"),
    "script": (
        '<span class="MathJax_Preview">junk</span><script type="math/tex">a^2 < b</script>',
        "$a^2 < b$",
        "script",
    ),
    "environment": (
        '<span class="math">\\begin{align}\ny_t &= e_t\\\\\nl_t &= e_t\n\\end{align}</span>',
        "\n$$\\begin{align} y_t &= e_t\\\\ l_t &= e_t \\end{align}$$\n",
        "delimiters",
    ),
    "AsciiMath": ('<script type="math/asciimath">sum_(i=1)^n i^3</script>', "`sum_(i=1)^n i^3`", "asciimath"),
    "script, display": ('<script type="math/tex; mode=display">\\sum_i i</script>', "\n$$\\sum_i i$$\n", "script"),
    "KaTeX": (KATEX, "$\\frac{a}{b} < c$", "mathml"),
    "KaTeX, display": (f'<span class="katex-display">{KATEX}</span>', "\n$$\\frac{a}{b} < c$$\n", "mathml"),
    "Wikipedia": (WIKIPEDIA, "$\\pi r^{2}$", "mathml"),
    "MathML, alttext": ('<math alttext="E=mc^2"><mi>E</mi></math>', "$E=mc^2$", "mathml"),
    "MathML alone": (
        "<math><msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><mfrac><mi>α</mi><msqrt><mi>b</mi></msqrt></mfrac></math>",
        "$x^2+\\frac{\\alpha}{\\sqrt{b}}$",
        "mathml",
    ),
    "MathJax 3": (
        '<mjx-container display="true"><mjx-math>glyphs</mjx-math><mjx-assistive-mml><math><mi>x</mi><mo>≤</mo>'
        "<mi>y</mi></math></mjx-assistive-mml></mjx-container>",
        "\n$$x\\le y$$\n",
        "mathml",
    ),
    "image": ('<img class="tex" alt="\\alpha+\\beta" src="x.png">', "$\\alpha+\\beta$", "image"),
    "image of a service": ('<img alt="x^2" src="https://latex.codecogs.com/gif?x^2">', "$x^2$", "image"),
}


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("markup", FORMULAS)
def test_formulas_in_are_formulas_out_for_each_markup(markup: str, extractor: Extractor) -> None:
    html, latex, kind = FORMULAS[markup]
    found = find_main_text(page(html, MATHJAX if kind == "delimiters" else ""), extractor=extractor)
    assert found.formulas_in == {kind: 1}
    assert found.formulas_out == {kind: 1}
    after, blank = ("", "") if latex.endswith("\n") else (" ", " ")
    assert f"We know that{blank}{latex}{after}holds for all of the numbers" in found.text


FUNCTION = (  # libflint-doc, fmpz.html
    '<dl class="c function"><dt>void _demote(<a class="reference internal" href="#c.fmpz_t">fmpz_t</a> f)'
    '<a class="headerlink" href="#c._demote">¶</a></dt><dd><p>Clears <span class="math">\\(f\\)</span>.</p></dd></dl>'
)
MANY_PARAGRAPHS = PARAGRAPH * 4  # among which an extractor has no need of divisions
PLACES = {
    "an image in a division": (  # python-sympy-doc, elementary.html
        '<div class="math-wrapper docutils container"><div class="math"><p><img src="../_images/math/df34.png" '
        'alt="\\operatorname{sinc}(x) =\n  \\frac{\\sin x}{x}"/></p></div></div>',
        ["\n$$\\operatorname{sinc}(x) = \\frac{\\sin x}{x}$$\n"],
    ),
    "divisions among paragraphs": (  # python-sklearn-doc, linear_model.html
        '<div class="math notranslate nohighlight">\n\\[\\hat{y} = w_0\\]</div>\n<!-- --><div>\\[w_1\\]</div>',
        ["\n$$\\hat{y} = w_0$$\n", "\n$$w_1$$\n"],
    ),
    "a list with many links": (FUNCTION, ["fmpz_t f)", "Clears $f$."]),
    "a list in one with many links": (FUNCTION.replace("</p></dd>", f"</p>{FUNCTION}</dd>"), ["Clears $f$."] * 2),
    "a section named like navigation": (  # python-statsmodels-doc, statespace_cycles.html
        '<section id="Trends-and-cycles"><h2>Cycles</h2><p>A time series <span>\\(y_t\\)</span> has both.</p></section>',
        ["Cycles", "A time series $y_t$ has both."],
    ),
}  # fmt: skip


@pytest.mark.parametrize("extractor", EXTRACTORS)
@pytest.mark.parametrize("place", PLACES)
def test_what_holds_formulas_is_text(place: str, extractor: Extractor) -> None:
    html, expected = PLACES[place]
    main = f"<div role='main'>{MANY_PARAGRAPHS}{html}{MANY_PARAGRAPHS}</div>"
    found = find_main_text(page(f"it</p>{main}<p>also", MATHJAX), extractor=extractor)
    assert found.formulas_in == found.formulas_out
    for words in set(expected):
        assert found.text.count(words) == expected.count(words)


PLACE_PIECES = ["<div>", "</div>", "<p>", "</p>", "<dl>", "</dl>", "<ul>", "</ul>", "<li>", "<section id=a>", "</section>", "<a href=x>", "</a>", "text ", "<script type='math/tex'>k</script>", "<math alttext=k></math>"]  # fmt: skip


def test_a_formula_in_a_link_does_not_make_navigation_text() -> None:
    entry = '<li><a class="reference internal" href="#x">Part <span>\\(p\\)</span></a></li>'
    contents = f'<ul>{entry}<li><a href="#sums">Sums</a></li></ul>'
    taken = take_out(page(contents, MATHJAX))
    assert len(taken.formulas) == 1
    assert taken.html.count("<a ") == page(contents).count("<a ")


@given(
    st.lists(
        st.sampled_from(PLACE_PIECES),
        max_size=40,
    ).map("".join)
)
@settings(deadline=None)
def test_taking_formulas_out_changes_no_word(html: str) -> None:
    taken = take_out(html)
    words = put_back(LexborHTMLParser(taken.html).body.text(), taken)[0]
    assert words.replace("$k$", "").split() == ["text"] * html.count("text ")
    assert words.count("$k$") == len(taken.formulas)


def test_many_formulas_in_one_page_all_come_out_once() -> None:
    html = page(" and ".join(f'<script type="math/tex">x_{{{n}}}</script>' for n in range(300)))
    found = find_main_text(html)
    assert found.formulas_in == found.formulas_out == {"script": 300}
    assert all(found.text.count(f"$x_{{{n}}}$") == 1 for n in range(300))


def test_a_formula_of_many_letters_takes_linear_time() -> None:
    # Nothing is timed: what is quadratic in the letters would take minutes.
    found = take_out(f"<math>{'<mi>α</mi><mi>x</mi>' * 100_000}</math>")
    assert found.formulas[0].latex == " ".join([r"\alpha"] + [r"x\alpha"] * 99_999 + ["x"])


def test_a_formula_in_the_frame_is_lost_and_counted() -> None:
    html = page("it").replace("Imprint", '<script type="math/tex">y</script>')
    found = find_main_text(html)
    assert (found.formulas_in, found.formulas_out) == ({"script": 1}, {})


def test_code_and_pages_without_mathjax_keep_their_backslashes() -> None:
    in_code = find_main_text(page("<code>re.sub('\\(a\\)')</code>", MATHJAX))
    assert "\\(a\\)" in in_code.text
    assert "\\(b\\)" in find_main_text(page("\\(b\\)")).text


def test_short_superscripts_are_written_and_footnotes_and_ordinals_are_not() -> None:
    taken = take_out(
        "<p>x<sup>2</sup> a<sub>ij</sub> 10<sup>-3</sup> 1<sup>st</sup> word<sup><a href='#n'>4</a></sup></p>"
    )
    assert "x^2 a_{ij} 10^{-3} 1<sup>st</sup> word<sup><a" in taken.html


SIGNS = re.compile(  # what the searches for single signs together mean
    r"<math|math/tex|math/asciimath|mwe-math|mjx-|codecogs|mimetex|latex\.php|"
    r"class=[\"'](?:[\w-]+ )*(?:tex|latex|math)[ \"']|<su[bp]\b",
    re.IGNORECASE,
)


@given(
    st.lists(
        st.sampled_from(
            [
                "<",
                "ma",
                "TH",
                "th",
                "/tex",
                "/asciimath",
                "katex",
                "MathJax",
                "\\",
                "(",
                "$",
                "&#92;",
                "class=",
                '"',
                "'",
                " ",
                "tex",
                "Latex",
                "math",
                "größe",
                "-",
                "<sup",
                "<su",
                "b",
                ">",
                "mjx-",
                ".php",
                "mime",
                "a",
            ]
        ),
        max_size=12,
    ).map("".join)
)
def test_a_page_is_looked_at_where_it_shows_a_sign(html: str) -> None:
    delimited = re.search("katex|mathjax", html, re.IGNORECASE) and re.search(r"\\[(\[]|\$\$|&#92;", html)
    assert _has_signs(html.encode().lower()) == bool(SIGNS.search(html) or delimited)


def test_a_page_without_formulas_is_not_touched() -> None:
    html = "<p class='text'>Some math textbooks & more</p>"
    assert take_out(html).html is html


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<>&")))
@settings(deadline=None)
def test_a_page_that_holds_our_own_words_is_not_fooled(text: str) -> None:
    taken = take_out(f"<p>formulaq0z {text}<math alttext='k'></math></p>")
    assert taken.stem not in "formulaq0z" + text
    assert put_back(f"formulaq0z {taken.stem}0z {taken.stem}7z", taken)[0] == f"formulaq0z $k$ {taken.stem}7z"


@pytest.mark.parametrize(
    ("mathml", "latex"),
    [
        ("<mi>sin</mi><mi>y</mi>", "\\sin y"),
        ("<mi>α</mi><mo>+</mo><mn>1</mn>", "\\alpha+1"),
        ("<mi>α</mi><mi>b</mi>", "\\alpha b"),
        ("<msubsup><mo>∑</mo><mrow><mi>i</mi><mo>=</mo><mn>1</mn></mrow><mi>n</mi></msubsup>", "\\sum_{i=1}^n"),
        ("<munderover><mo>∫</mo><mn>0</mn><mi>∞</mi></munderover>", "\\int_0^{\\infty}"),
        ("<mroot><mi>x</mi><mn>3</mn></mroot>", "\\sqrt[3]{x}"),
        ("<mover><mi>x</mi><mo>¯</mo></mover>", "\\bar{x}"),
        ("<mfenced open='['><mi>a</mi><mi>b</mi></mfenced>", "[a, b)"),
        ("<mfenced open='{' close='' separators=''><mi>a</mi><mi>b</mi></mfenced>", r"\{ab"),
        ("<mfenced open='⟨' close='⟩'><mi>a</mi></mfenced>", r"\langle a\rangle"),
        ("<mi>a</mi><mtext> </mtext><mi>b</mi>", "a b"),
        ("<mrow>a<mi>b</mi></mrow><msqrt>5</msqrt><unknown>c</unknown>", r"ab\sqrt{5}c"),
        ("<mtable><mtr><mtd><mn>1</mn></mtd><mtd><mn>2</mn></mtd></mtr><mtr><mtd><mn>3</mn></mtd><mtd><mn>4</mn></mtd></mtr></mtable>",
         "\\begin{matrix} 1 & 2 \\\\ 3 & 4 \\end{matrix}"),
        ("<mtext>if </mtext><mi>x</mi>", "\\text{if }x"),
        ("<msup><msup><mi>x</mi><mn>2</mn></msup><mn>3</mn></msup>", "{x^2}^3"),
        ("<msub><mrow></mrow><mi>p</mi></msub><msub><mi>F</mi><mi>q</mi></msub>", "{}_pF_q"),
        ("<msup><mrow><mo>(</mo><mn>1</mn><mo>−</mo><mi>x</mi><mo>)</mo></mrow><mn>2</mn></msup>", "(1-x)^2"),
        ("<msup><mi>f</mi><mo>″</mo></msup>", "f''"),
        ("<msup><mi>x</mi><mo>′</mo></msup><mi>y</mi>", "x'y"),
        ("<mi mathvariant='double-struck'>Z</mi><mi>ℤ</mi><mi mathvariant='bold'>x</mi><mi>𝐱</mi>", "\\mathbb{Z}\\mathbb{Z}\\mathbf{x}\\mathbf{x}"),
        ("<mi mathvariant='normal'>d</mi><mi mathvariant='-tex-calligraphic'>S</mi>", "\\mathrm{d}\\mathcal{S}"),
        ("<mi>len</mi><mo>\u2061</mo><mo>(</mo>", "\\mathrm{len}("),
        ("<munder><mo movablelimits='true'>max</mo><mi>y</mi></munder>", "\\max_y"),
        ("<mover><mo>→</mo><mi>p</mi></mover>", "\\overset{p}{\\to}"),
        ("<munder><munder><mi>x</mi><mo>⏟</mo></munder><mi>Z</mi></munder>", "\\underbrace{x}_Z"),
        ("<mfrac linethickness='0px'><mi>n</mi><mi>k</mi></mfrac>", "{n \\atop k}"),
        ("<mfrac linethickness='0.5px'><mi>n</mi><mi>k</mi></mfrac>", r"\frac{n}{k}"),
        ("<menclose notation='top'><mi>ℝ</mi></menclose><mover><mi>R</mi><mo>―</mo></mover>", "\\overline{\\mathbb{R}}\\overline{R}"),
        ("<mtext> for  all </mtext><mtext>𝚊𝚌</mtext>", "\\text{ for all }\\texttt{ac}"),
        ("<mtable displaystyle='true'><mtr><mtd></mtd><mtd><mi>y</mi></mtd><mtd><mo>=</mo><mi>x</mi></mtd></mtr><mtr><mtd></mtd><mtd><mi>z</mi></mtd>"
         "<mtd><mo>=</mo><mn>1</mn></mtd></mtr><mtr><mtd></mtd></mtr></mtable>", "\\begin{aligned} y & =x \\\\ z & =1 \\end{aligned}"),
        ("<mtable><mtr><mtd><mi>x</mi></mtd></mtr></mtable><mspace width='1em'></mspace><mi>y</mi>", "x\\quad y"),
        ("<strange><mi>x</mi><mo>=</mo></strange>", "x="),
    ],
)  # fmt: skip
def test_mathml_becomes_plain_latex(mathml: str, latex: str) -> None:
    (formula,) = take_out(f"<p><math>{mathml}</math></p>").formulas
    assert formula.latex == latex


def test_tables_in_tables_take_linear_time() -> None:
    # Nothing is timed: what is read once for the row and once for the table would take years.
    deep = "<mtable><mtr><mtd>" * 30 + "<mi>x</mi>" + "</mtd><mtd><mi>y</mi></mtd></mtr></mtable>" * 30
    assert take_out(f"<math>{deep}</math>").formulas[0].latex.count("y") == 30


@pytest.mark.parametrize(
    "sign", [*_SIGNS, b"<sup>", b"<sub ", b'class="tex"', b"class='latex '", b'class="a math"', b'class="tex b"']
)
def test_no_sign_of_formulas_is_missed_by_the_searches_that_come_first(sign: bytes) -> None:
    assert _has_signs(b"<p>" + sign + b"</p>")
