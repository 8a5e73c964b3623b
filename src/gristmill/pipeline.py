"""The plain table from a recipe to its steps: what each is given, what it may watch, what it leaves.

Nothing here knows what a step does. Whether a step is done is `graph/state.py`; `runner.py` carries the table out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from glob import escape
from typing import Any

from gristmill.align.outputs import Finetuned, PreferencePairs, PreferenceTuned
from gristmill.data.outputs import Fetched
from gristmill.data.outside import FileHashes, find_step_files
from gristmill.evaluate.outputs import Evaluated
from gristmill.export.outputs import Exported
from gristmill.extract.outputs import Extracted
from gristmill.graph.machine import Machine
from gristmill.graph.outputs import Outputs
from gristmill.graph.state import States
from gristmill.graph.step import Given, Reads, Step, reads
from gristmill.model.config import FILES
from gristmill.model.config import TOKENIZER as TOKENIZER_FILE
from gristmill.recipe.load import LoadedRecipe
from gristmill.recipe.schema.curation import Listed, NearDuplicates, RepeatedText, list_label, rules_label
from gristmill.recipe.schema.fetching import Fetch, FetchSoftwareHeritage
from gristmill.recipe.schema.formats import ReadCode
from gristmill.recipe.schema.recipe import Recipe
from gristmill.report.outputs import ReportPage
from gristmill.score.outputs import Scored, TrainedClassifier
from gristmill.select.outputs import Deduplicated, Searched, Selected, Signed
from gristmill.store.store import STORE, RunLinks
from gristmill.synthesize.outputs import Conversations
from gristmill.tokens.outputs import Tokenized, TokenizerFiles
from gristmill.train.outputs import MODEL_STEPS, Pretrained, ReleasedModel, TrainedModel
from gristmill.train.prefix import PARTS as PREFIX_PARTS
from gristmill.train.prefix import RULE as SPIKE_RULE
from gristmill.train.watch.watched import REFERENCE_FILES

FILE_HASHES = "file-hashes.json"
PACK_FILES = ("pack.yaml", "items.jsonl")

# Parts that several steps share: their versions are part of the identity of each.
PACKS = ("gristmill.data.packs",)
WORDS = ("gristmill.select.words",)
UNITS = ("gristmill.select.units", "gristmill.select.repeated")
ITEMS = tuple(
    f"gristmill.select.{name}" for name in ("plain", "word_shares", "questions", "item_words", "decontaminate")
)
CONTAMINATION = (*PACKS, *WORDS, *ITEMS)
CLASSIFIER = ("gristmill.score.classifiers", "gristmill.score.hashed_ngrams")
ENCODING = ("gristmill.tokens.tokenizer",)
CHAT = (*ENCODING, "gristmill.tokens.chat")
ORDER = ("gristmill.tokens.permutation",)
TRAINING = ("gristmill.model.transformer", "gristmill.train.loop", "gristmill.align.epochs", *ORDER)
TEMPLATES = ("gristmill.synthesize.templates",)
STATISTICS = ("gristmill.statistics",)
ANSWERS = (*CHAT, "gristmill.model.transformer", "gristmill.model.generate")
PAGE = ("gristmill.report.facts",)


def steps_of(recipe: Recipe) -> list[Step]:
    """The table: every step of this recipe, in an order in which they can run."""
    made = [*_released(recipe), *_curation(recipe), *_pretraining(recipe), *_alignment(recipe)]
    return [*made, *_results(recipe, made)]


def model_steps(recipe: Recipe) -> list[str]:
    """The steps that leave a model, in order; the last one is what the recipe is for."""
    return [name for name in MODEL_STEPS if name == "pretrain" or getattr(recipe, name) is not None]


def last_model_step(recipe: Recipe) -> str:
    """The step whose model the recipe is for."""
    return model_steps(recipe)[-1]


def kept_steps(recipe: Recipe) -> set[str]:
    """The steps whose files people use: remade when they were removed, while others are remade only for who reads them."""
    return {"report", "export", last_model_step(recipe)}


def early_sources(recipe: Recipe) -> list[str]:
    """The sources that are not late: what the tokenizer is made from."""
    return [name for name, source in recipe.sources.items() if not source.late]


# ── the table of one run ─────────────────────────────────────────────────────────────────────────────────────────────


def open_states(loaded: LoadedRecipe, links: RunLinks, hashes: FileHashes) -> States:
    """The state of each step of a recipe in a run."""

    def of_step(step: Step) -> dict[str, dict[str, str]]:
        found = find_step_files(step.given, loaded.folder, step.name)
        return {label: hashes.of(files) for label, files in found.items()}

    return States(steps_of(loaded.recipe), run=links, hashes=of_step)


def hashes_of(
    loaded: LoadedRecipe,
    machine: Machine,
    *,
    say: Callable[[str], None] = lambda line: None,
    should_stop: Callable[[], bool] = lambda: False,
    max_bytes: int | None = None,
) -> FileHashes:
    """The hashes of outside files, remembered in the store."""
    known_in = machine.runs_dir / STORE / FILE_HASHES
    return FileHashes(known_in, threads=machine.processes, say=say, should_stop=should_stop, max_bytes=max_bytes)


# ── a released model ─────────────────────────────────────────────────────────────────────────────────────────────────


def _released(recipe: Recipe) -> Iterable[Step]:
    """First of all, because it may be refused."""
    if recipe.pretrain.init_from is not None:
        yield Step(
            name="start",
            module="gristmill.train.take_released",
            outputs=ReleasedModel,
            given=Given(
                config={"model": recipe.model.inside(), "vocab_size": recipe.tokenizer.vocab_size},
                files={"released model": _released_files(recipe.pretrain.init_from, FILES)},
            ),
            parts=(*CHAT, "gristmill.model.transformer"),
        )


def _released_files(folder: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{escape(folder.rstrip('/'))}/{name}" for name in names)


# ── text ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _curation(recipe: Recipe) -> Iterable[Step]:
    for name, source in recipe.sources.items():
        rules: dict[str, tuple[str, ...]] = {rules_label(path): (path,) for path in source.rules.own.values()}
        if source.urls is not None:
            rules |= _lists(source.urls)
        given = Given(config={"source": source.inside()}, files={"source": tuple(source.read.paths), **rules})
        if source.fetch is not None:
            yield Step(
                name=f"fetch/{name}",
                module="gristmill.data.fetch",
                outputs=Fetched,
                given=Given(config={"fetch": source.fetch.inside()}, files=_fetch_files(source.fetch)),
                watching=Given(config={"fetch": source.fetch}),
            )
            given = Given(
                config={"source": source.inside(), "paths": source.read.paths},
                inputs={"fetched": reads(f"fetch/{name}", Fetched, "files")},
                files=rules,
            )
        yield Step(
            name=f"extract/{name}",
            module="gristmill.extract.extract",
            maps_shards=True,
            outputs=Extracted,
            given=given,
            watching=Given(config={"source": source}),
        )
    yield from _scoring(recipe)
    yield from _search(recipe)
    yield _duplicates(recipe)  # it and select decide over all sources together
    yield _select(recipe)


def _fetch_files(fetch: Fetch) -> dict[str, tuple[str, ...]]:
    """The files on this machine that say what is fetched."""
    return {"ids": tuple(fetch.ids)} if isinstance(fetch, FetchSoftwareHeritage) and fetch.ids is not None else {}


def _scoring(recipe: Recipe) -> Iterable[Step]:
    for name, classifier in recipe.classifiers.items():
        labels = {"annotations": (classifier.annotations,)}
        if classifier.second_annotations is not None:
            labels["second annotations"] = (classifier.second_annotations,)
        yield Step(
            name=f"classifier/{name}",
            module="gristmill.score.train_classifier",
            outputs=TrainedClassifier,
            given=Given(
                config={"classifier": classifier.inside(), "seed": recipe.seed},
                inputs={"documents": reads(f"extract/{classifier.source}", Extracted, "documents")},
                files={**labels, **_held_out(recipe)},
            ),
            parts=(*CLASSIFIER, *PACKS),
        )
    for name, threshold in recipe.select.min_scores.items():
        labelled_here = recipe.classifiers[threshold.classifier].source == name
        yield Step(
            name=f"score/{name}",
            module="gristmill.score.score",
            maps_shards=True,
            outputs=Scored,
            given=Given(
                config={"labelled_here": labelled_here},
                inputs={
                    "documents": reads(f"extract/{name}", Extracted, "documents"),
                    "classifier": reads(
                        f"classifier/{threshold.classifier}",
                        TrainedClassifier,
                        *(("model", "out_of_fold") if labelled_here else ("model",)),
                    ),
                },
            ),
            parts=CLASSIFIER,
        )


def _search(recipe: Recipe) -> Iterable[Step]:
    """What is searched in each source by itself; no threshold repeats it."""
    section = recipe.select
    near = NearDuplicates() if section.near_duplicates is None else section.near_duplicates
    for name in recipe.sources:
        documents = {"documents": reads(f"extract/{name}", Extracted, "documents")}
        yield Step(
            name=f"signatures/{name}",
            module="gristmill.select.signatures",
            maps_shards=True,
            outputs=Signed,
            given=Given(
                config={
                    "num_bands": near.num_bands,
                    "rows_per_band": near.rows_per_band,
                    "ngram": near.ngram,
                    "seed": recipe.seed,
                },
                inputs=documents,
            ),
            parts=WORDS,
        )
        yield Step(
            name=f"contamination/{name}",
            module="gristmill.select.contamination",
            maps_shards=True,
            outputs=Searched,
            given=Given(
                config={"decontaminate": section.decontaminate.inside(), "seed": recipe.seed},
                inputs=documents,
                files=_held_out(recipe),
            ),
            parts=(*CONTAMINATION, "gristmill.select.planting"),
        )


def _duplicates(recipe: Recipe) -> Step:
    """Who takes part, by scores and lists; who is a copy of whom."""
    section = recipe.select
    return Step(
        name="duplicates",
        module="gristmill.select.duplicates",
        outputs=Deduplicated,
        given=Given(
            config={
                **_copies_and_order(recipe),
                "min_scores": {name: {"above": threshold.above} for name, threshold in section.min_scores.items()},
            },
            inputs={
                **_of_each(recipe, "documents", "extract", Extracted, "documents"),
                **_of_each(recipe, "prints", "signatures", Signed),
                **_of_each(recipe, "matches", "contamination", Searched, "matches"),
                **_scores(recipe),
            },
            files={} if section.opt_out is None else _lists(section.opt_out),
        ),
        watching=Given(config={"near_duplicates": section.near_duplicates}),
        parts=WORDS,
    )


def _select(recipe: Recipe) -> Step:
    """What stays, and what of it is held out."""
    section = recipe.select
    repeated = {}
    if (units := section.repeated_text) is not None:
        rules_of_units = {name: getattr(units, name) for name in ("unit", "min_words", "min_documents")}
        repeated = {"repeated_text": {**rules_of_units, "sources": repeated_sources(recipe, units)}}
    return Step(
        name="select",
        module="gristmill.select.select",
        outputs=Selected,
        given=Given(
            config={
                **_copies_and_order(recipe),
                "min_scores": {
                    name: {"classifier": threshold.classifier, "above": threshold.above}
                    for name, threshold in section.min_scores.items()
                },
                "validation": section.validation.inside(),
                **repeated,
                "seed": recipe.seed,
            },
            inputs={
                "duplicates": reads("duplicates", Deduplicated, "fates", "copies", "links"),
                **_of_each(recipe, "documents", "extract", Extracted, "documents", "accounts"),
                **_of_each(recipe, "prints", "signatures", Signed),
                **_of_each(recipe, "matches", "contamination", Searched),
                **_scores(recipe),
            },
        ),
        watching=Given(
            config={
                "max_loss": {name: source.max_loss for name, source in recipe.sources.items()},
                "repeated_text": section.repeated_text,
            }
        ),
        parts=(*WORDS, *(UNITS if repeated else ())),
    )


def _copies_and_order(recipe: Recipe) -> dict[str, Any]:
    """What a copy is, and the order of sources in which the first of several copies stays."""
    near = recipe.select.near_duplicates
    return {
        "near_duplicates": None if near is None else near.inside(),
        "early": early_sources(recipe),
        "late": recipe.late_sources,
        "priority": recipe.select.priority,
    }


def _scores(recipe: Recipe) -> dict[str, Reads]:
    """Of the sources that have them."""
    return {f"scores of {name}": reads(f"score/{name}", Scored) for name in recipe.select.min_scores}


def _of_each(recipe: Recipe, what: str, step: str, left: type[Outputs], *outputs: str) -> dict[str, Reads]:
    """What a step left of each source, each under a role of its own."""
    return {f"{what} of {name}": reads(f"{step}/{name}", left, *outputs) for name in recipe.sources}


def _lists(section: Listed) -> dict[str, tuple[str, ...]]:
    return {list_label(kind): tuple(paths) for kind, paths in section.lists.items()}


def repeated_sources(recipe: Recipe, section: RepeatedText) -> list[str]:
    """The sources that take part in the search for repeated text: those that are named, else all but code."""
    if section.sources is not None:
        return sorted(set(section.sources))
    return sorted(name for name, source in recipe.sources.items() if not isinstance(source.read, ReadCode))


def _held_out(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """The files of the packs that nothing may be learnt from."""
    return _packs(recipe, [name for name, pack in recipe.packs.items() if pack.held_out])


def _packs(recipe: Recipe, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    return {f"pack {name}": tuple(f"{recipe.packs[name].path}/{file}" for file in PACK_FILES) for name in sorted(names)}


# ── training ─────────────────────────────────────────────────────────────────────────────────────────────────────────

TOKENIZER = reads("tokenizer", TokenizerFiles, "vocabulary", "files")
VOCABULARY = reads("tokenizer", TokenizerFiles, "vocabulary")


def _pretraining(recipe: Recipe) -> Iterable[Step]:
    yield _tokenizer(recipe)
    yield Step(
        name="tokenize",
        module="gristmill.tokens.tokenize",
        outputs=Tokenized,
        given=Given(
            inputs={
                "tokenizer": TOKENIZER,
                **{
                    f"text of {name}": reads("select", Selected, "train", "validation", source=name)
                    for name in recipe.sources
                },
            }
        ),
        watching=Given(config={"pretrain": recipe.pretrain}),
        parts=ENCODING,
    )
    changed = recipe.pretrain.as_changed()
    drawn = dict.fromkeys(draw.source for stage in changed.stages for draw in stage.mixture)
    yield Step(
        name="pretrain",
        module="gristmill.train.pretrain",
        outputs=Pretrained,
        given=Given(
            config={"model": recipe.model.inside(), "pretrain": changed.inside(), "seed": recipe.pretraining_seed},
            inputs={
                "tokenizer": TOKENIZER,
                "vocabulary": VOCABULARY,
                **_start(recipe, "start"),
                **{f"tokens of {name}": reads("tokenize", Tokenized, "train", source=name) for name in drawn},
            },
        ),
        watching=Given(
            config={"pretrain": recipe.pretrain, "stage_packs": recipe.stage_packs},
            inputs={
                f"validation of {name}": reads("tokenize", Tokenized, "validation", source=name)
                for name in recipe.sources
            },
            files={**_packs(recipe, [*recipe.pretrain.watch.packs, *recipe.stage_packs]), **_reference(recipe)},
        ),
        parts=(*PREFIX_PARTS, *((SPIKE_RULE,) if recipe.pretrain.on_spike == "skip" else ())),
    )


def _tokenizer(recipe: Recipe) -> Step:
    """Trained on the recipe's text, or that of the released model."""
    watching = Given(
        inputs={
            f"validation of {name}": reads("select", Selected, "validation", source=name)
            for name in early_sources(recipe)
        }
    )
    if (folder := recipe.pretrain.init_from) is not None:
        return Step(
            name="tokenizer",
            module="gristmill.tokens.take_tokenizer",
            outputs=TokenizerFiles,
            given=Given(files={"released tokenizer": _released_files(folder, [TOKENIZER_FILE])}),
            watching=watching,
            parts=CHAT,
        )
    fed = [*recipe.tokenizer.mixture] or early_sources(recipe)
    return Step(
        name="tokenizer",
        module="gristmill.tokens.train_tokenizer",
        outputs=TokenizerFiles,
        given=Given(
            config={"tokenizer": recipe.tokenizer.inside(), "sources": fed, "seed": recipe.seed},
            inputs={f"text of {name}": reads("select", Selected, "train", source=name) for name in fed},
        ),
        watching=watching,
        parts=CHAT,
    )


def _reference(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    """What an earlier run's pretraining measured, where the recipe names one."""
    folder = recipe.pretrain.watch.reference
    return {} if folder is None else {"reference": tuple(f"{folder.rstrip('/')}/{name}" for name in REFERENCE_FILES)}


def _start(recipe: Recipe, role: str) -> dict[str, Reads]:
    """The released model under a role, where there is one."""
    return {} if recipe.pretrain.init_from is None else {role: reads("start", ReleasedModel, "model")}


def _alignment(recipe: Recipe) -> Iterable[Step]:
    held_out = _held_out(recipe)
    seed = {"seed": recipe.seed}
    if recipe.chat is not None:
        entries = recipe.chat.definitions_from
        yield Step(
            name="synthesize",
            module="gristmill.synthesize.synthesize",
            outputs=Conversations,
            given=Given(
                config={"chat": recipe.chat.inside(), "decontaminate": recipe.select.decontaminate.inside(), **seed},
                inputs={"entries": reads("select", Selected, "train", source=entries)} if entries else {},
                files={"conversations": tuple(recipe.chat.conversations), **held_out},
            ),
            parts=(*CONTAMINATION, *TEMPLATES),
        )
    if recipe.sft is not None:
        yield Step(
            name="sft",
            module="gristmill.align.sft",
            outputs=Finetuned,
            given=Given(
                config={"sft": recipe.sft.inside(), **seed},
                inputs={
                    "tokenizer": TOKENIZER,
                    "policy": reads("pretrain", TrainedModel, "model"),
                    "conversations": reads("synthesize", Conversations, "conversations"),
                },
            ),
            watching=Given(config={"sft": recipe.sft}),
            parts=(*CHAT, *TRAINING),
        )
    if recipe.pairs is not None:
        yield Step(
            name="pairs",
            module="gristmill.align.make_pairs",
            outputs=PreferencePairs,
            given=Given(
                config={"pairs": recipe.pairs.inside(), **seed},
                inputs={
                    "tokenizer": TOKENIZER,
                    "policy": reads("sft", TrainedModel, "model"),
                    "prompts": reads("synthesize", Conversations, "prompts"),
                },
                files=held_out,
            ),
            parts=(*ANSWERS, *PACKS, *TEMPLATES),
        )
    if recipe.dpo is not None:
        yield Step(
            name="dpo",
            module="gristmill.align.dpo",
            outputs=PreferenceTuned,
            given=Given(
                config={"dpo": recipe.dpo.inside(), **seed},
                inputs={
                    "tokenizer": TOKENIZER,
                    "policy": reads("sft", TrainedModel, "model"),
                    "pairs": reads("pairs", PreferencePairs, "pairs"),
                },
            ),
            parts=(*CHAT, *TRAINING),
        )


# ── results ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def _results(recipe: Recipe, made: list[Step]) -> Iterable[Step]:
    trained = {f"model {name}": reads(name, TrainedModel, "model") for name in model_steps(recipe)}
    models = {**_start(recipe, "model start"), **trained}
    yield Step(
        name="evaluate",
        module="gristmill.evaluate.evaluate",
        outputs=Evaluated,
        given=Given(
            config={
                "evaluate": recipe.evaluate.inside(),
                "held_out": {name: recipe.packs[name].held_out for name in recipe.packs},
                "window": recipe.evaluate.window or recipe.pretrain.stages[-1].seq_len,
                "seed": recipe.seed,
            },
            inputs={
                **_evaluated_text(recipe),
                "tokenizer": TOKENIZER,
                **models,
                **({"conversations": reads("synthesize", Conversations, "conversations")} if recipe.chat else {}),
            },
            files={
                **_packs(recipe, recipe.packs if recipe.sft else recipe.evaluate.packs),
                **({"conversations": tuple(recipe.chat.conversations)} if recipe.chat else {}),
            },
        ),
        parts=(*ANSWERS, *PACKS, *TEMPLATES, *STATISTICS, "gristmill.train.scorer"),
    )
    account = {step.name: reads(step.name, step.outputs) for step in made}
    account["evaluate"] = reads("evaluate", Evaluated)
    labels = _labels(recipe)
    caps = {"warn_epochs": recipe.pretrain.warn_epochs, "max_epochs": recipe.pretrain.max_epochs}
    yield Step(
        name="export",
        module="gristmill.export.export",
        outputs=Exported,
        given=Given(
            config={"export": recipe.export.inside(), "model": last_model_step(recipe), "labels": labels},
            inputs=account,
        ),
        watching=Given(config={"caps": caps, "locked": recipe.locked_packs}),
        parts=(*CHAT, *PAGE, "gristmill.model.transformer"),
    )
    yield Step(
        name="report",
        module="gristmill.report.report",
        outputs=ReportPage,
        given=Given(config={"labels": labels}, inputs={**account, "export": reads("export", Exported)}),
        watching=Given(config={"caps": caps, "locked": recipe.locked_packs, "changes": changes_of(recipe)}),
        parts=PAGE,
    )


def changes_of(recipe: Recipe) -> list[dict[str, Any]]:
    """The changes in the middle of pretraining, of the recipe and of interventions, for people. tokens: trained on before it."""
    return [
        {
            "step": change.after_step,
            "tokens": change.after_step * recipe.pretrain.global_batch_tokens,
            "what": change.in_words,
            "why": change.why,
        }
        for change in recipe.pretrain.changes
    ]


def _evaluated_text(recipe: Recipe) -> dict[str, Reads]:
    """Held-out text of every source; the training text too, where a compressor is primed with it."""
    names = ("train", "validation") if recipe.evaluate.xz_yardstick else ("validation",)
    return {f"tokens of {name}": reads("tokenize", Tokenized, *names, source=name) for name in recipe.sources}


def _labels(recipe: Recipe) -> dict[str, Any]:
    """What the page and the card call things."""
    return {
        "name": recipe.name,
        "description": recipe.description,
        "licenses": {name: source.license for name, source in recipe.sources.items()},
        "stage_names": [stage.name for stage in recipe.pretrain.stages],
    }
