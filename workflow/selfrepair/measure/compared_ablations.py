"""The same heads on the same tokens under every ablation, and under a control (docs/method.md section 2).

Zero and mean ablation and the optimal constant here leave a beginning-of-sequence token alone, as a resample
partner does: it is the same in every prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..ablations import MEAN, RESAMPLE, ZERO
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.direct_effect import check_error
from ..model.gradients import GradientReplay
from ..model.memory import BatchLimit
from ..model.products import sum_dtype
from ..other_ablations import COMPARED, OPTIMAL, RANDOM
from ..vocabulary import Head
from .batches import Progress, Recorded, checked_sizes, for_each_batch, stored
from .drawing import PLACES, DrawnTokens
from .harm import LayerRecording, draw_positions, mean_divergence, with_constant
from .selection import check_heads
from .token_batch import TokenBatch, worst
from .token_sweep import check_drawn
from .workers import Workers, side_by_side

# What is kept of each instance under each ablation, in logits: arrays `<ablation>.<quantity>`.
QUANTITIES = (
    *("ablated_direct_effect", "delta_logit", "self_repair"),
    *("from_heads", "from_mlps", "from_post_norms", "from_norm"),
)
# Positions per prompt at which the harm of an ablation is measured; seed of their draw and of directions.
LOSS_POSITIONS = 16
_POSITIONS, _DIRECTION = 2, 3


@dataclass
class ComparedAblations:
    """Heads under every ablation of COMPARED; a row per instance (a head on one of its top tokens).

    prompt, position; head: the place in the list of heads. direct_effect: clean, in logits. values:
    QUANTITIES under each ablation, in logits. loss: KL(clean || ablated) in nats, the mean over
    LOSS_POSITIONS positions of each prompt. The errors are the largest, in logits.
    """

    prompt: Int[Tensor, " instance"]
    position: Int[Tensor, " instance"]
    head: Int[Tensor, " instance"]
    direct_effect: Float[Tensor, " instance"]
    values: dict[str, Float[Tensor, "quantity instance"]]
    loss: Float[Tensor, "prompt compared_head ablation"]
    conservation_error: float = 0.0
    decomposition_error: float = 0.0

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        places = {name: getattr(self, name).int() for name in ("prompt", "position", "head")}
        arrays = places | {"direct_effect": self.direct_effect, "loss": self.loss}
        for ablation, values in self.values.items():
            arrays |= {f"{ablation}.{q}": v for q, v in zip(QUANTITIES, values, strict=True)}
        return arrays


def compare_ablations(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    drawn: DrawnTokens,
    *,
    heads: Sequence[Head],
    donors: Int[Tensor, "prompt length"],
    mean_z: Float[Tensor, "layer head d_head"],
    constants: Float[Tensor, "compared_head d_head"],
    first_position: int = 0,
    first_prompt: int = 0,
    seed: int = 0,
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> ComparedAblations:
    """Ablate heads in every way on the same tokens, and measure the harm that each ablation does.

    Args:
        tokens, donors, mean_z, batch, chunk, progress: as for `sweep_tokens`.
        drawn: tokens of these heads, prompts counted as in `tokens`.
        constants: what optimal ablation puts in place of each head's z.
        first_position: what constants leave alone before it.
        first_prompt: the number of the first prompt in the sample, part of the seeds.
    Raises:
        InputError: tokens, donors, heads or drawn tokens that do not fit the model or each other.
        ExactnessError: as `sweep_tokens`.
    """
    known = check_heads(heads, model.n_layers, model.n_heads, name="heads")
    if donors.shape != tokens.shape:
        raise InputError(
            f"donors: shape {list(donors.shape)} differs from tokens {list(tokens.shape)}"
        )
    batch, rows = checked_sizes(model, tokens, donors=donors, batch=batch, chunk=chunk)
    check_drawn(model, tokens, drawn)
    replay = GradientReplay(model)
    limit = BatchLimit(rows * (tokens.shape[1] - 1), what="tokens replayed", device=model.device)
    settings = _Replacements(model, known, mean_z, constants, first_position, first_prompt, seed)
    found = _nothing(model, drawn, known, len(tokens))
    with side_by_side(replay) as workers:
        comparison = _Comparison(replay, workers, settings, drawn, found, limit)
        error = for_each_batch(
            replay,
            tokens,
            comparison.measure,
            donors=donors,
            batch=batch,
            progress=progress,
        )
    return replace(found, conservation_error=error)


@dataclass(frozen=True)
class _Replacements:
    """What takes the place of z under each ablation."""

    model: Decoder
    heads: Sequence[Head]
    mean_z: Float[Tensor, "layer head d_head"]
    constants: Float[Tensor, "compared_head d_head"]
    first_position: int
    first_prompt: int
    seed: int

    def of(
        self, ablation: str, at: int, recorded: Recorded
    ) -> Float[Tensor, "prompt position d_head"]:
        """z' of a head, by its place in the list, in a batch of prompts."""
        layer, head = self.heads[at]
        z = recorded.clean.recording.z[layer][:, :, head]
        donor_z = recorded.donor_z[layer][:, :, head]
        if ablation == RESAMPLE.name:
            return donor_z
        if ablation == RANDOM:
            return z + self._random_change(layer, head, donor_z - z, recorded)
        constant = {
            MEAN.name: self.mean_z[layer, head],
            ZERO.name: self.model.layers[layer].value_bias[head],
            OPTIMAL: self.constants[at],
        }[ablation]
        rows = constant.to(z).expand(len(z), -1)
        return with_constant(z, rows, first_position=self.first_position)

    def donor_z(
        self, ablation: str, recorded: Recorded
    ) -> list[Float[Tensor, "prompt position head d_head"]]:
        """The partners' z of every layer with what the ablation puts in place of the heads'."""
        replaced = list(recorded.donor_z)
        for at, (layer, head) in enumerate(self.heads):
            if replaced[layer] is recorded.donor_z[layer]:
                replaced[layer] = recorded.donor_z[layer].clone()
            replaced[layer][:, :, head] = self.of(ablation, at, recorded)
        return replaced

    def _random_change(
        self,
        layer: int,
        head: int,
        change: Float[Tensor, "prompt position d_head"],
        recorded: Recorded,
    ) -> Float[Tensor, "prompt position d_head"]:
        """A change of z in a random direction that changes the head's output by as much, at each position.

        The direction is uniform in z, so the output stays in the space that the head writes to.
        """
        dtype = sum_dtype(change.dtype)
        w_o = self.model.layers[layer].w_o[head].to(dtype)
        drawn = np.stack(
            [self._normal(layer, head, prompt, change.shape[1:]) for prompt in recorded.rows]
        )
        direction = torch.from_numpy(drawn).to(change.device, dtype)
        wanted = (change.to(dtype) @ w_o).norm(dim=-1, keepdim=True)
        length = (direction @ w_o).norm(dim=-1, keepdim=True)
        return (direction * wanted / length).to(change.dtype)

    def _normal(self, layer: int, head: int, prompt: int, shape: Sequence[int]) -> np.ndarray:
        key = (_DIRECTION, layer, head, self.first_prompt + prompt)
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key)).normal(
            size=shape
        )


@dataclass
class _Comparison:
    """What the batches share: what is drawn, how heads are ablated, and what is found."""

    replay: GradientReplay
    workers: Workers
    replacements: _Replacements
    drawn: DrawnTokens
    found: ComparedAblations
    limit: BatchLimit

    def measure(self, recorded: Recorded, report: Progress) -> None:
        drawn = self.drawn.in_prompts(recorded.rows)
        here = self.drawn.lie_in(recorded.rows)
        for ablation in COMPARED:
            donor_z = self.replacements.donor_z(ablation, recorded)
            swept = TokenBatch(
                self.replay.decoder,
                replace(recorded, donor_z=donor_z),
                None,
                self.limit,
                drawn={RESAMPLE.name: drawn},
                maps={},
            )
            for share in swept.run_pieces(self.replay, self.workers, swept.pieces()):
                report(share / (len(COMPARED) + 1))
            self._store(ablation, swept.columns(RESAMPLE.name), here)
        self._measure_losses(recorded)

    def _store(self, ablation: str, columns: dict[str, Tensor], here: Tensor) -> None:
        """Put a batch's instances into their places, once its terms are known to add up."""
        found, dtype = self.found, self.replay.decoder.dtype_name
        found.direct_effect[here] = columns["direct_effect"]
        found.values[ablation][:, here] = torch.stack([columns[name] for name in QUANTITIES])
        terms = sum(columns[name] for name in QUANTITIES if name.startswith("from_"))
        differences = (columns["self_repair"] - terms).abs()
        if len(differences):
            found.decomposition_error = worst(found.decomposition_error, float(differences.max()))
        check_error("decomposition", found.decomposition_error, dtype)

    @torch.no_grad()
    def _measure_losses(self, recorded: Recorded) -> None:
        model, recording = self.replay.decoder, recorded.clean.recording
        everywhere = torch.arange(recorded.prompts, device=model.device)
        drawn = [
            draw_positions(
                1,
                recorded.clean.scale.shape[1],
                LOSS_POSITIONS,
                first_position=self.replacements.first_position,
                key=(self.replacements.seed, _POSITIONS, self.replacements.first_prompt + prompt),
            )
            for prompt in recorded.rows
        ]
        position = torch.cat(drawn).to(model.device)
        rows = max(1, self.limit.size // recorded.clean.scale.shape[1])
        for at, (layer, head) in enumerate(self.replacements.heads):
            parallel = model.layers[layer].parallel
            of_layer = LayerRecording(
                recording.residual[layer],
                recording.attention_out[layer],
                recording.residual[layer + 1] if parallel else None,
                recording.z[layer],
                recording.residual[-1],
            )
            for number, ablation in enumerate(COMPARED):
                z = self.replacements.of(ablation, at, recorded)
                for some in everywhere.split(rows):
                    final = of_layer.final_residual(
                        self.replay, layer, some, torch.full_like(some, head), z[some]
                    )
                    loss = mean_divergence(model, of_layer.final[some], final, position[some])
                    self.found.loss[recorded.rows.start + some.cpu(), at, number] = stored(loss)


def _nothing(
    model: Decoder, drawn: DrawnTokens, heads: Sequence[Head], prompts: int
) -> ComparedAblations:
    """A comparison of which nothing is measured yet."""
    dtype = sum_dtype(model.dtype)

    def empty(*shape: int) -> Tensor:
        return torch.full(shape, torch.nan, dtype=dtype)

    places: dict[str, Any] = {name: getattr(drawn, name) for name in PLACES}
    head = torch.full((len(drawn),), -1)
    for at, (layer, which) in enumerate(heads):
        head[(places["layer"] == layer) & (places["head"] == which)] = at
    if bool((head < 0).any()):
        raise InputError(
            "drawn tokens: of a head that is not compared; draw for the compared heads alone"
        )
    return ComparedAblations(
        prompt=places["prompt"],
        position=places["position"],
        head=head,
        direct_effect=empty(len(drawn)),
        values={name: empty(len(QUANTITIES), len(drawn)) for name in COMPARED},
        loss=empty(prompts, len(heads), len(COMPARED)),
    )


def no_comparison() -> ComparedAblations:
    """Of no head."""
    nothing = torch.zeros(0)
    places = torch.zeros(0, dtype=torch.int64)
    return ComparedAblations(
        prompt=places,
        position=places,
        head=places,
        direct_effect=nothing,
        values={name: torch.zeros(len(QUANTITIES), 0) for name in COMPARED},
        loss=torch.zeros(0, 0, len(COMPARED)),
    )
