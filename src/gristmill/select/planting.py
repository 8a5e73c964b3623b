"""Evaluation items in several forms, put into real documents: does decontamination find them?

The forms are those in which questions get into a corpus: a dialogue, a quiz with its options in another order, a JSON file, narrow
columns with quote marks. Who copied a question from its source does not have the wording of a pack, so it is planted without: an item
that names its `question` by that, another one without what its prompt has in common with others. That is reckoned here from the texts
and not taken from what is looked for, which is to be tested. In one form, a row, items stand as their pack has them.
"""

from __future__ import annotations

import json
import re
import textwrap
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gristmill.data.packs import Item, Pack
from gristmill.errors import DataError
from gristmill.select.decontaminate import Decontaminator
from gristmill.select.item_words import WORDING_ITEMS, WORDING_SHARE, item_name, searched
from gristmill.select.outputs import PlantedRecall

VERSION = 2  # of every step that uses it: rises when the meaning of what it computes changes

MAX_ITEMS = 500
DOCUMENT_CHARS = 4_000
COLUMN = 40
Form = Callable[[Item, np.random.Generator], str]


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A text into which one item was put, in one form."""

    item_id: str
    form: str
    text: str


def _dialogue(item: Item, rng: np.random.Generator) -> str:
    return f"User: {searched(item)}\nAssistant: {item.gold.strip()}"


def _json(item: Item, rng: np.random.Generator) -> str:
    return json.dumps({"question": searched(item), "answer": item.gold})


def _columns(item: Item, rng: np.random.Generator) -> str:
    return "\n".join(f"> {line}" for line in textwrap.wrap(f"{searched(item)} {item.gold.strip()}", COLUMN))


def _quiz(item: Item, rng: np.random.Generator) -> str:
    options = [choice.strip() for choice in item.choices] or [item.gold.strip()]
    listed = "\n".join(
        f"({chr(97 + k % 26)}) {options[place]}" for k, place in enumerate(rng.permutation(len(options)))
    )
    return f"{searched(item)}\n{listed}\nCorrect: {item.gold.strip()}"


def _answer_first(item: Item, rng: np.random.Generator) -> str:
    return f"A: {item.gold.strip()}\nQ: {searched(item)}"


def _row(item: Item, rng: np.random.Generator) -> str:
    return f"{searched(item)} {item.gold.strip()}"


FORMS: dict[str, Form] = {
    "row": _row,
    "dialogue": _dialogue,
    "JSON": _json,
    "columns": _columns,
    "quiz": _quiz,
    "answer first": _answer_first,
}
SURE_FORM = "row"  # prompt and answer one behind the other, in which every item that is looked for must be found


def plant(pack: Pack, documents: Sequence[str], *, seed: int, max_items: int = MAX_ITEMS) -> list[Planted]:
    """Copies of the documents with one item each at a random gap between words, the forms by turns.

    All items where the pack has at most `max_items`, else a sample. Raises ValueError when there are no documents.
    """
    if not documents:
        raise ValueError("planting needs at least one document")
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.permutation(len(pack.items))[:max_items])
    without = foreign(pack.items)
    planted = []
    for turn, k in enumerate(chosen.tolist()):
        form = list(FORMS)[turn % len(FORMS)]
        item = pack.items[k] if form == SURE_FORM else without[k]
        document = documents[int(rng.integers(len(documents)))][:DOCUMENT_CHARS]
        gap = document.find(" ", int(rng.integers(len(document) + 1)))
        cut = len(document) if gap < 0 else gap
        text = f"{document[:cut]}\n\n{FORMS[form](item, rng)}\n\n{document[cut:]}"
        planted.append(Planted(item_id=item_name(pack, item), form=form, text=text))
    return planted


def foreign(items: Sequence[Item]) -> list[Item]:
    """The items of a pack, each with its own words as its `question`: without what at least half of those that name none begin or end
    with, up to a mark or a line break. One of which nothing would be left stays as it is."""
    whole = [k for k, item in enumerate(items) if not item.question]
    texts = [_pieces(searched(items[k])) for k in whole]
    for _ in ("in front", "behind"):  # each time turned round
        run = _wording(texts)
        same = [next((k for k, piece in enumerate(run) if text[k : k + 1] != [piece]), len(run)) for text in texts]
        texts = [text[count:][::-1] for text, count in zip(texts, same)]
    found = list(items)
    for k, text in zip(whole, texts):
        if own := "".join(text).strip():
            found[k] = replace(items[k], question=own)
    return found


def _pieces(text: str) -> list[str]:
    """A text cut where more than a blank parts two words: behind a mark, before one, and at a line break."""
    pieces: list[str] = []
    for word in re.findall(r"\n|[^\S\n]*\S+", text):
        if pieces and not any(unicodedata.category(edge)[0] in "PSC" for edge in (pieces[-1][-1], word.strip(" ")[0])):
            pieces[-1] += word
        else:
            pieces.append(word)
    return pieces


def _wording(texts: Sequence[Sequence[str]]) -> list[str]:
    """The pieces in a row that at least half of the texts begin with, and no fewer than WORDING_ITEMS."""
    run: list[str] = []
    needed = max(WORDING_SHARE * len(texts), WORDING_ITEMS)
    while len(texts := [text for text in texts if len(text) > len(run)]) >= needed:
        piece, count = Counter(text[len(run)] for text in texts).most_common(1)[0]
        if count < needed:
            break
        texts = [text for text in texts if text[len(run)] == piece]
        run.append(piece)
    return run


def planted_recall(
    finder: Decontaminator, packs: Sequence[Pack], documents: Sequence[str], *, seed: int, max_items: int = MAX_ITEMS
) -> dict[str, PlantedRecall]:
    """Per pack: items planted and found, in all and by form, and items that are not looked for.

    Raises DataError when an item that is looked for is missed in SURE_FORM.
    """
    report: dict[str, PlantedRecall] = {}
    unprotected = set(finder.unprotected)
    for pack in packs:
        planted = [p for p in plant(pack, documents, seed=seed, max_items=max_items) if p.item_id not in unprotected]
        matches = finder.match_all([p.text for p in planted])
        found = [m is not None and p.item_id in m.item_ids for p, m in zip(planted, matches, strict=True)]
        sure = [p.item_id for p, held in zip(planted, found, strict=True) if not held and p.form == SURE_FORM]
        if sure and finder.rule != "finemath@1":
            raise DataError(
                f"decontamination missed {len(sure)} planted items of pack {pack.name!r}, the first is {sure[0]!r}: question "
                "and answer were put into documents of the source and not found, so nothing was searched.\n"
                f"  That is a defect of gristmill: report it with the item, in {pack.path / 'items.jsonl'}. Until it is mended, give "
                "the item a `question` that is text alone, or leave it out."
            )
        own = [name for name in finder.unprotected if name.startswith(f"{pack.name}/")]
        report[pack.name] = PlantedRecall(
            items=len(pack.items),
            sha256=pack.sha256,
            planted=len(planted),
            found=sum(found),
            by_form={
                form: (
                    sum(held for p, held in zip(planted, found, strict=True) if p.form == form),
                    sum(p.form == form for p in planted),
                )
                for form in FORMS
            },
            unprotected_items=len(own),
            unprotected_examples=tuple(own[:10]),
        )
    return report
