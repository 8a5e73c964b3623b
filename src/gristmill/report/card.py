"""The model card: a README.md as the Hugging Face Hub reads it, made from the facts of the run."""

from __future__ import annotations

import yaml

from gristmill.evaluate.outputs import YARDSTICK
from gristmill.report.facts import Facts, bits
from gristmill.report.origins import origins_of
from gristmill.report.verdict import verdict
from gristmill.synthesize.outputs import in_words
from gristmill.train.outputs import ReleasedOrigin
from gristmill.units import scale


def model_card(facts: Facts) -> str:
    """Front matter and text. Licences are those stated for its sources; none is claimed for the model."""
    shape = facts.model
    lines = [
        "---", yaml.safe_dump(front_matter(facts), sort_keys=False).strip(), "---", "",
        f"# {facts.labels.name}", "", facts.sentence, "", verdict(facts), "", facts.labels.description, "",
        "## Model", "",
        f"Llama architecture, {shape.num_hidden_layers} layers, hidden size {shape.hidden_size}, {shape.num_attention_heads} attention heads "
        f"({shape.num_key_value_heads} key/value), vocabulary {facts.vocab_size:,}, context {shape.max_position_embeddings:,}.", "",
        *starting_point(facts.released),
        "## Data", "",
        *_sources(facts), "",
        "| selection | unique tokens | drawn | epochs |", "|---|---|---|---|",
        *(f"| {name} | {row.unique:,} | {row.drawn:,} | {row.epochs:.2f} |" for name, row in facts.token_budget.items()), "",
        "## Evaluation", "",
        *_evaluation(facts),
        "## Limits", "",
        *_limits(facts),
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def front_matter(facts: Facts) -> dict[str, object]:
    """What the Hub reads. Languages are those that the recipe keeps; where no source filters by language, none is claimed."""
    return {
        **({"language": sorted(facts.languages)} if facts.languages else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gristmill", "llama", *(["conversational"] if facts.has("sft") else [])],
    }


def starting_point(released: ReleasedOrigin | None) -> list[str]:
    """The section of the model that training continued from; empty where it began with new weights."""
    if released is None:
        return []
    stated = (
        f"Its licence, as the model card in its folder states it, is {released.licence}."
        if released.licence is not None
        else "Its licence is unknown: the folder states none. Find it out before you pass this model on."
    )
    words = f"Training continued from the released model {released.name}. {stated} That licence binds this model, too."
    return ["## Starting point", "", words, ""]


def _sources(facts: Facts) -> list[str]:
    """A row a source; its licence as the recipe states it, as the place says that it was fetched from, and as its files say."""
    origins = origins_of(facts)
    rows = ["| source | licence | from | documents to train on | held out | of |", "|---|---|---|---|---|---|"]
    for name, (extracted, selected) in facts.ledgers.items():
        held, one = facts.held_out[name], origins[name]
        documents = selected.total("kept").documents - held
        place = one.fetched.words if one.fetched is not None else ""
        licence, place = (words.replace("|", "\\|") for words in (one.licence_words, place))
        rows.append(f"| {name} | {licence} | {place} | {documents:,} | {held:,} | {extracted.came_in.documents:,} |")
    return rows


def _evaluation(facts: Facts) -> list[str]:
    rows = ["| model | task | metric | score, 95 % | items | |", "|---|---|---|---|---|---|"]
    for row in facts.results:
        if row.model == YARDSTICK:
            continue
        kind = "trained on" if row.kind == "recall" else "at or below chance" if row.at_or_below_chance else ""
        rows.append(
            f"| {row.model} | {in_words(row.task)} | {row.metric.replace('_', ' ')} | {bits(row)} | {row.n:,} | {kind} |"
        )
    return [*rows, ""]


def _limits(facts: Facts) -> list[str]:
    tokens = scale(facts.pretraining.tokens)
    first = f"Trained on {tokens} tokens: expect neither facts nor reasoning beyond the scores above."
    if facts.released is not None:
        first = f"Trained further on {tokens} tokens; what it knew before is that of {facts.released.name}, some of it forgotten."
    words = [
        first,
        "No safety training was done beyond what the recipe lists.",
    ]
    return [f"- {line}" for line in words]
