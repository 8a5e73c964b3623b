"""Check what `gristmill run recipes/quickstart.yaml` must have left behind. Used by CI after the demo.

python scripts/check_demo.py runs/quickstart
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from gristmill.store.artifact import RECORD, verify_manifest

MAX_SECONDS = 900  # ten minutes on two idle cores; CI machines may be slower
MAX_MEMORY_BYTES = 4 * 1024**3
MIN_TRAINED_TOKENS = 700_000
SECOND_RUN_SECONDS = 10  # three on an idle machine


def main(run: Path) -> None:
    """Print what holds; exit 1 with the list of what does not."""
    problems: list[str] = []
    folders = [path.parent for pattern in ("*", "*/*") for path in sorted(run.glob(f"{pattern}/{RECORD}"))]
    records = {str(folder.relative_to(run)): json.loads((folder / RECORD).read_text()) for folder in folders}
    for name in records:
        verify_manifest(run / name)
    seconds = sum(record["wall_seconds"] for record in records.values())
    peaks = [record["peak_memory_bytes"] for record in records.values()]
    memory = max(max(peak["process"], peak["largest_child"]) for peak in peaks)
    unique = sum(json.loads(path.read_text())["num_tokens"] for path in (run / "tokenize").glob("*/train.json"))
    recall = {
        row["task"]: row["value"]
        for row in json.loads((run / "evaluate" / "results.json").read_text())
        if row["model"] == "sft" and row["metric"] == "right"
    }
    page = (run / "report" / "report.html").read_text(encoding="utf-8")
    parity = json.loads((run / "export" / "parity.json").read_text())
    transformers, files = parity["transformers"], parity["gguf"]
    expect = {
        f"{len(records)} artefacts, each with its manifest": len(records) >= 14,
        f"work took {seconds:.0f} s of {MAX_SECONDS}": seconds <= MAX_SECONDS,
        f"peak memory {memory / 1024**3:.2f} GiB of 4": memory <= MAX_MEMORY_BYTES,
        f"{unique:,} unique training tokens of {MIN_TRAINED_TOKENS:,}": unique >= MIN_TRAINED_TOKENS,
        f"{recall['trained_greetings']:.0%} of trained greetings, 80 % asked": recall["trained_greetings"] >= 0.8,
        f"{recall['trained_single_digit_sums']:.0%} of trained single-digit sums, 60 % asked": (
            recall["trained_single_digit_sums"] >= 0.6
        ),
        "the report is one file that fetches nothing": "<svg" in page and 'src="http' not in page,
        "the model folder is a stock one": (run / "export" / "model" / "model.safetensors").is_file(),
        f"transformers agrees on the exported folder: {_greedy_words(transformers)}": transformers["checked"],
        f"{len(files)} GGUF files, and a Modelfile": [file["form"] for file in files] == ["f16", "q8_0"]
        and all(
            (run / "export" / "gguf" / name).is_file() for name in ("Modelfile", *(file["file"] for file in files))
        ),
    }
    started = time.monotonic()
    again = subprocess.run(
        [Path(sys.executable).with_name("gristmill"), "run", "recipes/quickstart.yaml", "--runs-dir", run.parent],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    second = time.monotonic() - started
    expect[f"a second run makes nothing again, in {second:.1f} s"] = (
        again.returncode == 0 and "running" not in again.stdout and second <= SECOND_RUN_SECONDS
    )
    for what, holds in expect.items():
        print(f"{'ok  ' if holds else 'FAIL'} {what}")
        if not holds:
            problems.append(what)
    print(f"{len(expect) - len(problems)} passed, {len(problems)} failed")
    sys.exit(1 if problems else 0)


def _greedy_words(found: dict[str, Any]) -> str:
    if not found["checked"]:
        return str(found["why"])
    equal, tied, compared = (sum(found[f"greedy_tokens_{kind}"]) for kind in ("equal", "tied", "compared"))
    return (
        f"{equal} of {compared} greedy tokens equal, {tied} tied, logits differ by {found['max_logit_difference']:.1g}"
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
