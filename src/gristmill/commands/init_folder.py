"""What `gristmill init` finds: the folder for the recipe, the folders of text, and which of their files it reads."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path

from gristmill.commands.survey import heads_of
from gristmill.commands.survey_job import EMPTY, MESSAGES
from gristmill.data.outside import visible_files, why_no_file, without_dots
from gristmill.draft.folder import Looked, files_by_kind, sources_of
from gristmill.errors import DataError, RecipeError
from gristmill.formats.format import size_of
from gristmill.recipe.load import CONVERSATIONS_FILE, IN_FOLDER, SCHEMA_FILE, named_nearly
from gristmill.recipe.schema.formats import READERS
from gristmill.recipe.schema.recipe import Recipe

UNREADABLE = "damaged, or cannot be opened"
NOT_REPLAYED = "conversations are not replayed"


def refuse_to_overwrite(folder: Path, *, chat: bool) -> None:
    """Raises RecipeError where a file is that init would write over, or where the folder should be; a schema that init wrote is none."""
    if folder.exists() and not folder.is_dir():
        raise RecipeError(f"{folder} is a file; name a folder for the recipe: gristmill init mymodel --data FOLDER")
    recipe, schema, conversations = (folder / name for name in (IN_FOLDER, SCHEMA_FILE, CONVERSATIONS_FILE))
    if recipe.exists():
        raise RecipeError(f"{recipe} exists already; nothing was changed. Choose another folder or move it away.")
    there = [schema] if schema.exists() and not _is_schema(schema) else []
    there += [conversations] if chat and conversations.exists() else []
    if there:
        raise RecipeError(
            f"{there[0]} exists already, and init would write over it; nothing was changed.\n"
            "  Rename it (init reads text and conversations under any name), or choose another folder for the recipe."
        )


def _is_schema(path: Path) -> bool:
    """Whether it is the schema of a recipe, perhaps of another version."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(found, dict) and found.get("title") == Recipe.__name__ and "$defs" in found


def texts_in(folder: Path, data: Path | None) -> Path:
    """The folder of text. Raises RecipeError where there is none."""
    texts = without_dots((data or folder / "data").absolute())
    if not texts.exists() and data is not None:
        raise RecipeError(
            f"--data: {texts} does not exist. {named_nearly(texts)}Name the folder, or the file, that holds your text."
        )
    if texts.exists() and (why := why_no_file(texts)) is not None:
        raise RecipeError(f"--data: {texts} is no file that could be read: {why}. Name a file or a folder.")
    if not texts.exists():
        texts.mkdir(parents=True)
        raise RecipeError(
            f"There is no text yet. The folder {folder / 'data'} was made for it just now, and is empty.\n"
            f"  Put your text there, in any of the formats {', '.join(READERS)}, and run the same command again, or name a "
            "folder that holds your text: "
            f"{shlex.join(['gristmill', 'init', str(folder), '--data', 'FOLDER'])}"
        )
    return texts


def general_text(replay: Path, texts: Path) -> Path:
    """The folder of general text. Raises RecipeError where there is none, or where it and one's own text are no two folders."""
    folder = without_dots(replay.absolute())
    if not folder.exists():
        raise RecipeError(f"--replay: {folder} does not exist. {named_nearly(folder)}Name the folder of general text.")
    own = texts.resolve()
    if folder.resolve() == own or own in folder.resolve().parents or folder.resolve() in own.parents:
        raise RecipeError(
            f"--replay: {folder} and your own text in {texts} hold the same files. Name two folders beside each other: the shares "
            "of the two are balanced."
        )
    return folder


def look_into(texts: Path, recipe_dir: Path, *, replay: Path | None = None) -> Looked:
    """The sources over one's own text, and over general text that is replayed. Raises DataError for a folder without files."""
    own = _look(texts, recipe_dir, option="--data")
    if replay is None:
        return own
    general = _look(replay, recipe_dir, option="--replay")
    replayed = [replace(source, name=f"replay-{source.name}", is_replayed=True) for source in general.sources]
    return Looked(
        sources=[*own.sources, *replayed],
        conversations=own.conversations,
        without_text={**own.without_text, **general.without_text, **dict.fromkeys(general.conversations, NOT_REPLAYED)},
    )


def _look(texts: Path, recipe_dir: Path, *, option: str) -> Looked:
    if texts.is_dir() and not visible_files(texts):
        raise DataError(f"{texts} holds no files. Put your text there, or name another folder with {option}.")
    files = files_by_kind(texts)
    columns: dict[Path, str] = {}
    conversations: list[Path] = []
    without_text: dict[Path, str] = {}
    for kind, paths in files.items():
        if READERS[kind].text_key is None:
            if not any(map(size_of, paths)):
                without_text |= dict.fromkeys(paths, EMPTY)
            continue
        found = heads_of(kind, paths)
        usual = Counter(head.text for head in found.values() if head.text not in (None, MESSAGES)).most_common(1)
        for path in paths:
            head = found.get(path)
            column = None if head is None else head.text
            if column is None and usual and (head is None or not head.columns):  # what cannot be read is counted
                column = usual[0][0]
            if column == MESSAGES:
                conversations.append(path)
            elif column is None:
                without_text[path] = UNREADABLE if head is None else head.why
            else:
                columns[path] = column
    apart = {*conversations, *without_text}
    read = {kind: own for kind, paths in files.items() if (own := [path for path in paths if path not in apart])}
    return Looked(
        sources=sources_of(read, columns, texts, recipe_dir),
        conversations=conversations,
        without_text=without_text,
    )
