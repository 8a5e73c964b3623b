"""Write the map of files in README.md: the first sentence of each module, folder by folder, in the order of the layers.

python scripts/write_map.py            --check: change nothing, exit 1 when the map is out of date
"""

from __future__ import annotations

import argparse
import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- map: python scripts/write_map.py -->", "<!-- end of map -->"
LAYERS = (
    "errors.py", "statistics.py", "recipe", "data", "extract", "score", "select", "synthesize", "tokens", "model", "train",
    "align", "evaluate", "ablate", "export", "report", "pipeline.py", "commands", "api.py", "cli.py",
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
    """The map as Markdown: one line a file, under one line a folder."""
    package = ROOT / "src" / "gristmill"
    lines: list[str] = []
    for layer in LAYERS:
        path = package / layer
        if path.is_file():
            lines.append(_line(path, indent=""))
        elif path.is_dir():
            lines.append(f"- **{layer}/** {first_sentence(path / '__init__.py')}")
            lines += [_line(file, indent="  ") for file in sorted(path.glob("*.py")) if file.name != "__init__.py"]
    for name in BESIDES:
        lines.append(f"- **{name}/** (beside the package)")
        lines += [_line(file, indent="  ") for file in sorted((ROOT / name).glob("*.py"))]
    return "\n".join(lines) + "\n"


def with_map(text: str) -> str:
    """The text of a README with the map of today between the markers."""
    before, begin, rest = text.partition(BEGIN)
    _old, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{README} lacks the markers {BEGIN} and {END}; put them where the map belongs.")
    return f"{before}{BEGIN}\n{map_text()}{END}{after}"


def _line(path: Path, *, indent: str) -> str:
    return f"{indent}- [`{path.name}`]({path.relative_to(ROOT).as_posix()}) {first_sentence(path)}"


def main() -> None:
    """Write the map, or tell whether it is fresh."""
    parser = argparse.ArgumentParser(description="Write the map of files in README.md.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when the map is out of date")
    check = parser.parse_args().check
    old = README.read_text(encoding="utf-8")
    new = with_map(old)
    if check:
        if old != new:
            sys.exit("the map in README.md is out of date; run: python scripts/write_map.py")
        return
    README.write_text(new, encoding="utf-8")
    print(f"wrote the map in {README}")


if __name__ == "__main__":
    main()
