"""Golden rows: what each step of the tiny project leaves, decoded and small, with the versions of the code that left it.

    python scripts/update_golden.py                       run the tiny project, show which steps differ from the golden rows
    python scripts/update_golden.py --why "a reason"      take over what differs; the history keeps the reason

A step whose output changed must say so by a higher VERSION, its own or that of a part; otherwise what users have made with the
old code is taken for what the new code would make. Ids and counts are compared exactly, floats to 1e-4.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from safetensors.numpy import load_file

from gristmill.graph.state import version_of
from gristmill.graph.step import Step
from gristmill.pipeline import steps_of
from gristmill.recipe.load import load_recipe
from gristmill.store.durable import read_json, write_json
from gristmill.store.fingerprint import canonical, fingerprint
from gristmill.tokens.shards import TokenShard

ROOT = Path(__file__).parents[1]
LIFECYCLE = ROOT / "tests" / "lifecycle"
GOLDEN = LIFECYCLE / "golden"
HISTORY = GOLDEN / "history.json"
HEAD = 48  # characters of a text
FEW = 6  # rows that are shown whole; the others count by a hash of their ids
TOLERANCE = 1e-4
CLOCKS = ("throughput/", "eval/wordnet-cloze/")  # times; answers that a rounding can flip


# ── rows of each step ────────────────────────────────────────────────────────────────────────────────────────────────


def rows_of(step: Step, folder: Path) -> dict[str, Any]:
    """What a step left in `folder`, decoded: never bytes of Parquet or weights."""
    return dict(canonical(ROWS[step.name.partition("/")[0]](folder)))


def _extract(folder: Path) -> dict[str, Any]:
    return {
        "documents": _documents(folder.glob("documents-*.parquet")),
        "rejected": _rejected(folder.glob("rejected-*.parquet")),
        "ledger": read_json(folder / "ledger.json")["sources"],
    }


def _classifier(folder: Path) -> dict[str, Any]:
    with np.load(folder / "model.npz") as model:
        arrays = {name: _mean(model[name]) for name in model.files if model[name].dtype.kind == "f"}
    scores = pq.read_table(folder / "out_of_fold.parquet").to_pylist()
    return {"arrays": arrays, "out_of_fold": _few(scores), "correlation": _report(folder, "out_of_fold_correlation")}


def _score(folder: Path) -> dict[str, Any]:
    return {
        "scores": _few([row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()])
    }


def _signatures(folder: Path) -> dict[str, Any]:
    rows = _table(folder.glob("prints-*.parquet"))
    prints = _hash(f"{row['exact'].hex()} {row['text_hash']} {row['keys'].hex()}" for row in rows)
    shown = ("id", "num_bytes", "bytes_in", "num_ngrams")
    return {"prints": _few(rows, lambda row: {key: row[key] for key in shown}), "hashes": prints}


def _contamination(folder: Path) -> dict[str, Any]:
    rows = [{"id": str(row["row"]), **row} for row in _table(folder.glob("matches-*.parquet"))]
    return {
        "matches": _few(rows, lambda row: {key: row[key] for key in ("row", "rule", "items", "start", "end")}),
        "report": read_json(folder / "report.json"),
    }


def _duplicates(folder: Path) -> dict[str, Any]:
    fates = np.load(folder / "fates.npy")
    copies, links = (pq.read_table(folder / f"{name}.parquet").to_pylist() for name in ("copies", "links"))
    return {
        "fates": {"by_kind": np.bincount(fates).tolist(), "all": _hash(map(str, fates.tolist()))},
        "copies": copies,
        "links": {"count": len(links), "all": _hash(f"{row['document']} {row['other']}" for row in links)},
    }


def _select(folder: Path) -> dict[str, Any]:
    sides: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*/*.parquet")):
        sides.setdefault(f"{path.parent.name}/{path.name.partition('-')[0]}", []).append(path)
    kept = {name: paths for name, paths in sides.items() if not name.endswith("/rejected")}
    clusters = {row["id"]: row["cluster"] for paths in kept.values() for row in _table(paths)[:FEW]}
    return {
        "documents": {name: _documents(paths) for name, paths in kept.items()},
        "clusters": clusters,
        "rejected": _rejected(folder.glob("*/rejected-*.parquet")),
        "ledger": read_json(folder / "ledger.json")["sources"],
    }


def _tokenizer(folder: Path) -> dict[str, Any]:
    found = read_json(folder / "tokenizer.json")
    merges = ["+".join(merge) if isinstance(merge, list) else merge for merge in found["model"]["merges"]]
    return {
        "vocab_size": len(found["model"]["vocab"]),
        "special": [token["content"] for token in found["added_tokens"]],
        "merges": {"first": merges[:FEW], "last": merges[-FEW:], "all": _hash(merges)},
        "chat_template": _hash([(folder / "chat_template.jinja").read_text(encoding="utf-8")]),
    }


def _tokenize(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for path in sorted(folder.glob("*/*.json")):
        shard = TokenShard(path.with_suffix(""))
        facts = shard.facts
        first = np.fromfile(path.with_suffix(".bin"), dtype=np.uint16, count=2 * FEW).tolist()
        found[f"{path.parent.name}/{path.stem}"] = {
            "documents": facts.num_documents, "tokens": facts.num_tokens, "bytes": facts.num_bytes, "first": first,
        }  # fmt: skip
    return found


def _training(folder: Path) -> dict[str, Any]:
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = [{key: value for key, value in line.items() if not key.startswith(CLOCKS)} for line in log]
    return {"metrics": [*kept[:2], *kept[-2:]], **_model(folder / "model")}


def _model(folder: Path) -> dict[str, Any]:
    weights = load_file(folder / "model.safetensors")
    return {
        "weights": {name: _mean(values) for name, values in sorted(weights.items())},
        "config": {key: value for key, value in read_json(folder / "config.json").items() if "version" not in key},
    }


def _synthesize(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {"ledger": read_json(folder / "ledger.json")}
    for name in ("sft", "prompts"):
        rows = _lines(folder / f"{name}.jsonl")
        found[name] = _few(rows, lambda row: {"id": row["id"], "says": row["messages"][-1]["content"][:HEAD]})
    return found


def _pairs(folder: Path) -> dict[str, Any]:
    def shown(row: Mapping[str, Any]) -> dict[str, Any]:
        return {"id": row["id"], **{key: row[key][-1]["content"] for key in ("prompt", "chosen", "rejected")}}

    return {"pairs": _few(_lines(folder / "pairs.jsonl"), shown), "report": read_json(folder / "report.json")}


def _evaluate(folder: Path) -> dict[str, Any]:
    results = read_json(folder / "results.json")
    verdicts = {
        f"{row['a']} against {row['b']}, {row['task']} {row['metric']}": row["verdict"]
        for row in read_json(folder / "comparisons.json")
    }
    return {
        "results": {f"{row['model']}, {row['task']} {row['metric']}": [row["value"], row["n"]] for row in results},
        "verdicts": verdicts,
    }


def _export(folder: Path) -> dict[str, Any]:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return {"files": files, **_model(folder / "model")}


def _page(folder: Path) -> dict[str, Any]:
    page = (folder / "report.html").read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    for title, part in re.findall(r"<h2[^>]*>(.*?)</h2>(.*?)(?=<h2|\Z)", page, re.DOTALL):
        found[title] = {"headings": re.findall(r"<th scope=col[^>]*>(.*?)</th>", part), "rows": part.count("<tr>")}
    return found


ROWS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "extract": _extract, "classifier": _classifier, "score": _score, "signatures": _signatures,
    "contamination": _contamination, "duplicates": _duplicates, "select": _select, "tokenizer": _tokenizer,
    "tokenize": _tokenize, "pretrain": _training, "synthesize": _synthesize, "sft": _training, "pairs": _pairs,
    "dpo": _training, "evaluate": _evaluate, "export": _export, "report": _page,
}  # fmt: skip


# ── small forms ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _documents(paths: Iterable[Path]) -> dict[str, Any]:
    columns = ["id", "text", "license"]
    rows = [row for path in sorted(paths) for row in pq.read_table(path, columns=columns).to_pylist()]
    texts = _hash(row["text"] for row in rows)
    licenses = {row["id"]: row["license"] for row in rows if row["license"] is not None}
    return {
        **_few(rows, lambda row: {"id": row["id"], "text": row["text"][:HEAD]}),
        "texts": texts,
        "licenses": licenses,
    }


def _rejected(paths: Iterable[Path]) -> dict[str, Any]:
    return _few(_table(paths), lambda row: {key: row[key] for key in ("id", "reason", "value", "duplicate_of")})


def _table(paths: Iterable[Path]) -> list[dict[str, Any]]:
    return [row for path in sorted(paths) for row in pq.read_table(path).to_pylist()]


def _few(rows: list[Any], shown: Callable[[Any], Any] = lambda row: row) -> dict[str, Any]:
    """The number of rows, a hash of their ids in order, and the first few."""
    return {"count": len(rows), "ids": _hash(row["id"] for row in rows), "first": [shown(row) for row in rows[:FEW]]}


def _hash(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def _mean(values: Any) -> float:
    return float(np.abs(np.asarray(values, dtype=np.float64)).mean())


def _report(folder: Path, key: str) -> Any:
    return read_json(folder / "report.json")[key]


def _lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# ── held against the files ───────────────────────────────────────────────────────────────────────────────────────────


def golden_file(name: str) -> Path:
    """Where the rows of a step stand."""
    return GOLDEN / f"{name.replace('/', '-')}.json"


def versions_of(step: Step) -> dict[str, int]:
    """The VERSION of the step and of its parts now."""
    return {module: version_of(module) for module in (step.module, *sorted(step.parts))}


def differences(was: Any, now: Any, where: str = "") -> Iterator[str]:
    """Where two decoded outputs differ; floats may by 1e-4, of their size where that is above 1."""
    if isinstance(was, dict) and isinstance(now, dict):
        for key in [*was, *(key for key in now if key not in was)]:
            yield from differences(was.get(key), now.get(key), f"{where}.{key}" if where else key)
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, pair in enumerate(zip(was, now, strict=True)):
            yield from differences(*pair, f"{where}[{number}]")
    elif {type(was), type(now)} in ({float}, {float, int}):
        if abs(was - now) > TOLERANCE * max(1.0, abs(was)):
            yield f"{where}: {was} → {now}"
    elif was != now or isinstance(was, bool) != isinstance(now, bool):
        yield f"{where}: {was!r} → {now!r}"


def problem(step: Step, folder: Path) -> str | None:
    """Why the step's output is not as its golden rows say, and what to do; None when it is."""
    if not golden_file(step.name).is_file():
        return f"{step.name} has no golden rows. Run: python scripts/update_golden.py --why '...'"
    golden = read_json(golden_file(step.name))
    found = list(differences(golden["rows"], rows_of(step, folder)))
    risen = [f"{module} {golden['versions'].get(module)} → {version}" for module, version in versions_of(step).items()
             if golden["versions"].get(module) != version]  # fmt: skip
    if risen:
        return (
            f"{step.name}: {', '.join(risen)}, and its golden rows are of the version before"
            f" ({len(found)} values differ). Run: python scripts/update_golden.py --why '...'"
        )
    if found:
        return (
            f"{step.name}: the output changed and no version rose:\n  " + "\n  ".join(found[:10]) + f"\n"
            f"Raise VERSION in {step.module}, or in the part that changed, so that what was made before is remade; or undo the "
            "change. If an earlier step's output changed, look there first."
        )
    return None


def finished_run() -> Path:
    """The tiny project, run in a folder of its own."""
    sys.path.insert(0, str(LIFECYCLE))
    import tiny

    folder = Path(tempfile.mkdtemp(prefix="gristmill-golden-"))
    tiny.write_project(folder)
    command = [Path(sys.executable).with_name("gristmill"), "run", "recipe.yaml", "--threads", "1", "--processes", "2"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "runs" / "tiny"


def main() -> None:
    """Show which steps differ, or take their rows over with a reason."""
    parser = argparse.ArgumentParser(description="Golden rows of the tiny project.")
    parser.add_argument("--why", help="take over what is there now, for this reason")
    parser.add_argument("--run", type=Path, help="a finished run of the tiny project, such as project/runs/tiny")
    options = parser.parse_args()
    run = options.run or finished_run()
    steps = steps_of(load_recipe(run.parents[1] / "recipe.yaml").recipe)
    problems = {step.name: found for step in steps if (found := problem(step, run / step.name)) is not None}
    print("\n".join(problems.values()) or "nothing differs")
    if options.why is None:
        sys.exit(1 if problems else 0)
    GOLDEN.mkdir(exist_ok=True)
    for step in steps:
        if step.name in problems:
            rows = rows_of(step, run / step.name)
            write_json(golden_file(step.name), {"versions": versions_of(step), "rows": rows})
    if problems:
        history = read_json(HISTORY) if HISTORY.is_file() else []
        entry = {"steps": sorted(problems), "why": options.why, "golden": golden_fingerprint()}
        write_json(HISTORY, [*history, entry])


def golden_fingerprint() -> str:
    """One hash of all golden rows: the last entry of the history has it."""
    return fingerprint({path.name: read_json(path) for path in sorted(GOLDEN.glob("*.json")) if path != HISTORY})


if __name__ == "__main__":
    main()
