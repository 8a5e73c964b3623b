"""WordNet 3.0 synsets as one-line dictionary entries (the data files are described in WordNet's wndb(5) page)."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from dataclasses import dataclass

from sample_parts.packages import Origin, files_in

POS = {"noun": 4_700, "verb": 2_100, "adj": 1_800, "adv": 450}
_LETTERS = {"noun": "1", "verb": "2", "adj": "3", "adv": "4"}


@dataclass(frozen=True, kw_only=True)
class Synset:
    """One sense: its words, its gloss (definition and examples) and how often it was tagged in WordNet's texts."""

    id: str
    pos: str
    lemmas: tuple[str, ...]
    gloss: str
    uses: int

    @property
    def prompt(self) -> str:
        return f"{', '.join(self.lemmas)} ({self.pos_name}):"

    @property
    def pos_name(self) -> str:
        return {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}[self.pos]

    @property
    def text(self) -> str:
        return f"{self.prompt} {self.gloss}"

    @property
    def definition(self) -> str:
        """The gloss up to its first semicolon outside brackets: no second definition and no example."""
        depth = 0
        for i, char in enumerate(self.gloss):
            depth += (char == "(") - (char == ")")
            if char == ";" and depth <= 0:
                return self.gloss[:i].strip()
        return self.gloss.strip()

    def to_json(self) -> dict[str, object]:
        return {
            "id": self.id,
            "lemmas": list(self.lemmas),
            "pos": self.pos_name,
            "gloss": self.gloss,
            "text": self.text,
        }


def build(origin: Origin) -> list[Synset]:
    """The most used synsets of every part of speech whose first word is a single plain one, in the order of their ids."""
    files = files_in(origin, "usr/share/wordnet/")
    uses = _uses(files["cntlist.rev"].decode("ascii"))
    chosen: list[Synset] = []
    for pos, count in POS.items():
        synsets = [
            synset
            for line in files[f"data.{pos}"].decode("ascii").splitlines()
            if not line.startswith(" ")
            for synset in [_synset(line, pos, uses)]
            if re.fullmatch(r"[a-z]{3,14}", synset.lemmas[0]) and 12 <= len(synset.gloss) <= 110
        ]
        synsets.sort(key=lambda synset: (-synset.uses, rank(synset.id)))
        chosen += synsets[:count]
    return sorted(chosen, key=lambda synset: synset.id)


def rank(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8")).hexdigest()


def _uses(cntlist: str) -> Counter[tuple[str, str, int, int]]:
    """(lemma, part of speech digit, file number, sense in that file) -> count; satellite adjectives count as adjectives."""
    uses: Counter[tuple[str, str, int, int]] = Counter()
    for line in cntlist.splitlines():
        key, _, count = line.split()
        lemma, _, rest = key.partition("%")
        kind, file_number, sense = rest.split(":")[:3]
        uses[lemma, "3" if kind == "5" else kind, int(file_number), int(sense)] += int(count)
    return uses


def _synset(line: str, pos: str, uses: Counter[tuple[str, str, int, int]]) -> Synset:
    data, _, gloss = line.partition(" | ")
    fields = data.split()
    file_number, num_words = int(fields[1]), int(fields[3], 16)
    lemmas: list[str] = []
    total = 0
    for i in range(num_words):
        word = re.sub(r"\((a|p|ip)\)$", "", fields[4 + 2 * i])
        total += uses[word.lower(), _LETTERS[pos], file_number, int(fields[5 + 2 * i], 16)]
        lemmas.append(word.replace("_", " "))
    return Synset(
        id=f"wordnet/{pos}/{fields[0]}", pos=pos, lemmas=tuple(lemmas), gloss=" ".join(gloss.split()), uses=total
    )
