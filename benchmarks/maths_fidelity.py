"""How many formulas of untouched pages come out of main-text extraction, as the LaTeX that the page holds, once each.

    python benchmarks/maths_fidelity.py FOLDER... [--others 200] [--show 0]

Reads every HTML file below each FOLDER. The formulas of a page are found by Python's own HTML parser, in four ways of writing them that
documentation uses: elements of class `math`, images in them or of that class, `math/tex` scripts, MathML with its TeX annotation. White space
does not count. Of a folder's pages without formulas a random selection is read, by a fixed seed: a formula found there is invented, and so is
one more than a page holds. `--show` prints that many of the lost, with what the text holds instead.
"""

from __future__ import annotations

import argparse
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from gristmill.extract.main_text import Extractor, find_main_text

SEED = 1
EXTRACTORS: tuple[Extractor, ...] = ("trafilatura", "resiliparse")
VOID = frozenset(["area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"])
VERBATIM = frozenset(["pre", "code", "script", "style", "textarea"])
LONG = 12  # characters of a formula that is looked for a second time outside its dollars


class Formulas(HTMLParser):
    """The LaTeX of a page's formulas, and its visible text with each formula in it once; both without white space."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[tuple[str, bool]] = []  # name, and whether what is inside belongs to a formula
        self.part: list[str] = []
        self.latex: list[str] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()
        self.visible = squeezed("".join(self.text))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        classes = attributes.get("class", "").split()
        inside = self._inside()
        if tag == "img" and (inside or "math" in classes) and attributes.get("alt"):
            self._add(attributes["alt"])
        if tag not in VOID:
            formula = ("math" in classes and not self._verbatim()) or attributes.get("type", "").startswith("math/tex")
            formula = formula or attributes.get("encoding") == "application/x-tex"
            self.open.append((tag, "eqno" not in classes and (inside or formula)))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        names = [name for name, _ in self.open]
        if tag in names:
            del self.open[len(names) - 1 - names[::-1].index(tag) :]
            if self.part and not self._inside():
                self._add("".join(self.part))
                self.part.clear()

    def handle_data(self, data: str) -> None:
        (self.part if self._inside() else self.text).append(data)

    def _inside(self) -> bool:
        return bool(self.open) and self.open[-1][1]

    def _verbatim(self) -> bool:
        return any(name in VERBATIM for name, _ in self.open)

    def _add(self, latex: str) -> None:
        self.text.append(latex)
        if latex := bare(latex):
            self.latex.append(latex)


def squeezed(text: str) -> str:
    return "".join(text.split())


def bare(latex: str) -> str:
    """Without white space and the signs around it."""
    latex = squeezed(latex)
    found = re.fullmatch(r"\\\((.*)\\\)|\\\[(.*)\\\]|\$\$(.*)\$\$", latex)
    return next((group for group in found.groups() if group is not None), "") if found else latex


@dataclass
class Tally:
    formulas: int = 0
    kept: int = 0
    twice: int = 0
    invented: int = 0
    seconds: float = 0.0
    lost: list[str] = field(default_factory=list)

    def add(self, html: str, page: Formulas, extractor: Extractor, place: str) -> None:
        started = time.process_time()
        found = find_main_text(html, extractor=extractor)
        self.seconds += time.process_time() - started
        text = squeezed(found.text)
        in_text = Counter({latex: text.count(f"${latex}$") for latex in set(page.latex)})
        in_page = Counter(page.latex)
        self.formulas += len(page.latex)
        self.kept += (in_page & in_text).total()
        self.invented += max(0, found.formulas_in.total() - len(page.latex))
        self.twice += sum(
            max(0, text.count(latex) - page.visible.count(latex)) for latex in in_page if len(latex) >= LONG
        )
        self.lost += [f"{place}: {latex}" for latex in (in_page - in_text).elements()]


def measure(folder: Path, others: int) -> tuple[int, int, dict[Extractor, Tally]]:
    """How many pages have formulas, how many without were read, and what each extractor made of them."""
    tallies = {extractor: Tally() for extractor in EXTRACTORS}
    files = sorted(path for path in folder.rglob("*.htm*") if path.is_file())
    random.Random(SEED).shuffle(files)
    with_formulas = without = 0
    for path in files:
        html = path.read_text(encoding="utf-8", errors="replace")
        page = Formulas(html)
        if not page.latex and without >= others:
            continue
        with_formulas, without = with_formulas + bool(page.latex), without + (not page.latex)
        for extractor, tally in tallies.items():
            tally.add(html, page, extractor, str(path.relative_to(folder)))
    return with_formulas, without, tallies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--others", type=int, default=200)
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args()
    print("extractor    pages  others  formulas   kept   twice  invented  ms/page  folder")
    for folder in args.folders:
        with_formulas, without, tallies = measure(folder, args.others)
        for extractor, tally in tallies.items():
            share = f"{100 * tally.kept / tally.formulas:.2f}%" if tally.formulas else "-"
            milliseconds = 1e3 * tally.seconds / max(1, with_formulas + without)
            print(
                f"{extractor:<12} {with_formulas:>5} {without:>7} {tally.formulas:>9} {share:>7} {tally.twice:>6} {tally.invented:>9} "
                f"{milliseconds:>8.1f}  {folder}"
            )
            for lost in random.Random(SEED).sample(tally.lost, min(args.show, len(tally.lost))):
                print(f"    lost: {lost[:200]}")


if __name__ == "__main__":
    main()
