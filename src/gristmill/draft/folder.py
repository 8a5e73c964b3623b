"""What a folder of text becomes in a recipe: one source per format, or per column of text where files differ, and the rest."""

from __future__ import annotations

import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from gristmill.data.outside import find_outside, visible_files
from gristmill.errors import RecipeError
from gristmill.extract.not_read import files_by_reader
from gristmill.extract.shards import find_files
from gristmill.formats.format import size_of
from gristmill.recipe.schema.curation import Source
from gristmill.recipe.schema.formats import READERS

# A document lies on one side of the split, so longer ones are cut; where there is little text, shorter ones too: held_out.py.
PASSAGE_CHARS = 20_000
RULES = {"warc": ("gopher_repetition@1", "gopher_quality@1"), "code": ("tree@1", "code@1")}
LETTERS = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "þ": "th"}
)


@dataclass(frozen=True, kw_only=True)
class FolderSource:
    """Files that one source of the recipe reads. read: the reader's section; column: the one that holds the text; is_listed: its paths
    are the single files, for no pattern names these and no others; is_replayed: general text, beside one's own."""

    name: str
    kind: str
    files: tuple[Path, ...]
    read: Mapping[str, Any]
    column: str | None = None
    is_listed: bool = False
    is_replayed: bool = False

    @property
    def num_bytes(self) -> int:
        """On disk."""
        return sum(map(size_of, self.files))

    @property
    def rules(self) -> tuple[str, ...]:
        """Packs of rules that suit the format."""
        return RULES.get(self.kind, ())

    def cut_at(self, chars: int) -> FolderSource:
        """With documents of more characters cut into passages."""
        return replace(self, read={**self.read, "passage_chars": chars})

    def section(self, **more: Any) -> Source:
        """As a section of the recipe."""
        return Source.model_validate(
            {"read": dict(self.read), "license": "unknown", "rules": {"packs": list(self.rules)}, **more}
        )


@dataclass(frozen=True, kw_only=True)
class Looked:
    """What lies in the folders. without_text: files of known formats that are no part of a source, and why."""

    sources: list[FolderSource]
    conversations: list[Path]
    without_text: dict[Path, str]


def files_by_kind(texts: Path) -> dict[str, list[Path]]:
    """Format → its files. Hidden files are no part of it, nor are those that no format knows."""
    names = {reader: kind for kind, reader in READERS.items()}
    found = files_by_reader(visible_files(texts) if texts.is_dir() else [texts])
    return {names[reader]: files for reader, files in found.items()}


def sources_of(
    files: Mapping[str, Sequence[Path]], columns: Mapping[Path, str], texts: Path, recipe_dir: Path
) -> list[FolderSource]:
    """The sources over these files. columns: the text column of each file of a format that has columns."""
    sources: list[FolderSource] = []
    for kind, paths in files.items():
        groups: dict[str | None, list[Path]] = defaultdict(list)
        for path in paths:
            groups[columns.get(path)].append(path)
        for column, own in sorted(groups.items(), key=lambda group: -len(group[1])):
            name = kind if len(groups) == 1 else _free_name(f"{kind}-{name_of(column or '')}".rstrip("-"), sources)
            sources.append(_source(name, kind, own, column, texts, recipe_dir))
    return sources


def name_of(words: str) -> str:
    """Words as a name of the recipe: lower-case letters, digits and dashes. "Übung x" → "uebung-x"; empty where nothing is left."""
    plain = unicodedata.normalize("NFC", words).lower().translate(LETTERS)
    ascii_only = unicodedata.normalize("NFKD", plain).encode("ascii", "ignore").decode()
    return re.sub("[^a-z0-9_]+", "-", ascii_only).strip("-_")


def _free_name(name: str, sources: Sequence[FolderSource]) -> str:
    taken = {source.name for source in sources}
    return next(one for one in (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3))) if one not in taken)


def _source(
    name: str, kind: str, files: Sequence[Path], column: str | None, texts: Path, recipe_dir: Path
) -> FolderSource:
    paths = _pattern(kind, files, texts, recipe_dir)
    is_listed = not paths
    paths = paths or [
        f"{escape(relative_to_recipe(texts, recipe_dir))}/{_as_pattern(path.relative_to(texts))}" for path in files
    ]
    read: dict[str, Any] = {"format": kind, "paths": paths, "passage_chars": PASSAGE_CHARS}
    if column is not None:
        read[READERS[kind].text_key or ""] = column
    return FolderSource(name=name, kind=kind, files=tuple(files), read=read, column=column, is_listed=is_listed)


def _pattern(kind: str, files: Sequence[Path], texts: Path, recipe_dir: Path) -> list[str]:
    """What names these files and no others: the file, or a pattern for each suffix; none where the files must be listed."""
    plain = relative_to_recipe(texts, recipe_dir)
    if texts.is_file():
        return [plain]
    by_suffix = [f"{escape(plain)}/**/*{escape(suffix)}" for suffix in sorted(_suffixes(kind, files))]
    is_exact = _files_named(kind, by_suffix, recipe_dir) == {os.path.normpath(path) for path in files}
    return by_suffix if is_exact else []


def relative_to_recipe(texts: Path, recipe_dir: Path) -> str:
    """The path from the recipe's folder; where a link on the way makes that another place, the whole path."""
    relative = os.path.relpath(texts, recipe_dir)
    return relative if (recipe_dir / relative).resolve() == texts.resolve() else str(texts)


def _suffixes(kind: str, files: Iterable[Path]) -> set[str]:
    """The suffixes of the format as these files spell them."""
    return {suffix for path in files if (suffix := READERS[kind].suffix_in(path.name)) is not None}


def _as_pattern(path: Path) -> str:
    """A pattern of one file, with wildcards at the beginning of the path, so that its name tells the folder that it lies in, and at
    that of the last part, so that what lies beside it is told as not read."""
    folders = path.parent.parts
    parts = [*(_with_wildcard(part) for part in folders[:1]), *map(escape, folders[1:]), _with_wildcard(path.name)]
    return "/".join(parts)


def _with_wildcard(name: str) -> str:
    first = f"[{name[0]}]" if name[0] not in "!^]-" else "?"
    return first + escape(name[1:])


def _files_named(kind: str, patterns: Sequence[str], recipe_dir: Path) -> set[str]:
    read = READERS[kind].model_validate({"format": kind, "paths": list(patterns)})
    try:
        return {os.path.normpath(path) for path in find_files(find_outside(recipe_dir, patterns, where="init"), read)}
    except RecipeError:
        return set()
