"""How long each step takes: what it works through, by ratios that were measured, and by the records of this machine.

    seconds = (seconds of a processor + operations / speed of training) × what finished steps of the kind took here

The ratios are those of the demo on two idle cores (docs/log.md, "The demo, whole"), good to a factor of two elsewhere; each
finished step corrects them through its record.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from statistics import median

from gristmill.graph.machine import Machine
from gristmill.planning.cost import count_parameters, flops_per_token, pretraining_flops
from gristmill.planning.estimate import bytes_per_token
from gristmill.recipe.schema.curation import Source
from gristmill.recipe.schema.recipe import Recipe
from gristmill.units import counted, in_bytes, scale

MB = 1e6
READ = {"trafilatura": 0.25, "resiliparse": 0.03, "pdf": 1.3}  # seconds a megabyte: of HTML, by extractor; of PDF
READ_OTHER = 0.05  # seconds a megabyte
PAGE = {"trafilatura": 0.005, "resiliparse": 0.0006}  # seconds a document beside that: small pages cost more a byte
FETCH = 0.1  # seconds a megabyte, assumed: a line of 80 Mbit/s; finished fetches correct it
LANGUAGE, RULES = 0.03, 0.25  # seconds a megabyte of text
CLASSIFIER, SCORE = 0.005, 0.0035  # seconds a document
SIGNATURES, CONTAMINATION, SELECT = 0.1, 0.3, 0.1  # seconds a megabyte of text
NO_CONTAMINATION = 0.02  # seconds a megabyte where nothing is looked for
REPEATED_TEXT = 0.08  # seconds a megabyte of text
COPIED = 2e-8  # seconds a parameter that is read and written
PLANTED = 0.001  # seconds an item: it is put into documents and has to be found
DUPLICATES = 5e-5  # seconds a document
TOKENIZER, TOKENIZE = 0.35, 0.35  # seconds a megabyte of text
XZ = 0.45  # seconds a megabyte: training text is compressed once, and once more with the text of each source
XZ_MOST = (
    4_000_000  # bytes of training text that xz reads: the more, the stronger it is, and the slower beyond proportion
)
STARTS = {"extract": 0.35, "pretrain": 4.0, "sft": 1.0, "pairs": 1.0, "dpo": 1.0, "evaluate": 4.0, "export": 5.0}
START = 0.2  # seconds: of any other step
SHARD_BYTES = 8 * MB
FORWARD = 1 / 3  # of the operations of a training step
CHAT_TOKENS = 40  # of a generated conversation or a short answer with its question
ANSWER_STEP = 0.002  # seconds that one more token of a batch of answers takes, beside its operations
ASKED = 200  # questions that a chat model is asked for recall
ITEM_READINGS = 2.0  # an item is read once for each of its choices, of which about half is shared with others

WATCHED_SHARE = 0.08  # of pretraining: checkpoints, samples and measurements, by the demo
RECENT = 9  # records of a kind that count
LEAST, MOST = 0.1, 10.0  # a correction beyond this says that the step was something else


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """What there is to work through. By source: bytes of its files unpacked, bytes of text that extract keeps, documents.

    conversations: to fine-tune on. fetch_bytes: of sources that lie elsewhere, as they are sent; 0 where nobody told. pack_bytes, pack_items: by pack; 0 where its files are elsewhere.
    """

    read_bytes: Mapping[str, float]
    text_bytes: Mapping[str, float]
    documents: Mapping[str, float]
    conversations: float = 0.0
    fetch_bytes: Mapping[str, float] = field(default_factory=dict)
    pack_bytes: Mapping[str, float] = field(default_factory=dict)
    pack_items: Mapping[str, float] = field(default_factory=dict)

    @property
    def all_text(self) -> float:
        """Bytes of text of all sources."""
        return sum(self.text_bytes.values())


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a step works through, in words; processor seconds by the shipped ratios, and operations of a model.

    ratio: what it is compared by; steps of one ratio are alike.
    """

    ratio: str
    words: str
    cpu_seconds: float
    flops: float = 0.0

    def seconds(self, flops_per_second: float) -> float:
        """By the shipped ratios, at a speed of training."""
        return self.cpu_seconds + self.flops / flops_per_second


def works(recipe: Recipe, amounts: Amounts, machine: Machine) -> dict[str, Work]:
    """The work of each step of the recipe, by the names of the table."""
    found = {
        **_of_sources(recipe, amounts, machine),
        **_of_all_text(recipe, amounts),
        **_of_models(recipe, amounts),
    }
    return {name: _with_start(name, work) for name, work in found.items()}


def correction(works_done: Iterable[tuple[Work, float]], flops_per_second: float) -> float | None:
    """What finished steps took over what the ratios say of them, the median; None where there is none."""
    shares = [
        real / work.seconds(flops_per_second) for work, real in works_done if work.seconds(flops_per_second) and real
    ]
    return min(MOST, max(LEAST, median(shares[:RECENT]))) if shares else None


def _with_start(name: str, work: Work) -> Work:
    start = STARTS.get(name.partition("/")[0], START)
    return Work(ratio=work.ratio, words=work.words, cpu_seconds=start + work.cpu_seconds, flops=work.flops)


def _of_sources(recipe: Recipe, amounts: Amounts, machine: Machine) -> dict[str, Work]:
    found: dict[str, Work] = {}
    held_out = sum(amounts.pack_items.get(name, 0) for name, pack in recipe.packs.items() if pack.held_out)
    search = CONTAMINATION if any(pack.held_out for pack in recipe.packs.values()) else NO_CONTAMINATION
    for name, source in recipe.sources.items():
        text, documents = amounts.text_bytes[name] / MB, amounts.documents[name]
        if source.fetch is not None:
            size = amounts.fetch_bytes.get(name, 0.0)
            words = in_bytes(size) if size else "size not known yet"
            found[f"fetch/{name}"] = Work(ratio="fetch", words=words, cpu_seconds=size / MB * FETCH)
        how, rate, page = _reading(source)
        work = amounts.read_bytes[name] / MB * rate + documents * page
        work += text * (LANGUAGE * (source.language is not None) + RULES * bool(source.rules.packs))
        together = min(machine.processes, max(1, math.ceil(amounts.read_bytes[name] / SHARD_BYTES)))
        found[f"extract/{name}"] = Work(
            ratio=f"extract {how}", words=f"{in_bytes(amounts.read_bytes[name])} of {how}", cpu_seconds=work / together
        )
        if name in recipe.select.min_scores:
            found[f"score/{name}"] = Work(
                ratio="score", words=_documents(documents), cpu_seconds=documents * SCORE / together
            )
        found[f"signatures/{name}"] = Work(
            ratio="signatures", words=in_bytes(text * MB), cpu_seconds=text * SIGNATURES / together
        )
        found[f"contamination/{name}"] = Work(
            ratio="contamination",
            words=f"{in_bytes(text * MB)}, {counted(round(held_out), 'item')}",
            cpu_seconds=text * search / together + held_out * PLANTED,
        )
    for name, classifier in recipe.classifiers.items():
        labelled = min(amounts.documents[classifier.source], 10_000)
        found[f"classifier/{name}"] = Work(
            ratio=f"classifier {classifier.features}",
            words=f"at most {_documents(labelled)}",
            cpu_seconds=labelled * CLASSIFIER,
        )
    return found


def _reading(source: Source) -> tuple[str, float, float]:
    """What a source is read as, in words, seconds a megabyte and seconds a document."""
    if not source.read.holds_html:
        return source.read.format, READ.get(source.read.format, READ_OTHER), 0.0
    extractor = source.main_text.extractor if source.main_text else "trafilatura"
    return f"{source.read.format} by {extractor}", READ[extractor], PAGE[extractor]


def _of_all_text(recipe: Recipe, amounts: Amounts) -> dict[str, Work]:
    text, documents = amounts.all_text / MB, sum(amounts.documents.values())
    is_released = recipe.pretrain.init_from is not None
    seen = 0.0 if is_released else min(text, recipe.tokenizer.max_bytes / MB)
    select = SELECT + (0.0 if recipe.select.repeated_text is None else REPEATED_TEXT)
    return {
        "duplicates": Work(ratio="duplicates", words=_documents(documents), cpu_seconds=documents * DUPLICATES),
        "select": Work(ratio="select", words=in_bytes(text * MB), cpu_seconds=text * select),
        "tokenizer": Work(ratio="tokenizer released", words="that of the released model", cpu_seconds=1.0)
        if is_released
        else Work(ratio="tokenizer", words=in_bytes(seen * MB), cpu_seconds=seen * TOKENIZER),
        "tokenize": Work(ratio="tokenize", words=in_bytes(text * MB), cpu_seconds=text * TOKENIZE),
    }


def _of_models(recipe: Recipe, amounts: Amounts) -> dict[str, Work]:
    model, vocab_size = recipe.model, recipe.tokenizer.vocab_size
    parameters = count_parameters(model, vocab_size)
    trained = pretraining_flops(model, vocab_size, recipe.pretrain).with_attention
    found = {
        "pretrain": Work(
            ratio="pretrain",
            words=f"{scale(recipe.pretrain.total_tokens)} tokens, measurements on the way",
            cpu_seconds=0.0,
            flops=trained * (1 + WATCHED_SHARE),
        )
    }
    of_token: Callable[[int], float] = lambda seq_len: flops_per_token(model, vocab_size, seq_len)  # noqa: E731
    if recipe.pretrain.init_from is not None:
        found["start"] = Work(ratio="start", words=f"{scale(parameters)} parameters", cpu_seconds=parameters * COPIED)
    if recipe.chat is not None:
        found["synthesize"] = Work(
            ratio="synthesize",
            words=counted(round(amounts.conversations), "conversation"),
            cpu_seconds=amounts.conversations * PLANTED,
        )
    if recipe.sft is not None:
        tokens = amounts.conversations * recipe.sft.epochs * CHAT_TOKENS
        found["sft"] = Work(
            ratio="sft",
            words=f"about {scale(tokens)} tokens in {counted(recipe.sft.epochs, 'epoch')}"
            if tokens
            else "size not known yet",
            cpu_seconds=0.0,
            flops=tokens * of_token(CHAT_TOKENS),
        )
    if recipe.pairs is not None:
        answers = recipe.pairs.num_prompts * recipe.pairs.samples_per_prompt
        length = min(recipe.pairs.max_new_tokens, CHAT_TOKENS)
        found["pairs"] = Work(
            ratio="pairs",
            words=f"{answers:,} answers",
            cpu_seconds=recipe.pairs.num_prompts * length * ANSWER_STEP,
            flops=answers * length * of_token(CHAT_TOKENS) * FORWARD,
        )
        if recipe.dpo is not None:
            pairs = recipe.pairs.num_prompts * recipe.pairs.max_pairs_per_prompt
            tokens = pairs * recipe.dpo.epochs * 2 * CHAT_TOKENS
            found["dpo"] = Work(
                ratio="dpo",
                words=f"at most {counted(pairs, 'pair')} in {counted(recipe.dpo.epochs, 'epoch')}",
                cpu_seconds=0.0,
                flops=tokens * of_token(CHAT_TOKENS) * (1 + FORWARD),
            )
    found["evaluate"] = _evaluation(recipe, amounts, of_token)
    written = Work(ratio="export", words=f"{scale(parameters)} parameters", cpu_seconds=parameters * COPIED)
    report = Work(ratio="report", words="", cpu_seconds=0.5)
    return {**found, "export": written, "report": report}


def _evaluation(recipe: Recipe, amounts: Amounts, of_token: Callable[[int], float]) -> Work:
    chat_models = (recipe.sft is not None) + (recipe.dpo is not None)
    models = 1 + chat_models + (recipe.pretrain.init_from is not None)
    per_token = bytes_per_token(recipe.tokenizer.vocab_size)
    held_out = sum(evaluated_bytes(recipe, text, amounts.documents[name]) for name, text in amounts.text_bytes.items())
    packs = sum(amounts.pack_bytes.get(name, 0) for name in recipe.evaluate.packs) * ITEM_READINGS
    window = recipe.pretrain.stages[-1].seq_len
    tokens = models * held_out / per_token + models * packs / per_token
    primed = min(amounts.all_text, XZ_MOST) if recipe.evaluate.xz_yardstick else 0.0
    xz = (primed * (1 + len(recipe.sources)) + (held_out if primed else 0.0)) / MB * XZ
    return Work(
        ratio="evaluate",
        words=f"{counted(models, 'model')}, {in_bytes(held_out)} held out, "
        f"{counted(round(sum(amounts.pack_items.get(name, 0) for name in recipe.evaluate.packs)), 'item')}"
        + (f", xz on {in_bytes(primed)}" if primed else ""),
        cpu_seconds=xz + chat_models * ASKED * CHAT_TOKENS / 2 * ANSWER_STEP,
        flops=tokens * of_token(window) * FORWARD,
    )


def evaluated_bytes(recipe: Recipe, text_bytes: float, documents: float) -> float:
    """Bytes of validation text of a source that each model is measured on: whole documents are held out and read until there are enough, so
    half a document more than is asked for, on average."""
    enough = min(recipe.evaluate.validation_bytes, held_out_bytes(recipe, text_bytes))
    return min(text_bytes, enough + (text_bytes / documents / 2 if documents else 0.0))


def held_out_bytes(recipe: Recipe, text_bytes: float) -> float:
    """Bytes of validation text that select aims at for a source of so many bytes."""
    validation = recipe.select.validation
    return min(text_bytes, max(validation.min_bytes, min(validation.max_bytes, validation.fraction * text_bytes)))


def _documents(number: float) -> str:
    return f"{scale(number)} documents" if number >= 1000 else counted(round(number), "document")
