"""What a recipe has to work through: files, bytes, documents and tokens of each source, counted wherever something counted them.

tokenize done, or refused when it had counted     ─→ measured           before the recipe changed ─→ counted before
unique_tokens     ─→ declared           bytes of text, as select or extract counted them or by the sizes of files ─→ estimated

What select kept overrules a declaration that it contradicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gristmill.data.outputs import Fetched
from gristmill.data.outside import absolute, find_outside
from gristmill.errors import RecipeError
from gristmill.graph.state import States
from gristmill.planning.budget import Selection
from gristmill.planning.estimate import bytes_per_token, text_bytes_of
from gristmill.planning.fetches import FetchFacts, Told, find_fetches
from gristmill.planning.steps import Amounts
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.curation import Source
from gristmill.recipe.schema.formats import READERS
from gristmill.recipe.schema.post_training import ChatData
from gristmill.recipe.schema.recipe import Recipe
from gristmill.select.outputs import Selected
from gristmill.select.split import wanted_bytes
from gristmill.store.durable import read_json
from gristmill.store.store import RunLinks
from gristmill.synthesize.templates import LARGE_SUM_WORDINGS, SMALL_SUM_WORDINGS, small_sums
from gristmill.tokens.outputs import Tokenized
from gristmill.tokens.shards import TokenShard
from gristmill.tokens.tokenize import selection_tokens

HowKnown = Literal["measured", "counted before", "declared", "estimated", "unknown"]
DOCUMENT_BYTES = 3000  # of text in a web page, on average
CONTRADICTS = 0.75  # of the declared tokens: fewer by the bytes that select kept cannot be the error of the ratio
COUNTED_BYTES = 64_000_000  # of lines that are counted without asking; of larger files, estimated by their first part


@dataclass(frozen=True, kw_only=True)
class SourceFacts:
    """What is on disk for one source, and how its unique tokens are known. text_bytes: 0 when the files are elsewhere."""

    files: int
    text_bytes: float
    how_known: HowKnown


@dataclass(frozen=True, kw_only=True)
class Found:
    """What there is. files: of each source. unique: training tokens of each selection, where they are known.

    held_out: documents and bytes of validation text of each source, as select made it or will want it; documents are None where
    nothing counted them. largest: of sources of which nothing was counted and a file is a document, the file with most text.
    """

    files: Mapping[str, list[Path]]
    facts: Mapping[str, SourceFacts]
    unique: Mapping[Selection, int]
    fetches: Mapping[str, FetchFacts]
    amounts: Amounts
    held_out: Mapping[str, tuple[int | None, float]]
    largest: Mapping[str, tuple[Path, float]]


def source_files(loaded: LoadedRecipe, links: RunLinks) -> dict[str, list[Path]]:
    """The files of each source; none where they are absent and its tokens are declared, or not fetched yet. Raises RecipeError
    otherwise."""
    return {
        name: _files_of(name, source, loaded) if source.fetch is None else _fetched(name, source, links)
        for name, source in loaded.recipe.sources.items()
    }


def present_files(loaded: LoadedRecipe, links: RunLinks | None = None) -> dict[str, list[Path]]:
    """The files of each source that are on this machine; of fetched ones those of a run, where one is given."""
    found: dict[str, list[Path]] = {}
    for name, source in loaded.recipe.sources.items():
        found[name] = [] if source.fetch is None or links is None else _fetched(name, source, links)
        if source.fetch is None:
            with suppress(RecipeError):
                found[name] = [*find_outside(loaded.folder, source.read.paths, where=name).files]
    return found


def _fetched(name: str, source: Source, links: RunLinks) -> list[Path]:
    """The files of a source among what the run fetched of it last."""
    identity = links.before(f"fetch/{name}")
    folder = None if identity is None else links.bytes_of(f"fetch/{name}", identity)
    if folder is None:
        return []
    with suppress(RecipeError):
        return [*find_outside(Fetched(folder).files, source.read.paths, where=name).files]
    return []


def find_amounts(
    loaded: LoadedRecipe,
    files: Mapping[str, list[Path]],
    links: RunLinks,
    states: States | None,
    *,
    told: Mapping[str, Told] | None = None,
) -> Found:
    """All that can be known of the recipe's amounts now. files: of the sources. states: None where they are not worked out; what the
    run has then speaks for them. told: by servers, of what is to fetch."""
    recipe = loaded.recipe
    fetches = find_fetches(recipe, links, states, told or {})
    text = {name: _text_bytes(name, found, recipe, links, states) for name, found in files.items()}
    unique, how_known = _unique_tokens(recipe, text, links, states)
    per_token = bytes_per_token(recipe.tokenizer.vocab_size)
    kept = {name: size or unique.get(Selection(name), 0) * per_token for name, size in text.items()}
    documents = {name: _documents(name, recipe, files[name], kept[name], links, states) for name in recipe.sources}
    pack_files = {name: absolute(loaded.folder, pack.path) / "items.jsonl" for name, pack in recipe.packs.items()}
    return Found(
        files=files,
        facts={
            name: SourceFacts(files=len(files[name]), text_bytes=text[name], how_known=how_known[name])
            for name in recipe.sources
        },
        unique=unique,
        fetches=fetches,
        amounts=Amounts(
            read_bytes={name: _read_bytes(source, files[name], kept[name]) for name, source in recipe.sources.items()},
            text_bytes=kept,
            documents=documents,
            conversations=0.0 if recipe.chat is None else _conversations(recipe.chat, loaded.folder),
            fetch_bytes={name: float(facts.num_bytes or 0) for name, facts in fetches.items()},
            pack_bytes={name: path.stat().st_size if path.is_file() else 0 for name, path in pack_files.items()},
            pack_items={name: _num_lines(path) for name, path in pack_files.items()},
        ),
        held_out={name: _held_out(name, recipe, text[name], documents[name], links, states) for name in recipe.sources},
        largest={
            name: _largest(source, files[name])
            for name, source in recipe.sources.items()
            if files[name] and _is_a_document(source) and _counts(f"extract/{name}", links, states) is None
        },
    )


def _files_of(name: str, source: Source, loaded: LoadedRecipe) -> list[Path]:
    where = f"{loaded.origin(('sources', name))}: sources.{name}.read.paths"
    try:
        return [*find_outside(loaded.folder, source.read.paths, where=where).files]
    except RecipeError as error:
        if source.unique_tokens is None:
            raise RecipeError(
                f"{error}\n  Put the files there, or declare sources.{name}.unique_tokens and use `gristmill plan --without-files`."
            ) from None
    return []


def _text_bytes(name: str, files: list[Path], recipe: Recipe, links: RunLinks, states: States | None) -> float:
    """Bytes of text: as extract counted them, now or before the recipe changed, else estimated from the files."""
    counts = _counts(f"extract/{name}", links, states)
    if counts is not None and "text_bytes" in counts:
        return float(counts["text_bytes"])
    return text_bytes_of(files, recipe.sources[name].read.format)


def _read_bytes(source: Source, files: list[Path], text_bytes: float) -> float:
    """Bytes of a source's files, unpacked; of files elsewhere, by the text that they hold."""
    reader = READERS[source.read.format]
    return (text_bytes_of(files, source.read.format) if files else text_bytes) / reader.text_per_byte


def _made(step: str, links: RunLinks, states: States | None) -> list[str]:
    """The identities that may tell of a step: what is asked for, where the states are known, then what the run has."""
    asked = None if states is None else states[step].identity
    return [identity for identity in (asked, links.before(step)) if identity is not None]


def _counts(step: str, links: RunLinks, states: States | None) -> Mapping[str, Any] | None:
    """What a step counted, as it is asked for or before a change; None when it never ran."""
    records = (links.record_of(step, identity) for identity in _made(step, links, states))
    return next((dict(record.get("counts", {})) for record in records if record is not None), None)


def _documents(
    name: str, recipe: Recipe, files: list[Path], text_bytes: float, links: RunLinks, states: States | None
) -> float:
    counts = _counts(f"extract/{name}", links, states)
    if counts is not None and "documents" in counts:
        return float(counts["documents"])
    return float(len(files)) if files and _is_a_document(recipe.sources[name]) else text_bytes / DOCUMENT_BYTES


def _is_a_document(source: Source) -> bool:
    """Whether each file of a source is one document."""
    read = source.read
    is_file = read.format in ("html", "docx", "pdf", "subtitles", "man") or (
        read.format == "text" and read.split_at is None
    )
    return is_file and read.passage_chars is None


def _largest(source: Source, files: list[Path]) -> tuple[Path, float]:
    """The file with most text, by its size."""
    return max(((path, text_bytes_of([path], source.read.format)) for path in files), key=lambda found: found[1])


# ── tokens ───────────────────────────────────────────────────────────────────────────────────────────────────────────


def _unique_tokens(
    recipe: Recipe, text_bytes: Mapping[str, float], links: RunLinks, states: States | None
) -> tuple[dict[Selection, int], dict[str, HowKnown]]:
    """Unique tokens of each selection, and how those of each whole source are known."""
    refused = _refused(recipe, links)
    if states is not None:
        state = states["tokenize"]
        is_of_now = state.identity is not None and refused is not None and refused.name.startswith(state.identity)
        folder = refused if is_of_now else state.folder
        if folder is not None:
            return selection_tokens(recipe.pretrain, _shards(recipe, folder)), dict.fromkeys(recipe.sources, "measured")
    before = _counted_before(recipe, links) if refused is None else _counted_then(recipe, refused)
    split = _split(links, states)
    found: dict[Selection, int] = {}
    how_known: dict[str, HowKnown] = {}
    for name, source in recipe.sources.items():
        kept = split.get(name, {}).get("train", {}).get("bytes")
        estimated = round((text_bytes[name] if kept is None else kept) / bytes_per_token(recipe.tokenizer.vocab_size))
        declared = source.unique_tokens
        if name in before:
            found[Selection(name)], how_known[name] = before[name], "counted before"
        elif declared is not None and (kept is None or estimated >= CONTRADICTS * declared):
            found[Selection(name)], how_known[name] = declared, "declared"
        elif source.fetch is not None and not text_bytes[name]:
            how_known[name] = "unknown"  # until its files are fetched
        else:
            found[Selection(name)], how_known[name] = estimated, "estimated"
    return found, how_known


def _shards(recipe: Recipe, folder: Path) -> dict[str, TokenShard]:
    return {name: TokenShard(Tokenized(folder).of(name).train) for name in recipe.sources}


def _refused(recipe: Recipe, links: RunLinks) -> Path | None:
    """Where a tokenize has left what it counted of all sources, and was refused or stopped before it was done."""
    unfinished = links.unfinished("tokenize")
    if unfinished is None:
        return None
    counted = all((unfinished / name / "train.json").is_file() for name in recipe.sources)
    return unfinished.resolve() if counted else None


def _counted_then(recipe: Recipe, refused: Path) -> dict[str, int]:
    """Training tokens as a tokenize counted them that was refused before the recipe changed."""
    size = recipe.tokenizer.vocab_size
    counted = {name: shard.facts for name, shard in _shards(recipe, refused).items()}
    return {
        name: round(facts.num_tokens * bytes_per_token(facts.vocab_size) / bytes_per_token(size))
        for name, facts in counted.items()
    }


def _counted_before(recipe: Recipe, links: RunLinks) -> dict[str, int]:
    """Training tokens of the sources as the run's tokenize counted them before the recipe changed; at another vocabulary as
    many bytes are fewer tokens, or more."""
    identity = links.before("tokenize")
    record = None if identity is None else links.record_of("tokenize", identity)
    if record is None:
        return {}
    tokenizer = record.get("made_from", {}).get("tokenizer")
    of_tokenizer = None if tokenizer is None else links.record_of("tokenizer", tokenizer)
    size = recipe.tokenizer.vocab_size
    old_size = (of_tokenizer or {}).get("counts", {}).get("vocab_size", size)
    scale = bytes_per_token(old_size) / bytes_per_token(size)
    counts = record.get("counts", {})
    return {
        name: round(counts[name]["train"]["tokens"] * scale)
        for name in recipe.sources
        if "train" in counts.get(name, {})
    }


def _split(links: RunLinks, states: States | None) -> Mapping[str, Any]:
    """Source → side → documents and bytes, as select split them, now or before the recipe changed."""
    for identity in _made("select", links, states):
        if (folder := links.bytes_of("select", identity)) is not None:
            return dict(read_json(Selected(folder).split))
    return {}


def _held_out(
    name: str, recipe: Recipe, text_bytes: float, documents: float, links: RunLinks, states: States | None
) -> tuple[int | None, float]:
    if (made := _split(links, states).get(name)) is not None:
        return int(made["validation"]["documents"]), float(made["validation"]["bytes"])
    wanted = wanted_bytes(round(text_bytes), recipe.select.validation)
    is_counted = _counts(f"extract/{name}", links, states) is not None
    return round(documents * wanted / text_bytes) if is_counted and text_bytes else None, wanted


# ── what is not text ─────────────────────────────────────────────────────────────────────────────────────────────────


def _conversations(chat: ChatData, folder: Path) -> float:
    """Conversations that synthesize makes, before packs take some."""
    by_hand = sum(_num_lines(absolute(folder, path)) for path in chat.conversations)
    sums = len(small_sums(chat.sums_up_to)) * SMALL_SUM_WORDINGS + chat.two_digit_sums * LARGE_SUM_WORDINGS
    definitions = chat.num_definitions if chat.definitions_from is not None else 0
    return by_hand * chat.conversation_copies + sums + definitions


def _num_lines(path: Path) -> float:
    """Lines of a file, by its first part where it is large; 0 where it is not there."""
    if not path.is_file():
        return 0.0
    with path.open("rb") as file:
        first = file.read(COUNTED_BYTES)
    return first.count(b"\n") * max(1.0, path.stat().st_size / max(1, len(first)))
