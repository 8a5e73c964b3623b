"""What a step is given. Every step is `run(ctx) -> counts`: it reads committed inputs and writes into `ctx.out`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from glob import escape, glob
from pathlib import Path

from gristmill.errors import RecipeError
from gristmill.graph.machine import Machine
from gristmill.recipe.schema.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """One step of one run.

    name: "extract/manuals". inputs: step name → its committed folder. out: the working folder that becomes the artefact;
    it may hold finished parts that an earlier, killed attempt with the same fingerprint left. seed: derived from the
    recipe's seed and the step's name. say: one line of progress. should_stop: true once a signal arrived; save, then
    raise Interrupted.
    """

    recipe: Recipe
    recipe_dir: Path
    name: str
    inputs: Mapping[str, Path]
    out: Path
    machine: Machine
    seed: int
    fingerprint: str
    say: Callable[[str], None]
    should_stop: Callable[[], bool]

    @property
    def part(self) -> str:
        """The instance of a per-source step: "manuals" for "extract/manuals"."""
        return self.name.partition("/")[2]

    def resolve(self, path: str) -> Path:
        """A path of the recipe, relative to the recipe's folder."""
        return resolve(self.recipe_dir, path)


def resolve(recipe_dir: Path, path: str) -> Path:
    """A path as the recipe writes it: relative to the recipe's own folder."""
    return (recipe_dir / Path(path).expanduser()).absolute()


def visible_files(folder: Path) -> list[Path]:
    """All files below a folder, by name; hidden ones, and those in hidden folders, are no part of it."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))


def resolve_files(recipe_dir: Path, patterns: list[str], *, where: str) -> list[Path]:
    """The files that paths or globs of a recipe name, sorted, each once. Raises RecipeError for one that matches nothing."""
    found: set[Path] = set()
    for pattern in patterns:
        plain, escaped = resolve(recipe_dir, pattern), resolve(Path(escape(str(recipe_dir))), pattern)
        matches = [plain] if plain.exists() else [Path(match) for match in glob(str(escaped), recursive=True)]
        if not matches:
            raise RecipeError(
                f"{where}: {pattern!r} matches no file.\n"
                f"  Looked for {resolve(recipe_dir, pattern)}; paths are relative to the recipe's folder."
            )
        found.update(matches)
    return sorted(found)
