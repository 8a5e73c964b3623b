"""How many words of manual pages come in the order in which `man` shows them: pages of this machine, without their tables.

python benchmarks/man_words.py [PAGES] [SEED]
"""

from __future__ import annotations

import gzip
import os
import random
import re
import subprocess
import sys
from difflib import SequenceMatcher
from pathlib import Path

from gristmill.data.record import RawDocument
from gristmill.formats.man import read_man

FOLDER = Path("/usr/share/man")
MAX_BYTES = 40_000
TABLE = re.compile(rb"^\.\s*TS.*?^\.\s*TE[^\n]*\n", re.MULTILINE | re.DOTALL)
SAME = {0x27E8: "<", 0x27E9: ">", 0x2010: "-", 0x2011: "-", 0x2212: "-", 0xA0: " "}
ENOUGH = 0.97


def shown(path: Path) -> list[str]:
    """The words that `man` shows, without head and foot."""
    data = path.read_bytes()
    page = TABLE.sub(b"", gzip.decompress(data) if path.suffix == ".gz" else data)
    command = ["man", "--no-hyphenation", "--no-justification", "-l", "-"]
    environment = {**os.environ, "MANWIDTH": "9999", "LC_ALL": "C.UTF-8"}
    found = subprocess.run(command, input=page, capture_output=True, check=True, env=environment, timeout=60)
    lines = [line for line in re.sub(".\x08", "", found.stdout.decode()).split("\n") if line.strip()]
    return "\n".join(lines[1:-1]).translate(SAME).split()


def main() -> None:
    """Prints the worst pages and a summary."""
    number, seed = (int(value) for value in [*sys.argv[1:], "100", "1"][:2])
    pages = [path for path in FOLDER.glob("man[1-8]/*") if not path.is_symlink() and path.stat().st_size < MAX_BYTES]
    shares = []
    for path in random.Random(seed).sample(sorted(pages), min(number, len(pages))):
        text = next((one.text for one in read_man(path, name=path.name) if isinstance(one, RawDocument)), None)
        if text is None or not (wanted := shown(path)):
            continue
        matcher = SequenceMatcher(None, text.translate(SAME).split(), wanted, autojunk=False)
        shares.append((sum(block.size for block in matcher.get_matching_blocks()) / len(wanted), path.name))
    for share, name in sorted(shares)[:5]:
        print(f"{share:.3f}  {name}")
    enough = sum(share >= ENOUGH for share, _ in shares)
    print(f"{enough} of {len(shares)} pages have {ENOUGH} of their words in order or more")


if __name__ == "__main__":
    main()
