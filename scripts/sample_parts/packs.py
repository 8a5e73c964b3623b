"""The two task packs: dictionary definitions and two-digit sums, four choices each."""

from __future__ import annotations

import hashlib
import json
from collections import Counter

from sample_parts.glosses import Synset, rank
from sample_parts.packages import SampleError

HELD_OUT = {"noun": 660, "verb": 270, "adj": 212, "adv": 58}
NUM_SUMS = 320
_STEPS = (1, 2, 9, 10, 11)

Item = dict[str, object]


def wordnet_cloze(synsets: list[Synset]) -> list[Item]:
    """One item for each held-out synset; the wrong choices are definitions of other held-out synsets of the same part
    of speech and much the same length, which share no word with it."""
    seen = Counter(synset.definition for synset in synsets)
    items: list[Item] = []
    for pos, count in HELD_OUT.items():
        held = _hold_out([synset for synset in synsets if synset.pos == pos and seen[synset.definition] == 1], count)
        by_length = sorted(held, key=lambda synset: (len(synset.definition), synset.id))
        for place, synset in enumerate(by_length):
            wrong = _distractors(synset, by_length, place)
            items.append(_cloze_item(synset, wrong))
    items.sort(key=lambda item: rank(f"item {item['id']}"))
    return [_with_answer_at(item, i % 4) for i, item in enumerate(items)]


def sums() -> list[Item]:
    """Held-out sums of two two-digit numbers; the answer's place among the four numbers, by size and as listed, is
    balanced."""
    pairs = sorted(((a, b) for a in range(10, 100) for b in range(10, 100)), key=lambda p: rank(f"sum/{p[0]}+{p[1]}"))
    items: list[Item] = []
    taken: set[str] = set()
    for a, b in pairs:
        name = f"sum/{a}+{b}"
        if name in taken:
            continue
        mirror = f"sum/{b}+{a}"
        taken |= {name, mirror}
        i = len(items)
        wrong = _wrong_sums(a + b, below=i // 4 % 4, key=name)
        choices = [f" {value}" for value in wrong]
        choices.insert(i % 4, f" {a + b}")
        items.append(
            {
                "id": name,
                "prompt": f"What is {a} + {b}?",
                "choices": choices,
                "answer": i % 4,
                "target": str(a + b),
                "ids": list(dict.fromkeys([name, mirror])),
            }
        )
        if len(items) == NUM_SUMS:
            return items
    raise SampleError("there are not enough pairs of two-digit numbers")


def pack_files(name: str, items: list[Item], description: str, licence: str) -> dict[str, bytes]:
    """pack.yaml and items.jsonl; the first names the hash of the second."""
    data = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in items).encode("utf-8")
    head = {
        "name": name,
        "version": 1,
        "kind": "multiple_choice",
        "metric": "acc",
        "chance": 0.25,
        "description": description,
        "license": licence,
        "items_sha256": hashlib.sha256(data).hexdigest(),
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in head.items()]  # JSON is YAML
    return {"pack.yaml": "".join(lines).encode("utf-8"), "items.jsonl": data}


def _hold_out(synsets: list[Synset], count: int) -> list[Synset]:
    out: list[Synset] = []
    prompts: set[str] = set()
    for synset in sorted(synsets, key=lambda synset: rank("held out " + synset.id)):
        if 15 <= len(synset.definition) <= 90 and synset.prompt not in prompts:
            prompts.add(synset.prompt)
            out.append(synset)
        if len(out) == count:
            return out
    raise SampleError(f"{len(out)} synsets fit the dictionary pack, expected {count}")


def _distractors(synset: Synset, by_length: list[Synset], place: int) -> list[Synset]:
    near = by_length[max(0, place - 15) : place] + by_length[place + 1 : place + 16]
    near = [other for other in near if not set(other.lemmas) & set(synset.lemmas)]
    return sorted(near, key=lambda other: rank(f"{synset.id} {other.id}"))[:3]


def _cloze_item(synset: Synset, wrong: list[Synset]) -> Item:
    return {
        "id": synset.id.replace("wordnet/", "wordnet-cloze/"),
        "prompt": synset.prompt,
        "choices": [f" {one.definition}" for one in (synset, *wrong)],
        "answer": 0,
        "target": None,
        "ids": [one.id for one in (synset, *wrong)],
    }


def _with_answer_at(item: Item, place: int) -> Item:
    choices = item["choices"]
    assert isinstance(choices, list)
    moved = choices[1:]
    moved.insert(place, choices[0])
    return {**item, "choices": moved, "answer": place}


def _wrong_sums(right: int, *, below: int, key: str) -> list[int]:
    """Three near misses, `below` of them smaller than the right sum, in an order of their own."""
    steps = sorted(_STEPS, key=lambda step: rank(f"{key} {step}"))[:3]
    values = [right - step if i < below else right + step for i, step in enumerate(steps)]
    return sorted(values, key=lambda value: rank(f"{key} = {value}"))
