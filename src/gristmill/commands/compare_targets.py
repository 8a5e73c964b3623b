"""What may be compared: the addresses of models on the command line of `compare`.

runs/quickstart                  a run: the model that was made last, or the one that --model names
runs/quickstart/sft              a model of a run; runs/mymodel/start is the released one that it continued
runs/quickstart@700              the checkpoint of its pretraining after step 700
runs/quickstart/checkpoints/…    any checkpoint, by its folder
runs/quickstart/export           the released form of a run
FOLDER                           any Hugging Face folder of a Llama
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from gristmill.commands.model_folder import find_model
from gristmill.commands.run_folder import refuse_broken_links, refuse_unfinished
from gristmill.errors import ArtifactError, RecipeError
from gristmill.evaluate.outputs import YARDSTICK, Evaluated
from gristmill.recipe.load import named_nearly
from gristmill.store.durable import read_json
from gristmill.store.store import CHECKPOINTS, STORE, RunLinks, Store
from gristmill.train.checkpoint import STATE
from gristmill.train.outputs import MODEL_STEPS

AT_STEP = re.compile(r"(?P<run>.+)@(?P<step>\d+)")
PRETRAIN = MODEL_STEPS[0]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A model by its address. run: the folder of the run that made it, None where that is not known here.

    measured_as: its name in that run's evaluation, None where that has not measured it. watched: the folder with the log of its pretraining,
    None where it is another model than pretraining's. trained_length: of a checkpoint of pretraining, the longest sequences that it has read.
    """

    address: str
    run: Path | None
    model_dir: Path
    measured_as: str | None = None
    watched: Path | None = None
    trained_length: int | None = None


def find_target(address: str, *, model: str | None) -> Target:
    """The model that an address means. model: of a run. Raises RecipeError or ArtifactError where there is none."""
    path = Path(address)
    if not path.exists() and (found := AT_STEP.fullmatch(address)) and Path(found["run"]).is_dir():
        return _checkpoint_of(address, Path(found["run"]), int(found["step"]))
    if not path.is_dir():
        raise RecipeError(
            f"{address} does not exist. {named_nearly(path)}Name a run's folder, such as runs/quickstart, a checkpoint of one, such as "
            "runs/quickstart@700, or a Hugging Face folder of a Llama."
        )
    if (path / STATE).is_file():
        return _checkpoint(address, path)
    part = path.parent if path.name == "model" else path
    if is_run(part.parent) and part.name in (*MODEL_STEPS, "export", *models_of(part.parent)):
        return _part_of(address, part.parent, part.name)
    if is_run(path):
        return _of_run(address, path, model)
    return Target(address=address, run=None, model_dir=find_model(path))


def is_run(folder: Path) -> bool:
    """Whether a folder is a run's, or a copy of one."""
    return any((folder / step).is_dir() for step in (*MODEL_STEPS, "evaluate", "tokenize")) or (
        (folder.absolute().parent / STORE).is_dir() and (folder / CHECKPOINTS).is_dir()
    )


def models_of(run: Path) -> list[str]:
    """The models that the run's evaluation measured, in order; none where there is no evaluation."""
    if not (run / "evaluate").is_dir():
        return []
    figures = Evaluated(run / "evaluate").figures
    return [*dict.fromkeys(figure.model for figure in figures if figure.model != YARDSTICK)]


def _of_run(address: str, run: Path, model: str | None) -> Target:
    refuse_broken_links(run)
    refuse_unfinished(run, ["evaluate"] if not (run / "evaluate").exists() else [])
    measured = models_of(run)
    known = measured or [step for step in MODEL_STEPS if (run / step / "model").is_dir()]
    if not known:
        raise ArtifactError(f"{run} was not evaluated, and holds no model.\n  `gristmill run RECIPE` makes both.")
    chosen = known[-1] if model is None else model
    if chosen not in known:
        raise RecipeError(f"{run} has no model {chosen!r}; it has {', '.join(known)}.")
    return _part_of(address, run, chosen)


def _part_of(address: str, run: Path, step: str) -> Target:
    """A model of a run, or its export, which has the weights of the last one in a format of its own."""
    made = next((name for name in MODEL_STEPS[::-1] if (run / name).is_dir()), step) if step == "export" else step
    return Target(
        address=address,
        run=run,
        model_dir=run / step / "model",
        measured_as=step if step in models_of(run) else None,
        watched=run / PRETRAIN if made == PRETRAIN else None,
    )


def _checkpoint_of(address: str, run: Path, step: int) -> Target:
    folder = run / CHECKPOINTS / PRETRAIN / f"{step:07d}"
    if not folder.is_dir():
        there = sorted(int(path.name) for path in folder.parent.glob("[0-9]*") if path.is_dir())
        words = f"it has those after steps {', '.join(f'{one:,}' for one in there)}" if there else "it has none"
        raise ArtifactError(f"{run} has no checkpoint after step {step:,}; {words}.")
    return replace(_checkpoint(address, folder), run=run)  # named as it was asked for


def _checkpoint(address: str, folder: Path) -> Target:
    """By its folder in the store, or by the link of a run."""
    state, above = read_json(folder / STATE), folder.absolute().parent.parent
    segments = state["prefix"].get("segments", [])  # of pretraining
    run = above.parent / str(state["run"]) if above.name == STORE else above.parent
    return Target(
        address=address,
        run=run if is_run(run) else None,
        model_dir=folder,
        watched=folder if segments else None,
        trained_length=max((segment["seq_len"] for segment in segments), default=None),
    )


def selects_alike(run: Path, other: Path) -> bool:
    """Whether two runs have one selection of documents, so that each holds out what the other does."""
    found = [
        RunLinks(Store(one.absolute().parent), one.name).made_from("tokenize").get("select") for one in (run, other)
    ]
    return None not in found and found[0] == found[1]
