"""Which neurons of an MLP make up for an ablated head (docs/method.md section 3; E7 to E10).

DE(neuron i) = a_i (W_out[i] . u) / S with the post-activation a (gated: gate * up); its self-repair is
the change of that under ablation, clean S on both sides (and the clean scale of the MLP's post-norm, if
it has one). An instance is a chosen head on one of its
top tokens. What is per neuron is reduced here, so that memory does not grow with the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..ablations import RESAMPLE
from ..errors import InputError
from ..model.decoder import Decoder
from ..model.direct_effect import check_error
from ..model.replay import Replay, cut_lengths
from ..vocabulary import Head
from .ablation import ablated_rows, check_ablations
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
from .neuron_bins import EDGES, group_ends
from .selection import check_heads, layer_indices

# How many of the most repairing neurons of an instance are kept one by one.
KEPT = 20
# The share of neurons whose part of the positive changes is measured.
TOP_NEURONS = 0.01


@dataclass
class NeuronRepair:
    """Neurons under resample ablation of chosen heads, one row per instance; direct effects in logits.

    head, prompt, position: [instance], the index into the chosen heads, the prompt (row of tokens)
    and position; head_effect: [instance], clean direct effect of the head.
    mlp_effect, mlp_ablated_effect: [instance, mlp], direct effect of the whole MLP.
    neuron, neuron_effect, neuron_ablated_effect: [instance, mlp, kept], the most repairing neurons,
    the largest change first, with their clean and ablated direct effects.
    positive_sum, absolute_sum: [instance, mlp], sums of positive and of absolute changes over all
    neurons; top_percent_sum: the part of positive_sum from the top 1 % of neurons (at least one).
    With neurons sorted by change in each instance, and ranks put into groups (`neuron_bins`):
    cumulative_share: [head, mlp, group], sum over instances of the share of absolute_sum that the
    neurons up to the end of a group have; n_curves: [head, mlp], instances in that sum (those in
    which anything changed); effect_counts: [head, mlp, group, bin], how many neurons of a group have
    a clean direct effect in a bin.
    neuron_error: largest |sum over neurons + output bias - direct effect of the MLP|.
    """

    head: Int[Tensor, " instance"]
    prompt: Int[Tensor, " instance"]
    position: Int[Tensor, " instance"]
    head_effect: Float[Tensor, " instance"]
    mlp_effect: Float[Tensor, "instance mlp"]
    mlp_ablated_effect: Float[Tensor, "instance mlp"]
    neuron: Int[Tensor, "instance mlp kept"]
    neuron_effect: Float[Tensor, "instance mlp kept"]
    neuron_ablated_effect: Float[Tensor, "instance mlp kept"]
    positive_sum: Float[Tensor, "instance mlp"]
    absolute_sum: Float[Tensor, "instance mlp"]
    top_percent_sum: Float[Tensor, "instance mlp"]
    cumulative_share: Float[Tensor, "head mlp group"]
    n_curves: Int[Tensor, "head mlp"]
    effect_counts: Int[Tensor, "head mlp group bin"]
    conservation_error: float
    neuron_error: float

    def arrays(self) -> dict[str, Tensor]:
        """The tensors by name."""
        return tensors_of(self)


@torch.no_grad()
def neuron_repair(
    model: Decoder,
    tokens: Int[Tensor, "prompt length"],
    *,
    donors: Int[Tensor, "prompt length"],
    heads: Sequence[Head],
    selected: Bool[Tensor, "prompt position head"],
    mlps: Sequence[int] = (-1,),
    batch: int | None = None,
    chunk: int | None = None,
    progress: Progress | None = None,
) -> NeuronRepair:
    """Resample-ablate chosen heads on chosen tokens and measure every neuron of some MLPs.

    Args:
        tokens, donors: as for `sweep`.
        heads: the chosen (layer, head) pairs; selected: the tokens of each, usually some of its top
            tokens. Of each head are replayed the prompts with such a token, up to the last one.
        mlps: layers whose MLP is looked at; negative ones count from the end.
        batch, chunk, progress: as for `sweep`.
    Raises:
        InputError: tokens, donors, heads or mlps that do not fit the model or each other, or an MLP
            without neurons (such as a mixture of experts).
        ExactnessError: neurons that do not add up to their MLP's direct effect.
    """
    check_ablations([RESAMPLE.name], tokens, donors, None, model)
    chosen = check_heads(heads, model.n_layers, model.n_heads, name="heads")
    watched = mlp_layers(model, mlps)
    batch, rows = checked_sizes(model, tokens, donors=donors, batch=batch, chunk=chunk)
    measured, replay = _Measured(model, chosen, watched), Replay(model)

    def measure(recorded: Recorded, _: Progress) -> None:
        # The last pass: those before it, at a new length, only learn the layers' arguments.
        activations = {layer: values[-1] for layer, values in recorded.watched.items()}
        neurons = _NeuronBatch(
            model,
            replay,
            recorded.clean,
            recorded.donor_z,
            activations,
            measured,
            recorded.first,
        )
        neurons.run(recorded.of(selected), rows * (tokens.shape[1] - 1))

    worst = for_each_batch(
        replay,
        tokens,
        measure,
        donors=donors,
        batch=batch,
        watch=partial(_watch, model, watched),
        progress=progress,
    )
    return measured.result(conservation_error=worst)


def no_neuron_repair(heads: int, mlps: int) -> NeuronRepair:
    """No instance and nothing summed: what is stored of a model without such neurons."""
    sums = _no_sums(heads, mlps, groups=0)
    return NeuronRepair(**_no_rows(mlps, kept=0), **sums, conservation_error=0.0, neuron_error=0.0)


def _no_rows(mlps: int, *, kept: int) -> dict[str, Tensor]:
    none = torch.zeros(0, dtype=torch.int64)
    rows = {name: none for name in ("head", "prompt", "position")}
    rows |= {"head_effect": torch.zeros(0), "neuron": none.reshape(0, mlps, kept)}
    for name in ("mlp_effect", "mlp_ablated_effect", "positive_sum", "absolute_sum"):
        rows[name] = torch.zeros(0, mlps)
    for name in ("neuron_effect", "neuron_ablated_effect"):
        rows[name] = torch.zeros(0, mlps, kept)
    return rows | {"top_percent_sum": torch.zeros(0, mlps)}


def _no_sums(heads: int, mlps: int, *, groups: int) -> dict[str, Tensor]:
    return {
        "cumulative_share": torch.zeros(heads, mlps, groups, dtype=torch.float64),
        "n_curves": torch.zeros(heads, mlps, dtype=torch.int32),
        "effect_counts": torch.zeros(heads, mlps, groups, len(EDGES) + 1, dtype=torch.int32),
    }


def mlp_layers(model: Decoder, mlps: Sequence[int]) -> list[int]:
    """Layers counted from 0, refused if there is no such layer or its MLP has no neurons."""
    layers = layer_indices(mlps, model.n_layers, name="mlps")
    for layer in layers:
        if model.layers[layer].neurons is None:
            raise InputError(
                f"mlps: layer {layer} of {model.name} has no single output projection to read "
                "neurons from; choose another layer, or leave the neuron experiments out"
            )
    return layers


def seen_by(model: Decoder, mlp: int, head_layer: int) -> bool:
    """Whether the MLP of layer `mlp` can react to an ablation at head_layer."""
    return mlp > head_layer or (mlp == head_layer and not model.layers[mlp].parallel)


@contextmanager
def _watch(
    model: Decoder, layers: Sequence[int]
) -> Iterator[dict[int, list[tuple[Tensor, Tensor]]]]:
    """Collects (post-activations, MLP output) of some layers at every pass in the block."""
    seen: dict[int, list[tuple[Tensor, Tensor]]] = {layer: [] for layer in layers}
    with ExitStack() as stack:
        for layer in layers:
            inputs: list[Tensor] = []

            def activation(
                _: nn.Module, args: tuple[Any, ...], inputs: list[Tensor] = inputs
            ) -> None:
                inputs.append(args[0])

            def output(
                _: nn.Module,
                __: tuple[Any, ...],
                out: Any,
                layer: int = layer,
                inputs: list[Tensor] = inputs,
            ) -> None:
                seen[layer].append((inputs.pop(), out[0] if isinstance(out, tuple) else out))

            watched = model.layers[layer]
            assert watched.neurons is not None
            handles = [
                watched.neurons.projection.register_forward_pre_hook(activation),
                watched.mlp.register_forward_hook(output),
            ]
            for handle in handles:
                stack.callback(handle.remove)
        yield seen


@dataclass
class _Measured:
    """What has been measured so far."""

    model: Decoder
    heads: list[Head]
    mlps: list[int]
    rows: list[dict[str, Tensor]] = field(default_factory=list)
    pooled: dict[str, Tensor] = field(default_factory=dict)
    neuron_error: float = 0.0

    def __post_init__(self) -> None:
        sizes = {self._n_neurons(layer) for layer in self.mlps}
        if len(sizes) != 1:
            raise InputError(f"mlps: their MLPs have {sorted(sizes)} neurons; give layers alike")
        self.ends = group_ends(sizes.pop())
        self.pooled = _no_sums(len(self.heads), len(self.mlps), groups=len(self.ends))

    def _n_neurons(self, layer: int) -> int:
        neurons = self.model.layers[layer].neurons
        assert neurons is not None
        return neurons.w_out.shape[0]

    def result(self, *, conservation_error: float) -> NeuronRepair:
        """Empty if no token was selected, as may happen in a small shard."""
        kept = min(KEPT, self._n_neurons(self.mlps[0]))
        return NeuronRepair(
            **joined_instances(self.rows or [_no_rows(len(self.mlps), kept=kept)]),
            **self.pooled,
            conservation_error=conservation_error,
            neuron_error=self.neuron_error,
        )


@dataclass
class _NeuronBatch:
    """One batch of prompts: the ablations of every chosen head that has selected tokens in it."""

    model: Decoder
    replay: Replay
    clean: CleanBatch
    donor_z: list[Tensor]
    activations: dict[int, tuple[Tensor, Tensor]]
    measured: _Measured
    first_prompt: int

    def run(self, selected: Bool[Tensor, "prompt position head"], most_tokens: int) -> None:
        """Every head on its selected tokens, longest prompts first; most_tokens: replayed at once."""
        positions = selected.shape[1]
        ends = selected * torch.arange(1, positions + 1)[:, None]
        for index, lengths in enumerate(cut_lengths(ends.amax(1), positions).T):
            prompts = lengths.argsort(descending=True, stable=True)[: int((lengths > 0).sum())]
            while len(prompts):
                length = int(lengths[prompts[0]])
                count = max(1, most_tokens // length)
                some, prompts = prompts[:count], prompts[count:]
                self._ablate(index, some.to(self.model.device), selected[some, :length, index])

    def _ablate(
        self,
        index: int,
        prompt: Int[Tensor, " row"],
        wanted: Bool[Tensor, "row position"],
    ) -> None:
        """One head on some prompts, up to the positions of `wanted`."""
        (layer, head), length = self.measured.heads[index], wanted.shape[1]
        recording, u = self.clean.recording, self.clean.targets.directions
        in_rows = prompt, slice(length), head
        delta_z = self.donor_z[layer][in_rows] - recording.z[layer][in_rows]
        rows = ablated_rows(
            self.model,
            recording,
            layer,
            head=torch.full_like(prompt, head),
            prompt=prompt,
            delta_z=delta_z,
        )
        reacting = [m for m in self.measured.mlps if seen_by(self.model, m, layer)]
        self.replay.learn_arguments_of(length)  # runs layers, which must not be watched
        with _watch(self.model, reacting) as seen:
            rows.replay(self.replay, u[prompt, :length])
        row, position = wanted.nonzero().to(self.model.device).T
        at = prompt[row], position
        columns: dict[str, list[Tensor]] = {}
        for place, mlp in enumerate(self.measured.mlps):
            clean = tuple(_shaped(values, u)[at] for values in self.activations[mlp])
            ablated = clean
            if mlp in seen:
                ablated = tuple(_shaped(v, rows.change)[row, position] for v in seen[mlp][0])
            tau = recording.mlp_scale[mlp]
            post_scale = None if tau is None else tau[at]
            values = self._measure(mlp, clean, ablated, u[at], self.clean.scale[at], post_scale)
            self._pool(index, place, values.pop("change"), values.pop("effect"))
            for name, value in values.items():
                columns.setdefault(name, []).append(
                    stored(value) if value.is_floating_point() else value.cpu()
                )
        self.measured.rows.append(
            {
                "head": torch.full((len(row),), index),
                "prompt": at[0].cpu() + self.first_prompt,
                "position": position.cpu(),
                "head_effect": stored(self.clean.direct_effect[(*at, layer, head)]),
                **{name: torch.stack(value, 1) for name, value in columns.items()},
            }
        )

    def _measure(
        self,
        mlp: int,
        clean: tuple[Tensor, ...],
        ablated: tuple[Tensor, ...],
        u: Float[Tensor, "instance d_model"],
        scale: Float[Tensor, " instance"],
        post_scale: Float[Tensor, " instance"] | None,
    ) -> dict[str, Tensor]:
        """Every quantity of some instances; clean, ablated: (post-activations, MLP output).

        post_scale: the clean scale of the MLP's post-norm, if it has one.
        """
        neurons, write = self.model.layers[mlp].neurons, self.model.layers[mlp].mlp_write
        assert neurons is not None
        seen = (write.through(u, post_scale) @ neurons.w_out.T) / scale[:, None]
        effect, after = clean[0] * seen, ablated[0] * seen
        change = (ablated[0] - clean[0]) * seen
        bias = write.projection(neurons.b_out.expand_as(u), u, post_scale) / scale
        whole = [write.projection(out, u, post_scale) / scale for _, out in (clean, ablated)]
        sums = torch.stack([effect.sum(1), after.sum(1)]) + bias
        error = float((sums - torch.stack(whole)).abs().max())
        check_error("neuron", error, self.model.dtype_name)
        self.measured.neuron_error = max(self.measured.neuron_error, error)
        top = change.topk(min(KEPT, change.shape[1]), dim=1).indices
        few = max(1, round(TOP_NEURONS * change.shape[1]))
        return {
            "mlp_effect": whole[0],
            "mlp_ablated_effect": whole[1],
            "neuron": top,
            "neuron_effect": effect.gather(1, top),
            "neuron_ablated_effect": after.gather(1, top),
            "positive_sum": change.clamp(min=0).sum(1),
            "absolute_sum": change.abs().sum(1),
            "top_percent_sum": change.topk(few, dim=1).values.clamp(min=0).sum(1),
            "change": change,
            "effect": effect,
        }

    def _pool(
        self,
        index: int,
        place: int,
        change: Float[Tensor, "instance neuron"],
        effect: Float[Tensor, "instance neuron"],
    ) -> None:
        """Add the sorted curves of some instances to the sums of their head and MLP."""
        pooled, ends = self.measured.pooled, self.measured.ends
        changed = change.ne(0).any(1)
        change, effect = change[changed].double(), effect[changed]
        order = change.argsort(dim=1, descending=True, stable=True)
        cumulative = change.gather(1, order).abs().cumsum(1)
        shares = cumulative[:, ends.to(order.device) - 1] / cumulative[:, -1:]
        pooled["cumulative_share"][index, place] += shares.sum(0).cpu()
        pooled["n_curves"][index, place] += len(change)
        edges = EDGES.to(effect)
        bins = torch.bucketize(effect.gather(1, order).contiguous(), edges)
        group = torch.bucketize(torch.arange(1, change.shape[1] + 1), ends).to(bins.device)
        n_bins = len(EDGES) + 1
        counts = torch.bincount((group * n_bins + bins).flatten(), minlength=len(ends) * n_bins)
        pooled["effect_counts"][index, place] += counts.reshape(len(ends), n_bins).cpu()


def _shaped(values: Tensor, like: Tensor) -> Tensor:
    """Some architectures flatten rows and positions in their MLP."""
    return values.reshape(*like.shape[:2], -1)
