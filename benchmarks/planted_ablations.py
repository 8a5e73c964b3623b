"""Ablations whose answer is known beforehand, run for real: does `gristmill ablate` find it, or say that it cannot tell?

    python benchmarks/planted_ablations.py mix  --folder FOLDER     two planted domains; the best share of each is one half
    python benchmarks/planted_ablations.py harm --folder FOLDER     WordNet's glosses with their words in random order, 10 % and 30 %
    python benchmarks/planted_ablations.py when --folder FOLDER     glosses kept for the decay, against the same tokens spread evenly

mix: a language is a chain of 300 words in which each is followed by four others, .55, .25, .15 and .05 of the time; the second language is
the first with other letters, so that nothing but the names of the words tells them apart, and the endpoint is half of each. By symmetry the best share is one half,
and what each document costs at best is the entropy of the chain. harm, when: the sample of the quickstart; the scarce set has no planted
answer in `when`, which asks what the method claims. The folder is kept: the command resumes, and a second one reads what is there.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "samples" / "quickstart"
SEED, WORDS, FOLLOWERS = 30, 300, (0.55, 0.25, 0.15, 0.05)
LETTERS = ("aeioubdfgklm", "yàéîöúcnprst")
MODEL = {
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.125,
    "max_position_embeddings": 256,
}


def main() -> None:
    """Write the recipe and what it reads, train, and print each arm beside what is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("mix", "harm", "when"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    folder = options.folder / options.what
    folder.mkdir(parents=True, exist_ok=True)
    recipe = {"mix": _mix, "harm": _harm, "when": _when}[options.what](folder)
    next(iter(recipe["ablations"].values()))["seeds"] = options.seeds
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    if options.what == "harm":  # the trunk
        _gristmill(folder, "run", "recipe.yaml", "--until", "pretrain")
    _gristmill(folder, "ablate", "recipe.yaml")
    results = json.loads(next(folder.glob("runs/*/results.json")).read_text(encoding="utf-8"))
    for row in results["endpoint"]:
        print(f"{row['arm']} - {row['other']}: {row['difference']:+.4f} {row['interval']}, {row['verdict']}")
    print(json.dumps({"what": options.what, "verdict": results["verdict"]}))


def _mix(folder: Path) -> dict[str, Any]:
    rng = random.Random(SEED)
    chain = [rng.sample(range(WORDS), len(FOLLOWERS)) for _ in range(WORDS)]
    names = [_names(letters, rng) for letters in LETTERS]
    for source, languages, count in (("first", (0,), 3000), ("second", (1,), 3000), ("both", (0, 1), 600)):
        texts = (_text(chain, names[languages[n % len(languages)]], rng) for n in range(count))
        _write(folder / f"{source}.jsonl.gz", texts, source)
    sources = {name: _jsonl(f"{name}.jsonl.gz") for name in ("first", "second", "both")}
    return {
        **_base("mix", sources),
        "pretrain": _pretrain([("stable", 163_840, {"first": 1.0}), ("decay", 40_960, {"first": 1.0})]),
        "ablations": {
            "mix": {
                "kind": "scratch",
                "candidates": {"second": {"second": 1}},
                "shares": [0.1, 0.3, 0.5, 0.7, 0.9],
                "endpoint": "both",
            }
        },
    }


def _harm(folder: Path) -> dict[str, Any]:
    rng = random.Random(SEED)
    with gzip.open(SAMPLE / "glosses" / "wordnet.jsonl.gz", "rt", encoding="utf-8") as lines:
        glosses = [json.loads(line)["text"].split() for line in lines]
    _write(folder / "shuffled.jsonl.gz", (" ".join(rng.sample(words, len(words))) for words in glosses), "shuffled")
    asked = {
        "candidates": {"shuffled": {"shuffled": 1}},
        "shares": [0.1, 0.3],
        "endpoint": "glosses",
        "tokens": 204_800,
    }
    return {
        "extends": str(ROOT / "recipes" / "quickstart.yaml"),
        "name": "harm",
        "sources": {"shuffled": {**_jsonl("shuffled.jsonl.gz"), "late": True}},
        "evaluate": {"packs": ["wordnet-cloze"], "validation_bytes": 100_000},
        "ablations": {"harm": asked},
    }


def _when(folder: Path) -> dict[str, Any]:
    _ = folder
    paths = {"glosses": "glosses/wordnet.jsonl.gz"}
    sources: dict[str, Any] = {name: _jsonl(str(SAMPLE / path)) for name, path in paths.items()}
    sources["manuals"] = {
        "read": {"format": "warc", "paths": [str(SAMPLE / "web" / "manuals.warc.gz")]},
        "license": "as in the quickstart",
    }
    sources["code"] = {
        "read": {"format": "code", "paths": [str(SAMPLE / "code" / "code.tar.gz")]},
        "license": "as in the quickstart",
    }
    usual = {"manuals": 0.7, "code": 0.3}
    late = {"glosses": 0.5, **{name: weight / 2 for name, weight in usual.items()}}
    even = {"glosses": 0.1, **{name: round(weight * 0.9, 6) for name, weight in usual.items()}}
    return {
        **_base("when", sources),
        "pretrain": _pretrain([("stable", 655_360, usual), ("decay", 163_840, late)]),
        "ablations": {
            "when": {"kind": "stages", "plans": {"spread": {"stable": even, "decay": even}}, "endpoint": "glosses"}
        },
    }


def _base(name: str, sources: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": name,
        "seed": SEED,
        "sources": sources,
        "select": {
            "near_duplicates": None,
            "validation": {"fraction": 0.1, "min_bytes": 60_000},
        },
        "tokenizer": {"vocab_size": 1024},
        "model": MODEL,
        "evaluate": {"packs": [], "validation_bytes": 200_000},
    }


def _pretrain(stages: list[tuple[str, int, dict[str, float]]]) -> dict[str, Any]:
    return {
        "stages": [
            {"name": name, "tokens": tokens, "seq_len": 256, "mixture": mixture} for name, tokens, mixture in stages
        ],
        "global_batch_tokens": 2048,
        "warmup_tokens": 20_480,
        "decay_tokens": stages[-1][1],
        "optimizer": {"peak_lr": 6.0e-3},
        "max_epochs": 5.0,
        "watch": {"every_tokens": 10**12, "validation_bytes": 1000, "packs": []},
        "checkpoint_every_tokens": 10**12,
    }


def _jsonl(path: str) -> dict[str, Any]:
    return {"read": {"format": "jsonl", "paths": [path]}, "license": "made for this"}


def _names(letters: str, rng: random.Random) -> list[str]:
    """As many different words of two to four syllables."""
    vowels, others = letters[:5], letters[5:]
    found: dict[str, None] = {}
    while len(found) < WORDS:
        found["".join(rng.choice(others) + rng.choice(vowels) for _ in range(rng.randint(2, 4)))] = None
    return list(found)


def _text(chain: list[list[int]], names: list[str], rng: random.Random) -> str:
    """One document: a walk of 60 to 180 words."""
    word, words = rng.randrange(WORDS), list[str]()
    for _ in range(rng.randint(60, 180)):
        words.append(names[word])
        word = rng.choices(chain[word], FOLLOWERS)[0]
    return " ".join(words) + "."


def _write(path: Path, texts: Iterator[str], source: str) -> None:
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for number, text in enumerate(texts):
            file.write(json.dumps({"id": f"{source}-{number}", "text": text}, ensure_ascii=False) + "\n")


def _gristmill(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "gristmill", *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    main()
