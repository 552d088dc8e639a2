"""The clean pass over a sample: direct effects, final norm scales and mean activations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.decoder import Decoder
from ..model.replay import Replay
from .batches import Progress, Recorded, checked_sizes, for_each_batch, stored


@dataclass
class CleanPass:
    """The clean pass over a whole sample; arrays on the CPU.

    direct_effect: [prompt, position, layer, head], logits; scale, logit, surprisal:
    [prompt, position]; mean_z: [layer, head, d_head], mean over all prompts and positions, those
    without a target too (docs/method.md section 2).
    """

    direct_effect: Float[Tensor, "prompt position layer head"]
    scale: Float[Tensor, "prompt position"]
    logit: Float[Tensor, "prompt position"]
    surprisal: Float[Tensor, "prompt position"]
    mean_z: Float[Tensor, "layer head d_head"]
    conservation_error: float


def clean_pass(
    decoder: Decoder, tokens: Int[Tensor, "prompt length"], *, batch: int = 8
) -> CleanPass:
    """Direct effects, scales and mean activations of a sample, independent of `batch`.

    Raises:
        InputError: no prompts, or prompts too short or too long for the model.
        ExactnessError: the conservation law is off by more than the dtype's bound.
    """
    batch, _ = checked_sizes(decoder, tokens, batch=batch, chunk=1)
    parts = []
    replay = Replay(decoder)
    total = torch.zeros(decoder.n_layers, decoder.n_heads, decoder.d_head, dtype=torch.float64)
    # The last token may be one more than the model can read: then it is a target alone.
    whole = tokens[:, : decoder.context_length]

    def sum_z(recorded: Recorded) -> Float[Tensor, "layer head d_head"]:
        # A pass of its own: prompts that are one token longer would round everything else otherwise.
        z = replay.record_z(recorded.of(whole).to(decoder.device))
        return torch.stack([each.double().sum((0, 1)).cpu() for each in z])

    def measure(recorded: Recorded, _: Progress) -> None:
        nonlocal total
        clean = recorded.clean
        total = total + recorded.prepared
        parts.append((clean.direct_effect, clean.scale, clean.logit, clean.surprisal))

    worst = for_each_batch(replay, tokens, measure, batch=batch, prepare=sum_z)
    effect, scale, logit, surprisal = (
        torch.cat([stored(array) for array in group]) for group in zip(*parts, strict=True)
    )
    return CleanPass(effect, scale, logit, surprisal, total / whole.numel(), worst)
