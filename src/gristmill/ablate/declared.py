"""What an ablation was declared to be before its first training: a question that is changed once the answer is known proves nothing."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gristmill.ablate.arms import Arm
from gristmill.ablate.design import Design
from gristmill.errors import RecipeError
from gristmill.store.durable import read_json, write_json
from gristmill.store.fingerprint import differences

DECLARED = "declared.json"
RESULTS = "results.json"
UNDECLARED = "before it was declared"


def declare(
    folder: Path, design: Design, *, shaped_by: Mapping[str, Any], seeds_seen: Callable[[], int]
) -> list[Mapping[str, Any]]:
    """Writes what is asked into the ablation's folder, or holds it to what was written. Returns the looks at the results, this one last.

    shaped_by: what shapes the arms beside their mixtures, as plain JSON. seeds_seen: how many seeds have scores already that tell an arm from
    the control, asked where nothing is declared or seeds were added; scores that are there are a look, whether they were declared or not.
    Only seeds may be added. Raises RecipeError for anything else that differs.
    """
    seeds, now = design.ablation.seeds, datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    if not (folder / DECLARED).is_file():
        seen = seeds_seen()
        looks: list[dict[str, Any]] = [{"seeds": seen, "declared_at": UNDECLARED}] if seen else []
        folder.mkdir(parents=True, exist_ok=True)
    else:
        check_declared(folder, design, shaped_by=shaped_by)
        looks = read_json(folder / DECLARED)["looks"]
        if seeds < looks[-1]["seeds"]:
            raise RecipeError(
                f"the ablation {design.run} was declared with {looks[-1]['seeds']} seeds and is asked for {seeds} now. Seeds may be added, "
                "not left out."
            )
        if seeds == looks[-1]["seeds"]:
            return list(looks)
        if not (folder / RESULTS).is_file() and not seeds_seen():
            looks.pop()
    looks.append({"seeds": seeds, "declared_at": now})
    write_json(folder / DECLARED, {"asked": _asked(design, shaped_by), "looks": looks})
    return list(looks)


def check_declared(folder: Path, design: Design, *, shaped_by: Mapping[str, Any]) -> None:
    """Raises RecipeError where an ablation is asked otherwise than it was declared, seeds aside."""
    path = folder / DECLARED
    if changed := differences(read_json(path)["asked"], _asked(design, shaped_by)):
        asked = [line for line in changed if not line.startswith("shaped_by")]  # of which the rest follows
        raise RecipeError(
            f"the ablation {design.run} was declared otherwise before it was made: {', '.join(asked or changed)}.\n"
            f"  Undo the change, or ask the new question under another name: the declaration is in {path}."
        )


def _asked(design: Design, shaped_by: Mapping[str, Any]) -> dict[str, Any]:
    """The design as plain JSON, seeds aside."""
    return {
        "kind": design.ablation.kind,
        "endpoint": design.ablation.endpoint,
        "after_step": design.after_step,
        "tokens": design.tokens,
        "validation_bytes": design.trials[0].loaded.recipe.evaluate.validation_bytes,
        "arms": {arm.name: _plain(arm) for arm in design.arms},
        **_stages_asked(design),
        "shaped_by": dict(shaped_by),
    }


def _stages_asked(design: Design) -> dict[str, Any]:
    """The stages of an extension, which arms of data do not have."""
    stages = [stage.model_dump(exclude_none=True, exclude={"name"}) for arm in design.arms for stage in arm.stages]
    return {"stages": stages} if stages else {}


def _plain(arm: Arm) -> Any:
    """Its mixture, or those of its stages where it has several."""
    mixtures = {
        stage: [draw.model_dump(exclude_none=True) for draw in mixture] for stage, mixture in arm.mixtures.items()
    }
    return next(iter(mixtures.values())) if len(mixtures) == 1 else mixtures
