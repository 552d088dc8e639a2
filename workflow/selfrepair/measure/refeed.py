"""Iterative inference, E11b: let a layer read the earlier residual stream again (the paper's discussion).

Layer l + 1 reads layer l's input again, and the change of each of its heads' direct effects is compared
with their change when a head of layer l is ablated. Direct effects are in logits, with the clean final
norm scale S and the clean scales of post-norms (docs/method.md sections 1, 3 and 5).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..ablations import RESAMPLE
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.products import dot
from ..model.replay import Replay
from ..vocabulary import SELECTIONS
from .ablation import ablated_rows, check_ablations
from .batches import CleanBatch, Progress, Recorded, checked_sizes, for_each_batch, tensors_of

# What is summed over tokens: how many, the two changes, their squares and product.
SUMS = ("n", "refeed", "ablation", "refeed_squared", "ablation_squared", "product")


@dataclass
class Refeed:
    """Changes of the direct effects of layer l + 1's heads, summed; in logits.

    prompt_sums: [prompt, selection, pair, sum], sums as in SUMS over tokens, ablated heads and heads
    of the next layer, for each pair of adjacent layers; selection "top" takes each ablated head's top
    tokens. pair_sums: [pair, head, next_head, 3]: count and the two changes, summed over the ablated
    head's top tokens.
    """

    prompt_sums: Float[Tensor, "prompt selection pair sum"]
    pair_sums: Float[Tensor, "pair head next_head 3"]
    conservation_error: float

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return tensors_of(self)


@torch.no_grad()
def refeed(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"],
    selected: Bool[Tensor, "prompt position layer head"],
    first_position: int = 0,
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Refeed:
    """E11b on every pair of adjacent layers: the next layer reads the earlier input again.

    Args:
        tokens, donors, batch, chunk, progress: as for `sweep`; heads are resample ablated.
        selected: the top tokens of every head; first_position: where all tokens begin.
    Raises:
        InputError: tokens or donors that do not fit the model, or a model of one layer.
    """
    check_ablations([RESAMPLE.name], tokens, donors, None, model)
    batch, rows = checked_sizes(model, tokens, donors=donors, batch=batch, chunk=chunk)
    replay = Replay(model)
    refeeding = Refeeding(
        model, replay, selected=selected, first_position=first_position, rows=rows
    )
    worst = for_each_batch(
        replay, tokens, refeeding.measure, donors=donors, batch=batch, progress=progress
    )
    return refeeding.result(conservation_error=worst)


class Refeeding:
    """`refeed`, batch by batch of recorded prompts with their partners; rows: replayed at once."""

    def __init__(
        self,
        model: Decoder,
        replay: Replay,
        *,
        selected: Bool[Tensor, "prompt position layer head"],
        first_position: int,
        rows: int,
    ) -> None:
        """As `refeed`; InputError: a model of one layer."""
        if model.n_layers < 2:
            raise InputError(f"model {model.name}: has one layer, so none to read its input again")
        self.model, self.replay, self.selected = model, replay, selected
        self.first_position, self.rows = first_position, rows
        pairs, heads = model.n_layers - 1, model.n_heads
        self.pair_sums = torch.zeros(pairs, heads, heads, 3, dtype=torch.float64)
        self.per_prompt: list[Tensor] = []

    def measure(self, recorded: Recorded, _: Progress) -> None:
        """Every pair of layers on one batch."""
        top = recorded.of(self.selected).to(self.model.device)
        pairs = len(self.pair_sums)
        sums = torch.zeros(len(top), len(SELECTIONS), pairs, len(SUMS), dtype=torch.float64)
        every = torch.zeros(top.shape[1], dtype=torch.bool, device=top.device)
        every[self.first_position :] = True
        refed = _RefeedBatch(
            self.model,
            self.replay,
            recorded.clean,
            recorded.donor_z,
            top,
            every,
            sums,
            self.pair_sums,
        )
        for layer in range(pairs):
            refed.add(layer, self.rows)
        self.per_prompt.append(sums)

    def result(self, *, conservation_error: float) -> Refeed:
        return Refeed(torch.cat(self.per_prompt), self.pair_sums, conservation_error)


@dataclass
class _RefeedBatch:
    model: Decoder
    replay: Replay
    clean: CleanBatch
    donor_z: list[Tensor]
    top: Bool[Tensor, "prompt position layer head"]
    every: Bool[Tensor, " position"]
    prompt_sums: Float[Tensor, "prompt selection pair sum"]
    pair_sums: Float[Tensor, "pair head next_head 3"]

    def add(self, layer: int, chunk: int) -> None:
        """One pair of layers: what refeeding changes, and each head's ablation, added to the sums."""
        recording, after = self.clean.recording, self.model.layers[layer + 1]
        u, scale = self.clean.targets.directions, self.clean.scale
        u = after.attention_write.through(u, recording.attention_scale[layer + 1])
        seen = torch.einsum("pkd,hed->pkhe", u, after.w_o) / scale[..., None, None]
        clean_z = recording.z[layer + 1]
        refed_z = torch.cat(
            [self.replay.head_outputs(layer + 1, s) for s in recording.residual[layer].split(chunk)]
        )
        refed = dot(refed_z - clean_z, seen)
        delta_z = self.donor_z[layer] - recording.z[layer]
        places = torch.cartesian_prod(torch.arange(len(scale)), torch.arange(self.model.n_heads))
        for part in places.to(scale.device).split(chunk):
            prompt, head = part.T
            rows = ablated_rows(
                self.model,
                recording,
                layer,
                head=head,
                prompt=prompt,
                delta_z=delta_z[prompt, :, head],
            )
            z = self.replay.head_outputs(layer + 1, rows.layer_output(self.replay))
            ablated = dot(z - clean_z[prompt], seen[prompt])
            self._sum(layer, prompt, head, refed[prompt], ablated)

    def _sum(
        self,
        layer: int,
        prompt: Int[Tensor, " row"],
        head: Int[Tensor, " row"],
        refed: Float[Tensor, "row position next_head"],
        ablated: Float[Tensor, "row position next_head"],
    ) -> None:
        top = self.top[prompt, :, layer, head]
        x, y = refed.double(), ablated.double()
        values = torch.stack([torch.ones_like(x), x, y, x * x, y * y, x * y], -1)
        for place, tokens in enumerate((top, self.every.expand_as(top))):
            sums = (values * tokens[..., None, None]).sum((1, 2)).cpu()
            self.prompt_sums[:, place, layer].index_add_(0, prompt.cpu(), sums)
        pairs = (values[..., :3] * top[..., None, None]).sum(1).cpu()
        self.pair_sums[layer].index_add_(0, head.cpu(), pairs)
