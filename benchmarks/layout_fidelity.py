"""How many tables, code blocks and superscripts of untouched pages come out of main-text extraction with their layout.

    python benchmarks/layout_fidelity.py FOLDER... [--pages 300] [--show 0]

Reads HTML files below each FOLDER that hold a `table`, `pre` or `sup`, a random selection by a fixed seed. What a page holds is told by lxml, outside
navigation (`nav`, `footer`, `aside`, the bars of Sphinx and DocBook), hidden parts and forms:

- a data table has two rows and two columns or more, no table, heading, form or code block in it, no table around it and no cell above 1,000
  characters; other tables are layout. A row is kept if the cells with text stand in order on one line between bars, a cell if its words come out somewhere; only cells of 8 characters or more are counted.
- a code block is a `pre` that is more than line numbers. It is kept if all its lines follow each other with their indentation, blank lines included;
  "packed" is the same without blank lines, "words" without any white space. Blocks of one line do not count.
- a superscript is a `sup` of up to 4 digits outside links and code; kept as `^2` or `^{10}`.

White space and the signs of formulas do not count in cells. Everything is counted as often as the page holds it, no more. `--show` prints that many of the
lost.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lxml.html

from gristmill.extract.main_text import Extractor, find_main_text

SEED = 1
EXTRACTORS: tuple[Extractor, ...] = ("trafilatura", "resiliparse")
BAR = re.compile(r"(?<!\\)\|")
SIGNS = re.compile(r"[\s\\$^_{}¶()\[\]|]|\ufeff")
FRAME = (
    "ancestor-or-self::*[self::nav or self::footer or self::aside or self::form or @role='navigation' or contains(@style, 'display:none') or "
    "contains(@style, 'display: none') or contains(@class, 'sphinxsidebar') or contains(@class, 'related') or contains(@class, 'navheader') "
    "or contains(@class, 'navfooter') or self::noscript]"
)
NO_DATA = ".//table | .//h1 | .//h2 | .//h3 | .//form | .//pre | ancestor::table"
LONG_CELL, SHORT_CELL = 1000, 8


@dataclass
class Page:
    """What a page holds, in the order of its source. rows: their cells with text, without white space and signs."""

    rows: list[tuple[str, ...]]
    code: list[str]
    superscripts: list[str]
    data_tables: int
    layout_tables: int


def read_page(html: str) -> Page:
    html = re.sub(r"^\s*<\?xml[^>]*\?>", "", html)
    tree = lxml.html.document_fromstring(html, parser=lxml.html.HTMLParser(remove_comments=True, remove_pis=True))
    for node in tree.xpath("//script | //style | //template | //button"):
        node.drop_tree()
    for node in tree.iter("br"):
        node.text = "\n"
    for node in tree.xpath("//img[contains(@class, 'math')]"):
        node.tail = f"{node.get('alt')}{node.tail or ''}"
    tables = [table for table in tree.iter("table") if not table.xpath(FRAME)]
    data = [rows for table in tables if (rows := data_rows(table)) is not None]
    blocks = [pre for pre in tree.iter("pre") if not pre.xpath(FRAME) and not squeezed(pre.text_content()).isdecimal()]
    code = [code_lines(pre.text_content()) for pre in blocks]
    superscripts = [
        node.text_content().strip()
        for node in tree.iter("sup")
        if not node.xpath(f"{FRAME} | ancestor::a | .//a | ancestor::pre | ancestor::code")
    ]
    return Page(
        rows=[row for rows in data for row in rows],
        code=[block for block in code if "\n" in block],
        superscripts=[text for text in superscripts if re.fullmatch(r"\d{1,4}", text)],
        data_tables=len(data),
        layout_tables=len(tables) - len(data),
    )


def data_rows(table: Any) -> list[tuple[str, ...]] | None:
    """The rows of a data table, None for a layout table."""
    if table.get("role") == "presentation" or table.xpath(NO_DATA):
        return None
    rows = [[cell.text_content() for cell in row.xpath("td | th")] for row in table.iter("tr")]
    if sum(len(row) > 1 for row in rows) < 2 or any(len(cell) > LONG_CELL for row in rows for cell in row):
        return None
    return [cells for row in rows if (cells := bare_cells(row))]


def bare_cells(cells: list[str]) -> tuple[str, ...]:
    return tuple(bare for cell in cells if (bare := SIGNS.sub("", cell)))


def code_lines(text: str) -> str:
    lines = [line.rstrip(" \t¶") for line in text.split("\n")]
    while lines and not lines[0]:
        lines.pop(0)
    while lines and not lines[-1]:
        lines.pop()
    return "\n".join(lines)


def packed(text: str) -> str:
    return "\n".join(line for line in text.split("\n") if line)


def squeezed(text: str) -> str:
    return "".join(text.split())


@dataclass
class Tally:
    """Found in pages, and kept of it, by what it is."""

    found: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    twice: int = 0
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)

    def add(self, html: str, page: Page, extractor: Extractor, place: str) -> None:
        started = time.process_time()
        text = find_main_text(html, extractor=extractor).text
        self.seconds += time.process_time() - started
        rows_in, rows_out = (
            Counter(page.rows),
            Counter(bare_cells(BAR.split(line)) for line in text.split("\n")),
        )
        self._count("rows", rows_in, rows_in & rows_out, place)
        cells_in = Counter(cell for row in page.rows for cell in row if len(cell) >= SHORT_CELL)
        bare = SIGNS.sub("", text)
        self._count("cells", cells_in, cells_in & Counter({cell: bare.count(cell) for cell in cells_in}), place)
        code_in = Counter(page.code)
        lines = f"\n{text}\n"
        self._count("code", code_in, code_in & Counter({code: lines.count(f"\n{code}\n") for code in code_in}), place)
        for name, form, whole in (("packed", packed, f"\n{packed(text)}\n"), ("words", squeezed, squeezed(text))):
            blocks = Counter(map(form, page.code))
            end = "\n" if name == "packed" else ""
            times = Counter({block: whole.count(f"{end}{block}{end}") for block in blocks})
            self._count(name, blocks, blocks & times, place)
            self.twice += (name == "packed") * sum((times - blocks).values())
        powers = Counter(f"^{power}" if len(power) == 1 else f"^{{{power}}}" for power in page.superscripts)
        self._count("powers", powers, powers & Counter({power: text.count(power) for power in powers}), place)

    def _count(self, what: str, found: Counter[Any], kept: Counter[Any], place: str) -> None:
        self.found[what] += found.total()
        self.kept[what] += kept.total()
        self.lost += [f"{what}  {place}: {one!r}" for one in (found - kept).elements()]

    def share(self, what: str) -> str:
        return f"{self.kept[what] / self.found[what]:.4f}" if self.found[what] else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args()
    names = ("rows", "cells", "code", "packed", "words", "powers")
    for folder in args.folders:
        files = sorted(path for path in folder.rglob("*.htm*") if path.is_file())
        random.Random(SEED).shuffle(files)
        tallies: dict[Extractor, Tally] = {extractor: Tally() for extractor in EXTRACTORS}
        pages = data = layout = 0
        for path in files:
            html = path.read_text(encoding="utf-8", errors="replace")
            if pages == args.pages or not re.search("<(?:table|pre|sup)", html, re.IGNORECASE):
                continue
            page = read_page(html)
            pages, data, layout = pages + 1, data + page.data_tables, layout + page.layout_tables
            for extractor, tally in tallies.items():
                tally.add(html, page, extractor, str(path.relative_to(folder)))
        found = tallies["trafilatura"].found
        print(
            f"\n{folder}: {pages} pages, {data} data tables ({layout} layout), "
            + ", ".join(f"{found[name]:,} {name}" for name in names if name not in ("packed", "words"))
        )
        print("extractor    " + "".join(f"{name:>8}" for name in names) + "   twice  ms/page")
        for extractor, tally in tallies.items():
            shares = "".join(f"{tally.share(name):>8}" for name in names)
            print(f"{extractor:<12} {shares} {tally.twice:>7} {1e3 * tally.seconds / max(1, pages):>8.1f}")
            for lost in random.Random(SEED).sample(tally.lost, min(args.show, len(tally.lost))):
                print(f"    lost: {lost[:240]}")


if __name__ == "__main__":
    main()
