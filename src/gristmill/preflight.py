"""What can be wrong with a recipe's files, seen before anything runs: columns, packs, annotations, conversations, rules.

First rows alone are read; what lies deeper is found by the step that reads all. A file that is missing is told, not refused: a
plan may be made where the data is not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path

from gristmill.data.id_tables import open_table
from gristmill.data.lists import check_list
from gristmill.data.outside import absolute, find_outside
from gristmill.data.packs import KINDS, SCORED_KINDS, read_pack
from gristmill.data.record import RawDocument
from gristmill.errors import DataError, GristmillError, RecipeError
from gristmill.extract.judge import check_rules
from gristmill.extract.own_packs import load_own_packs, read_own_packs
from gristmill.formats.format import Span, format_of, size_of
from gristmill.model.released import check_released
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.curation import Listed, Source
from gristmill.recipe.schema.fetching import FetchSoftwareHeritage
from gristmill.recipe.schema.section import KeyPath, did_you_mean
from gristmill.score.annotations import read_annotations
from gristmill.synthesize.rows import read_conversations
from gristmill.train.watch.watched import REFERENCE_FILES, WATCHING, read_watched

PEEKED_FILES = 3
PEEKED_ROWS = 20
READ_ROWS = 100
LARGE_PACK = 50_000_000  # bytes of items that are read whole only by the steps that need them
COLUMN_KEYS = ("text_field", "id_field", "url_field", "text_column", "id_column", "url_column")


def check_files(loaded: LoadedRecipe, files: Mapping[str, list[Path]]) -> list[str]:
    """The files that are missing, each with the key that names it. files: of each source.

    Raises RecipeError for a rule, or a column of a source, that does not exist; and DataError for a malformed pack,
    conversation or annotation: all of them together, of the kind of the first.
    """
    recipe, problems = loaded.recipe, list[GristmillError]()
    for name, source in recipe.sources.items():
        _collect(problems, partial(_check_source, loaded, name, source, files[name]))
    missing = _sources_without_files(
        loaded, [name for name, source in recipe.sources.items() if not files[name] and source.fetch is None]
    )
    for key, path, check in _other_files(loaded):
        where = f"{loaded.origin_near(key)}: {_dotted(key)}"
        if not path.exists():
            missing.append(f"{where} names {path}, which does not exist on this machine")
        else:
            _collect(problems, partial(check, path), where=where)
    if problems:
        raise type(problems[0])("\n".join(map(str, problems)))
    return missing


def _sources_without_files(loaded: LoadedRecipe, names: list[str]) -> list[str]:
    """A line for each of the sources, or a single one where they are all that the recipe has."""
    if len(names) > 1 and len(names) == len(loaded.recipe.sources):
        where = loaded.origin_near(("sources", names[0], "read", "paths"))
        return [
            f"{where}: none of the {len(names)} sources has a file on this machine; paths start at the recipe's folder"
        ]
    return [
        f"{loaded.origin_near(key)}: {_dotted(key)} matches no file on this machine"
        for key in [("sources", name, "read", "paths") for name in names]
    ]


def _collect(problems: list[GristmillError], check: Callable[[], object], *, where: str = "") -> None:
    try:
        check()
    except (DataError, RecipeError) as error:
        problems.append(type(error)(f"{where} is not as expected.\n  {error}" if where else str(error)))


def _dotted(key: KeyPath) -> str:
    return ".".join(map(str, key))


def _other_files(loaded: LoadedRecipe) -> Iterator[tuple[KeyPath, Path, Callable[[Path], object]]]:
    """(keys, path, what reads its first rows) of every file that the recipe names beside its sources."""
    recipe = loaded.recipe
    lists: dict[KeyPath, Listed | None] = {
        ("sources", name, "urls"): each.urls for name, each in recipe.sources.items()
    }
    for key, section in {**lists, ("select", "opt_out"): recipe.select.opt_out}.items():
        for kind, paths in section.lists.items() if section is not None else ():
            for index, path in enumerate(paths):
                yield (*key, kind, index), absolute(loaded.folder, path), partial(check_list, kind=kind)
    if recipe.pretrain.init_from is not None:
        check_model = partial(check_released, model=recipe.model, vocab_size=recipe.tokenizer.vocab_size)
        yield ("pretrain", "init_from"), absolute(loaded.folder, recipe.pretrain.init_from), check_model
    for name, pack in recipe.packs.items():
        is_watched = name in (*recipe.pretrain.watch.packs, *recipe.stage_packs)
        kinds = SCORED_KINDS if name in recipe.evaluate.packs else KINDS
        check = partial(_check_pack, kinds=kinds, is_watched=is_watched)
        yield ("packs", name, "path"), absolute(loaded.folder, pack.path), check
    if (folder := recipe.pretrain.watch.reference) is not None:
        for file in REFERENCE_FILES:
            yield ("pretrain", "watch", "reference"), absolute(loaded.folder, folder) / file, _check_reference
    for name, source in recipe.sources.items():
        if isinstance(source.fetch, FetchSoftwareHeritage):
            check_ids = partial(_check_ids, id_column=source.fetch.id_column)
            for index, pattern in enumerate(source.fetch.ids or ()):
                yield ("sources", name, "fetch", "ids", index), _first_of(loaded.folder, pattern), check_ids
    for name, item in recipe.classifiers.items():
        key = ("classifiers", name)
        yield (*key, "annotations"), absolute(loaded.folder, item.annotations), _check_annotations
        if item.second_annotations is not None:
            yield (*key, "second_annotations"), absolute(loaded.folder, item.second_annotations), _check_annotations
    for index, path in enumerate(recipe.chat.conversations if recipe.chat is not None else ()):
        yield ("chat", "conversations", index), absolute(loaded.folder, path), _check_conversations


def _check_pack(path: Path, *, kinds: tuple[str, ...], is_watched: bool) -> None:
    items = path / "items.jsonl"
    if items.is_file() and items.stat().st_size > LARGE_PACK:
        return
    pack = read_pack(path)
    if pack.kind not in kinds:
        raise RecipeError(
            f"{path} is of kind {pack.kind}; evaluate.packs takes {' and '.join(kinds)}. Take it out there: under `packs` its text is "
            "kept out of the training data all the same."
        )
    if is_watched and not any(item.gold for item in pack.items):
        raise RecipeError(
            f"{path} has no answers, so pretrain.watch cannot score it. Take it out there: under `packs` its text is kept out of the training "
            "data all the same."
        )


def _check_reference(path: Path) -> None:
    if path.name == WATCHING:
        read_watched(path.parent)


def _first_of(folder: Path, pattern: str) -> Path:
    """The first file that a pattern names; where there is none, the place where it would be."""
    with contextlib.suppress(RecipeError):
        return next(iter(find_outside(folder, [pattern], where=pattern).files))
    return absolute(folder, pattern)


def _check_ids(path: Path, *, id_column: str) -> None:
    open_table([path], id_column)


def _check_annotations(path: Path) -> None:
    read_annotations(path, first=READ_ROWS)


def _check_conversations(path: Path) -> None:
    if not [*read_conversations(path, first=READ_ROWS)]:
        raise DataError(f"{path} holds no conversations.")


# ── sources ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _check_source(loaded: LoadedRecipe, name: str, source: Source, files: list[Path]) -> None:
    where = f"{loaded.origin_near(('sources', name))}: sources.{name}.rules"
    try:
        own = load_own_packs(read_own_packs(source.rules, partial(absolute, loaded.folder)))
    except RecipeError as error:
        place: KeyPath = ("sources", name, "rules", "packs")
        raise RecipeError(f"{loaded.origin_near(place)}: {_dotted(place)}: {error}") from error
    check_rules(source.rules.packs, source.rules.off, source.rules.limits, where=where, own=own)
    if source.read.text_key is None or getattr(source.read, "delimiter", None) is not None:
        return
    rows = list(_first_rows(source, files))
    if not rows:
        return
    columns = dict.fromkeys(str(column) for row in rows for column in row)
    for key in COLUMN_KEYS:
        column = getattr(source.read, key, None)
        if column is None or column in columns:
            continue
        is_wanted = key != "url_field"  # lines of JSON may have a URL, or none
        if did_you_mean(column, columns) if not is_wanted else not _can_read(source, files):
            raise RecipeError(_no_such_column(loaded, ("sources", name, "read", key), column, columns, files))
    text = getattr(source.read, source.read.text_key)
    values = [row[text] for row in rows if row.get(text) is not None]
    if values and not any(isinstance(value, str) for value in values):
        place = ("sources", name, "read", source.read.text_key)
        texts = [column for column in columns if any(isinstance(row.get(column), str) for row in rows)]
        raise RecipeError(
            f"{loaded.origin_near(place)}: {_dotted(place)} is {text!r}, which has no text in the first rows of {files[0]}, but "
            f"{values[0]!r:.60}.\n  {f'Text is in {_listed(texts)}.' if texts else 'None of its columns has text.'}"
        )


def _first_rows(source: Source, files: list[Path]) -> Iterator[dict[str, object]]:
    """Rows from the beginnings of the first files; what cannot be looked at is left to extract, which counts it."""
    reader = format_of(source.read)
    for path in islice(files, PEEKED_FILES):
        try:
            yield from reader.peek(path, num_rows=PEEKED_ROWS)
        except (DataError, OSError, ValueError):
            continue


def _can_read(source: Source, files: list[Path]) -> bool:
    """Whether the reader itself makes a document of one of the first records: it may know columns by their place."""
    reader = format_of(source.read)
    for path in files[:PEEKED_FILES]:
        span = Span(path=path, name=path.name, size=size_of(path))
        with contextlib.suppress(DataError, OSError, ValueError):
            if any(isinstance(record, RawDocument) for record in islice(reader.read(span, source.read), PEEKED_ROWS)):
                return True
    return False


def _no_such_column(loaded: LoadedRecipe, key: KeyPath, column: str, columns: Iterable[str], files: list[Path]) -> str:
    kind = "keys" if str(key[-1]).endswith("field") else "columns"
    return (
        f"{loaded.origin_near(key)}: {_dotted(key)} is {column!r}, but {files[0]} has the {kind} {_listed(columns)}.\n"
        f"  {did_you_mean(column, columns) or 'Name one of them.'}".rstrip()
    )


def _listed(names: Iterable[str]) -> str:
    listed = [*names]
    return ", ".join(map(repr, listed[:12])) + (", …" if len(listed) > 12 else "")
