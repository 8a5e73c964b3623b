"""What the steps of tokens leave."""

from __future__ import annotations

from gristmill.graph.outputs import File, Outputs


class TokenizerFiles(Outputs):
    """The tokenizer as Hugging Face reads it: a folder of files."""

    vocabulary = File("tokenizer.json")
    files = File(".", covers=("tokenizer_config.json", "chat_template.jinja"))
    report = File("report.json", notes=True)


class Tokenized(Outputs):
    """Token shards of one source, one per split, each reached by the stem that its three files share."""

    train = File("{source}/train", covers=("{source}/train.bin", "{source}/train.index", "{source}/train.json"))
    validation = File(
        "{source}/validation",
        covers=("{source}/validation.bin", "{source}/validation.index", "{source}/validation.json"),
    )

    def of(self, source: str) -> Tokenized:
        """The same outputs of one source, for who reads all."""
        return Tokenized(self.folder, reads=self.reads, source=source)
