"""What the sample is worth: unique training tokens after curation and the validation split, counted by the quickstart itself."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from rich.console import Console

from gristmill import Machine, load_recipe, run

MIN_TRAINING_TOKENS = 700_000


def training_tokens(recipe: Path) -> dict[str, int]:
    """Source → unique training tokens, from a run of the recipe as far as tokenize in a temporary folder."""
    with tempfile.TemporaryDirectory() as folder:
        made = run(load_recipe(recipe), Machine(runs_dir=Path(folder)), console=Console(quiet=True), until="tokenize")
        return {
            path.parent.name: int(json.loads(path.read_text(encoding="utf-8"))["num_tokens"])
            for path in sorted(made.glob("tokenize/*/train.json"))
        }


def check_training_tokens(recipe: Path) -> None:
    """Print the tokens per source. Raises AssertionError when the sample no longer holds enough."""
    counted = training_tokens(recipe)
    print("unique training tokens after curation and the validation split")
    for source, tokens in counted.items():
        print(f"  {tokens:>9,}  {source}")
    total = sum(counted.values())
    print(f"  {total:>9,}  in all")
    assert total >= MIN_TRAINING_TOKENS, (
        f"{total:,} unique training tokens; the sample must hold {MIN_TRAINING_TOKENS:,}"
    )
