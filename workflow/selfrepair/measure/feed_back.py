"""Iterative inference, E11a: how a head reacts to what is already written (the paper's discussion).

A head's own output, times 1, 3, 5, is added to its layer's input at one position, and its new direct
effect there is measured. Controls: a random direction, and another head of the layer, both scaled to the
norm of the head's own output, so that only the direction differs. Direct effects are in logits, with the
clean final norm scale S. Where the block normalises its attention's output, a head's own output is what it
adds to the stream at the clean scale of that post-norm, which stays in the new direct effect too
(docs/method.md sections 1, 3 and 5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..model.decoder import Decoder
from ..model.products import dot
from ..model.replay import Replay, cut_lengths
from ..vocabulary import FED_BACK, Head
from .batches import (
    CleanBatch,
    Progress,
    Recorded,
    checked_sizes,
    for_each_batch,
    stored,
    tensors_of,
)
from .instances import joined_instances
from .selection import check_heads


@dataclass
class FeedBack:
    """One row per instance, a head on one of its tokens; direct effects in logits.

    head, prompt, position: [instance]; index into the heads, row of tokens, position.
    direct_effect: [instance], clean. new_direct_effect: [instance, kind, scaling], kinds as in FED_BACK;
    NaN for another head in a layer that has only one.
    """

    head: Int[Tensor, " instance"]
    prompt: Int[Tensor, " instance"]
    position: Int[Tensor, " instance"]
    direct_effect: Float[Tensor, " instance"]
    new_direct_effect: Float[Tensor, "instance kind scaling"]
    conservation_error: float

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return tensors_of(self)


@torch.no_grad()
def feed_back(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    heads: Sequence[Head],
    selected: Bool[Tensor, "prompt position head"],
    scalings: Sequence[float] = (1.0, 3.0, 5.0),
    seed: int = 0,
    first_prompt: int = 0,
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> FeedBack:
    """E11a on every selected token of every head.

    Args:
        heads: (layer, head) pairs; selected: the tokens of each.
        scalings: factors of what is added.
        seed: of random directions and other heads; a draw depends on it, the head, the position and
            the prompt's number, first_prompt being that of the first of `tokens`.
        batch, chunk, progress: as for `sweep`.
    Raises:
        InputError: tokens or heads that do not fit the model.
    """
    batch, rows = checked_sizes(model, tokens, batch=batch, chunk=chunk)
    replay = Replay(model)
    feeding = FeedingBack(
        model,
        replay,
        heads=heads,
        selected=selected,
        scalings=scalings,
        seed=seed,
        first_prompt=first_prompt,
        most_tokens=rows * (tokens.shape[1] - 1),
    )
    worst = for_each_batch(replay, tokens, feeding.measure, batch=batch, progress=progress)
    return feeding.result(conservation_error=worst)


class FeedingBack:
    """`feed_back`, batch by batch of recorded prompts; most_tokens: replayed at once."""

    def __init__(
        self,
        model: Decoder,
        replay: Replay,
        *,
        heads: Sequence[Head],
        selected: Bool[Tensor, "prompt position head"],
        scalings: Sequence[float],
        seed: int,
        first_prompt: int,
        most_tokens: int,
    ) -> None:
        """As `feed_back`, which raises the same."""
        self.heads = check_heads(heads, model.n_layers, model.n_heads, name="heads")
        self.model, self.replay, self.selected = model, replay, selected
        self.scalings, self.seed = list(scalings), seed
        self.first_prompt, self.most_tokens = first_prompt, most_tokens
        self.parts: list[dict[str, Tensor]] = []

    def measure(self, recorded: Recorded, _: Progress) -> None:
        """Every selected token of one batch."""
        fed = _FeedBackBatch(
            self.model,
            self.replay,
            recorded.clean,
            self.heads,
            self.scalings,
            self.seed,
            self.most_tokens,
        )
        for rows in fed.run(recorded.of(self.selected), self.first_prompt + recorded.first):
            rows["prompt"] += recorded.first
            self.parts.append(rows)

    def result(self, *, conservation_error: float) -> FeedBack:
        """Empty if no token was selected, as may happen in a small shard."""
        if not self.parts:
            none = torch.zeros(0, dtype=torch.int64)
            new = torch.zeros(0, len(FED_BACK), len(self.scalings))
            return FeedBack(none, none, none, torch.zeros(0), new, conservation_error)
        return FeedBack(**joined_instances(self.parts), conservation_error=conservation_error)


@dataclass
class _FeedBackBatch:
    model: Decoder
    replay: Replay
    clean: CleanBatch
    heads: list[Head]
    scalings: list[float]
    seed: int
    most_tokens: int  # at once

    def run(
        self, selected: Bool[Tensor, "prompt position head"], first_prompt: int
    ) -> list[dict[str, Tensor]]:
        """The columns of FeedBack, in parts, with prompts counted from 0 in this batch.

        Layer by layer, so that rows of several heads run together; cut after their position.
        first_prompt: the number of the batch's first prompt in the whole sample.
        """
        found = []
        for layer in sorted({layer for layer, _ in self.heads}):
            here = [index for index, (at, _) in enumerate(self.heads) if at == layer]
            instances = selected[..., here].nonzero()
            if not len(instances):
                continue
            instances[:, 2] = torch.tensor(here)[instances[:, 2]]
            instances = instances[instances[:, 1].argsort(stable=True)]
            rows_each = len(FED_BACK) * len(self.scalings)
            while len(instances):
                length = int(cut_lengths(instances[0, 1] + 1, self.clean.scale.shape[1]))
                count = max(1, self.most_tokens // (length * rows_each))
                some = instances[:count]
                some = some[some[:, 1] < length]
                found.append(self._measure(layer, some, length, first_prompt))
                instances = instances[len(some) :]
        return found

    def _measure(
        self, layer: int, instances: Int[Tensor, "instance 3"], length: int, first_prompt: int
    ) -> dict[str, Tensor]:
        weights, recording = self.model.layers[layer], self.clean.recording
        prompt, position, index = instances.to(self.model.device).T
        head = torch.tensor([self.heads[i][1] for i in instances[:, 2]], device=prompt.device)
        writes = self._writes(layer, prompt, position, head, instances, first_prompt)
        factors = torch.tensor(self.scalings, dtype=writes.dtype, device=writes.device)
        added = writes[:, :, None] * factors[:, None]  # [instance, kind, scaling, d_model]
        stream = recording.residual[layer][prompt, :length]
        stream = stream[:, None, None].repeat(1, *added.shape[1:3], 1, 1)
        each = torch.arange(len(prompt), device=prompt.device)
        stream[each, :, :, position] += added
        z = self.replay.head_outputs(layer, stream.flatten(0, 2))
        z = z.unflatten(0, added.shape[:3])[each, :, :, position, head]
        sigma = self._post_scale(layer, prompt, position)
        u = self.clean.targets.directions[prompt, position]
        u = weights.attention_write.through(u, sigma)
        scale = self.clean.scale[prompt, position]
        seen = torch.einsum("id,ied->ie", u, weights.w_o[head])
        value = z - weights.value_bias[head][:, None, None]
        effect = dot(value, seen[:, None, None].expand_as(value))
        return {
            "head": index.cpu(),
            "prompt": prompt.cpu(),
            "position": position.cpu(),
            "direct_effect": stored(self.clean.direct_effect[prompt, position, layer, head]),
            "new_direct_effect": stored(effect / scale[:, None, None]),
        }

    def _writes(
        self,
        layer: int,
        prompt: Tensor,
        position: Tensor,
        head: Tensor,
        instances: Int[Tensor, "instance 3"],
        first_prompt: int,
    ) -> Float[Tensor, "instance kind d_model"]:
        """What is fed back before scaling, all of the norm of the head's own output."""
        weights, z = self.model.layers[layer], self.clean.recording.z[layer]
        n_heads, width = self.model.n_heads, self.model.d_model
        sigma = self._post_scale(layer, prompt, position)
        noise, steps = np.empty((len(head), width)), np.empty(len(head), dtype=np.int64)
        for i, (row, k, index) in enumerate(instances.tolist()):
            draw = np.random.default_rng([self.seed, *self.heads[index], first_prompt + row, k])
            noise[i], steps[i] = draw.standard_normal(width), draw.integers(1, max(2, n_heads))
        other = (head + torch.from_numpy(steps).to(head.device)) % n_heads

        def write(of: Tensor) -> Tensor:
            value = z[prompt, position, of] - weights.value_bias[of]
            raw = torch.einsum("ie,ied->id", value, weights.w_o[of])
            return weights.attention_write.through(raw, sigma)

        own = write(head)
        vectors = [own, torch.from_numpy(noise).to(own), write(other)]
        if n_heads == 1:
            vectors[2] = torch.full_like(own, torch.nan)
        norm = own.norm(dim=-1, keepdim=True)
        return torch.stack(
            [own, *(v / v.norm(dim=-1, keepdim=True) * norm for v in vectors[1:])], 1
        )

    def _post_scale(self, layer: int, prompt: Tensor, position: Tensor) -> Tensor | None:
        """The clean scale of the attention's post-norm in some places, if it has one."""
        sigma = self.clean.recording.attention_scale[layer]
        return None if sigma is None else sigma[prompt, position]
