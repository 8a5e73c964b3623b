"""Parts of a model compiled to fewer kernels, by torch.compile: feed-forward layers and norms, which are the same for all tokens.

Attention and rotation stay as they are: their shapes follow the lengths of documents, and each new list of lengths would be compiled
again. In what is compiled only the number of tokens varies, and it is a variable of the compiled code. All layers share one compiled
feed-forward layer and one norm. Names of parameters stay.
"""

from __future__ import annotations

from typing import cast

from gristmill.model.transformer import DecoderLayer, Llama


def compile_parts(model: Llama, *, backend: str = "inductor") -> None:
    """Compiles them at the first pass, which takes a minute or so; results are the same up to rounding."""
    decoder = model.model
    layers = [cast(DecoderLayer, layer) for layer in decoder.layers]
    norms = [norm for layer in layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    for module in (*norms, *(layer.mlp for layer in layers), decoder.norm):
        module.compile(dynamic=True, backend=backend)
