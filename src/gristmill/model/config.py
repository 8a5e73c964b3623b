"""The shape of a Llama under the keys of its Hugging Face config.json; without torch, so that plans can read it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from gristmill.errors import ArtifactError

CONFIG, TOKENIZER = "config.json", "tokenizer.json"
WEIGHTS = "*.safetensors*"  # one file or several, and their index
FILES = (CONFIG, TOKENIZER, WEIGHTS)  # of a model folder that training can continue from

# Keys of a Hugging Face config that change what the model computes, with the only values that the network implements.
_REQUIRED_VALUES: dict[str, tuple[Any, ...]] = {
    "model_type": ("llama",),
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False,),
    "mlp_bias": (False,),
    "rope_interleaved": (False,),
    "rope_scaling": (None,),
    "quantization_config": (None,),
}


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """The shape of a Llama, under the keys of its Hugging Face config.json. Absent `head_dim` is hidden_size / heads."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    rope_theta: float = 10_000.0
    rms_norm_eps: float = 1e-5
    initializer_range: float = 0.02
    tie_word_embeddings: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | list[int] | None = None
    pad_token_id: int | None = None

    def __post_init__(self) -> None:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ArtifactError(
                f"num_attention_heads is {self.num_attention_heads}, num_key_value_heads is {self.num_key_value_heads}: "
                "the first must be a multiple of the second. Change one of them."
            )
        if self.head_dim % 2:
            raise ArtifactError(f"head_dim is {self.head_dim}; rotary positions need an even number.")

    @classmethod
    def from_dict(cls, config: dict[str, Any], *, where: str = "config.json") -> LlamaConfig:
        """Read a Hugging Face config; keys that only steer other software are passed over.

        Raises ArtifactError if a needed key is missing or a key asks for arithmetic that the network does not do.
        """
        for key, allowed in _REQUIRED_VALUES.items():
            if key in config and config[key] not in allowed:
                raise ArtifactError(
                    f'{where}: "{key}" is {config[key]!r}; only {" or ".join(map(repr, allowed))} is supported. '
                    "Use a plain Llama checkpoint."
                )
        given = {field.name: config[field.name] for field in fields(cls) if config.get(field.name) is not None}
        given.update(_rope_theta(config, where))
        heads = given.get("num_attention_heads")
        if heads:
            given.setdefault("num_key_value_heads", heads)
            given.setdefault("head_dim", given.get("hidden_size", 0) // heads)
        given.setdefault("tie_word_embeddings", False)  # Hugging Face's default where a config leaves it out
        given.setdefault("rms_norm_eps", 1e-6)  # likewise
        missing = [field.name for field in fields(cls) if field.name not in given and _is_required(field.name)]
        if missing:
            raise ArtifactError(f"{where} lacks {', '.join(missing)}; it is not the config of a Llama model.")
        return cls(**given)

    def ends_at(self, token_id: int) -> bool:
        """True when the token is an end token; of a chat model that is the end of a turn, of a base model the end of a text."""
        end = self.eos_token_id
        return token_id in (end if isinstance(end, list) else [end])

    def to_dict(self) -> dict[str, Any]:
        """The content of config.json, as stock transformers reads it (both its old and its new key for the rope base)."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "rope_parameters": {"rope_type": "default", "rope_theta": self.rope_theta},
            "use_cache": True,
            **asdict(self),
        }


def _is_required(name: str) -> bool:
    return name in (
        "vocab_size",
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "max_position_embeddings",
    )


def _rope_theta(config: dict[str, Any], where: str) -> dict[str, float]:
    """The rope base from `rope_theta` or from the newer `rope_parameters`; refuses scaled ropes and contradictions."""
    parameters = config.get("rope_parameters") or {}
    if parameters.get("rope_type", "default") != "default":
        raise ArtifactError(
            f'{where}: "rope_parameters" asks for rope_type {parameters["rope_type"]!r}; only "default" is supported.'
        )
    found = {float(theta) for theta in (config.get("rope_theta"), parameters.get("rope_theta")) if theta is not None}
    if len(found) > 1:
        raise ArtifactError(f"{where}: rope_theta and rope_parameters.rope_theta differ ({sorted(found)}). Keep one.")
    return {"rope_theta": found.pop()} if found else {}
