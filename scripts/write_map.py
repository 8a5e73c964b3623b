"""Write docs/map.md, the map of files: the first sentence of each module, folder by folder, in the order of the layers.

python scripts/write_map.py            --check: change nothing, exit 1 when the map is out of date
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "map.md"
HEAD = "# Map of files\n\nMade by `python scripts/write_map.py`: the first sentence of each module, folder by folder, in the order of the layers.\n\n"
LAYERS = (
    "errors.py", "units.py", "written.py", "statistics.py", "store", "recipe", "graph", "planning", "data", "formats", "extract",
    "score", "select", "synthesize", "tokens", "model", "train", "align", "evaluate", "ablate", "report", "export", "serve",
    "pipeline.py", "remake.py", "amounts.py", "preflight.py", "durations.py", "changed.py", "cautions.py", "recheck.py", "forecast.py",
    "context.py", "display.py", "provenance.py", "rank_notes.py", "live_page.py", "runner.py", "array.py", "draft", "commands", "api.py", "cli",
)  # fmt: skip
BESIDES = ("benchmarks", "scripts")


def first_sentence(path: Path) -> str:
    """The first line of the module's docstring, or the first sentence where that line breaks off; fit for Markdown."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, f"{path} has no docstring"
    line = text.split("\n", 1)[0].strip()
    if not line.endswith((".", ":", "?")):
        paragraph = " ".join(text.split("\n\n", 1)[0].split())
        line = paragraph.split(". ", 1)[0].rstrip(".") + "."
    return line.rstrip(":").replace("<", "&lt;")


def map_text() -> str:
    """The page as Markdown: one line per file, under one line per folder."""
    package = ROOT / "src" / "gristmill"
    lines: list[str] = []
    for layer in LAYERS:
        path = package / layer
        if path.is_file():
            lines.append(_line(path, indent=""))
        elif path.is_dir():
            lines += _folder(path, package)
    for name in BESIDES:
        lines.append(f"- **{name}/** (beside the package)")
        lines += [_line(file, indent="  ") for file in sorted((ROOT / name).glob("*.py"))]
    return HEAD + "\n".join(lines) + "\n"


def _folder(folder: Path, package: Path) -> list[str]:
    """Its files, then those of the folders in it."""
    head = f"- **{folder.relative_to(package).as_posix()}/** {first_sentence(folder / '__init__.py')}"
    files = [_line(file, indent="  ") for file in sorted(folder.glob("*.py")) if file.name != "__init__.py"]
    inner = [line for own in sorted(folder.glob("*/__init__.py")) for line in _folder(own.parent, package)]
    return [head, *files, *inner]


def _line(path: Path, *, indent: str) -> str:
    return f"{indent}- [`{path.name}`](../{path.relative_to(ROOT).as_posix()}) {first_sentence(path)}"


def main() -> None:
    """Write the map, or tell whether it is fresh."""
    parser = argparse.ArgumentParser(description="Write docs/map.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the map is out of date")
    check = parser.parse_args().check
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    new = map_text()
    if check:
        if old != new:
            sys.exit("docs/map.md is out of date; run: python scripts/write_map.py")
        return
    PAGE.write_text(new, encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
