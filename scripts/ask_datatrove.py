"""Ask datatrove, the code that made FineWeb, what its rules decide, and write it down for the tests.

    python scripts/ask_datatrove.py                 writes tests/extract/datatrove.tsv: decisions on texts of the sample
    python scripts/ask_datatrove.py TEXTS.jsonl     compares on other texts, a "text" a line, with its tokens and with ours

It and spaCy live in an environment of their own, which is made in the cache folder and downloaded once (about 400 MB).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
NEEDS = ("datatrove==0.10.0", "spacy==3.8.18", "nltk==3.9.2", "regex", "ftfy", "tldextract", "numpy")
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gristmill" / "datatrove-0.10.0"
ASKER = Path(__file__).with_name("datatrove_rules.py")
FOUND = ROOT / "tests" / "extract" / "datatrove.tsv"


def main() -> None:
    """Make the environment if need be, and ask in it."""
    python = CACHE / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", CACHE], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *NEEDS], check=True)
    paths = os.pathsep.join(map(str, (ROOT / "src", ROOT / "tests" / "extract")))
    asked = subprocess.run(
        [python, ASKER, *sys.argv[1:]],
        env={**os.environ, "PYTHONPATH": paths},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    ).stdout
    if sys.argv[1:]:
        print(asked, end="")
        return
    FOUND.write_text(asked)
    print(f"wrote {FOUND.relative_to(ROOT)}: {len(asked.splitlines()) - 1:,} texts")


if __name__ == "__main__":
    main()
