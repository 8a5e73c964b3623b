"""What each GGUF form of a model costs and changes: file, memory and tokens/s of llama.cpp on one thread, log-probabilities.

    python benchmarks/gguf_forms.py runs/quickstart/export/model [rounds]

Needs xllamacpp. Each form is loaded in a process of its own; forms alternate, and the medians are shown. Memory is what loading
the file and generating 200 tokens added to the process. Differences are against the model itself, on the prompts of `export`.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

from gristmill.export.gguf import FORMS, write_gguf
from gristmill.export.llama_cpp import ask, check_gguf
from gristmill.units import in_bytes


def main(source: Path, rounds: int = 3) -> None:
    """A row per form, as Markdown."""
    with tempfile.TemporaryDirectory() as folder:
        paths = {form: Path(folder) / f"{form}.gguf" for form in FORMS}
        for form, path in paths.items():
            write_gguf(source, path, form=form, name="measured")
        nothing = {"texts": [], "prompts": [], "answers": []}
        asked = [
            {form: ask(path, context=512, speed_tokens=200, **nothing) for form, path in paths.items()}
            for _ in range(rounds)
        ]
        print("| form | file | memory | tokens/s | greedy tokens equal | largest difference, nats |")
        print("|---|---|---|---|---|---|")
        for form, path in paths.items():
            proof, _ = check_gguf(source, path, form)
            assert proof.checked, proof.why
            memory, speed = (
                statistics.median(said[form][key] for said in asked) for key in ("memory_bytes", "tokens_per_second")
            )
            print(
                f"| {form} | {in_bytes(path.stat().st_size)} | {in_bytes(memory)} | {speed:,.0f} | "
                f"{proof.greedy_tokens_equal} of {proof.greedy_tokens_compared} | {proof.max_logp_difference:.2g} |"
            )


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
