"""Imports point one way. The folders of the package stand in the order in which data flows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "gristmill"
ORDER = [
    "errors", "units", "written", "statistics", "store", "recipe", "graph", "planning", "data", "formats", "extract", "score", "select",
    "synthesize", "tokens", "model", "train", "align", "evaluate", "ablate", "report", "export", "serve", "pipeline", "remake",
    "amounts", "preflight", "durations", "changed", "cautions", "recheck", "forecast", "context", "display", "provenance", "rank_notes", "live_page", "runner", "array", "draft", "commands", "api", "cli", "__main__",
]  # fmt: skip
MAY_IMPORT_LATE = {"pipeline", "commands", "cli"}
MAY_READ = {("report", "gristmill.export.outputs")}  # the page is made last, though the card is part of the export
WITHOUT_TORCH = ORDER[: ORDER.index("model")]
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(tree: ast.AST) -> list[tuple[int, str, bool]]:
    """(line, module, stands inside a function) of every import."""
    inside = {id(node) for function in ast.walk(tree) if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
              for node in ast.walk(function)}  # fmt: skip
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append((node.lineno, node.module, id(node) in inside))
        elif isinstance(node, ast.Import):
            found += [(node.lineno, alias.name, id(node) in inside) for alias in node.names]
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_from_later_folders_to_earlier_ones(path: Path) -> None:
    own = layer_of(path)
    assert own in ORDER, f"{path} lies in a folder that has no place in the order"
    for line, module, late in imports(ast.parse(path.read_text())):
        if module.split(".")[0] == "gristmill" and "." in module:
            other = module.split(".")[1]
            is_later = ORDER.index(other) > ORDER.index(own) and (own, module) not in MAY_READ
            assert not is_later, f"{path}:{line} imports {module}, which comes after {own}"
            assert not late or own in MAY_IMPORT_LATE, f"{path}:{line} hides the import of {module} in a function"


@pytest.mark.parametrize("path", [path for path in FILES if layer_of(path) in WITHOUT_TORCH], ids=lambda p: p.stem)
def test_nothing_above_the_model_imports_torch(path: Path) -> None:
    for line, module, _late in imports(ast.parse(path.read_text())):
        assert module.split(".")[0] != "torch", f"{path}:{line} imports {module}"


@pytest.mark.parametrize("verb", ["--help", "run --help", "plan --help", "status --help"])
def test_help_imports_nothing_heavy(verb: str) -> None:
    code = (
        "import sys\nfrom gristmill.cli import app\n"
        f"try:\n    app({verb.split()!r})\nexcept SystemExit:\n    pass\n"
        "print('heavy:', sorted({'torch', 'numpy', 'psutil', 'pyarrow', 'scipy'} & set(sys.modules)), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stderr.strip().endswith("heavy: []")
