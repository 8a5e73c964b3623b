"""`gristmill init --example`: a shipped recipe with its sample of data, copied into a folder of one's own."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from rich.console import Console

from gristmill.errors import RecipeError

PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "examples", PACKAGE.parents[1])  # in an installed wheel; in a checkout


def copy_example(name: str, folder: Path, *, console: Console) -> Path:
    """Copy the recipe `name` to FOLDER/recipe.yaml and its sample to FOLDER/data. Raises RecipeError for an unknown name."""
    root = next(place for place in PLACES if (place / "samples").is_dir())
    known = sorted(path.name for path in (root / "samples").iterdir() if path.is_dir())
    if name not in known:
        raise RecipeError(f"--example is {name!r}; known are {', '.join(known)}.")
    if folder.exists():
        raise RecipeError(f"{folder} is there already; nothing was changed. Name another folder.")
    shutil.copytree(root / "samples" / name, folder / "data")
    text = (root / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    text = text.replace(f"../samples/{name}/", "data/").replace(f"recipes/{name}.yaml", "recipe.yaml")
    recipe = folder / "recipe.yaml"
    recipe.write_text(text, encoding="utf-8")
    console.print(
        f"Wrote {recipe} and its sample. `{folder}/data/LICENSES.md` says whose text it is.\n"
        f"  {shlex.join(['gristmill', 'plan', str(recipe)])}\n  {shlex.join(['gristmill', 'run', str(recipe)])}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    return recipe
