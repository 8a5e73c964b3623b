"""COMMAND export: a finished run's model, or any Hugging Face folder of a Llama, for llama.cpp, Ollama and the Hub."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from gristmill.commands.model_folder import find_model
from gristmill.errors import RecipeError
from gristmill.export.gguf import FORMS
from gristmill.export.hub import push as push_to_hub
from gristmill.export.llama_cpp import export_gguf, words_of
from gristmill.store.durable import write_json

PARITY = "parity.json"


def export(
    target: Path,
    *,
    to_gguf: bool,
    forms: Sequence[str],
    out: Path | None,
    push: str | None,
    public: bool,
    console: Console,
) -> None:
    """Write the GGUF files of `target` into a new folder, or send the model to the Hub, or both.

    Raises RecipeError when neither is asked for or `out` is there already, ArtifactError when `target` holds no model.
    """
    if not to_gguf and push is None:
        raise RecipeError(
            "nothing to do. Add --to gguf for files that llama.cpp and Ollama read, or --push OWNER/NAME."
        )
    released = target / "export" / "model"
    source = released if (released / "config.json").is_file() else find_model(target)
    name = (target if source == released else source).resolve().name
    folders = {"": source}
    if to_gguf:
        folders["gguf"] = _write(source, out or Path(f"{name}-gguf"), forms, name, console)
    if push is not None:
        address = push_to_hub(folders, push, public=public)
        console.print(f"sent to {address} ({'public' if public else 'private'})", highlight=False, soft_wrap=True)


def _write(source: Path, out: Path, forms: Sequence[str], name: str, console: Console) -> Path:
    """All of the folder or nothing of it."""
    if out.exists():
        raise RecipeError(f"{out} is there already; nothing was changed. Name another folder with --out.")
    if unknown := [form for form in forms if form not in FORMS]:
        raise RecipeError(f"--type is {unknown[0]!r}; known are {', '.join(FORMS)}.")
    wanted = [form for form in FORMS if form in forms]
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as working:
        made = Path(working) / "gguf"
        found = export_gguf(source, made, wanted, name=name)
        write_json(made / PARITY, {"gguf": [file.to_json() for file, _ in found]})
        made.rename(out)
    for file, speed in found:
        console.print(f"{out}/{words_of(file)}", highlight=False, markup=False, soft_wrap=True)
        if speed is not None:
            console.print(f"  on one thread: {speed.tokens_per_second:,.0f} tokens/s", highlight=False)
    return out
