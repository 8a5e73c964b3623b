"""What main-text extraction costs over the bare extractor that it calls, on pages with and without formulas, by turns in one process.

    python benchmarks/main_text.py FOLDER [--pages 300] [--rounds 3]

Reads HTML files below FOLDER, a random selection by a fixed seed. Ours: limits, formulas taken out and put back, blanks at line ends. Bare: the
extractor with the same settings on the same page. CPU time of this process; prints microseconds a page and bare over ours (1 is no cost).
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import trafilatura
from resiliparse.extract.html2text import extract_plain_text

from gristmill.extract.main_text import Extractor, find_main_text
from gristmill.extract.maths import take_out

SEED = 1


def bare(extractor: Extractor, html: str) -> str | None:
    if extractor == "trafilatura":
        return trafilatura.extract(html, fast=True, include_comments=False)
    return str(extract_plain_text(html, main_content=True, alt_texts=False, comments=False, list_bullets=False))


def seconds(function: Callable[[str], object], pages: Sequence[str]) -> float:
    started = time.process_time()
    for page in pages:
        function(page)
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    files = sorted(path for path in args.folder.rglob("*.htm*") if path.is_file())
    random.Random(SEED).shuffle(files)
    pages = [path.read_text(encoding="utf-8", errors="replace") for path in files[: args.pages]]
    with_formulas = [page for page in pages if take_out(page).formulas]
    without = [page for page in pages if not take_out(page).formulas]
    for extractor in ("resiliparse", "trafilatura"):
        for words, own in (("without formulas", without), ("with formulas", with_formulas)):
            if not own:
                continue
            ours, theirs = list[float](), list[float]()
            find_main_text(max(own, key=len), extractor=extractor)  # what is loaded once
            for _ in range(args.rounds):
                ours.append(seconds(lambda page, chosen=extractor: find_main_text(page, extractor=chosen), own))
                theirs.append(seconds(lambda page, chosen=extractor: bare(chosen, page), own))
            per_page = [1e6 * statistics.median(times) / len(own) for times in (ours, theirs)]
            print(
                f"{extractor:<12} {len(own):>5} pages {words:<17} ours {per_page[0]:8,.0f} µs, bare {per_page[1]:8,.0f} µs, "
                f"bare over ours {per_page[1] / per_page[0]:.2f}"
            )


if __name__ == "__main__":
    main()
