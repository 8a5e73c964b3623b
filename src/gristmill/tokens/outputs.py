"""What the steps of tokens leave."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gristmill.graph.outputs import File, Outputs
from gristmill.store.durable import read_json
from gristmill.written import Written


@dataclass(frozen=True, kw_only=True)
class SampledText(Written):
    """What the trainer saw of a source, of the bytes that its share asked for."""

    documents: int
    bytes: int
    budget_bytes: int


@dataclass(frozen=True, kw_only=True)
class CompressedText(Written):
    """How many bytes a token holds on text that the trainer never saw; None where there is none."""

    documents: int
    tokens: int
    bytes: int
    bytes_per_token: float | None


@dataclass(frozen=True, kw_only=True)
class TokenizerReport(Written):
    """By source: what was sampled, and how well the validation text is compressed."""

    vocab_size: int
    sample: Mapping[str, SampledText]
    validation: Mapping[str, CompressedText]


class TokenizerFiles(Outputs):
    """The tokenizer as Hugging Face reads it: a folder of files."""

    vocabulary = File("tokenizer.json")
    files = File(".", covers=("tokenizer_config.json", "chat_template.jinja"))
    report = File("report.json", notes=True)

    @property
    def findings(self) -> TokenizerReport:
        """What report.json says."""
        return TokenizerReport.from_json(read_json(self.report), where=self.report)


class Tokenized(Outputs):
    """Token shards of one source, one per split, each reached by the stem that its files share."""

    checked_as_read = tuple(
        f"*/{split}.{kind}" for split in ("train", "validation") for kind in ("bin", "index", "json", "blocks")
    )
    train = File("{source}/train", covers=("{source}/train.bin", "{source}/train.index", "{source}/train.json"))
    validation = File(
        "{source}/validation",
        covers=("{source}/validation.bin", "{source}/validation.index", "{source}/validation.json"),
    )

    blocks = File("{source}", covers=("{source}/train.blocks", "{source}/validation.blocks"), notes=True)

    def of(self, source: str) -> Tokenized:
        """The same outputs of one source, for who reads all."""
        return Tokenized(self.folder, reads=self.reads, source=source)
