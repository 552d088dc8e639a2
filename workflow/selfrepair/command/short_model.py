"""A model's first and last layer at full width, with random values: all that its config alone can show.

It runs what loading runs to tell whether a model can be measured, and it is what replays are timed on.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from transformers import PretrainedConfig

from ..model.assembly import decoder_of
from ..model.decoder import DTYPES, Decoder
from ..model.finding import empty_network, parts_of
from ..model.probing import probe

# Replays never read the vocabulary, and a real one takes longer to fill with numbers than all layers.
_VOCABULARY = 1024


@torch.no_grad()
def short_decoder(
    config: PretrainedConfig, *, name: str, dtype: str, device: torch.device, tokenizer: Any = None
) -> Decoder:
    """The first and the last layer of a model, ready to be replayed.

    Raises:
        InputError: the method does not cover such a model (as `load_model`, as far as no weights are needed).
    """
    network = empty_network(_few_tokens(config), name=name, dtype=DTYPES[dtype])
    parts = parts_of(network, name=name)
    stack: Any = network.get_submodule(parts.layers[0].block.rpartition(".")[0])
    del stack[1:-1]
    network.to_empty(device=device)
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.zero_()  # a few are not set below (Apertus' activations), and may hold anything
    torch.manual_seed(0)
    network.init_weights()  # buffers such as rotary frequencies too
    network.eval().requires_grad_(False)
    network.config.use_cache = False
    for parameter in network.parameters():
        # Gains of 1, biases of 0 and small weights would hide what they do.
        if parameter.ndim <= 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
        else:
            parameter.normal_(std=parameter.shape[-1] ** -0.5)
    parts = parts_of(network, name=name)
    decoder = decoder_of(network, parts, name=name, tokenizer=tokenizer)
    probe(decoder)
    return decoder


def _few_tokens(config: PretrainedConfig) -> PretrainedConfig:
    """The config with a small vocabulary."""
    config = copy.deepcopy(config)
    text = config.get_text_config()
    if text.vocab_size > _VOCABULARY:
        text.vocab_size = _VOCABULARY
        if (getattr(text, "pad_token_id", None) or 0) >= _VOCABULARY:
            text.pad_token_id = None
    return config
