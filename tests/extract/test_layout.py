"""Code and tables that keep their layout through main-text extraction, in the forms that documentation tools write."""

from __future__ import annotations

import re
from html import escape, unescape

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gristmill.extract.layout import put_blocks_back, take_blocks
from gristmill.extract.main_text import Extractor, find_main_text

EXTRACTORS: tuple[Extractor, ...] = ("trafilatura", "resiliparse")
PARAGRAPH = "<p>" + "This is a plain paragraph about the work of millers, long enough to be text. " * 3 + "</p>"
CODE = "def grind(corn):\n    if corn:\n\n        return <flour>\n    return None"
SPANS = (
    '<span></span><span class="k">def</span> <span class="nf">grind</span><span class="p">(</span>corn<span class="p">):</span>\n'
    '    <span class="k">if</span> corn<span class="p">:</span>\n\n        <span class="k">return</span> &lt;flour&gt;\n    return None\n'
)
NUMBERED = "".join(
    f'<span class="linenos">{n}</span>{line}\n' for n, line in enumerate(SPANS.strip().split("\n"), start=1)
)
CODES = {
    "pre": f"<pre>\n{escape(CODE)}</pre>",
    "Sphinx": f'<div class="highlight-python3 notranslate"><div class="highlight"><pre>{SPANS}</pre></div></div>',
    "Sphinx, numbers in the lines": f'<div class="highlight"><pre>{NUMBERED}</pre></div>',
    "Pygments, a table of line numbers": (
        '<table class="highlighttable"><tr><td class="linenos"><div class="linenodiv"><pre>1\n2\n3\n4\n5</pre></div></td>'
        f'<td class="code"><div class="highlight"><pre>{SPANS}</pre></div></td></tr></table>'
    ),
    "Hexo, lines with breaks": (
        '<figure class="highlight"><table><tr><td class="gutter"><pre><span class="line">1</span><br><span class="line">2</span><br>'
        '<span class="line">3</span><br><span class="line">4</span><br><span class="line">5</span><br></pre></td><td class="code"><pre>'
        + "<br>".join(f'<span class="line">{escape(line)}</span>' for line in CODE.split("\n"))
        + "<br></pre></td></tr></table></figure>"
    ),
    "mdBook, a pre in a pre and a button": (
        '<PRE><pre class="playground"><button class="copy" title="Copy"></button><button>Copy</button><code class="language-rust">'
        f"{escape(CODE)}\n</code></pre></PRE>"
    ),
    "rustdoc, numbers beside": f'<div><pre class="src-line-numbers">1\n2\n3\n4\n5\n</pre><pre class="rust"><code>{SPANS}</code></pre></div>',
    "in a list": f"<ol><li><p>Do this:</p><pre>{escape(CODE)}</pre></li><li>{PARAGRAPH}</li></ol>",
    "in a list, alone": f"<ol><li><pre>{escape(CODE)}</pre></li><li>Then rest.</li></ol>",
    "in a description": f"<dl><dt>grind</dt><dd><p>Grinds.</p><pre>{escape(CODE)}</pre><p>Well.</p></dd></dl>",
    "in a table that lays out the page": f"<table><tr><td><h2>Grinding</h2><pre>{escape(CODE)}</pre></td></tr></table>",
}  # fmt: skip


def page(middle: str) -> str:
    return f"<html><body><main><h1>Mills</h1>{PARAGRAPH}{middle}{PARAGRAPH.replace('plain', 'second')}</main></body></html>"


@pytest.mark.parametrize("extractor", [*EXTRACTORS, None])
@pytest.mark.parametrize("form", CODES)
def test_code_keeps_its_lines_and_comes_once(form: str, extractor: Extractor | None) -> None:
    found = find_main_text(page(CODES[form]), extractor=extractor)
    assert f"\n{CODE}\n" in found.text
    assert found.text.count("grind(corn)") == 1
    assert "Copy" not in found.text
    assert not any(line.strip().isdecimal() for line in found.text.split("\n"))
    assert found.layout_in == found.layout_out == {"code": 1}


SPHINX_TABLE = (  # python3.11-doc, library/operator.html
    '<table class="docutils align-default"><caption><span>Operators</span></caption><colgroup><col style="width: 20%" /></colgroup>\n<thead>\n'
    '<tr class="row-odd"><th class="head"><p>Operation</p></th>\n<th class="head"><p>Syntax</p></th></tr>\n</thead>\n<tbody>\n<tr class="row-even">'
    '<td><p>Addition</p></td>\n<td><p><code class="docutils"><span class="pre">a</span> <span class="pre">+</span> <span class="pre">b</span></code>'
    "</p></td></tr>\n<tr><td><p>Bitwise Or</p></td>\n<td><p>a | b</p><p>ints</p></td></tr>\n</tbody>\n</table>"
)
TABLES = {
    "Sphinx": (
        SPHINX_TABLE,
        "Operators\n| Operation | Syntax |\n|---|---|\n| Addition | a + b |\n| Bitwise Or | a \\| b ints |",
    ),
    "without end tags": (
        "<TABLE><TR><TD>a<TD>&rarr;<TD>alpha\n beta<TR><TD>b<TD><TD>gamma<br>delta</TABLE>",
        "| a | → | alpha beta |\n| b |  | gamma delta |",
    ),
    "spans": (
        "<table><tr><th rowspan=2>x<th colspan='2'>y</tr><tr><td>1<td>2</tr><tr><th>z<td>3<td>4</tr></table>",
        "| x | y |  |\n|---|---|---|\n|  | 1 | 2 |\n| z | 3 | 4 |",
    ),
    "formulas": (
        '<table><tr><td>inline<td><script type="math/tex">a|b</script></tr><tr><td>display<td><script type="math/tex; mode=display">c</script>'
        "x<sup>2</sup></tr></table>",
        "| inline | $a|b$ |\n| display | $$c$$ x^2 |",
    ),
}


@pytest.mark.parametrize("extractor", [*EXTRACTORS, None])
@pytest.mark.parametrize("form", TABLES)
@pytest.mark.parametrize(
    "around",
    ["{}", "<blockquote>{}</blockquote>", f"<ol><li>{PARAGRAPH}{{}}</li><li>{PARAGRAPH}</li></ol>", "<div>{}</div>"],
)
def test_a_row_of_a_table_is_a_line(form: str, around: str, extractor: Extractor | None) -> None:
    html, expected = TABLES[form]
    found = find_main_text(page(around.format(html)), extractor=extractor)
    assert f"\n{expected}\n" in found.text
    assert found.layout_in == found.layout_out == {"table": 1}


@pytest.mark.parametrize(
    "html",
    [
        "<table><tr><td>one<td>two</tr></table>",
        "<table><tr><td>one</tr><tr><td>two</tr></table>",
        "<table role='presentation'><tr><td>a<td>b</tr><tr><td>c<td>d</tr></table>",
        "<table><tr><td>a<td><h2>b</h2></tr><tr><td>c<td>d</tr></table>",
        f"<table><tr><td>a<td>{'word ' * 250}</tr><tr><td>c<td>d</tr></table>",
        "<table style='display: none'><tr><td>a<td>b</tr><tr><td>c<td>d</tr></table>",
        "<!-- <table><tr><td>a<td>b</tr><tr><td>c<td>d</tr></table> --><p>x</p>",
        "<script>'<table><tr><td>a<td>b</tr><tr><td>c<td>d</tr></table>'</script>",
        "<table><tr>e<td>a<td>b</tr><tr><td>c<td>d</tr></table>",
        "<pre> </pre>",
    ],
)
def test_what_is_no_data_and_no_code_stays_as_it_is(html: str) -> None:
    assert taken(html) == (html, ())


def taken(html: str) -> tuple[str, tuple[str, ...]]:
    found = take_blocks(html, html.encode().lower())
    return found.html, tuple(block.text for block in found.blocks)


def test_a_table_in_a_table_is_told_from_what_lays_out_the_page() -> None:
    data = "<table><tr><td>a<td>b</tr><tr><td>c<td>d</tr></table>"
    html, blocks = taken(f"<table><tr><td>menu<td>x</tr><tr><td>y<td>{data}</tr></table>")
    assert blocks == ("| a | b |\n| c | d |",)
    assert html.startswith("<table><tr><td>menu")
    assert html.endswith("</tr></table>")


NUMBERS_AND_CODE = "<td><pre>1\n2</pre></td><td><pre>a\nb</pre></td>"


@pytest.mark.parametrize(
    ("html", "words"),
    [
        (f"<table><tr>{NUMBERS_AND_CODE}</tr><tr><td>An article.</td></tr></table>", "a b An article."),
        (f"<table><tr><th colspan=2>mill.py</th></tr><tr>{NUMBERS_AND_CODE}</tr></table>", "mill.py a b"),
        (f"<table><tr>{NUMBERS_AND_CODE}<td><pre>c</pre></td></tr></table>", "a b c"),
        ("<table><tr><td><pre>1\n2</pre></td></tr></table><pre>a\nb</pre>", "a b"),
        ("<pre>print(6 * 7)</pre><pre>42</pre><pre>exit()</pre>", "print(6 * 7) 42 exit()"),
        ("<pre>3\n4</pre><p>The next prints two lines:</p><pre>a\nb</pre>", "3 4 The next prints two lines: a b"),
        (f"<pre>{'7' * 5000}</pre><pre>x</pre>", f"{'7' * 5000} x"),
        ("<figure><pre>a</pre><table><tr><td>b</figure><td>c<tr><td>d<td>e</table>", "a | b | c | | d | e |"),
        ("<pre>a<!-- b > c --><script>d < e > f</script>g</pre>", "ag"),
    ],
)
def test_no_word_is_lost_or_doubled(html: str, words: str) -> None:
    found = take_blocks(html, html.encode().lower())
    text, _ = put_blocks_back(found.html, found)
    assert re.sub(r"<[^<>]*>", " ", text).split() == words.split()


def test_most_of_a_block_in_links_stays_linked() -> None:
    rows = "".join(f'<tr><td><a href="/{n}">Part {n} of all</a><td>{n}</tr>' for n in range(3))
    assert '<a href="#">' in taken(f"<table>{rows}</table>")[0]
    assert "<a " not in taken("<pre>a = <a href='x'>b</a> + c\nd</pre>")[0]


def test_a_page_that_spells_the_words_gets_each_block_once() -> None:
    html = f"<pre>{CODE}</pre>" + "<p>&#108;ayoutq0z</p>" * 9
    found = take_blocks(html, html.encode().lower())
    text, written = put_blocks_back(unescape(re.sub(r"</?p>", "\n", found.html)), found)
    assert (text.count("def grind"), written) == (1, {"code": 1})


def test_a_cell_over_rows_and_columns_leaves_all_of_them_empty() -> None:
    rows = "<tr><td rowspan=2 colspan=2>x<td>y</tr><tr><td>1</tr><tr><td>a<td>b<td>c</tr>"
    assert taken(f"<table>{rows}</table>")[1] == ("| x |  | y |\n|  |  | 1 |\n| a | b | c |",)


@pytest.mark.parametrize("sign", ["\x1e", "\x1f"])
def test_signs_that_part_cells_within_are_blanks_of_a_page(sign: str) -> None:
    rows = f"<tr><td>a{sign}b<td colspan=2>c</tr><tr><td>d<td>e</tr>"
    assert taken(f"<table>{rows}</table>")[1] == ("| a b | c |  |\n| d | e |",)


def test_a_figure_is_opened_around_a_block_and_nowhere_else() -> None:
    assert taken("<figure><pre>a</pre></figure>")[0] == "<div><pre>layoutq0z</pre></div>"
    assert taken("<figure>b</figure><pre>a</pre>")[0] == "<figure>b</figure><pre>layoutq0z</pre>"


def test_a_block_leaves_about_as_many_characters_as_it_has() -> None:
    for length in (50, 400):
        html, _ = taken(f"<pre>{'x' * length}</pre>")
        assert abs(len(re.sub(r"<[^<>]*>", "", html)) - length) < 20


def test_a_page_without_code_and_tables_is_not_touched() -> None:
    html = "<p>Some prefix & <b>text</b></p>"
    assert take_blocks(html, html.encode()).html is html


@given(
    st.lists(st.text(st.characters(exclude_categories=["C", "Z"], include_characters=" "), max_size=12), max_size=8),
    st.sampled_from(EXTRACTORS),
)
@settings(deadline=None, max_examples=40)
def test_any_code_comes_out_line_by_line(lines: list[str], extractor: Extractor) -> None:
    lines = ["first line of it", *(line.rstrip(" ¶") for line in lines), "  last line"]
    found = find_main_text(page(f"<pre>{escape(chr(10).join(lines))}</pre>"), extractor=extractor)
    assert "\n" + "\n".join(lines) + "\n" in found.text


PIECES = ["<pre>", "</pre>", "<table>", "</table>", "<tr>", "<td>", "</td>", "<th colspan=9>", "<p>", "1\n2", "a ", "|", "<!--", "-->", "<script>", "</script>", "&lt;", "<a href=x>", "</a>", "layoutq0z "]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@settings(deadline=None)
def test_words_in_place_of_blocks_never_stay(html: str) -> None:
    found = take_blocks(html, html.encode().lower())
    text, written = put_blocks_back(found.html, found)
    assert written == found.counts()
    if found.stem:
        assert found.stem not in text


@pytest.mark.parametrize(
    "run",
    [
        "<pre>",
        "<pre",
        "</pre>",
        "<table>",
        "<table><tr><td>",
        "<td>",
        "<!--",
        "<script>",
        "<pre>1\n2</pre>",
        "<a ",
        "<button>",
    ],
)
def test_long_runs_take_linear_time(run: str) -> None:
    # Nothing is timed: a scan that is quadratic in one of these would take minutes.
    html = f"<table><tr><td>{run * (1_000_000 // len(run))}"
    take_blocks(html, html.encode())
    html = f"<pre>{run.replace('pre', 'b') * (1_000_000 // len(run))}</pre>"
    take_blocks(html, html.encode())
