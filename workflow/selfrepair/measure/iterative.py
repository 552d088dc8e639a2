"""Do heads react to what is already written, as iterative inference says? (Experiment E11.)

`feed_back` (E11a): add a head's own output, times 1, 3, 5, to its layer's input at one position and
measure its new direct effect there. Controls: a random direction, and another head of the layer, both
scaled to the norm of the head's own output, so that only the direction differs.

`refeed` (E11b): let layer l + 1 read layer l's input again, and compare the change of each of its
heads' direct effects with their change when a head of layer l is ablated.

Direct effects are in logits, with the clean final norm scale S (method section 1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import InputError
from ..model.direct_effect import (
    CleanBatch,
    check_tokens,
    recorded_batches,
    stored,
    tensors_of,
)
from ..model.loading import Decoder
from ..model.memory import fit
from ..model.replay import Replay, cut_lengths, dot
from .ablation import ablated_rows, check_ablations
from .selection import (
    KINDS,
    SELECTIONS,
    Head,
    check_heads,
)

Progress = Callable[[float], None]


@dataclass
class FeedBack:
    """One row per instance, a head on one of its tokens; direct effects in logits.

    head, prompt, position: [instance]; index into the heads, row of tokens, position.
    direct_effect: [instance], clean. new_direct_effect: [instance, kind, scaling], kinds as in KINDS;
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
    batch: int = 8,
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
    check_tokens(model, tokens)
    chosen = check_heads(heads, model.n_layers, model.n_heads, name="heads")
    positions = tokens.shape[1] - 1
    batch, rows = fit(model, positions, batch=batch, chunk=chunk)
    room = rows * positions
    replay, parts, worst = Replay(model), [], 0.0
    for recorded in recorded_batches(model, replay, tokens, batch=batch):
        clean, first = recorded.clean, recorded.first
        worst = max(worst, clean.conservation_error)
        one = _FeedBackBatch(model, replay, clean, chosen, list(scalings), seed, room)
        here = selected[first : first + len(clean.scale)]
        for found in one.run(here, first_prompt + first):
            found.prompt += first
            parts.append(found)
        if progress:
            progress(len(here) / len(tokens))
        del recorded, clean, one  # before the next batch is recorded
    if not parts:  # as may happen in a small shard
        none = torch.zeros(0, dtype=torch.int64)
        new = torch.zeros(0, len(KINDS), len(scalings))
        return FeedBack(none, none, none, torch.zeros(0), new, worst)
    joined = {name: torch.cat([getattr(p, name) for p in parts]) for name in parts[0].arrays()}
    order = np.lexsort([joined[name].numpy() for name in ("position", "prompt", "head")])
    joined = {name: values[torch.from_numpy(order)] for name, values in joined.items()}
    return FeedBack(**joined, conservation_error=worst)


@dataclass
class _FeedBackBatch:
    model: Decoder
    replay: Replay
    clean: CleanBatch
    heads: list[Head]
    scalings: list[float]
    seed: int
    room: int  # tokens at once

    def run(self, selected: Bool[Tensor, "prompt position head"], number: int) -> list[FeedBack]:
        """Layer by layer, so that rows of several heads run together; cut after their position."""
        found = []
        for layer in sorted({layer for layer, _ in self.heads}):
            here = [index for index, (at, _) in enumerate(self.heads) if at == layer]
            instances = selected[..., here].nonzero()
            if not len(instances):
                continue
            instances[:, 2] = torch.tensor(here)[instances[:, 2]]
            instances = instances[instances[:, 1].argsort(stable=True)]
            rows_each = len(KINDS) * len(self.scalings)
            while len(instances):
                length = int(cut_lengths(instances[0, 1] + 1, self.clean.scale.shape[1]))
                count = max(1, self.room // (length * rows_each))
                part = instances[:count]
                part = part[part[:, 1] < length]
                found.append(self._measure(layer, part, length, number))
                instances = instances[len(part) :]
        return found

    def _measure(
        self, layer: int, instances: Int[Tensor, "instance 3"], length: int, number: int
    ) -> FeedBack:
        part, recording = self.model.layers[layer], self.clean.recording
        prompt, position, index = instances.to(self.model.device).T
        head = torch.tensor([self.heads[i][1] for i in instances[:, 2]], device=prompt.device)
        writes = self._writes(layer, prompt, position, head, instances, number)
        factors = torch.tensor(self.scalings, dtype=writes.dtype, device=writes.device)
        added = writes[:, :, None] * factors[:, None]  # [instance, kind, scaling, d_model]
        stream = recording.residual[layer][prompt, :length]
        stream = stream[:, None, None].repeat(1, *added.shape[1:3], 1, 1)
        each = torch.arange(len(prompt), device=prompt.device)
        stream[each, :, :, position] += added
        z = self.replay.head_outputs(layer, stream.flatten(0, 2))
        z = z.unflatten(0, added.shape[:3])[each, :, :, position, head]
        u = self.clean.targets.directions[prompt, position]
        scale = self.clean.scale[prompt, position]
        seen = torch.einsum("id,ied->ie", u, part.w_o[head])
        value = z - part.value_bias[head][:, None, None]
        effect = dot(value, seen[:, None, None].expand_as(value))
        return FeedBack(
            head=index.cpu(),
            prompt=prompt.cpu(),
            position=position.cpu(),
            direct_effect=stored(self.clean.direct_effect[prompt, position, layer, head]),
            new_direct_effect=stored(effect / scale[:, None, None]),
            conservation_error=self.clean.conservation_error,
        )

    def _writes(
        self,
        layer: int,
        prompt: Tensor,
        position: Tensor,
        head: Tensor,
        instances: Int[Tensor, "instance 3"],
        number: int,
    ) -> Float[Tensor, "instance kind d_model"]:
        """What is fed back before scaling, all of the norm of the head's own output."""
        part, z = self.model.layers[layer], self.clean.recording.z[layer]
        n_heads, width = self.model.n_heads, self.model.d_model
        noise, steps = np.empty((len(head), width)), np.empty(len(head), dtype=np.int64)
        for i, (row, k, index) in enumerate(instances.tolist()):
            draw = np.random.default_rng([self.seed, *self.heads[index], number + row, k])
            noise[i], steps[i] = draw.standard_normal(width), draw.integers(1, max(2, n_heads))
        other = (head + torch.from_numpy(steps).to(head.device)) % n_heads

        def write(of: Tensor) -> Tensor:
            value = z[prompt, position, of] - part.value_bias[of]
            return torch.einsum("ie,ied->id", value, part.w_o[of])

        own = write(head)
        vectors = [own, torch.from_numpy(noise).to(own), write(other)]
        if n_heads == 1:
            vectors[2] = torch.full_like(own, torch.nan)
        norm = own.norm(dim=-1, keepdim=True)
        return torch.stack(
            [own, *(v / v.norm(dim=-1, keepdim=True) * norm for v in vectors[1:])], 1
        )


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
    batch: int = 8,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> Refeed:
    """E11b on every pair of adjacent layers: the next layer reads the earlier input again.

    Args:
        tokens, donors, batch, chunk, progress: as for `sweep`; heads are resample ablated.
        selected: the top tokens of every head.
    Raises:
        InputError: tokens or donors that do not fit the model, or a model of one layer.
    """
    check_tokens(model, tokens)
    check_ablations(["resample"], tokens, donors, None, model)
    check_tokens(model, donors, name="donors")
    if model.n_layers < 2:
        raise InputError(f"model {model.name}: has one layer, so none to read its input again")
    batch, rows = fit(model, tokens.shape[1] - 1, batch=batch, chunk=chunk)
    pairs, heads = model.n_layers - 1, model.n_heads
    pair_sums = torch.zeros(pairs, heads, heads, 3, dtype=torch.float64)
    replay, per_prompt, worst = Replay(model), [], 0.0
    for recorded in recorded_batches(model, replay, tokens, donors=donors, batch=batch):
        clean, first = recorded.clean, recorded.first
        top = selected[first : first + len(clean.scale)].to(model.device)
        sums = torch.zeros(len(top), len(SELECTIONS), pairs, len(SUMS), dtype=torch.float64)
        one = _RefeedBatch(model, replay, clean, recorded.donor_z, top, sums, pair_sums)
        for layer in range(pairs):
            one.add(layer, rows)
        per_prompt.append(sums)
        worst = max(worst, clean.conservation_error)
        if progress:
            progress(len(top) / len(tokens))
        del recorded, clean, one
    return Refeed(torch.cat(per_prompt), pair_sums, worst)


@dataclass
class _RefeedBatch:
    model: Decoder
    replay: Replay
    clean: CleanBatch
    donor_z: list[Tensor]
    top: Bool[Tensor, "prompt position layer head"]
    prompt_sums: Float[Tensor, "prompt selection pair sum"]
    pair_sums: Float[Tensor, "pair head next_head 3"]

    def add(self, layer: int, chunk: int) -> None:
        """One pair of layers: what refeeding changes, and each head's ablation, added to the sums."""
        recording, after = self.clean.recording, self.model.layers[layer + 1]
        u, scale = self.clean.targets.directions, self.clean.scale
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
        for place, tokens in enumerate((top, torch.ones_like(top))):
            sums = (values * tokens[..., None, None]).sum((1, 2)).cpu()
            self.prompt_sums[:, place, layer].index_add_(0, prompt.cpu(), sums)
        pairs = (values[..., :3] * top[..., None, None]).sum(1).cpu()
        self.pair_sums[layer].index_add_(0, head.cpu(), pairs)
