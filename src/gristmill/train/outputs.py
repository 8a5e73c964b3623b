"""What every training step leaves: pretraining, fine-tuning, preference optimisation."""

from __future__ import annotations

from gristmill.graph.outputs import File, Outputs

MODEL_STEPS = ("pretrain", "sft", "dpo")  # in the order in which they are made
CHAT_STEPS = ("sft", "dpo")


class TrainedModel(Outputs):
    """A Hugging Face model folder with its tokenizer, the log of metrics, and texts that the model wrote on the way."""

    model = File("model", covers=("model/*",))
    metrics = File("metrics.jsonl", notes=True)
    samples = File("samples.jsonl", notes=True)
    reference = File("reference.json", notes=True)  # of preference optimisation
