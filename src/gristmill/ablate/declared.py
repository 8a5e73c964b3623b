"""What an ablation was declared to be before its first training: a question that is changed once the answer is known proves nothing."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gristmill.ablate.arms import Design
from gristmill.errors import RecipeError
from gristmill.store.durable import read_json, write_json
from gristmill.store.fingerprint import differences

DECLARED = "declared.json"
RESULTS = "results.json"


def declare(folder: Path, design: Design) -> int:
    """Writes what is asked into the ablation's folder, or holds it to what was written. Returns how often the results will have been looked at.

    Only seeds may be added; where results were seen before, that is a further look. Raises RecipeError for anything else that differs.
    """
    asked, path = _asked(design), folder / DECLARED
    seeds, now = design.ablation.seeds, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, {"asked": asked, "looks": [{"seeds": seeds, "declared_at": now}]})
        return 1
    declared = read_json(path)
    if changed := differences(declared["asked"], asked):
        raise RecipeError(
            f"the ablation {design.run} was declared otherwise before it was made: {', '.join(changed)}.\n"
            f"  Undo the change, or give it another name: the declaration is in {path}."
        )
    looks: list[dict[str, Any]] = declared["looks"]
    if seeds < looks[-1]["seeds"]:
        raise RecipeError(
            f"the ablation {design.run} was declared with {looks[-1]['seeds']} seeds and is asked for {seeds} now. Seeds may be added, "
            "not left out."
        )
    if seeds > looks[-1]["seeds"]:
        if not (folder / RESULTS).is_file():
            looks.pop()  # nothing was seen yet
        looks.append({"seeds": seeds, "declared_at": now})
        write_json(path, {"asked": asked, "looks": looks})
    return len(looks)


def declared_looks(folder: Path) -> list[Mapping[str, Any]]:
    """The looks that were declared, the first one first."""
    return list(read_json(folder / DECLARED)["looks"])


def _asked(design: Design) -> dict[str, Any]:
    """The design as plain JSON, seeds aside."""
    ablation = design.ablation
    return {
        "kind": ablation.kind,
        "endpoint": ablation.endpoint,
        "after_step": design.after_step,
        "tokens": design.tokens,
        "validation_bytes": ablation.validation_bytes,
        "arms": {arm.name: [draw.model_dump(exclude_none=True) for draw in arm.mixture] for arm in design.arms},
    }
