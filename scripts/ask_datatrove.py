"""Ask datatrove, the code that made FineWeb, what its rules decide, and write it down for the tests.

    python scripts/ask_datatrove.py                 writes tests/extract/datatrove.tsv: decisions on texts of the sample;
                                                    and tests/extract/urls.tsv: on the URLs that are in it, with the lists beside it
    python scripts/ask_datatrove.py TEXTS.jsonl     compares on other texts, a "text" a line, with its tokens and with ours

It and spaCy live in an environment of their own, which is made in the cache folder and downloaded once (about 400 MB).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDS = (
    "datatrove==0.10.0",
    "spacy==3.8.18",
    "nltk==3.9.2",
    "regex",
    "ftfy",
    "tldextract",
    "fasteners",
    "pyahocorasick",
    "numpy",
)
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gristmill" / "datatrove-0.10.0"
TESTS = ROOT / "tests" / "extract"


def main() -> None:
    """Make the environment if need be, and ask in it."""
    python = CACHE / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", CACHE], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDS], check=True)
    if sys.argv[1:]:
        print(_ask("datatrove_rules.py", *sys.argv[1:]), end="")
        return
    for asker, table in (("datatrove_rules.py", "datatrove.tsv"), ("datatrove_urls.py", "urls.tsv")):
        found = _ask(asker)
        (TESTS / table).write_text(found, encoding="utf-8")
        print(f"wrote tests/extract/{table}: {len(found.splitlines()) - 1:,} rows")


def _ask(asker: str, *arguments: str) -> str:
    paths = os.pathsep.join(map(str, (ROOT / "src", TESTS)))
    return subprocess.run(
        [CACHE / "bin" / "python", Path(__file__).with_name(asker), *arguments],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout


if __name__ == "__main__":
    main()
