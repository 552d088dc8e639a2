"""What a sweep holds in memory, counted by running it on tensors without values (the meta device).

The real modules of a model of any size run, and every tensor that is alive counts; nothing is
allocated. `shapes` predicts the same from a handful of sizes.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig

from ..measure.ablation import ablated_rows
from ..model.decoder import DTYPES, Decoder
from ..model.direct_effect import head_direct_effects, target_logits, targets
from ..model.loading import decoder_from_bridge
from ..model.parts import TransformerBridge
from ..model.replay import Replay
from ..model.sizes import ARRAYS

LLAMA_7B = LlamaConfig(
    hidden_size=4096,
    intermediate_size=11008,
    num_hidden_layers=32,
    num_attention_heads=32,
    vocab_size=32000,
)


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors made in the block that are still alive: `now`, and their `peak`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            return 1  # models ask one thing: is each row a single sequence? It is.
        out = func(*args, **(kwargs or {}))
        given = {id(s) for s in self._storages(args)} | {id(s) for s in self._storages(kwargs)}
        for storage in self._storages(out):
            key = id(storage)
            if key not in self._known and key not in given:
                self._known.add(key)
                self.now += storage.nbytes()
                self.peak = max(self.peak, self.now)
                weakref.finalize(storage, self._forget, key, storage.nbytes())
        return out

    @staticmethod
    def _storages(values: Any) -> list[Any]:
        tensors = [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
        # Packed weights, made before, have none.
        return [tensor.untyped_storage() for tensor in tensors if not tensor.is_mkldnn]

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


@dataclass(frozen=True)
class DryRun:
    """Bytes counted: weights; recording, what the clean passes of prompts and donors leave behind
    with the results' arrays; replay, the most beyond that while rows of the first layer are replayed;
    recording_peak, the most while recording."""

    weights: int
    recording: int
    recording_peak: int
    replay: int


def meta_decoder(config: PretrainedConfig, *, like: Decoder, dtype: str) -> Decoder:
    """A model of any size without values; like: a small one of the same architecture."""
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=DTYPES[dtype])
    bridge = TransformerBridge.boot_transformers(
        "meta", hf_model=network, device="meta", dtype=DTYPES[dtype], tokenizer=like.tokenizer
    )
    for parameter in bridge.parameters():
        parameter.requires_grad_(False)
    return decoder_from_bridge(bridge.eval(), name="meta", like=like)


@torch.no_grad()
def dry_run(decoder: Decoder, *, prompts: int, rows: int, positions: int) -> DryRun:
    """Record prompts with their donors, then replay rows from the first layer on, without values."""
    device, replay = decoder.device, Replay(decoder)
    held = [*decoder.network.parameters(), *decoder.network.buffers(), *decoder.bridge.parameters()]
    weights = {id(t.untyped_storage()): t.untyped_storage().nbytes() for t in held}
    tokens = torch.zeros(prompts, positions + 1, dtype=torch.long, device=device)
    with LiveBytes() as live:
        recording = replay.record(tokens[:, :-1])
        wanted = targets(decoder, tokens[:, 1:])
        scale = decoder.final_norm.scale(recording.residual[-1])
        logit = target_logits(decoder, recording.residual[-1], tokens[:, 1:])
        u = wanted.directions
        effects = torch.stack(
            [
                head_direct_effects(
                    decoder, layer, recording.z[layer], u, scale, recording.attention_scale[layer]
                )
                for layer in range(decoder.n_layers)
            ]
        )
        donor_z = replay.record_z(tokens[:, :-1])
        out = torch.empty(ARRAYS - 1, *effects.shape, device=device)
        recorded, recording_peak = live.now, live.peak
        live.peak = live.now
        prompt = torch.zeros(rows, dtype=torch.long, device=device)
        changed = ablated_rows(
            decoder,
            recording,
            0,
            head=prompt,
            prompt=prompt,
            delta_z=(donor_z[0] - recording.z[0])[prompt, :, 0],
        )
        changed.replay(replay, u[prompt])
        replayed = live.peak - recorded
    del logit, out
    return DryRun(sum(weights.values()), recorded, recording_peak, replayed)
