"""How many formulas come out as what they mean when other renderers wrote them: KaTeX, Temml, MathJax 3 as HTML and as SVG.

    npm install --prefix DIR katex temml mathjax-full
    python benchmarks/rendered_formulas.py FOLDER... --node DIR --page PAGE [--formulas 150] [--show 0]

The LaTeX of the formulas of untouched pages (`benchmarks/maths_fidelity.py`) is rendered by each and stands, one a paragraph, in a page of prose. Where the
renderer keeps the LaTeX, it is kept if the text has it between dollars, white space aside. Where it keeps only MathML (Temml as it is, MathJax), the LaTeX of the
text need not be that of the page: both are rendered by KaTeX, and it is kept if the two trees of MathML are the same, apart from spaces,
groups, empty rows and columns, one bar for another, and attributes other than the variant of letters; a script of a bracket is one of what it closes. What KaTeX or the renderer refuses is left out.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lxml.html
from maths_fidelity import SEED, Formulas

from gristmill.extract.main_text import find_main_text

RENDER = r"""
const {createRequire} = require('module'), from = createRequire(process.argv[1] + '/'), fs = require('fs')
const katex = from('katex'), temml = from('temml')
const {mathjax} = from('mathjax-full/js/mathjax.js'), {TeX} = from('mathjax-full/js/input/tex.js')
const {AllPackages} = from('mathjax-full/js/input/tex/AllPackages.js')
const adaptor = from('mathjax-full/js/adaptors/liteAdaptor.js').liteAdaptor()
const {AssistiveMmlHandler} = from('mathjax-full/js/a11y/assistive-mml.js')
AssistiveMmlHandler(from('mathjax-full/js/handlers/html.js').RegisterHTMLHandler(adaptor))
const page = name => mathjax.document('', {InputJax: new TeX({packages: AllPackages}),
    OutputJax: new (from(`mathjax-full/js/output/${name}.js`)[name.toUpperCase()])()})
const chtml = page('chtml'), svg = page('svg')
const renderers = {
  'KaTeX': (latex, display) => katex.renderToString(latex, {displayMode: display, strict: 'ignore'}),
  'Temml, annotated': (latex, display) => temml.renderToString(latex, {displayMode: display, annotate: true, throwOnError: true}),
  'Temml': (latex, display) => temml.renderToString(latex, {displayMode: display, throwOnError: true}),
  'MathJax, HTML': (latex, display) => adaptor.outerHTML(chtml.convert(latex, {display})),
  'MathJax, SVG': (latex, display) => adaptor.outerHTML(svg.convert(latex, {display})),
  'oracle': (latex, display) => katex.renderToString(latex, {displayMode: display, strict: 'ignore', output: 'mathml'}),
}
const wanted = JSON.parse(fs.readFileSync(0))
const rendered = (name, latex, display) => {
  try { const html = renderers[name](latex, display); return html.includes('merror') ? null : html } catch { return null }
}
console.log(JSON.stringify(wanted.map(([names, latex, display]) => names.map(name => rendered(name, latex, display)))))
"""
ANNOTATED = ("KaTeX", "Temml, annotated")
CONVERTED = ("Temml", "MathJax, HTML", "MathJax, SVG")
GROUPS = frozenset(["math", "mrow", "mstyle", "mpadded", "semantics", "span", "mtd"])
OPENINGS, CLOSINGS = "([{⟨∣|∥", ")]}⟩∣|∥"
ALIKE = str.maketrans("ˉ‾―_|‖", "¯¯¯¯∣∥")
LEAVES = frozenset(["mi", "mn", "mo", "mtext", "ms"])
INVISIBLE = re.compile(r"[\s\u200b\u2061-\u2064\ufe00-\ufe0f]")


class Node:
    """The renderers, in the folder that npm filled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def render(self, wanted: Sequence[tuple[Sequence[str], str, bool]]) -> list[list[str | None]]:
        command = ["node", "-e", RENDER, str(self.folder.resolve())]
        found: list[list[str | None]] = json.loads(
            subprocess.run(command, input=json.dumps(wanted), text=True, check=True, stdout=-1).stdout
        )
        return found


class Displayed(Formulas):
    """The formulas of a page with their delimiters."""

    def _add(self, latex: str) -> None:
        self.__dict__.setdefault("written", []).append(latex)


def formulas(folder: Path, number: int) -> list[tuple[str, bool]]:
    """LaTeX without delimiters, and whether it is displayed; a random selection by a fixed seed."""
    found: dict[str, bool] = {}
    files = sorted(path for path in folder.rglob("*.htm*") if path.is_file())
    random.Random(SEED).shuffle(files)
    for path in files[:400]:
        for written in getattr(Displayed(path.read_text(encoding="utf-8", errors="replace")), "written", []):
            match = re.fullmatch(r"\s*(?:\\\((.*)\\\)|\\\[(.*)\\\]|\$\$(.*)\$\$)\s*", written, re.DOTALL)
            groups = match.groups() if match else (written, None, None)
            latex = " ".join(re.sub(r"(?<!\\)%.*", "", next(group for group in groups if group is not None)).split())
            if re.search(r"[\\^_=]", latex):
                found[latex] = groups[0] is None or latex.startswith("\\begin")
    return random.Random(SEED).sample(sorted(found.items()), min(number, len(found)))


def meaning(mathml: str) -> str:
    """The tree of MathML as a line, without spaces, groups and attributes but the variant of letters."""
    return walked(lxml.html.fromstring(mathml))


def walked(node: Any) -> str:
    if not isinstance(node.tag, str) or node.tag in ("annotation", "mspace", "mphantom"):
        return ""
    if node.tag in LEAVES:
        text = INVISIBLE.sub("", node.text_content()).translate(ALIKE)
        variant = (
            "normal" if len(text) > 1 and text.isalpha() and node.tag != "mtext" else node.get("mathvariant") or ""
        )
        return "".join(letter(character, variant) for character in text)
    if node.tag == "mtable":
        rows = [cells for row in node if any(cells := [walked(cell) for cell in row])]
        width = max(map(len, rows), default=0)
        full = [column for column in range(width) if any(len(row) > column and row[column] for row in rows)]
        cells = [[row[column] if len(row) > column else "" for column in full] for row in rows]
        return cells[0][0] if len(rows) == len(full) == 1 else f"mtable({';'.join(map(','.join, cells))})"
    parts = [walked(child) for child in node]
    if node.tag in GROUPS:
        return "".join(parts)
    name = "matop" if re.match(r"0(\D|$)", node.get("linethickness") or "") else node.tag
    before, base = "", parts[0] if parts else ""
    if name in ("msub", "msup", "msubsup") and len(base) > 1 and base[:1] in OPENINGS and base[-1:] in CLOSINGS:
        before, base = base[:-1], base[-1]
    return f"{before}{name}({','.join([base, *parts[1:]])})"


def letter(character: str, variant: str) -> str:
    """A letter after the name of its variant: of the attribute, or of the block of mathematical letters it is from."""
    if not character.isalnum():
        return character
    name = unicodedata.name(character, "")
    found = re.match(
        r"MATHEMATICAL ([A-Z -]+?) (?:SMALL|CAPITAL|DIGIT|PARTIAL|NABLA)|(DOUBLE-STRUCK|SCRIPT|BLACK-LETTER) (?:SMALL|CAPITAL)",
        name,
    )
    if found:
        variant = (found.group(1) or found.group(2)).lower()
        character = unicodedata.normalize("NFKC", character)
    variant = variant.replace("black-letter", "fraktur").replace(" ", "-")
    return f"<{variant}>{character}" if variant not in ("", "italic") else character


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--node", type=Path, required=True)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--formulas", type=int, default=150)
    parser.add_argument("--show", type=int, default=0)
    args = parser.parse_args()
    paragraphs = args.page.read_text(encoding="utf-8").split("</p>")
    before, after = (
        "</p>".join(part) for part in (paragraphs[: len(paragraphs) // 2], paragraphs[len(paragraphs) // 2 :])
    )
    node = Node(args.node)
    wanted = [formula for folder in args.folders for formula in formulas(folder, args.formulas)]
    names = (*ANNOTATED, *CONVERTED, "oracle")
    rendered = node.render([(names, latex, display) for latex, display in wanted])
    for extractor in ("trafilatura", "resiliparse"):
        for column, name in enumerate(names[:-1]):
            asked = [
                (latex, display, row[column], row[-1]) for (latex, display), row in zip(wanted, rendered, strict=True)
            ]
            kept, lost = [], []
            asked = [one for one in asked if one[2] is not None and one[3] is not None]
            page = "".join(
                f"<p>Formula {n} is {one[2]} and holds for all of these numbers.</p>" for n, one in enumerate(asked)
            )
            text = find_main_text(f"{before}</p>{page}{after}", extractor=extractor).text
            out = dict(
                re.findall(r"Formula (\d+) is\s+\$\$?(.*?)\$\$?\s+and holds for all of these numbers", text, re.DOTALL)
            )
            again = node.render([(["oracle"], out.get(str(n), ""), one[1]) for n, one in enumerate(asked)])
            for n, (latex, _, _, oracle) in enumerate(asked):
                found = out.get(str(n))
                if name in ANNOTATED:
                    same = found is not None and "".join(found.split()) == "".join(latex.split())
                else:
                    same = (
                        found is not None
                        and again[n][0] is not None
                        and meaning(str(again[n][0])) == meaning(str(oracle))
                    )
                (kept if same else lost).append(f"{latex}\n          {found}")
            print(f"{extractor:<12} {name:<18} {len(asked):>5} formulas  kept {len(kept) / max(1, len(asked)):.4f}")
            for one in random.Random(SEED).sample(lost, min(args.show, len(lost))):
                print(f"    lost: {one}")


if __name__ == "__main__":
    main()
