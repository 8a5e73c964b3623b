"""A small real sample and a recipe over it that goes through every step in seconds: the quickstart, cut down.

    folder/
        recipe.yaml        the recipe below, as YAML
        data/              the first pages, entries, chapters, files, items and conversations of samples/quickstart

Everything is cut, nothing is invented, so what the lifecycle meets here it meets in the quickstart too: foreign pages, a
damaged WARC record, near-duplicates, held-out entries and sums.
"""

from __future__ import annotations

import gzip
import itertools
import json
import re
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from gristmill.data.packs import read_pack, write_pack

SAMPLE = Path(__file__).parents[2] / "samples" / "quickstart"
PAGES = slice(
    150, 268
)  # foreign pages, near-duplicates and the damaged record are among them; over 500 kB make two shards
NUM_GLOSSES = 700
NUM_CHAPTERS = 6
NUM_CODE_FILES = 16
NUM_ITEMS = 40
NUM_CONVERSATIONS = 40

SOURCES = ("manuals", "glosses", "novel", "code")
MODELS = ("pretrain", "sft", "dpo")


def write_project(folder: Path, recipe: dict[str, Any] | None = None) -> Path:
    """Writes data/ and recipe.yaml into `folder`; returns the recipe's path."""
    write_sample(folder / "data")
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe or tiny_recipe(), sort_keys=False), encoding="utf-8")
    return path


# ── the recipe ───────────────────────────────────────────────────────────────────────────────────────────────────────


def tiny_recipe() -> dict[str, Any]:
    """Every section of the schema, each as small as it can be and still mean something."""
    mixture = {"manuals": 0.6, "glosses": 0.15, "novel": 0.15, "code": 0.1}
    extension = [
        {"source": "manuals", "weight": 0.3},
        {"source": "glosses", "weight": 0.3},
        {"source": "manuals", "weight": 0.2, "min_document_tokens": 256},
        {"source": "novel", "weight": 0.2, "min_document_tokens": 256},
    ]
    return {
        "schema_version": 1,
        "name": "tiny",
        "description": "Every step on a sample of the sample.",
        "seed": 3,
        "packs": {name: {"path": f"data/packs/{name}"} for name in ("wordnet-cloze", "sums")},
        "sources": {
            "manuals": {
                "read": {"format": "warc", "paths": ["data/manuals.warc.gz"]},
                "license": "PSF-2.0, PostgreSQL, public domain, BSD-3-Clause",
                "main_text": {"extractor": "trafilatura", "keep_maths": True},
                "language": {"keep": ["en"], "min_score": 0.65},
                "rules": {
                    "packs": ["gopher_repetition@1", "gopher_quality@1", "fineweb@1"],
                    "off": ["too_few_words", "too_few_lines_end_in_punctuation", "too_many_short_lines"],
                    "limits": {"too_few_tokens_with_letters": 0.5},
                },
            },
            "glosses": {
                "read": {"format": "jsonl", "paths": ["data/glosses.jsonl.gz"], "id_field": "id"},
                "license": "WordNet-3.0",
            },
            "novel": {
                "read": {"format": "text", "paths": ["data/novel.txt"], "split_at": r"^Chapter \d+$"},
                "license": "public domain",
                "rules": {
                    "packs": ["gopher_repetition@1", "gopher_quality@1"],
                    "limits": {"too_few_tokens_with_letters": 0.7},
                },
            },
            "code": {
                "read": {"format": "code", "paths": ["data/code.tar.gz"]},
                "license": "PSF-2.0, MIT, BSD-3-Clause",
                "rules": {"packs": ["code@1"]},
            },
        },
        "classifiers": {
            "edu": {
                "source": "manuals",
                "annotations": "data/edu.jsonl",
                "second_annotations": "data/edu-second.jsonl",
                "min_class_size": 8,
            }
        },
        "select": {
            "min_scores": {"manuals": {"classifier": "edu", "above": 1.0}},
            "priority": list(SOURCES),
            "validation": {"fraction": 0.05, "min_bytes": 4000},
        },
        "tokenizer": {"vocab_size": 640},
        "model": {
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "initializer_range": 0.144,
            "max_position_embeddings": 256,
        },
        "pretrain": {
            "stages": [
                {"name": "stable", "tokens": 14_336, "seq_len": 128, "mixture": mixture},
                {"name": "decay", "tokens": 8192, "seq_len": 128, "mixture": mixture},
                {"name": "extension", "tokens": 6144, "seq_len": 256, "rope_theta": 100_000.0, "mixture": extension},
            ],
            "global_batch_tokens": 1024,
            "warmup_tokens": 2048,
            "decay_tokens": 14_336,
            "optimizer": {"peak_lr": 1.0e-2},
            "watch": {
                "every_tokens": 7168,
                "validation_bytes": 1500,
                "packs": ["wordnet-cloze"],
                "packs_every_tokens": 7168,
                "max_items": 20,
                "max_share": 1.0,
            },
            "sample_prompts": ["", "The function returns"],
            "checkpoint_every_tokens": 5120,
        },
        "chat": {
            "conversations": ["data/chat.jsonl"],
            "sums_up_to": 2,
            "two_digit_sums": 10,
            "definitions_from": "glosses",
            "num_definitions": 10,
        },
        "sft": {
            "epochs": 12,
            "batch_conversations": 8,
            "seq_len": 128,
            "optimizer": {"peak_lr": 1.0e-2},
            "sample_prompts": ["Hello!", "What is 1 + 1?"],
        },
        "pairs": {"num_prompts": 19, "samples_per_prompt": 6, "max_new_tokens": 16},
        "dpo": {"epochs": 2, "batch_pairs": 4, "seq_len": 128, "optimizer": {"peak_lr": 1.0e-4}},
        "evaluate": {"packs": ["wordnet-cloze", "sums"], "validation_bytes": 3000},
        "export": {"dtype": "float32"},
    }


# ── the data ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def write_sample(data: Path) -> None:
    """The first of everything in samples/quickstart, in the formats it has there."""
    data.mkdir(parents=True, exist_ok=True)
    ids = _write_pages(data / "manuals.warc.gz")
    for name, path in (("edu", "edu-v1"), ("edu-second", "edu-v1-second")):
        labels = rows(SAMPLE / "annotations" / f"{path}.jsonl")
        _write_rows(data / f"{name}.jsonl", (row for row in labels if row["record_id"] in ids))
    packs = {name: read_pack(SAMPLE / "packs" / name) for name in ("wordnet-cloze", "sums")}
    for name, pack in packs.items():
        write_pack(
            data / "packs" / name,
            name=pack.name,
            version=pack.version,
            kind=pack.kind,
            metric=pack.metric,
            chance=pack.chance,
            items=pack.items[:NUM_ITEMS],
        )
    _write_glosses(
        data / "glosses.jsonl.gz", [id for item in packs["wordnet-cloze"].items[:NUM_ITEMS] for id in item.ids]
    )
    (data / "novel.txt").write_text("".join(chapters(NUM_CHAPTERS)), encoding="utf-8")
    _write_code(data / "code.tar.gz")
    _write_rows(data / "chat.jsonl", rows(SAMPLE / "chat" / "everyday.jsonl")[:: 362 // NUM_CONVERSATIONS])


def _write_pages(path: Path) -> set[str]:
    """A WARC cut at member borders, the damaged record among them; returns the ids of its records."""
    raw = (SAMPLE / "web" / "manuals.warc.gz").read_bytes()
    members = rows(SAMPLE / "web" / "manifest.jsonl")
    info = raw[: members[0]["offset"]]
    wanted = members[PAGES]
    path.write_bytes(info + b"".join(raw[row["offset"] : row["offset"] + row["length"]] for row in wanted))
    return {row["record_id"] for row in wanted if row["kind"] != "corrupt"}


def _write_glosses(path: Path, held_out: Iterable[str]) -> None:
    """Entries from the front, and those that the packs hold out: otherwise nothing would show that they leave."""
    wanted = set(held_out)
    entries = rows(SAMPLE / "glosses" / "wordnet.jsonl.gz")
    every = len(entries) // NUM_GLOSSES
    lines = [row for number, row in enumerate(entries) if number % every == 0 or row["id"] in wanted]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in lines)
    path.write_bytes(gzip.compress(text.encode("utf-8"), mtime=0))


def chapters(number: int) -> list[str]:
    """The first chapters of the novel; what stands before the first one comes with it."""
    (book,) = (SAMPLE / "novel").glob("*.txt.gz")
    text = gzip.decompress(book.read_bytes()).decode("utf-8")
    starts = [match.start() for match in re.finditer(r"^Chapter \d+$", text, re.MULTILINE)]
    bounds = [0, *starts[1:], len(text)]
    return [text[start:end] for start, end in itertools.pairwise(bounds)][:number]


def _write_code(path: Path) -> None:
    """Every few files of the archive, so that all its languages are there."""
    with (
        tarfile.open(SAMPLE / "code" / "code.tar.gz") as archive,
        path.open("wb") as file,
        gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w") as out,
    ):
        files = [member for member in archive.getmembers() if member.isfile()]
        for member in files[:: len(files) // NUM_CODE_FILES][:NUM_CODE_FILES]:
            out.addfile(member, archive.extractfile(member))


def rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSONL file, plain or .gz."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in raw.decode("utf-8").splitlines()]


def _write_rows(path: Path, values: Iterable[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), encoding="utf-8")
