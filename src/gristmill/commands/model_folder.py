"""Which model a path on the command line means, and under which name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gristmill.commands.run_folder import refuse_broken_links, refuse_unfinished, under_way
from gristmill.errors import ArtifactError, RecipeError
from gristmill.recipe.load import named_nearly
from gristmill.serve.speaker import Speaker
from gristmill.train.outputs import MODEL_STEPS

BEST_FIRST = MODEL_STEPS[::-1]
WANTED = (
    "Name a model folder (config.json and model.safetensors), or a run's folder that has "
    f"{', '.join(BEST_FIRST)}; `gristmill run` makes one."
)
MADE_IN_ORDER = (*MODEL_STEPS, "export")
PARTS_OF_A_RUN = {"model", "export", *MODEL_STEPS}


def find_model(target: Path) -> Path:
    """The model folder that a path means: itself, its model/, or the best of a run (dpo, else sft, else pretrain, else its export).

    Raises RecipeError when the path does not exist, ArtifactError when there is no model.
    """
    if not target.exists():
        raise RecipeError(f"{target} does not exist. {named_nearly(target, Path.is_dir)}{WANTED}")
    for folder in (target, target / "model", *(target / step / "model" for step in (*BEST_FIRST, "export"))):
        if (folder / "config.json").is_file():
            return folder
    refuse_broken_links(target)
    refuse_unfinished(target, BEST_FIRST)
    raise ArtifactError(f"{target} holds no model. {WANTED}")


def load_speakers(targets: Sequence[Path]) -> list[Speaker]:
    """The models of these paths, each under a name of its own."""
    folders = [find_model(target) for target in targets]
    return [Speaker.load(folder, name) for folder, name in zip(folders, names_of(targets), strict=True)]


def names_of(targets: Sequence[Path]) -> list[str]:
    """The last folder of each path, with those above it as far as it names a part of a run; a number where two are equal."""
    names: list[str] = []
    for target in targets:
        parts = target.resolve().parts[1:] or ("model",)
        first = next((at for at in range(len(parts) - 1, -1, -1) if parts[at] not in PARTS_OF_A_RUN), len(parts) - 1)
        stem = "-".join(part for part in parts[first:] if part != "model") or "model"
        name, number = stem, 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        names.append(name)
    return names


def introduction(folder: Path, speaker: Speaker) -> str:
    """One line: what kind of model it is, and its size."""
    kind = "a chat model" if speaker.is_chat else "a base model: it continues your text and does not answer"
    return f"{folder} is {kind} ({speaker.num_parameters:,} parameters)."


def older_than(target: Path, folder: Path) -> str | None:
    """A line where the run's model was made from a step that is being remade, such as its export while pretrain is."""
    made_from = next(
        (MADE_IN_ORDER[:at] for at, step in enumerate(MADE_IN_ORDER) if target / step / "model" == folder), ()
    )
    remade = next((step for step in made_from if step in under_way(target)), None)
    return (
        None
        if remade is None
        else f"{folder} is older than {remade}, which is being remade, or was stopped on the way."
    )
