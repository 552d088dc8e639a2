"""The harm that an ablation does to the model's output: KL(clean || ablated) of next-token distributions.

Runs only the layers after the ablated head, and lets gradients through to what takes the place of its z
(docs/method.md section 2, optimal ablation).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..model.decoder import Decoder
from ..model.gradients import GradientReplay
from ..model.memory import fit
from ..model.products import sum_dtype


def divergence(
    model: Decoder,
    clean: Float[Tensor, "place d_model"],
    ablated: Float[Tensor, "place d_model"],
) -> Float[Tensor, " place"]:
    """KL(clean || ablated) of the next-token distributions of final residuals, in nats.

    The distributions are the model's own, after its soft cap; gradients flow to `ablated` alone.
    """
    dtype = sum_dtype(model.dtype)

    def log_probabilities(residual: Tensor) -> Tensor:
        logits = model.capped(model.uncapped_logits(residual))
        return torch.log_softmax(logits.to(dtype), -1)

    with torch.no_grad():
        expected = log_probabilities(clean)
    return (expected.exp() * (expected - log_probabilities(ablated))).sum(-1)


def with_constant(
    z: Float[Tensor, "row position d_head"],
    constant: Float[Tensor, "row d_head"],
    *,
    first_position: int,
) -> Float[Tensor, "row position d_head"]:
    """A constant in place of z, from first_position on."""
    replaced = constant[:, None].to(z.dtype).expand_as(z)
    if first_position == 0:
        return replaced
    return torch.cat([z[:, :first_position], replaced[:, first_position:]], dim=1)


def mean_divergence(
    model: Decoder,
    clean: Float[Tensor, "row position d_model"],
    ablated: Float[Tensor, "row position d_model"],
    position: Int[Tensor, "row drawn"],
) -> Float[Tensor, " row"]:
    """Mean KL(clean || ablated) over some positions of each row, in nats."""
    row = torch.arange(len(position), device=position.device)[:, None]
    at = row, position
    found = divergence(model, clean[at].flatten(0, 1), ablated[at].flatten(0, 1))
    return found.reshape(position.shape).mean(1)


@dataclass
class LayerRecording:
    """What the clean pass of some prompts leaves behind of one layer, on the model's device.

    residual: the layer's input; attention_out: raw; output: of a parallel layer, else None; final: the
    final residual. z: of all heads.
    """

    residual: Float[Tensor, "prompt position d_model"]
    attention_out: Float[Tensor, "prompt position d_model"]
    output: Float[Tensor, "prompt position d_model"] | None
    z: Float[Tensor, "prompt position head d_head"]
    final: Float[Tensor, "prompt position d_model"]

    def final_residual(
        self,
        replay: GradientReplay,
        layer: int,
        prompt: Int[Tensor, " row"],
        head: Int[Tensor, " row"],
        z: Float[Tensor, "row position d_head"],
    ) -> Float[Tensor, "row position d_model"]:
        """The final residual of rows, a prompt each, in which the z of a head is replaced."""
        part = replay.decoder.layers[layer]
        change = torch.bmm(z - self.z[prompt, :, head], part.w_o[head])
        before = self.attention_out[prompt]
        unchanged = None
        if self.output is not None:
            unchanged = self.output[prompt] + part.attention_write.change(before, change)
        return replay.final_residual(
            layer,
            residual=self.residual[prompt],
            attention_out=before + change,
            unchanged_out=unchanged,
        )


def record_layers(
    replay: GradientReplay, tokens: Int[Tensor, "prompt length"], layers: Sequence[int]
) -> dict[int, LayerRecording]:
    """The clean pass of some prompts, of which only what these layers need is kept.

    Raises:
        InputError: as `fit`.
    """
    model = replay.decoder
    batch, _ = fit(model, tokens.shape[1] - 1, batch=None, chunk=1)
    parts: dict[int, list[LayerRecording]] = {layer: [] for layer in layers}
    for some in tokens[:, :-1].split(batch):
        recording = replay.record(some.to(model.device))
        for layer, found in parts.items():
            output = recording.residual[layer + 1] if model.layers[layer].parallel else None
            found.append(
                LayerRecording(
                    recording.residual[layer],
                    recording.attention_out[layer],
                    output,
                    recording.z[layer],
                    recording.residual[-1],
                )
            )
    return {layer: _joined(found) for layer, found in parts.items()}


def _joined(parts: Sequence[LayerRecording]) -> LayerRecording:
    columns = {name: [getattr(part, name) for part in parts] for name in vars(parts[0])}
    joined: dict[str, Any] = {
        name: None if each[0] is None else torch.cat(each) for name, each in columns.items()
    }
    return LayerRecording(**joined)


def draw_positions(
    prompts: int, positions: int, count: int, *, first_position: int, key: Sequence[int]
) -> Int[Tensor, "prompt drawn"]:
    """`count` different positions of each prompt, or all of them; key: seed and what tells draws apart."""
    seed, *rest = key
    generator = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=rest))
    allowed = positions - first_position
    drawn = [
        generator.choice(allowed, min(count, allowed), replace=False, shuffle=False)
        for _ in range(prompts)
    ]
    return torch.from_numpy(np.stack(drawn) + first_position)
