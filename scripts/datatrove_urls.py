"""What datatrove's URL filter decides with the lists of the tests. Runs in the environment that ask_datatrove.py makes.

It is asked in lower case, for it compares its lists, in lower case, with URLs as they are. Its domains are both ours, and hosts.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from datatrove.data import Document  # type: ignore[import-not-found]
from datatrove.pipeline.filters.url_filter import URLFilter  # type: ignore[import-not-found]

TESTS = Path(__file__).parents[1] / "tests" / "extract"
REASONS = {
    "domain": "blocked_domain",
    "subdomain": "blocked_host",
    "url": "blocked_url",
    "hard_blacklisted": "hard_word_in_url",
    "soft_blacklisted": "soft_words_in_url",
    "blacklisted_subword": "substring_of_url",
}


def entries(kind: str) -> list[str]:
    """The lines of a list, without blank ones: datatrove takes them for words that the end of a URL has."""
    lines = (TESTS / "url_lists" / f"{kind}.txt").read_text(encoding="utf-8").lower().splitlines()
    return [line for line in lines if line]


def main() -> None:
    """Writes the table to standard output."""
    asked = URLFilter(
        use_integrated_lists=False,
        extra_domains=[*entries("domains"), *entries("hosts")],
        extra_urls=entries("urls"),
        banned_words=entries("hard_words"),
        soft_banned_words=entries("soft_words"),
        banned_subwords=entries("substrings"),
    )
    table = csv.writer(sys.stdout, delimiter="\t", lineterminator="\n")
    table.writerow(("url", "decision"))
    with (TESTS / "urls.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            told = asked.filter(Document(text="", id="", metadata={"url": row["url"].lower()}))
            table.writerow((row["url"], "-" if told is True else REASONS[told[1]]))


if __name__ == "__main__":
    main()
